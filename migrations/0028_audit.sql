-- The audit trail; in no view. docs/design/audit.md.

CREATE TABLE audit (
    -- Without gaps.
    seq   INTEGER PRIMARY KEY CHECK (seq > 0),
    at    INTEGER NOT NULL,
    -- Canonical JSON, which names `seq` and `at` too. A row outlives its job.
    entry TEXT NOT NULL,
    -- SHA-256 of the hash before and the entry.
    hash  BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- The last entry that was pruned: the first row follows it.
CREATE TABLE audit_base (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
INSERT INTO audit_base (id, seq, hash) VALUES (1, 0, zeroblob(32));

-- The verifiers' keys of checkpoints, by the entry that put them in force; they outlive that entry.
CREATE TABLE audit_keys (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL
) STRICT;
