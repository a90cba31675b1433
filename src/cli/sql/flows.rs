//! The query by which `flow` finds flows that still run: their jobs have labels, and no list of jobs is grouped by
//! them.

/// Flows that still run, each with the number of its first job that does. The parameter is the label of a
/// flow's id.
pub const RUNNING_FLOWS: &str = "SELECT labels ->> ?1, min(number) FROM history_jobs
    WHERE state IN ('scheduled', 'blocked', 'queued', 'running', 'paused')
      AND labels ->> ?1 IS NOT NULL
    GROUP BY 1 ORDER BY 2 DESC";
