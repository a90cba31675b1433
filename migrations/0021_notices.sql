-- Who is notified of a job's states: the key `notify`, with its secrets; NULL where it names nobody. In no
-- view.
ALTER TABLE jobs ADD COLUMN notify TEXT;

-- The outbox: a row for each state change and receiver, written with the state change. In no view. A row
-- outlives its job.
CREATE TABLE notices (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What the receiver gets to know it again by.
    id          TEXT NOT NULL UNIQUE,
    job         INTEGER NOT NULL,
    -- The state that the job entered, and when.
    on_state    TEXT NOT NULL CHECK (on_state IN ('scheduled', 'blocked', 'queued', 'running', 'paused',
                    'succeeded', 'failed', 'cancelled')),
    at          INTEGER NOT NULL,
    -- Index of the receiver in the job's `notify`.
    entry       INTEGER NOT NULL CHECK (entry >= 0),
    -- The receiver: exactly one of the two.
    url         TEXT,
    argv        TEXT CHECK (json_valid(argv)),
    -- What notices to the same receiver have in common.
    destination TEXT NOT NULL,
    has_secret  INTEGER NOT NULL CHECK (has_secret IN (0, 1)),
    state       TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'given_up')),
    -- NULL once delivered.
    secret      TEXT,
    body        TEXT,
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- When these attempts began to be counted: `at`, or when a user asked for more.
    since       INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    tried_at    INTEGER,
    error       TEXT,
    CHECK ((url IS NULL) <> (argv IS NULL)),
    CHECK ((state = 'delivered') = (body IS NULL))
) STRICT;

-- What is delivered next.
CREATE INDEX notices_due ON notices (due_at, number) WHERE state = 'waiting';
-- The notices of a job.
CREATE INDEX notices_job ON notices (job, number);
-- Lists by state; and the oldest that are forgotten.
CREATE INDEX notices_state ON notices (state, number);
