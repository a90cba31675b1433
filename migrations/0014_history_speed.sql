-- What the views are asked for has an index, so that an answer takes less than a second where there are a
-- million jobs, and the views use expressions that cost less where they have to read every row.
--
-- An index over an expression is only used for the very expression of the view. Times are text there:
-- `date || 'T' || time` is the same as one `strftime`, in two thirds of the time.

CREATE INDEX jobs_name ON jobs (name, number) WHERE name IS NOT NULL;
CREATE INDEX jobs_queue ON jobs (queue, number);
CREATE INDEX jobs_reason ON jobs (reason, number) WHERE reason IS NOT NULL;
CREATE INDEX jobs_retry_of ON jobs (retry_of) WHERE retry_of IS NOT NULL;
-- The largest and the longest come from the right end, and a sum needs no row of the table.
CREATE INDEX jobs_output_bytes ON jobs (output_bytes);
CREATE INDEX jobs_waited ON jobs ((started_at - submitted_at) / 1e6);
CREATE INDEX jobs_duration ON jobs ((finished_at - started_at) / 1e6);
CREATE INDEX jobs_submitted_text ON jobs ((
    date(submitted_at / 1000000, 'unixepoch') || 'T' || time(submitted_at / 1000000, 'unixepoch')
        || printf('.%06dZ', submitted_at % 1000000)
));
CREATE INDEX jobs_started_text ON jobs ((
    date(started_at / 1000000, 'unixepoch') || 'T' || time(started_at / 1000000, 'unixepoch')
        || printf('.%06dZ', started_at % 1000000)
));
DROP INDEX jobs_finished;
CREATE INDEX jobs_finished ON jobs ((
    date(finished_at / 1000000, 'unixepoch') || 'T' || time(finished_at / 1000000, 'unixepoch')
        || printf('.%06dZ', finished_at % 1000000)
));
-- "What failed since?", "What failed last?"
CREATE INDEX jobs_ended ON jobs (state, (
    date(finished_at / 1000000, 'unixepoch') || 'T' || time(finished_at / 1000000, 'unixepoch')
        || printf('.%06dZ', finished_at % 1000000)
));
-- "What was killed?"
CREATE INDEX jobs_signal ON jobs ((
    coalesce(nullif(rtrim(substr(
    'SIGHUP    SIGINT    SIGQUIT   SIGILL    SIGTRAP   SIGABRT   SIGBUS    SIGFPE    SIGKILL   '
    || 'SIGUSR1   SIGSEGV   SIGUSR2   SIGPIPE   SIGALRM   SIGTERM   SIGSTKFLT SIGCHLD   SIGCONT   '
    || 'SIGSTOP   SIGTSTP   SIGTTIN   SIGTTOU   SIGURG    SIGXCPU   SIGXFSZ   SIGVTALRM SIGPROF   '
    || 'SIGWINCH  SIGIO     SIGPWR    SIGSYS    ', signal * 10 - 9, 10)), ''),
    'SIG' || signal)
), number) WHERE
    coalesce(nullif(rtrim(substr(
    'SIGHUP    SIGINT    SIGQUIT   SIGILL    SIGTRAP   SIGABRT   SIGBUS    SIGFPE    SIGKILL   '
    || 'SIGUSR1   SIGSEGV   SIGUSR2   SIGPIPE   SIGALRM   SIGTERM   SIGSTKFLT SIGCHLD   SIGCONT   '
    || 'SIGSTOP   SIGTSTP   SIGTTIN   SIGTTOU   SIGURG    SIGXCPU   SIGXFSZ   SIGVTALRM SIGPROF   '
    || 'SIGWINCH  SIGIO     SIGPWR    SIGSYS    ', signal * 10 - 9, 10)), ''),
    'SIG' || signal)
    IS NOT NULL;
CREATE INDEX events_at ON events ((
    date(at / 1000000, 'unixepoch') || 'T' || time(at / 1000000, 'unixepoch')
        || printf('.%06dZ', at % 1000000)
));
-- Not over all states: the updates of attempts that run, which name their states, would use it.
CREATE INDEX attempts_lost ON attempts (state) WHERE state = 'lost' OR state = 'void';
CREATE INDEX attempts_claimed_text ON attempts ((
    date(claimed_at / 1000000, 'unixepoch') || 'T' || time(claimed_at / 1000000, 'unixepoch')
        || printf('.%06dZ', claimed_at % 1000000)
));
CREATE INDEX attempts_started_text ON attempts ((
    date(started_at / 1000000, 'unixepoch') || 'T' || time(started_at / 1000000, 'unixepoch')
        || printf('.%06dZ', started_at % 1000000)
));
CREATE INDEX attempts_ended_text ON attempts ((
    date(ended_at / 1000000, 'unixepoch') || 'T' || time(ended_at / 1000000, 'unixepoch')
        || printf('.%06dZ', ended_at % 1000000)
));

-- SQLite would rather read all jobs in the order of one of these indexes than sort the jobs of a day by
-- queue. Its assumptions about an index are only changed by statistics: these say that an index has more
-- entries than the table, so reading all of it costs more. That one value has 10 rows is what SQLite assumes
-- without them; `jobs_ended` has 12, so that `jobs_state`, which is narrower, is taken where both would do.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('jobs', 'jobs_name', '8388608 10 1'),
    ('jobs', 'jobs_queue', '8388608 10 1'),
    ('jobs', 'jobs_state', '8388608 10 1'),
    ('jobs', 'jobs_ended', '16777216 12 9'),
    ('jobs', 'jobs_exit_code', '8388608 10 1'),
    ('jobs', 'jobs_reason', '8388608 10 1'),
    ('jobs', 'jobs_waited', '2097152 10'),
    ('jobs', 'jobs_duration', '2097152 10'),
    -- What SQLite assumes of a table without statistics.
    ('jobs', NULL, '1048576');
ANALYZE sqlite_schema;

-- The same columns as before. `stop` is what the Job shows: the request while an attempt runs, afterwards
-- what has happened. A name of a signal has up to 9 characters; signals without a name are `SIG` and their
-- number.
DROP VIEW history_jobs;
CREATE VIEW history_jobs AS
SELECT j.number AS job, j.number AS number, j.id AS id, j.state AS state, j.reason AS reason,
       j.exit_code AS exit_code,
       coalesce(nullif(rtrim(substr(
           'SIGHUP    SIGINT    SIGQUIT   SIGILL    SIGTRAP   SIGABRT   SIGBUS    SIGFPE    SIGKILL   '
           || 'SIGUSR1   SIGSEGV   SIGUSR2   SIGPIPE   SIGALRM   SIGTERM   SIGSTKFLT SIGCHLD   SIGCONT   '
           || 'SIGSTOP   SIGTSTP   SIGTTIN   SIGTTOU   SIGURG    SIGXCPU   SIGXFSZ   SIGVTALRM SIGPROF   '
           || 'SIGWINCH  SIGIO     SIGPWR    SIGSYS    ', j.signal * 10 - 9, 10)), ''),
           'SIG' || j.signal) AS signal,
       j.queue AS queue, j.priority AS priority, j.name AS name, j.labels AS labels,
       j.spec ->> '$.argv' AS argv, j.spec ->> '$.shell' AS shell,
       coalesce(j.spec ->> '$.shell',
           (SELECT group_concat(w.value, ' ') FROM json_each(j.spec, '$.argv') w)) AS command,
       j.spec ->> '$.cwd' AS cwd,
       (SELECT e.names FROM environments e WHERE e.hash = j.environment) AS env_names,
       j.spec ->> '$.umask' AS umask,
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
       date(j.submitted_at / 1000000, 'unixepoch') || 'T' || time(j.submitted_at / 1000000, 'unixepoch')
           || printf('.%06dZ', j.submitted_at % 1000000) AS submitted_at,
       date(j.started_at / 1000000, 'unixepoch') || 'T' || time(j.started_at / 1000000, 'unixepoch')
           || printf('.%06dZ', j.started_at % 1000000) AS started_at,
       date(j.finished_at / 1000000, 'unixepoch') || 'T' || time(j.finished_at / 1000000, 'unixepoch')
           || printf('.%06dZ', j.finished_at % 1000000) AS finished_at,
       (j.started_at - j.submitted_at) / 1e6 AS waited_s,
       (j.finished_at - j.started_at) / 1e6 AS duration_s,
       j.output_bytes AS output_bytes, j.dropped_bytes AS dropped_bytes,
       j.dropped_lines AS dropped_lines, j.output_sha256 AS output_sha256,
       j.spawn_error AS spawn_error,
       CASE WHEN j.state IN ('running', 'paused') THEN
           (SELECT json_patch(
                json_object('by', a.stop -> '$.by', 'cause', a.stop -> '$.cause', 'asked_at',
                    strftime('%Y-%m-%dT%H:%M:%S', (a.stop ->> '$.asked_at_us') / 1000000, 'unixepoch')
                        || printf('.%06dZ', (a.stop ->> '$.asked_at_us') % 1000000),
                    'signals', json('[]'), 'killed', json('false')),
                CASE WHEN json_array_length(a.stop, '$.refused') > 0
                    THEN json_object('refused', a.stop -> '$.refused') ELSE '{}' END)
            FROM attempts a
            WHERE a.job = j.number AND a.attempt = j.attempt AND a.stop IS NOT NULL)
       WHEN j.stop IS NOT NULL THEN json_patch(
           json_object('by', j.stop -> '$.by', 'cause', j.stop -> '$.cause', 'asked_at',
               strftime('%Y-%m-%dT%H:%M:%S', (j.stop ->> '$.asked_at_us') / 1000000, 'unixepoch')
                   || printf('.%06dZ', (j.stop ->> '$.asked_at_us') % 1000000),
               'signals', j.stop -> '$.signals', 'killed', j.stop -> '$.killed'),
           CASE WHEN json_array_length(j.stop, '$.refused') > 0
               THEN json_object('refused', j.stop -> '$.refused') ELSE '{}' END)
       END AS stop,
       j.leaked AS leaked,
       j.survivors AS survivors, j.user_us / 1e6 AS user_s, j.system_us / 1e6 AS system_s,
       j.max_rss_bytes AS max_rss_bytes, j.survivors_unknown AS survivors_unknown,
       j.spec ->> '$.output.max_lines' AS output_lines_max
FROM jobs j;

DROP VIEW history_attempts;
CREATE VIEW history_attempts AS
SELECT a.job AS job, a.attempt AS attempt, a.state AS state,
       a.exit ->> '$.exit.code' AS exit_code,
       coalesce(nullif(rtrim(substr(
           'SIGHUP    SIGINT    SIGQUIT   SIGILL    SIGTRAP   SIGABRT   SIGBUS    SIGFPE    SIGKILL   '
           || 'SIGUSR1   SIGSEGV   SIGUSR2   SIGPIPE   SIGALRM   SIGTERM   SIGSTKFLT SIGCHLD   SIGCONT   '
           || 'SIGSTOP   SIGTSTP   SIGTTIN   SIGTTOU   SIGURG    SIGXCPU   SIGXFSZ   SIGVTALRM SIGPROF   '
           || 'SIGWINCH  SIGIO     SIGPWR    SIGSYS    ', (a.exit ->> '$.exit.signal') * 10 - 9, 10)), ''),
           'SIG' || (a.exit ->> '$.exit.signal')) AS signal,
       a.exit -> '$.exit.spawn_failed' AS spawn_error,
       CASE WHEN a.exit IS NOT NULL THEN
           CASE WHEN json_type(a.exit, '$.stop') = 'object' THEN json_patch(
               json_object('by', a.exit -> '$.stop.by', 'cause', a.exit -> '$.stop.cause', 'asked_at',
                   strftime('%Y-%m-%dT%H:%M:%S', (a.exit ->> '$.stop.asked_at_us') / 1000000, 'unixepoch')
                       || printf('.%06dZ', (a.exit ->> '$.stop.asked_at_us') % 1000000),
                   'signals', a.exit -> '$.stop.signals', 'killed', a.exit -> '$.stop.killed'),
               CASE WHEN json_array_length(a.exit, '$.stop.refused') > 0
                   THEN json_object('refused', a.exit -> '$.stop.refused') ELSE '{}' END)
           END
       WHEN a.stop IS NOT NULL THEN json_patch(
           json_object('by', a.stop -> '$.by', 'cause', a.stop -> '$.cause', 'asked_at',
               strftime('%Y-%m-%dT%H:%M:%S', (a.stop ->> '$.asked_at_us') / 1000000, 'unixepoch')
                   || printf('.%06dZ', (a.stop ->> '$.asked_at_us') % 1000000),
               'signals', json('[]'), 'killed', json('false')),
           CASE WHEN a.ended_at IS NULL AND json_array_length(a.stop, '$.refused') > 0
               THEN json_object('refused', a.stop -> '$.refused') ELSE '{}' END)
       END AS stop,
       a.pid AS pid, a.shim AS shim, a.shim_version AS shim_version, a.boot_id AS boot_id,
       a.start_offset AS start_offset, a.end_offset AS end_offset,
       a.end_offset - a.start_offset AS output_bytes,
       date(a.claimed_at / 1000000, 'unixepoch') || 'T' || time(a.claimed_at / 1000000, 'unixepoch')
           || printf('.%06dZ', a.claimed_at % 1000000) AS claimed_at,
       date(a.started_at / 1000000, 'unixepoch') || 'T' || time(a.started_at / 1000000, 'unixepoch')
           || printf('.%06dZ', a.started_at % 1000000) AS started_at,
       date(a.ended_at / 1000000, 'unixepoch') || 'T' || time(a.ended_at / 1000000, 'unixepoch')
           || printf('.%06dZ', a.ended_at % 1000000) AS ended_at,
       (a.ended_at - a.started_at) / 1e6 AS duration_s,
       a.exit ->> '$.usage.user_s' AS user_s, a.exit ->> '$.usage.system_s' AS system_s,
       a.exit ->> '$.usage.max_rss_bytes' AS max_rss_bytes
FROM attempts a;

DROP VIEW history_events;
CREATE VIEW history_events AS
SELECT v.id AS id, v.job AS job, v.attempt AS attempt, v.from_state AS "from",
       v.to_state AS "to", v.from_state AS from_state, v.to_state AS to_state,
       v.reason AS reason, v.actor AS actor,
       date(v.at / 1000000, 'unixepoch') || 'T' || time(v.at / 1000000, 'unixepoch')
           || printf('.%06dZ', v.at % 1000000) AS at
FROM events v;

DROP VIEW history_output;
-- The outputs that are stored in rows; the query process of a server shows all under this name.
CREATE VIEW history_output AS
SELECT c.job AS job, c.attempt AS attempt, c.offset AS offset, c.length AS bytes,
       c.stream AS stream,
       date(c.at / 1000000, 'unixepoch') || 'T' || time(c.at / 1000000, 'unixepoch')
           || printf('.%06dZ', c.at % 1000000) AS at,
       c.data AS data, CAST(c.data AS TEXT) AS text
FROM output_chunks c
WHERE c.data IS NOT NULL;
