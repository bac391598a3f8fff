-- +goose Up

-- The lease of a courier: who brings a message in, and until when (Unix ms of this machine) nobody else does.
ALTER TABLE incoming ADD COLUMN holder TEXT NOT NULL DEFAULT '';
ALTER TABLE incoming ADD COLUMN held_until INTEGER NOT NULL DEFAULT 0 CHECK (held_until >= 0);
CREATE INDEX incoming_held ON incoming (holder) WHERE held_until > 0 AND read_at = 0;

-- The agents that run on this machine, as JSON, by process id.
CREATE TABLE agent (
    pid  INTEGER PRIMARY KEY CHECK (pid > 0),
    body BLOB NOT NULL
) STRICT;
