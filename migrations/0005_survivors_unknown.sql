-- Why nobody can say what is left of a lost attempt; NULL where somebody could look.
ALTER TABLE jobs ADD COLUMN survivors_unknown TEXT;

-- The same view with that column.
DROP VIEW history_jobs;
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
       j.max_rss_bytes AS max_rss_bytes, j.survivors_unknown AS survivors_unknown
FROM jobs j LEFT JOIN environments e ON e.hash = j.environment;
