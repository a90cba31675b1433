-- What was submitted, as one column of JSON: NewJob's keys with their defaults filled in, but for those
-- that SQL asks for, which have columns of their own, and for the environment and stdin, which are
-- secrets. A key that comes later needs no column.
--
-- The columns that it replaces go, and a CHECK spans two of them, so the table is made anew. Foreign
-- keys are off while migrations run (`store/sqlite/open.rs`): attempts and outputs of the jobs stay.
DROP VIEW history_jobs;

CREATE TABLE jobs_new (
    -- Small, ascending in the order of submission, never reused.
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    node             INTEGER NOT NULL DEFAULT 1 REFERENCES nodes (id),
    state            TEXT NOT NULL CHECK (state IN ('scheduled', 'blocked', 'queued', 'running',
                         'paused', 'succeeded', 'failed', 'cancelled')),
    reason           TEXT CHECK (reason IN ('exit_code', 'signal', 'timeout', 'stalled', 'spawn',
                         'output_limit', 'dependency', 'unverified', 'lost')),

    -- What was submitted.
    -- It existed at the submission; once all its jobs are final it may be deleted.
    queue            TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    name             TEXT,
    labels           TEXT NOT NULL CHECK (json_valid(labels)),
    -- Stdin stays open for inputs.
    interactive      INTEGER NOT NULL CHECK (interactive IN (0, 1)),
    -- What happens when nobody can know how an attempt ended.
    on_lost          TEXT NOT NULL CHECK (on_lost IN ('fail', 'retry')),
    idempotency_key  TEXT,
    -- All other keys.
    spec             TEXT NOT NULL CHECK (json_valid(spec)),
    environment      BLOB NOT NULL REFERENCES environments (hash),
    stdin            TEXT,
    -- So that a view can tell how much there is without reading what it is.
    stdin_length     INTEGER GENERATED ALWAYS AS (length(CAST(stdin AS BLOB))) VIRTUAL,
    fingerprint      BLOB NOT NULL CHECK (length(fingerprint) = 32),
    -- Id of the job that this one tries again.
    retry_of         TEXT CHECK (length(retry_of) = 36),

    -- What became of it. `attempt` is the current or last one and fences stale writers; void
    -- attempts count in it, but not in `attempts`.
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    attempts         INTEGER NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND attempt),
    submitted_at     INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    exit_code        INTEGER,
    signal           INTEGER,
    -- Up to where output has rows (of chunks, gaps or segments).
    output_bytes     INTEGER NOT NULL DEFAULT 0 CHECK (output_bytes >= 0),
    -- What `when_full` has dropped; part of `output_bytes`.
    dropped_bytes    INTEGER NOT NULL DEFAULT 0 CHECK (dropped_bytes BETWEEN 0 AND output_bytes),
    dropped_lines    INTEGER NOT NULL DEFAULT 0 CHECK (dropped_lines >= 0),
    output_sha256    TEXT CHECK (length(output_sha256) = 64),
    spawn_error      TEXT CHECK (json_valid(spawn_error)),
    stop             TEXT CHECK (json_valid(stop)),
    leaked           INTEGER NOT NULL DEFAULT 0,
    survivors        TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(survivors)),
    -- Why nobody can say what is left of a lost attempt; NULL where somebody could look.
    survivors_unknown TEXT,
    user_us          INTEGER NOT NULL DEFAULT 0,
    system_us        INTEGER NOT NULL DEFAULT 0,
    max_rss_bytes    INTEGER NOT NULL DEFAULT 0,

    CHECK ((state = 'failed') = (reason IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (exit_code IS NULL OR signal IS NULL),
    CHECK (state NOT IN ('running', 'paused') OR attempt > 0)
) STRICT;

-- 17 digits name a REAL exactly; json_object alone would write 15.
INSERT INTO jobs_new (number, id, node, state, reason, queue, priority, name, labels, interactive,
    on_lost, idempotency_key, spec, environment, stdin, fingerprint, retry_of, attempt, attempts,
    submitted_at, started_at, finished_at, exit_code, signal, output_bytes, dropped_bytes,
    dropped_lines, output_sha256, spawn_error, stop, leaked, survivors, survivors_unknown, user_us,
    system_us, max_rss_bytes)
SELECT number, id, node, state, reason, queue, priority, name, labels, interactive,
    on_lost, idempotency_key,
    json_object('argv', json(argv), 'shell', shell, 'cwd', cwd, 'umask', printf('%03o', umask),
        'limits', json(limits),
        'timeout_s',
        json(CASE WHEN timeout_s IS NULL THEN 'null' ELSE printf('%!.17g', timeout_s) END),
        'stall_timeout_s',
        json(CASE WHEN stall_timeout_s IS NULL THEN 'null' ELSE printf('%!.17g', stall_timeout_s) END),
        'grace_s', json(printf('%!.17g', grace_s)),
        'leftover', leftover, 'on_disconnect', on_disconnect,
        'disconnect_delay_s', json(printf('%!.17g', disconnect_delay_s)),
        'output', json_object('max_bytes', output_bytes_max, 'when_full', when_full)),
    environment, stdin, fingerprint, retry_of, attempt, attempts,
    submitted_at, started_at, finished_at, exit_code, signal, output_bytes, dropped_bytes,
    dropped_lines, output_sha256, spawn_error, stop, leaked, survivors, survivors_unknown, user_us,
    system_us, max_rss_bytes
FROM jobs;

-- The number of a deleted job is not given again either.
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'jobs_new', 0 FROM sqlite_sequence WHERE name = 'jobs'
        AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'jobs_new');
UPDATE sqlite_sequence
    SET seq = coalesce((SELECT o.seq FROM sqlite_sequence o WHERE o.name = 'jobs'), seq)
    WHERE name = 'jobs_new';

DROP TABLE jobs;
ALTER TABLE jobs_new RENAME TO jobs;

-- The claim takes from its left end.
CREATE INDEX jobs_queued ON jobs (queue, priority DESC, number) WHERE state = 'queued';
-- Slots in use.
CREATE INDEX jobs_active ON jobs (queue, state) WHERE state IN ('running', 'paused');
CREATE INDEX jobs_state ON jobs (state, number);
-- Whether an environment is still used, when a job is deleted.
CREATE INDEX jobs_environment ON jobs (environment);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- "What ended when?": the same expression as in the view, or it is not used.
CREATE INDEX jobs_finished ON jobs ((
    strftime('%Y-%m-%dT%H:%M:%S', finished_at / 1000000, 'unixepoch')
        || printf('.%06dZ', finished_at % 1000000)
));
-- "What ended with 137?"
CREATE INDEX jobs_exit_code ON jobs (exit_code, number) WHERE exit_code IS NOT NULL;

-- The same columns as before, and `output_lines_max`.
CREATE VIEW history_jobs AS
SELECT j.number AS job, j.number AS number, j.id AS id, j.state AS state, j.reason AS reason,
       j.exit_code AS exit_code,
       CASE WHEN j.signal IS NULL THEN NULL
           ELSE coalesce((SELECT n.name FROM signal_names n WHERE n.number = j.signal),
                         'SIG' || j.signal)
       END AS signal,
       j.queue AS queue, j.priority AS priority, j.name AS name, j.labels AS labels,
       j.spec ->> '$.argv' AS argv, j.spec ->> '$.shell' AS shell,
       coalesce(j.spec ->> '$.shell',
           (SELECT group_concat(w.value, ' ') FROM json_each(j.spec, '$.argv') w)) AS command,
       j.spec ->> '$.cwd' AS cwd, e.names AS env_names, j.spec ->> '$.umask' AS umask,
       j.stdin_length AS stdin_bytes, j.interactive AS interactive,
       j.spec ->> '$.timeout_s' AS timeout_s, j.spec ->> '$.stall_timeout_s' AS stall_timeout_s,
       j.spec ->> '$.grace_s' AS grace_s,
       j.spec ->> '$.leftover' AS leftover, j.on_lost AS on_lost,
       j.spec ->> '$.on_disconnect' AS on_disconnect,
       j.spec ->> '$.disconnect_delay_s' AS disconnect_delay_s,
       j.spec ->> '$.output.max_bytes' AS output_bytes_max,
       j.spec ->> '$.output.when_full' AS when_full,
       j.idempotency_key AS idempotency_key, j.retry_of AS retry_of,
       j.attempts AS attempts,
       strftime('%Y-%m-%dT%H:%M:%S', j.submitted_at / 1000000, 'unixepoch')
               || printf('.%06dZ', j.submitted_at % 1000000) AS submitted_at,
       strftime('%Y-%m-%dT%H:%M:%S', j.started_at / 1000000, 'unixepoch')
               || printf('.%06dZ', j.started_at % 1000000) AS started_at,
       strftime('%Y-%m-%dT%H:%M:%S', j.finished_at / 1000000, 'unixepoch')
               || printf('.%06dZ', j.finished_at % 1000000) AS finished_at,
       (j.started_at - j.submitted_at) / 1e6 AS waited_s,
       (j.finished_at - j.started_at) / 1e6 AS duration_s,
       j.output_bytes AS output_bytes, j.dropped_bytes AS dropped_bytes,
       j.dropped_lines AS dropped_lines, j.output_sha256 AS output_sha256,
       j.spawn_error AS spawn_error, j.stop AS stop, j.leaked AS leaked,
       j.survivors AS survivors, j.user_us / 1e6 AS user_s, j.system_us / 1e6 AS system_s,
       j.max_rss_bytes AS max_rss_bytes, j.survivors_unknown AS survivors_unknown,
       j.spec ->> '$.output.max_lines' AS output_lines_max
FROM jobs j LEFT JOIN environments e ON e.hash = j.environment;
