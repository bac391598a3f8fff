-- +goose Up

-- Times are Unix milliseconds, 0 for none. Keys and ids are raw bytes, all
-- zero for none. Unsigned 64-bit numbers are kept as the signed number of the
-- same bits. Priorities are ranks: 0 now, 1 next, 2 low.

-- The mailbox's own row.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL CHECK (length(id) = 32)
) STRICT;

-- The last number drawn of each lane.
CREATE TABLE counter (
    mesh      BLOB NOT NULL CHECK (length(mesh) = 16),
    sender    BLOB NOT NULL CHECK (length(sender) = 32),
    recipient BLOB NOT NULL CHECK (length(recipient) = 32),
    priority  INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    last      INTEGER NOT NULL CHECK (last >= 1),
    PRIMARY KEY (mesh, sender, recipient, priority)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a number must not come back after its row was pruned, for
-- callers hold numbers as cursors and handles.
CREATE TABLE outgoing (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh       BLOB NOT NULL CHECK (length(mesh) = 16),
    sender     BLOB NOT NULL CHECK (length(sender) = 32),
    id         BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    mode       TEXT NOT NULL CHECK (mode IN ('dm', 'group', 'broadcast', 'receipt')),
    target     TEXT NOT NULL,
    priority   INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    sent       INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    reply_to   BLOB NOT NULL CHECK (length(reply_to) = 16),
    replaces   BLOB NOT NULL CHECK (length(replaces) = 16),
    text       TEXT NOT NULL,
    to_person  INTEGER NOT NULL CHECK (to_person IN (0, 1)),
    nonce      BLOB NOT NULL,
    ciphertext BLOB NOT NULL
) STRICT;

-- state: 0 stored, 1 accepted, 2 delivered, 3 read, 4 bounced.
CREATE TABLE out_recipient (
    message  INTEGER NOT NULL REFERENCES outgoing (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    key      BLOB NOT NULL CHECK (length(key) = 32),
    member   BLOB NOT NULL CHECK (length(member) = 32),
    name     TEXT NOT NULL,
    wrap     BLOB,
    online   INTEGER NOT NULL CHECK (online IN (0, 1)),
    state    INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),
    code     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (message, position),
    UNIQUE (message, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX out_stored ON out_recipient (message) WHERE state = 0;
CREATE INDEX out_accepted ON out_recipient (message) WHERE state = 1;

CREATE TABLE incoming (
    number         INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh           BLOB NOT NULL CHECK (length(mesh) = 16),
    recipient      BLOB NOT NULL CHECK (length(recipient) = 32),
    sender_member  BLOB NOT NULL CHECK (length(sender_member) = 32),
    sender_session BLOB NOT NULL CHECK (length(sender_session) = 32),
    sender_name    TEXT NOT NULL,
    id             BLOB NOT NULL CHECK (length(id) = 16),
    mode           TEXT NOT NULL CHECK (mode IN ('dm', 'group', 'broadcast')),
    target         TEXT NOT NULL,
    priority       INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    content_type   TEXT NOT NULL,
    text           TEXT NOT NULL,
    reply_to       BLOB NOT NULL CHECK (length(reply_to) = 16),
    replaces       BLOB NOT NULL CHECK (length(replaces) = 16),
    sent           INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    received       INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    offered        INTEGER NOT NULL CHECK (offered >= 0),
    read_at        INTEGER NOT NULL CHECK (read_at >= 0),
    reader         BLOB NOT NULL CHECK (length(reader) = 32),
    receipted      INTEGER NOT NULL DEFAULT 0 CHECK (receipted IN (0, 1)),
    UNIQUE (id, recipient, sender_session, mesh)
) STRICT;
CREATE INDEX incoming_unread ON incoming (recipient, priority, number) WHERE read_at = 0;
CREATE INDEX incoming_recipient ON incoming (recipient, number);
CREATE INDEX incoming_owed ON incoming (mesh, number) WHERE read_at > 0 AND receipted = 0;

-- Ids that were received. Recipient and sender_session all zero: the message
-- was replaced by one that is here, and no recipient shall get it any more.
CREATE TABLE seen (
    mesh           BLOB NOT NULL CHECK (length(mesh) = 16),
    id             BLOB NOT NULL CHECK (length(id) = 16),
    recipient      BLOB NOT NULL CHECK (length(recipient) = 32),
    sender_session BLOB NOT NULL CHECK (length(sender_session) = 32),
    sender_member  BLOB NOT NULL CHECK (length(sender_member) = 32),
    expires        INTEGER NOT NULL,
    PRIMARY KEY (mesh, id, recipient, sender_session, sender_member)
) STRICT, WITHOUT ROWID;

-- The largest expiry of the seen ids that were forgotten.
CREATE TABLE floor (
    mesh    BLOB PRIMARY KEY CHECK (length(mesh) = 16),
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The highest number received of each lane, and the ranges below it that were not.
CREATE TABLE lane_in (
    number         INTEGER PRIMARY KEY,
    mesh           BLOB NOT NULL CHECK (length(mesh) = 16),
    sender_session BLOB NOT NULL CHECK (length(sender_session) = 32),
    recipient      BLOB NOT NULL CHECK (length(recipient) = 32),
    priority       INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    last           INTEGER NOT NULL CHECK (last >= 1),
    sender_name    TEXT NOT NULL,
    touched        INTEGER NOT NULL,
    UNIQUE (mesh, sender_session, recipient, priority)
) STRICT;
CREATE TABLE gap (
    lane    INTEGER NOT NULL REFERENCES lane_in (number) ON DELETE CASCADE,
    first   INTEGER NOT NULL CHECK (first >= 1),
    last    INTEGER NOT NULL CHECK (last >= first),
    noticed INTEGER NOT NULL,
    PRIMARY KEY (lane, first)
) STRICT, WITHOUT ROWID;

-- Statements as JSON, each once.
CREATE TABLE statement (
    number INTEGER PRIMARY KEY,
    mesh   BLOB NOT NULL CHECK (length(mesh) = 16),
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    body   BLOB NOT NULL,
    UNIQUE (mesh, hash)
) STRICT;
CREATE TABLE members_version (
    mesh    BLOB PRIMARY KEY CHECK (length(mesh) = 16),
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE peer (
    mesh        BLOB NOT NULL CHECK (length(mesh) = 16),
    key         BLOB NOT NULL CHECK (length(key) = 32),
    member      BLOB NOT NULL CHECK (length(member) = 32),
    role        TEXT NOT NULL,
    attestation BLOB, -- JSON, as in package wire
    card_seq    INTEGER NOT NULL,
    card        BLOB,
    last_seen   INTEGER NOT NULL,
    PRIMARY KEY (mesh, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE mesh_key (
    mesh       BLOB NOT NULL CHECK (length(mesh) = 16),
    generation INTEGER NOT NULL,
    key        BLOB NOT NULL CHECK (length(key) = 32),
    PRIMARY KEY (mesh, generation)
) STRICT, WITHOUT ROWID;
