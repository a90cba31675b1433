//! Finds the jobs that may be removed, page by page: the newest first, or those first that ended
//! first. As with lists, no statement examines more than a few thousand jobs.

use sqlx::SqlitePool;

use crate::{
    access::Reach,
    job::{JobNumber, Micros, RetentionCandidate, RetentionScope},
    store::{
        retention_types::{EndedCursor, RemovableFilter, RemovablePage},
        sqlite::{
            columns::{from_json, json},
            list::{self, Removable},
        },
        types::ListFilter,
    },
};

/// The most jobs of a page.
const PAGE_MAX: u32 = 1000;
/// The most jobs that one statement examines in the order of their ends.
const EXAMINED_MAX: i64 = 4096;

/// A page of jobs with numbers below `below`, the newest first.
pub(in crate::store) async fn newest_first(
    readers: &SqlitePool,
    filter: &RemovableFilter,
    below: Option<JobNumber>,
) -> sqlx::Result<RemovablePage<JobNumber>> {
    let list = ListFilter {
        states: filter.states.clone(),
        queue: filter.queue.clone(),
        labels: filter.labels.clone(),
        name: filter.name.clone(),
        since: filter.since,
        limit: PAGE_MAX,
        below,
        reach: Reach::default(),
    };
    let removable = Removable {
        ended_before: filter.ended_before,
        with_output: filter.scope == RetentionScope::Outputs,
    };
    let (numbers, next) = list::page(readers, &list, removable).await?;
    let jobs = candidates(readers, &numbers).await?;
    Ok(RemovablePage {
        jobs,
        reached: next,
        is_last: next.is_none(),
    })
}

/// What one look at jobs in the order of their ends has found.
struct EndedStep {
    examined: i64,
    last_ended: Option<String>,
    last_number: Option<JobNumber>,
    /// The numbers of those that match, as JSON.
    found: String,
}

/// A page of jobs that ended after `after` and before `filter.ended_before`, those first that ended
/// first.
pub(in crate::store) async fn oldest_first(
    readers: &SqlitePool,
    filter: &RemovableFilter,
    after: &EndedCursor,
) -> sqlx::Result<RemovablePage<EndedCursor>> {
    let step = ended_step(readers, filter, after).await?;
    let numbers: Vec<JobNumber> = from_json(&step.found)?;
    let jobs = candidates(readers, &numbers).await?;
    let reached = step.last_ended.zip(step.last_number);
    Ok(RemovablePage {
        jobs,
        reached: reached.map(|(ended, number)| EndedCursor { ended, number }),
        is_last: step.examined < EXAMINED_MAX,
    })
}

/// The moments are compared as the index has them, as text. Nothing ended before 1970.
async fn ended_step(
    readers: &SqlitePool,
    filter: &RemovableFilter,
    after: &EndedCursor,
) -> sqlx::Result<EndedStep> {
    let before = filter.ended_before.map_or(i64::MAX / 2, |at| at.0.max(0));
    let states = json(&filter.states)?;
    let since = filter.since.map(|at| at.0);
    let labels = json(&filter.labels)?;
    let with_output = filter.scope == RetentionScope::Outputs;
    sqlx::query_as!(
        EndedStep,
        r#"WITH seen AS MATERIALIZED (
               SELECT e.number, e.ended FROM (
                   SELECT number,
                       date(finished_at / 1000000, 'unixepoch') || 'T'
                           || time(finished_at / 1000000, 'unixepoch')
                           || printf('.%06dZ', finished_at % 1000000) AS ended
                   FROM jobs INDEXED BY jobs_finished) AS e
               WHERE e.ended >= ?1 AND (e.ended > ?1 OR e.number > ?2)
                 AND e.ended < coalesce(date(?3 / 1000000, 'unixepoch') || 'T'
                     || time(?3 / 1000000, 'unixepoch') || printf('.%06dZ', ?3 % 1000000), 'Z')
               ORDER BY e.ended, e.number LIMIT ?4)
           SELECT count(*) AS "examined!: i64", max(seen.ended) AS "last_ended: String",
               (SELECT t.number FROM seen AS t ORDER BY t.ended DESC, t.number DESC LIMIT 1)
                   AS "last_number: i64",
               json_group_array(f.number) FILTER (WHERE
                   f.state IN (SELECT value FROM json_each(?5))
                   AND (?6 IS NULL OR f.queue = ?6)
                   AND (?7 IS NULL OR f.name = ?7)
                   AND (?8 IS NULL OR f.submitted_at >= ?8)
                   AND (NOT ?9 OR f.output_bytes > f.dropped_bytes + f.pruned_bytes)
                   AND NOT EXISTS (
                       SELECT 1 FROM json_each(?10) AS w WHERE NOT EXISTS (
                           SELECT 1 FROM job_labels AS h
                           WHERE h.key = w.key AND h.value = w.value AND h.job = f.number)))
               AS "found!: String"
           FROM seen CROSS JOIN jobs AS f ON f.number = seen.number"#,
        after.ended,
        after.number,
        before,
        EXAMINED_MAX,
        states,
        filter.queue,
        filter.name,
        since,
        with_output,
        labels
    )
    .fetch_one(readers)
    .await
}

/// What has to be known of final jobs with these numbers, in this order.
async fn candidates(
    readers: &SqlitePool,
    numbers: &[JobNumber],
) -> sqlx::Result<Vec<RetentionCandidate>> {
    let numbers = json(&numbers)?;
    let rows = sqlx::query!(
        r#"SELECT f.number AS "number!: i64", f.finished_at AS "finished_at!: i64",
               max(f.output_bytes - f.dropped_bytes - f.pruned_bytes, 0) AS "stored_bytes!: i64"
           FROM json_each(?1) AS w CROSS JOIN jobs AS f ON f.number = w.value
           WHERE f.finished_at IS NOT NULL ORDER BY w.key"#,
        numbers
    )
    .fetch_all(readers)
    .await?;
    let rows = rows.into_iter().map(|row| RetentionCandidate {
        number: row.number,
        finished_at: Micros(row.finished_at),
        stored_bytes: row.stored_bytes as u64,
    });
    Ok(rows.collect())
}
