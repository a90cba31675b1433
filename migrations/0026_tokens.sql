-- Tokens with scopes; in no view. The administrator's token is in a file and has no row.

CREATE TABLE tokens (
    -- Never used again: `jobs.token` refers to it, also when the token was revoked.
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    -- Names the token on the wire; a rotation replaces both.
    nonce        BLOB NOT NULL UNIQUE CHECK (length(nonce) = 16),
    -- SHA-256 of the token's root, which is not stored.
    digest       BLOB NOT NULL CHECK (length(digest) = 32),
    -- Names of scopes, JSON.
    scopes       TEXT NOT NULL CHECK (json_valid(scopes)),
    -- What it is narrowed by: texts of caveats, JSON.
    restrictions TEXT NOT NULL CHECK (json_valid(restrictions)),
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    rotated_at   INTEGER,
    expires_at   INTEGER,
    -- The server has seen the expiry: it stays, also where the clock is set back.
    expired      INTEGER NOT NULL DEFAULT 0 CHECK (expired IN (0, 1)),
    revoked_at   INTEGER
) STRICT;
-- A name is free again once its token was revoked.
CREATE UNIQUE INDEX tokens_name ON tokens (name) WHERE revoked_at IS NULL;

-- The token that submitted a job; null for the administrator and for runs of schedules.
ALTER TABLE jobs ADD COLUMN token INTEGER;
CREATE INDEX jobs_token ON jobs (token, number) WHERE token IS NOT NULL;

-- The token that opened a session of MCP.
ALTER TABLE mcp_sessions ADD COLUMN token INTEGER;
