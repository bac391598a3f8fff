-- +goose Up

-- What a member may do here; who is not listed is normal. Grants are joined by commas.
CREATE TABLE trust (
    mesh     BLOB NOT NULL CHECK (length(mesh) = 16),
    member   BLOB NOT NULL CHECK (length(member) = 32),
    level    TEXT NOT NULL CHECK (level IN ('quarantine', 'normal', 'trusted')),
    grants   TEXT NOT NULL,
    blocked  INTEGER NOT NULL CHECK (blocked IN (0, 1)),
    verified INTEGER NOT NULL CHECK (verified >= 0),
    changed  INTEGER NOT NULL CHECK (changed > 0),
    PRIMARY KEY (mesh, member)
) STRICT, WITHOUT ROWID;

-- Until when (Unix ms of this machine) everything of a mesh is held back.
CREATE TABLE pause (
    mesh  BLOB PRIMARY KEY CHECK (length(mesh) = 16),
    until INTEGER NOT NULL CHECK (until > 0)
) STRICT, WITHOUT ROWID;

-- Messages that wait for a person before they are sent, as JSON.
CREATE TABLE held (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh   BLOB NOT NULL CHECK (length(mesh) = 16),
    body   BLOB NOT NULL
) STRICT;

-- The audit log: each hash covers the one before it.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY CHECK (number >= 1),
    at     INTEGER NOT NULL,
    prev   BLOB NOT NULL CHECK (length(prev) = 32),
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    entry  BLOB NOT NULL -- canonical JSON, as it is hashed
) STRICT;

-- urgency: how urgent it is treated, a rank; gate: 0 open, 1 bell, 2 shelf, 3
-- shut; braked: it was one automatic message too many; digest: of its text.
ALTER TABLE incoming ADD COLUMN hop INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incoming ADD COLUMN own INTEGER NOT NULL DEFAULT 0 CHECK (own IN (0, 1));
ALTER TABLE incoming ADD COLUMN urgency INTEGER NOT NULL DEFAULT 0 CHECK (urgency BETWEEN 0 AND 2);
ALTER TABLE incoming ADD COLUMN gate INTEGER NOT NULL DEFAULT 0 CHECK (gate BETWEEN 0 AND 3);
ALTER TABLE incoming ADD COLUMN braked INTEGER NOT NULL DEFAULT 0 CHECK (braked IN (0, 1));
ALTER TABLE incoming ADD COLUMN digest BLOB CHECK (length(digest) = 16);
UPDATE incoming SET urgency = priority;
DROP INDEX incoming_unread;
CREATE INDEX incoming_unread ON incoming (recipient, urgency, number) WHERE read_at = 0;
CREATE INDEX incoming_read ON incoming (recipient, read_at) WHERE read_at > 0;
CREATE INDEX incoming_automatic ON incoming (sender_session, recipient, received) WHERE hop > 0;
CREATE INDEX incoming_digest ON incoming (digest) WHERE digest IS NOT NULL;

ALTER TABLE outgoing ADD COLUMN hop INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outgoing ADD COLUMN digest BLOB CHECK (length(digest) = 16);
CREATE INDEX outgoing_automatic ON outgoing (sender, sent) WHERE hop > 0;
CREATE INDEX outgoing_digest ON outgoing (digest, sent) WHERE digest IS NOT NULL;
