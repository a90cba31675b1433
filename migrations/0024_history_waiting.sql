-- What a job waits for, what it expects and which schedule submitted it, as more columns of the view; the
-- others are as before.
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
       j.spec ->> '$.output.max_lines' AS output_lines_max,
       coalesce(j.spec -> '$.after', '[]') AS "after", j.spec ->> '$.run_at' AS run_at,
       j.spec ->> '$.delay_s' AS delay_s, j.exclusive AS exclusive,
       nullif(j.spec -> '$.retry', 'null') AS retry, coalesce(j.spec -> '$.expect', '[]') AS expect,
       CASE WHEN j.state = 'scheduled' THEN date(j.ready_at / 1000000, 'unixepoch') || 'T' || time(j.ready_at / 1000000, 'unixepoch')
           || printf('.%06dZ', j.ready_at % 1000000)
       END AS waits_until,
       j.failed_dependency AS failed_dependency,
       coalesce(j.unmet_expectations, '[]') AS unmet_expectations,
       CASE WHEN j.schedule IS NOT NULL THEN json_object('name', j.schedule, 'at',
           date(j.schedule_at / 1000000, 'unixepoch') || 'T' || time(j.schedule_at / 1000000, 'unixepoch')
           || printf('.%06dZ', j.schedule_at % 1000000)) END AS schedule
FROM jobs j;
