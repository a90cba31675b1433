-- What an MCP client must find again after a restart of the server; in no view.

-- The opening of a session of MCP over HTTP. A request that names a session which the server does not
-- know opens it again from here.
CREATE TABLE mcp_sessions (
    id      TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    -- The parameters of the client's `initialize`.
    opening TEXT NOT NULL CHECK (json_valid(opening)),
    -- Counts up with every session that is stored: the lowest ones go first.
    serial  INTEGER NOT NULL
) STRICT;
CREATE INDEX mcp_sessions_serial ON mcp_sessions (serial);

-- Jobs whose submitter was told about them while they ran. A live job of an MCP client that is not here
-- may be unknown to it: its connection was lost before the reply.
CREATE TABLE mcp_answered (
    job INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE
) STRICT;
