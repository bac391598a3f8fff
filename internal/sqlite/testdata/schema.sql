CREATE TABLE block (
    id      INTEGER PRIMARY KEY,
    mesh    INTEGER NOT NULL REFERENCES mesh (id),
    member  BLOB NOT NULL CHECK (length(member) = 32), -- who takes nothing
    blocked BLOB NOT NULL CHECK (length(blocked) = 32), -- of whom
    UNIQUE (mesh, member, blocked)
) STRICT;

CREATE TABLE broker (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    seed       BLOB NOT NULL CHECK (length(seed) = 32),
    token_hash BLOB NOT NULL CHECK (length(token_hash) = 32),
    created    INTEGER NOT NULL
) STRICT;

CREATE TABLE counter (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    next INTEGER NOT NULL CHECK (next >= 1),
    pad  BLOB
) STRICT;

CREATE TABLE delivery (
    id        INTEGER PRIMARY KEY,
    message   INTEGER NOT NULL,
    recipient INTEGER NOT NULL,
    priority  INTEGER NOT NULL, -- 0 now, 1 next, 2 low
    state     INTEGER NOT NULL CHECK (state IN (0, 1, 2)), -- queued, delivered, bounced
    code      TEXT NOT NULL DEFAULT '', -- of a bounce
    attempts  INTEGER NOT NULL DEFAULT 0,
    at        INTEGER NOT NULL,
    size      INTEGER NOT NULL, -- what it counts against quotas
    wrap      BLOB,
    CHECK ((state = 2) = (code <> ''))
) STRICT;

CREATE INDEX delivery_queue ON delivery (recipient, priority, id) WHERE state = 0;

CREATE TABLE invite (
    id              INTEGER PRIMARY KEY,
    invite_id       BLOB NOT NULL UNIQUE CHECK (length(invite_id) = 16),
    mesh            INTEGER NOT NULL REFERENCES mesh (id),
    capability_body BLOB NOT NULL,
    capability_sig  BLOB NOT NULL CHECK (length(capability_sig) = 64),
    blob            BLOB NOT NULL,
    generation      INTEGER NOT NULL,
    max_uses        INTEGER NOT NULL,
    uses            INTEGER NOT NULL DEFAULT 0 CHECK (uses >= 0 AND uses <= max_uses),
    expires         INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    closed          INTEGER NOT NULL DEFAULT 0 CHECK (closed IN (0, 1)),
    voided          INTEGER NOT NULL DEFAULT 0 CHECK (voided IN (0, 1))
) STRICT;

CREATE INDEX invite_mesh ON invite (mesh, created);

CREATE TABLE invite_close (
    id        INTEGER PRIMARY KEY,
    mesh      INTEGER NOT NULL REFERENCES mesh (id),
    invite_id BLOB NOT NULL REFERENCES invite (invite_id),
    body      BLOB NOT NULL,
    sig       BLOB NOT NULL CHECK (length(sig) = 64),
    version   INTEGER NOT NULL
) STRICT;

CREATE INDEX invite_close_version ON invite_close (mesh, version);

CREATE TABLE key_box (
    mesh       INTEGER NOT NULL REFERENCES mesh (id),
    generation INTEGER NOT NULL,
    member     BLOB NOT NULL CHECK (length(member) = 32),
    issuer     BLOB NOT NULL CHECK (length(issuer) = 32),
    box        BLOB NOT NULL,
    previous   BLOB NOT NULL,
    version    INTEGER NOT NULL,
    PRIMARY KEY (mesh, generation, member)
) STRICT;

CREATE INDEX key_box_member ON key_box (mesh, member, generation);

CREATE TABLE member (
    id          INTEGER PRIMARY KEY,
    mesh        INTEGER NOT NULL REFERENCES mesh (id),
    pubkey      BLOB NOT NULL CHECK (length(pubkey) = 32),
    name        TEXT NOT NULL,
    role        TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    invite      BLOB CHECK (length(invite) = 16), -- NULL for the founder
    certificate BLOB NOT NULL,                    -- JSON, as in package wire
    joined      INTEGER NOT NULL,
    version     INTEGER NOT NULL,                 -- the members version that admitted it
    removed     INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
    UNIQUE (mesh, pubkey)
) STRICT;

CREATE UNIQUE INDEX member_name ON member (mesh, name) WHERE removed = 0;

CREATE INDEX member_version ON member (mesh, version);

CREATE TABLE mesh (
    id              INTEGER PRIMARY KEY,
    mesh_id         BLOB NOT NULL UNIQUE CHECK (length(mesh_id) = 16),
    owner           BLOB NOT NULL CHECK (length(owner) = 32),
    name            TEXT NOT NULL,
    genesis_body    BLOB NOT NULL,
    genesis_sig     BLOB NOT NULL CHECK (length(genesis_sig) = 64),
    created         INTEGER NOT NULL,
    members_version INTEGER NOT NULL CHECK (members_version >= 1),
    generation      INTEGER NOT NULL CHECK (generation >= 1),
    queued          INTEGER NOT NULL DEFAULT 0 CHECK (queued >= 0),
    queued_bytes    INTEGER NOT NULL DEFAULT 0 CHECK (queued_bytes >= 0)
) STRICT;

CREATE TABLE message (
    seq        INTEGER PRIMARY KEY,
    mesh       INTEGER NOT NULL,
    sender     INTEGER NOT NULL,
    id         BLOB NOT NULL CHECK (length(id) = 16),
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    mode       INTEGER NOT NULL, -- 1 dm, 2 group, 3 broadcast, 4 receipt
    recipients INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    nonce      BLOB,
    body       BLOB
) STRICT;

CREATE INDEX message_expires ON message (expires);

CREATE UNIQUE INDEX message_id ON message (id, sender);

CREATE TABLE pause (
    id      INTEGER PRIMARY KEY,
    mesh    INTEGER NOT NULL REFERENCES mesh (id),
    signer  BLOB NOT NULL CHECK (length(signer) = 32),
    hash    BLOB NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the pause's body
    until   INTEGER NOT NULL,
    body    BLOB NOT NULL,
    sig     BLOB NOT NULL CHECK (length(sig) = 64),
    version INTEGER NOT NULL
) STRICT;

CREATE INDEX pause_version ON pause (mesh, version);

CREATE TABLE peer (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh            INTEGER NOT NULL REFERENCES mesh (id),
    pubkey          BLOB NOT NULL CHECK (length(pubkey) = 32),
    member          BLOB NOT NULL CHECK (length(member) = 32),
    attested_at     INTEGER,
    attestation_sig BLOB CHECK (length(attestation_sig) = 64),
    card_generation INTEGER,
    card_seq        INTEGER,
    card_blob       BLOB,
    card_sig        BLOB CHECK (length(card_sig) = 64),
    last_seen       INTEGER NOT NULL DEFAULT 0,
    -- 0, or the next delivery number when the peer was forgotten: the row goes
    -- once every older message is pruned, as no tombstone can name it then.
    forgotten       INTEGER NOT NULL DEFAULT 0,
    UNIQUE (mesh, pubkey)
) STRICT;

CREATE INDEX peer_forgotten ON peer (forgotten) WHERE forgotten > 0;

CREATE INDEX peer_member ON peer (mesh, member);

CREATE TABLE revocation (
    id      INTEGER PRIMARY KEY,
    mesh    INTEGER NOT NULL,
    member  BLOB NOT NULL,
    body    BLOB NOT NULL,
    sig     BLOB NOT NULL CHECK (length(sig) = 64),
    version INTEGER NOT NULL,
    FOREIGN KEY (mesh, member) REFERENCES member (mesh, pubkey)
) STRICT;

CREATE INDEX revocation_version ON revocation (mesh, version);

CREATE TABLE role (
    id      INTEGER PRIMARY KEY,
    mesh    INTEGER NOT NULL REFERENCES mesh (id),
    body    BLOB NOT NULL,
    sig     BLOB NOT NULL CHECK (length(sig) = 64),
    version INTEGER NOT NULL
) STRICT;

CREATE INDEX role_version ON role (mesh, version);

