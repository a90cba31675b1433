-- Retention: which final jobs go, and when; and which are going.

CREATE TABLE retention_rules (
    name  TEXT PRIMARY KEY NOT NULL CHECK (name <> ''),
    -- The rule as it was set: scope, filter and bounds. JSON.
    rule  TEXT NOT NULL CHECK (json_valid(rule))
) STRICT, WITHOUT ROWID;

-- Jobs with so many rows that they are removed in several transactions. A start goes on with them.
CREATE TABLE removals (
    job   INTEGER PRIMARY KEY NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    -- `jobs`: the whole job goes; `outputs`: its output alone.
    scope TEXT NOT NULL CHECK (scope IN ('jobs', 'outputs'))
) STRICT;

-- How much of `output_bytes` retention has removed.
ALTER TABLE jobs ADD COLUMN pruned_bytes INTEGER NOT NULL DEFAULT 0;
