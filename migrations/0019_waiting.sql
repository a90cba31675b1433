-- What a job waits for before it waits for a slot: other jobs, a time, its exclusive key.

-- `scheduled` until then, µs since 1970.
ALTER TABLE jobs ADD COLUMN ready_at INTEGER;
-- Of the jobs with the same key one is active at a time.
ALTER TABLE jobs ADD COLUMN exclusive TEXT;
-- 1: it has a key, and may not be claimed while it is queued, because a job with this key is active or
-- comes before it in its queue. What is claimed is only looked for among the others.
ALTER TABLE jobs ADD COLUMN waits_for_key INTEGER NOT NULL DEFAULT 0 CHECK (waits_for_key IN (0, 1));
-- The job that did not end as required, as it was then, JSON; NULL where there is none.
ALTER TABLE jobs ADD COLUMN failed_dependency TEXT CHECK (json_valid(failed_dependency));
-- What of `expect` its output did not show, JSON; NULL where that is nothing.
ALTER TABLE jobs ADD COLUMN unmet_expectations TEXT CHECK (json_valid(unmet_expectations));

CREATE INDEX jobs_due ON jobs (ready_at, number) WHERE state = 'scheduled';
CREATE INDEX jobs_exclusive ON jobs (exclusive, state, queue, priority DESC, number)
    WHERE exclusive IS NOT NULL AND state IN ('queued', 'running', 'paused');
CREATE INDEX jobs_turn_of_key ON jobs (exclusive)
    WHERE exclusive IS NOT NULL AND state = 'queued' AND waits_for_key = 0;
CREATE INDEX jobs_waiting_for_key ON jobs (queue) WHERE state = 'queued' AND waits_for_key = 1;
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (queue, priority DESC, number)
    WHERE state = 'queued' AND waits_for_key = 0;

-- Which jobs wait, or have waited, for which others.
CREATE TABLE dependencies (
    job       INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    -- It may have been deleted since.
    on_job    INTEGER NOT NULL,
    condition TEXT NOT NULL CHECK (condition IN ('success', 'finish')),
    -- 0: it need not wait for the other one any more, or is final itself.
    waiting   INTEGER NOT NULL DEFAULT 1 CHECK (waiting IN (0, 1)),
    PRIMARY KEY (job, on_job)
) STRICT, WITHOUT ROWID;

CREATE INDEX dependencies_on_job ON dependencies (on_job, waiting, job);
