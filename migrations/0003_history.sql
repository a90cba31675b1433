-- History as people and programs ask it: four views, stable names, times as text.
--
-- Times are RFC 3339 in UTC with microseconds; they compare as text. What is in no view is nobody's
-- business: environments' values, what was sent to stdin, the digests' states. The views use nothing
-- that an SQLite of 3.38 does not have, so that any `sqlite3` can read them.

-- Names of signals, as signal(7) spells them.
CREATE TABLE signal_names (
    number INTEGER PRIMARY KEY,
    name   TEXT NOT NULL
) STRICT;

INSERT INTO signal_names (number, name) VALUES
    (1, 'SIGHUP'), (2, 'SIGINT'), (3, 'SIGQUIT'), (4, 'SIGILL'), (5, 'SIGTRAP'), (6, 'SIGABRT'),
    (7, 'SIGBUS'), (8, 'SIGFPE'), (9, 'SIGKILL'), (10, 'SIGUSR1'), (11, 'SIGSEGV'),
    (12, 'SIGUSR2'), (13, 'SIGPIPE'), (14, 'SIGALRM'), (15, 'SIGTERM'), (16, 'SIGSTKFLT'),
    (17, 'SIGCHLD'), (18, 'SIGCONT'), (19, 'SIGSTOP'), (20, 'SIGTSTP'), (21, 'SIGTTIN'),
    (22, 'SIGTTOU'), (23, 'SIGURG'), (24, 'SIGXCPU'), (25, 'SIGXFSZ'), (26, 'SIGVTALRM'),
    (27, 'SIGPROF'), (28, 'SIGWINCH'), (29, 'SIGIO'), (30, 'SIGPWR'), (31, 'SIGSYS');

-- So that a view can tell how much there is without reading what it is.
ALTER TABLE jobs ADD COLUMN stdin_length INTEGER
    GENERATED ALWAYS AS (length(CAST(stdin AS BLOB))) VIRTUAL;

-- "What ended when?": the same expression as in the view, or it is not used.
CREATE INDEX jobs_finished ON jobs ((
    strftime('%Y-%m-%dT%H:%M:%S', finished_at / 1000000, 'unixepoch')
        || printf('.%06dZ', finished_at % 1000000)
));
-- "What ended with 137?"
CREATE INDEX jobs_exit_code ON jobs (exit_code, number) WHERE exit_code IS NOT NULL;
-- "What was printed since?"
CREATE INDEX output_chunks_at ON output_chunks (at) WHERE at IS NOT NULL;

CREATE VIEW history_jobs AS
SELECT j.number AS job, j.number AS number, j.id AS id, j.state AS state, j.reason AS reason,
       j.exit_code AS exit_code,
       CASE WHEN j.signal IS NULL THEN NULL
           ELSE coalesce((SELECT n.name FROM signal_names n WHERE n.number = j.signal),
                         'SIG' || j.signal)
       END AS signal,
       j.queue AS queue, j.priority AS priority, j.name AS name, j.labels AS labels,
       j.argv AS argv, j.shell AS shell,
       coalesce(j.shell, (SELECT group_concat(w.value, ' ') FROM json_each(j.argv) w)) AS command,
       j.cwd AS cwd, e.names AS env_names, printf('%03o', j.umask) AS umask,
       j.stdin_length AS stdin_bytes, j.interactive AS interactive,
       j.timeout_s AS timeout_s, j.stall_timeout_s AS stall_timeout_s, j.grace_s AS grace_s,
       j.leftover AS leftover, j.on_lost AS on_lost, j.on_disconnect AS on_disconnect,
       j.disconnect_delay_s AS disconnect_delay_s, j.output_bytes_max AS output_bytes_max,
       j.when_full AS when_full, j.idempotency_key AS idempotency_key, j.retry_of AS retry_of,
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
       j.max_rss_bytes AS max_rss_bytes
FROM jobs j LEFT JOIN environments e ON e.hash = j.environment;

CREATE VIEW history_attempts AS
SELECT a.job AS job, a.attempt AS attempt, a.state AS state,
       a.exit ->> '$.exit.code' AS exit_code,
       CASE WHEN (a.exit ->> '$.exit.signal') IS NULL THEN NULL
           ELSE coalesce((SELECT n.name FROM signal_names n
                          WHERE n.number = (a.exit ->> '$.exit.signal')),
                         'SIG' || (a.exit ->> '$.exit.signal'))
       END AS signal,
       a.exit -> '$.exit.spawn_failed' AS spawn_error, nullif(a.exit -> '$.stop', 'null') AS stop,
       a.pid AS pid, a.shim AS shim, a.shim_version AS shim_version, a.boot_id AS boot_id,
       a.start_offset AS start_offset, a.end_offset AS end_offset,
       a.end_offset - a.start_offset AS output_bytes,
       strftime('%Y-%m-%dT%H:%M:%S', a.claimed_at / 1000000, 'unixepoch')
               || printf('.%06dZ', a.claimed_at % 1000000) AS claimed_at,
       strftime('%Y-%m-%dT%H:%M:%S', a.started_at / 1000000, 'unixepoch')
               || printf('.%06dZ', a.started_at % 1000000) AS started_at,
       strftime('%Y-%m-%dT%H:%M:%S', a.ended_at / 1000000, 'unixepoch')
               || printf('.%06dZ', a.ended_at % 1000000) AS ended_at,
       (a.ended_at - a.started_at) / 1e6 AS duration_s,
       a.exit ->> '$.usage.user_s' AS user_s, a.exit ->> '$.usage.system_s' AS system_s,
       a.exit ->> '$.usage.max_rss_bytes' AS max_rss_bytes
FROM attempts a;

CREATE VIEW history_events AS
SELECT v.id AS id, v.job AS job, v.attempt AS attempt, v.from_state AS "from",
       v.to_state AS "to", v.from_state AS from_state, v.to_state AS to_state,
       v.reason AS reason, v.actor AS actor,
       strftime('%Y-%m-%dT%H:%M:%S', v.at / 1000000, 'unixepoch')
               || printf('.%06dZ', v.at % 1000000) AS at
FROM events v;

-- The outputs that are stored in rows; the query process of a server shows all under this name.
CREATE VIEW history_output AS
SELECT c.job AS job, c.attempt AS attempt, c.offset AS offset, c.length AS bytes,
       c.stream AS stream,
       strftime('%Y-%m-%dT%H:%M:%S', c.at / 1000000, 'unixepoch')
               || printf('.%06dZ', c.at % 1000000) AS at,
       c.data AS data, CAST(c.data AS TEXT) AS text
FROM output_chunks c
WHERE c.data IS NOT NULL;
