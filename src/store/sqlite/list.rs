//! Pages of a list of jobs, newest first, and other questions about many jobs.
//!
//! A page is found in steps: each examines a few thousand candidates in the order of their numbers, so
//! that no connection is held for long, however long the history is. `view` turns a row into a job.

use futures_util::TryStreamExt;
use sqlx::SqlitePool;

use super::{
    columns::{from_json, json},
    view::{JobRow, select_jobs},
};
use crate::{
    job::{Job, JobNumber},
    store::types::{Include, JobPage, ListFilter},
};

/// A page ends early where its jobs take more than this, bytes: no response is larger.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// The most candidates that one statement examines.
const STEP_MAX: i64 = 4096;
/// A page ends early when so many candidates have been examined for it: it may be short or empty, and
/// says where to continue.
const EXAMINED_MAX: i64 = 100_000;
/// A filter that fewer jobs pass than this is selective, and the number of its jobs is counted exactly.
const SELECTIVE_MAX: i64 = STEP_MAX;

/// Where the candidates come from: the index of one filter, which lists them newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    All,
    States,
    Queue,
    Name,
    /// This label, a key and a value.
    Label(String, String),
    /// The times of submission, of which fewer than [`SELECTIVE_MAX`] match.
    Since,
}

/// A filter as the statements get it.
struct Filter<'a> {
    states: Option<String>,
    queue: Option<&'a str>,
    name: Option<&'a str>,
    since: Option<i64>,
    labels: String,
}

/// What one step has found.
struct Step {
    /// How many candidates it has examined; fewer than asked for at the end of the source.
    examined: i64,
    /// The lowest of their numbers.
    last: Option<JobNumber>,
    /// The numbers of those that match, as JSON.
    found: String,
}

/// A page of jobs, newest first.
pub(in crate::store) async fn list(
    readers: &SqlitePool,
    filter: &ListFilter,
) -> sqlx::Result<JobPage> {
    let (numbers, next) = page(readers, filter).await?;
    let (jobs, cut_at) = read(readers, &numbers).await?;
    let next = cut_at.or(next);
    Ok(JobPage { jobs, next })
}

/// The numbers of a page in descending order, and below which one the next page begins.
async fn page(
    readers: &SqlitePool,
    list: &ListFilter,
) -> sqlx::Result<(Vec<JobNumber>, Option<JobNumber>)> {
    let filter = Filter::of(list)?;
    let limit = list.limit as usize;
    let mut below = list.below.unwrap_or(JobNumber::MAX);
    let source = filter.source(readers, list, below).await?;
    let lowest = filter.lowest(readers, &source).await?;
    let mut size = match source {
        // Few, and not in the order of their numbers: all at once.
        Source::Since => i64::MAX,
        // One more job than requested tells whether there is a next page.
        _ => (i64::from(list.limit) + 1).min(STEP_MAX),
    };
    let mut numbers: Vec<JobNumber> = Vec::new();
    let mut examined = 0;
    loop {
        let step = filter.step(readers, &source, below, size).await?;
        let mut found: Vec<JobNumber> = from_json(&step.found)?;
        found.sort_unstable_by(|a, b| b.cmp(a));
        numbers.extend(found);
        if numbers.len() > limit {
            numbers.truncate(limit);
            let next = numbers.last().copied();
            return Ok((numbers, next));
        }
        let Some(last) = step
            .last
            .filter(|last| step.examined == size && *last > lowest)
        else {
            return Ok((numbers, None));
        };
        examined += step.examined;
        if examined >= EXAMINED_MAX {
            return Ok((numbers, Some(last)));
        }
        below = last;
        size = (4 * size).min(STEP_MAX);
    }
}

/// Reads the jobs with these numbers, in descending order, as many as fit on a page; and after which
/// one it was cut.
async fn read(
    readers: &SqlitePool,
    numbers: &[JobNumber],
) -> sqlx::Result<(Vec<Job>, Option<JobNumber>)> {
    let include = Include::default();
    let numbers = json(&numbers)?;
    let mut rows = select_jobs!(
        "WHERE j.number IN (SELECT value FROM json_each(?3)) ORDER BY j.number DESC",
        include,
        numbers,
    )
    .fetch(readers);
    let (mut jobs, mut bytes): (Vec<Job>, _) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        if bytes >= PAGE_BYTES_MAX {
            let last = jobs.last().map(|job| job.number);
            return Ok((jobs, last));
        }
        let job = row.into_job(include)?;
        bytes += job.text_bytes();
        jobs.push(job);
    }
    Ok((jobs, None))
}

/// Examines the next candidates of a source: `$source` selects them as `number`.
macro_rules! step {
    ($source:literal, $filter:expr, $below:expr, $size:expr $(, $arg:expr)*) => {
        sqlx::query_as!(
            Step,
            "WITH seen AS MATERIALIZED (" + $source + r#")
             SELECT count(*) AS "examined!: i64", min(c.number) AS "last: i64",
                 json_group_array(c.number) FILTER (WHERE
                     (?3 IS NULL OR c.state IN (SELECT value FROM json_each(?3)))
                     AND (?4 IS NULL OR c.queue = ?4)
                     AND (?5 IS NULL OR c.name = ?5)
                     AND (?6 IS NULL OR c.submitted_at >= ?6)
                     AND NOT EXISTS (
                         SELECT 1 FROM json_each(?7) AS w WHERE NOT EXISTS (
                             SELECT 1 FROM job_labels AS h
                             WHERE h.key = w.key AND h.value = w.value AND h.job = c.number)))
                 AS "found!: String"
             FROM seen CROSS JOIN jobs AS c ON c.number = seen.number"#,
            $below,
            $size,
            $filter.states,
            $filter.queue,
            $filter.name,
            $filter.since,
            $filter.labels
            $(, $arg)*
        )
    };
}

/// Counts the jobs that pass one filter, up to [`SELECTIVE_MAX`]: `$jobs` selects them.
macro_rules! count_some {
    ($readers:expr, $jobs:literal, $below:expr, $($arg:expr),*) => {
        sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!: i64" FROM ("# + $jobs + " AND number < ?2 LIMIT ?1)",
            SELECTIVE_MAX,
            $below,
            $($arg),*
        )
        .fetch_one($readers)
        .await?
    };
}

impl<'a> Filter<'a> {
    fn of(filter: &'a ListFilter) -> sqlx::Result<Self> {
        let states = match filter.states.as_slice() {
            [] => None,
            some => Some(json(&some)?),
        };
        Ok(Self {
            states,
            queue: filter.queue.as_deref(),
            name: filter.name.as_deref(),
            since: filter.since.map(|at| at.0),
            labels: json(&filter.labels)?,
        })
    }

    /// The source with the fewest candidates; of several with many, the first in this order.
    async fn source(
        &self,
        readers: &SqlitePool,
        filter: &ListFilter,
        below: JobNumber,
    ) -> sqlx::Result<Source> {
        let mut sources = Vec::new();
        if let Some(name) = self.name {
            let count = count_some!(
                readers,
                "SELECT 1 FROM jobs INDEXED BY jobs_name WHERE name = ?3",
                below,
                name
            );
            sources.push((count, Source::Name));
        }
        for (key, value) in &filter.labels {
            let count = count_some!(
                readers,
                "SELECT job AS number FROM job_labels WHERE key = ?3 AND value = ?4",
                below,
                key,
                value
            );
            sources.push((count, Source::Label(key.clone(), value.clone())));
        }
        if let Some(queue) = self.queue {
            let count = count_some!(
                readers,
                "SELECT 1 FROM jobs INDEXED BY jobs_queue WHERE queue = ?3",
                below,
                queue
            );
            sources.push((count, Source::Queue));
        }
        if let Some(states) = &self.states {
            let count = count_some!(
                readers,
                "SELECT 1 FROM jobs INDEXED BY jobs_state
                 WHERE state IN (SELECT value FROM json_each(?3))",
                below,
                states
            );
            sources.push((count, Source::States));
        }
        if let Some(since) = self.since {
            let count = count_some!(
                readers,
                "SELECT 1 FROM jobs INDEXED BY jobs_submitted WHERE submitted_at >= ?3",
                below,
                since
            );
            if count < SELECTIVE_MAX {
                sources.push((count, Source::Since));
            }
        }
        let fewest = sources.into_iter().min_by_key(|(count, _)| *count);
        Ok(fewest.map_or(Source::All, |(_, source)| source))
    }

    /// The lowest number that can match.
    async fn lowest(&self, readers: &SqlitePool, source: &Source) -> sqlx::Result<JobNumber> {
        let Some(since) = self.since.filter(|_| *source != Source::Since) else {
            return Ok(0);
        };
        let lowest = sqlx::query_scalar!(
            r#"SELECT min(number) AS "number: i64" FROM jobs INDEXED BY jobs_submitted
               WHERE submitted_at >= ?1"#,
            since
        );
        Ok(lowest.fetch_one(readers).await?.unwrap_or(JobNumber::MAX))
    }

    /// Examines up to `size` candidates with numbers below `below`.
    async fn step(
        &self,
        readers: &SqlitePool,
        source: &Source,
        below: JobNumber,
        size: i64,
    ) -> sqlx::Result<Step> {
        match source {
            Source::All => {
                step!(
                    "SELECT number FROM jobs WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
                    self,
                    below,
                    size
                )
                .fetch_one(readers)
                .await
            }
            // Each state's newest jobs come from its part of the index.
            Source::States => {
                step!(
                    "SELECT n.number FROM json_each(?3) AS s, jobs AS n WHERE n.number IN (
                         SELECT i.number FROM jobs AS i INDEXED BY jobs_state
                         WHERE i.state = s.value AND i.number < ?1
                         ORDER BY i.number DESC LIMIT ?2)
                     ORDER BY n.number DESC LIMIT ?2",
                    self,
                    below,
                    size
                )
                .fetch_one(readers)
                .await
            }
            Source::Queue => {
                step!(
                    "SELECT number FROM jobs INDEXED BY jobs_queue
                     WHERE queue = ?4 AND number < ?1 ORDER BY number DESC LIMIT ?2",
                    self,
                    below,
                    size
                )
                .fetch_one(readers)
                .await
            }
            Source::Name => {
                step!(
                    "SELECT number FROM jobs INDEXED BY jobs_name
                     WHERE name = ?5 AND number < ?1 ORDER BY number DESC LIMIT ?2",
                    self,
                    below,
                    size
                )
                .fetch_one(readers)
                .await
            }
            Source::Label(key, value) => {
                step!(
                    "SELECT job AS number FROM job_labels
                     WHERE key = ?8 AND value = ?9 AND job < ?1 ORDER BY job DESC LIMIT ?2",
                    self,
                    below,
                    size,
                    key,
                    value
                )
                .fetch_one(readers)
                .await
            }
            Source::Since => {
                step!(
                    "SELECT number FROM jobs INDEXED BY jobs_submitted
                     WHERE submitted_at >= ?6 AND number < ?1 LIMIT ?2",
                    self,
                    below,
                    size
                )
                .fetch_one(readers)
                .await
            }
        }
    }
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
