-- +goose Up

-- The owner's statements that change members' roles.
CREATE TABLE role (
    id      INTEGER PRIMARY KEY,
    mesh    INTEGER NOT NULL REFERENCES mesh (id),
    body    BLOB NOT NULL,
    sig     BLOB NOT NULL CHECK (length(sig) = 64),
    version INTEGER NOT NULL
) STRICT;
CREATE INDEX role_version ON role (mesh, version);

-- Pauses, and the resumes that end them, until the pause would have passed.
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

CREATE TABLE block (
    id      INTEGER PRIMARY KEY,
    mesh    INTEGER NOT NULL REFERENCES mesh (id),
    member  BLOB NOT NULL CHECK (length(member) = 32), -- who takes nothing
    blocked BLOB NOT NULL CHECK (length(blocked) = 32), -- of whom
    UNIQUE (mesh, member, blocked)
) STRICT;

-- +goose Down
DROP TABLE block;
DROP TABLE pause;
DROP TABLE role;
