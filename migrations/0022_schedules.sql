-- When which job is submitted.
CREATE TABLE schedules (
    name        TEXT PRIMARY KEY NOT NULL,
    cron        TEXT NOT NULL,
    timezone    TEXT NOT NULL,
    overlap     TEXT NOT NULL CHECK (overlap IN ('skip', 'queue', 'replace')),
    catch_up    TEXT NOT NULL CHECK (catch_up IN ('none', 'last', 'all')),
    paused      INTEGER NOT NULL CHECK (paused IN (0, 1)),
    -- Counts the changes.
    revision    INTEGER NOT NULL,
    -- The first time that has not been looked at; NULL: there is none.
    next_at     INTEGER,
    -- Times whose runs wait until `last_job` is final, a JSON array, in order.
    waiting     TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(waiting)),
    -- The newest run.
    last_at     INTEGER,
    last_job    INTEGER,
    runs        INTEGER NOT NULL DEFAULT 0,
    skipped     INTEGER NOT NULL DEFAULT 0,
    -- The newest time that was skipped, and why.
    skip_at     INTEGER,
    skip_reason TEXT,
    -- NewJob as it was given: its environment and its stdin may be secrets.
    job         TEXT NOT NULL CHECK (json_valid(job))
) STRICT;

-- The run of a schedule that a job is. One time of a schedule is one job, whatever happens.
ALTER TABLE jobs ADD COLUMN schedule TEXT;
ALTER TABLE jobs ADD COLUMN schedule_at INTEGER;
CREATE UNIQUE INDEX jobs_schedule ON jobs (schedule, schedule_at) WHERE schedule IS NOT NULL;
