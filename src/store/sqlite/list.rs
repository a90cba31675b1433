//! Many jobs at once: pages of a list, and which of some are final.
//!
//! `view` turns a row into a job.

use futures_util::TryStreamExt;
use sqlx::SqlitePool;

use super::{
    columns::json,
    view::{JobRow, select_jobs},
};
use crate::{
    job::{Job, JobNumber, JobState},
    store::types::{Include, JobPage, ListFilter},
};

/// A page ends early where its jobs take more than this, bytes: no response is larger.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// A page of jobs, newest first. Each state's newest jobs are found through its index, so a few
/// queued jobs are found quickly among a million final ones.
pub(in crate::store) async fn list(
    readers: &SqlitePool,
    filter: &ListFilter,
) -> sqlx::Result<JobPage> {
    let states = match filter.states.as_slice() {
        [] => json(&JobState::ALL)?,
        some => json(&some)?,
    };
    let labels = json(&filter.labels)?;
    let below = filter.below.unwrap_or(JobNumber::MAX);
    let since = filter.since.map(|at| at.0);
    // One more row than requested tells whether there is a next page.
    let wanted = i64::from(filter.limit) + 1;
    let include = Include::default();
    let mut rows = select_jobs!(
        "WHERE j.number IN (
             SELECT n.number FROM json_each(?3) AS s, jobs AS n WHERE n.number IN (
                 SELECT c.number FROM jobs AS c
                 WHERE c.state = s.value AND c.number < ?4
                   AND (?5 IS NULL OR c.queue = ?5)
                   AND (?6 IS NULL OR c.name = ?6)
                   AND (?7 IS NULL OR c.submitted_at >= ?7)
                   AND NOT EXISTS (
                       SELECT 1 FROM json_each(?8) AS w WHERE NOT EXISTS (
                           SELECT 1 FROM json_each(c.labels) AS h
                           WHERE h.key = w.key AND h.value = w.value))
                 ORDER BY c.number DESC LIMIT ?9))
         ORDER BY j.number DESC LIMIT ?9",
        include,
        states,
        below,
        filter.queue,
        filter.name,
        since,
        labels,
        wanted,
    )
    .fetch(readers);
    let (mut jobs, mut bytes, mut more): (Vec<Job>, _, _) = (Vec::new(), 0, false);
    while let Some(row) = rows.try_next().await? {
        more = jobs.len() >= filter.limit as usize || bytes >= PAGE_BYTES_MAX;
        if more {
            break;
        }
        let job = row.into_job(include)?;
        bytes += job.text_bytes();
        jobs.push(job);
    }
    let next = jobs.last().filter(|_| more).map(|job| job.number);
    Ok(JobPage { jobs, next })
}

/// Those of these jobs that are final.
pub(in crate::store) async fn final_among(
    readers: &SqlitePool,
    numbers: &[JobNumber],
) -> sqlx::Result<Vec<JobNumber>> {
    let numbers = json(&numbers)?;
    sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs
           WHERE number IN (SELECT value FROM json_each(?1)) AND finished_at IS NOT NULL"#,
        numbers
    )
    .fetch_all(readers)
    .await
}
