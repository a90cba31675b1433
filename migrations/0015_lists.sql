-- What `job.list` filters by beside names, queues and states, so that a page is found without a look at
-- all jobs.
CREATE INDEX jobs_submitted ON jobs (submitted_at);

-- The labels of all jobs once more, for lists; in no view. `jobs.labels` is what was submitted, and the
-- triggers keep this table equal to it.
CREATE TABLE job_labels (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    job   INTEGER NOT NULL,
    PRIMARY KEY (key, value, job)
) STRICT, WITHOUT ROWID;

INSERT INTO job_labels (key, value, job)
    SELECT l.key, l.value, j.number FROM jobs AS j, json_each(j.labels) AS l
    WHERE j.labels <> '{}' ORDER BY 1, 2, 3;

CREATE TRIGGER job_labels_insert AFTER INSERT ON jobs WHEN new.labels <> '{}'
BEGIN
    INSERT INTO job_labels (key, value, job)
        SELECT key, value, new.number FROM json_each(new.labels);
END;

CREATE TRIGGER job_labels_update AFTER UPDATE OF labels ON jobs WHEN new.labels <> old.labels
BEGIN
    DELETE FROM job_labels WHERE (key, value, job) IN
        (SELECT key, value, old.number FROM json_each(old.labels));
    INSERT INTO job_labels (key, value, job)
        SELECT key, value, new.number FROM json_each(new.labels);
END;

CREATE TRIGGER job_labels_delete AFTER DELETE ON jobs WHEN old.labels <> '{}'
BEGIN
    DELETE FROM job_labels WHERE (key, value, job) IN
        (SELECT key, value, old.number FROM json_each(old.labels));
END;
