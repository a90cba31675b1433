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
    job::{Job, JobNumber, Micros},
    store::types::{Include, JobPage, ListFilter},
};

/// A page ends early where its jobs take more than this, bytes: no response is larger.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// The most candidates that one statement examines.
const STEP_MAX: i64 = 4096;
/// A page ends early when so many candidates have been examined for it: it may be short or empty, and
/// says where to continue.
const EXAMINED_MAX: i64 = 100_000;
/// So many candidates of each filter are examined to find the most selective one.
const PROBE: i64 = 256;
/// Up to so many jobs since a time are all examined at once; they are not in the order of their numbers.
const SINCE_MAX: i64 = STEP_MAX;

/// Where the candidates come from: the index of one filter, which lists them newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CandidateSource {
    All,
    States,
    Queue,
    Name,
    /// The jobs that a token has submitted.
    Token,
    /// This label, a key and a value.
    Label(String, String),
    /// The times of submission, of which up to [`SINCE_MAX`] match.
    Since,
}

/// What only a selection for retention asks for, beside a list's filter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removable {
    /// Only jobs that ended before this moment.
    pub ended_before: Option<Micros>,
    /// Only jobs whose output is stored, at least in part.
    pub with_output: bool,
}

/// A filter as the statements get it.
struct Filter<'a> {
    states: Option<String>,
    queue: Option<&'a str>,
    name: Option<&'a str>,
    since: Option<i64>,
    labels: String,
    ended_before: Option<i64>,
    with_output: bool,
    /// What a token reaches.
    token: Option<i64>,
    queues: Option<String>,
    required_labels: String,
}

/// What one step has found.
struct Step {
    /// How many candidates it should examine.
    size: i64,
    /// How many it has examined; fewer at the end of the source.
    examined: i64,
    /// The lowest of their numbers.
    last: Option<JobNumber>,
    /// The numbers of those that match, as JSON.
    found: String,
}

impl Step {
    /// The lowest number that it has examined; the lowest of all if it has come to the end.
    fn reach(&self) -> JobNumber {
        let last = self.last.filter(|_| self.examined == self.size);
        last.unwrap_or(JobNumber::MIN)
    }
}

/// A page of jobs, newest first.
pub(in crate::store) async fn list(
    readers: &SqlitePool,
    filter: &ListFilter,
) -> sqlx::Result<JobPage> {
    let (numbers, next) = page(readers, filter, Removable::default()).await?;
    let (jobs, cut_at) = read(readers, &numbers).await?;
    let next = cut_at.or(next);
    Ok(JobPage { jobs, next })
}

/// The numbers of a page in descending order, and below which one the next page begins.
pub(super) async fn page(
    readers: &SqlitePool,
    list: &ListFilter,
    removable: Removable,
) -> sqlx::Result<(Vec<JobNumber>, Option<JobNumber>)> {
    let filter = Filter::of(list, removable)?;
    let limit = list.limit as usize;
    let below = list.below.unwrap_or(JobNumber::MAX);
    let (source, mut step) = filter.first_step(readers, list, below).await?;
    let mut numbers: Vec<JobNumber> = Vec::new();
    let mut examined = 0;
    let mut lowest = None;
    loop {
        let mut found: Vec<JobNumber> = from_json(&step.found)?;
        found.sort_unstable_by(|a, b| b.cmp(a));
        numbers.extend(found);
        // One more job than requested tells whether there is a next page.
        if numbers.len() > limit {
            numbers.truncate(limit);
            let next = numbers.last().copied();
            return Ok((numbers, next));
        }
        let Some(last) = step.last.filter(|_| step.examined == step.size) else {
            return Ok((numbers, None));
        };
        let lowest = match lowest {
            Some(known) => known,
            None => *lowest.insert(filter.lowest(readers).await?),
        };
        if last <= lowest {
            return Ok((numbers, None));
        }
        examined += step.examined;
        if examined >= EXAMINED_MAX {
            return Ok((numbers, Some(last)));
        }
        let size = (4 * step.size).min(STEP_MAX);
        step = filter.step(readers, &source, last, size).await?;
    }
}

/// The jobs with these numbers, as many as fit on a page.
pub(in crate::store) async fn jobs(
    readers: &SqlitePool,
    numbers: &[JobNumber],
) -> sqlx::Result<Vec<Job>> {
    Ok(read(readers, numbers).await?.0)
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
    ($source:literal, $readers:expr, $filter:expr, $below:expr, $size:expr $(, $arg:expr)*) => {
        sqlx::query_as!(
            Step,
            "WITH seen AS MATERIALIZED (" + $source + r#")
             SELECT ?2 AS "size!: i64", count(*) AS "examined!: i64", min(c.number) AS "last: i64",
                 json_group_array(c.number) FILTER (WHERE
                     (?3 IS NULL OR c.state IN (SELECT value FROM json_each(?3)))
                     AND (?4 IS NULL OR c.queue = ?4)
                     AND (?5 IS NULL OR c.name = ?5)
                     AND (?6 IS NULL OR c.submitted_at >= ?6)
                     AND (?8 IS NULL OR c.finished_at < ?8)
                     AND (NOT ?9 OR c.output_bytes > c.dropped_bytes + c.pruned_bytes)
                     AND (?10 IS NULL OR c.token = ?10)
                     AND (?11 IS NULL OR c.queue IN (SELECT value FROM json_each(?11)))
                     AND NOT EXISTS (
                         SELECT 1 FROM json_each(?12) AS r WHERE NOT EXISTS (
                             SELECT 1 FROM job_labels AS o
                             WHERE o.key = r.value ->> 0 AND o.value = r.value ->> 1
                                 AND o.job = c.number))
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
            $filter.labels,
            $filter.ended_before,
            $filter.with_output,
            $filter.token,
            $filter.queues,
            $filter.required_labels
            $(, $arg)*
        )
        .fetch_one($readers)
        .await
    };
}

impl<'a> Filter<'a> {
    fn of(filter: &'a ListFilter, removable: Removable) -> sqlx::Result<Self> {
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
            ended_before: removable.ended_before.map(|at| at.0),
            with_output: removable.with_output,
            token: filter.reach.own,
            queues: filter.reach.queues.as_ref().map(json).transpose()?,
            required_labels: json(&filter.reach.labels)?,
        })
    }

    /// The first step over the most selective source: the one whose newest candidates reach back
    /// furthest.
    async fn first_step(
        &self,
        readers: &SqlitePool,
        list: &ListFilter,
        below: JobNumber,
    ) -> sqlx::Result<(CandidateSource, Step)> {
        let mut sources = self.sources(list);
        if self.are_few_since(readers).await? {
            sources = vec![CandidateSource::Since];
        }
        if let [source] = &sources[..] {
            let size = match source {
                CandidateSource::Since => i64::MAX,
                _ => (i64::from(list.limit) + 1).min(STEP_MAX),
            };
            let step = self.step(readers, source, below, size).await?;
            return Ok((source.clone(), step));
        }
        let mut best: Option<(CandidateSource, Step)> = None;
        for source in sources {
            let step = self.step(readers, &source, below, PROBE).await?;
            if best
                .as_ref()
                .is_none_or(|(_, best)| step.reach() < best.reach())
            {
                best = Some((source, step));
            }
        }
        best.ok_or(sqlx::Error::RowNotFound)
    }

    /// The sources of all filters; never none.
    fn sources(&self, list: &ListFilter) -> Vec<CandidateSource> {
        let labels = list.labels.iter();
        let labels = labels.map(|(key, value)| CandidateSource::Label(key.clone(), value.clone()));
        let reached = list.reach.labels.iter();
        let reached =
            reached.map(|(key, value)| CandidateSource::Label(key.clone(), value.clone()));
        let name = self.name.map(|_| CandidateSource::Name);
        let queue = self.queue.map(|_| CandidateSource::Queue);
        let states = self.states.as_ref().map(|_| CandidateSource::States);
        let token = self.token.map(|_| CandidateSource::Token);
        let mut sources: Vec<_> = name
            .into_iter()
            .chain(labels)
            .chain(reached)
            .chain(queue)
            .chain(states)
            .chain(token)
            .collect();
        if sources.is_empty() {
            sources.push(CandidateSource::All);
        }
        sources
    }

    async fn are_few_since(&self, readers: &SqlitePool) -> sqlx::Result<bool> {
        let Some(since) = self.since else {
            return Ok(false);
        };
        let limit = SINCE_MAX + 1;
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!: i64" FROM (
                   SELECT 1 FROM jobs INDEXED BY jobs_submitted WHERE submitted_at >= ?1 LIMIT ?2)"#,
            since,
            limit
        );
        Ok(count.fetch_one(readers).await? <= SINCE_MAX)
    }

    /// The lowest number that can match.
    async fn lowest(&self, readers: &SqlitePool) -> sqlx::Result<JobNumber> {
        let Some(since) = self.since else {
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
        source: &CandidateSource,
        below: JobNumber,
        size: i64,
    ) -> sqlx::Result<Step> {
        let filter = self;
        macro_rules! candidates {
            ($source:literal $(, $arg:expr)*) => {
                step!($source, readers, filter, below, size $(, $arg)*)
            };
        }
        match source {
            CandidateSource::All => {
                candidates!(
                    "SELECT number FROM jobs WHERE number < ?1 ORDER BY number DESC LIMIT ?2"
                )
            }
            // Each state's newest jobs come from its part of the index.
            CandidateSource::States => {
                candidates!(
                    "SELECT n.number FROM json_each(?3) AS s, jobs AS n WHERE n.number IN (
                         SELECT i.number FROM jobs AS i INDEXED BY jobs_state
                         WHERE i.state = s.value AND i.number < ?1
                         ORDER BY i.number DESC LIMIT ?2)
                     ORDER BY n.number DESC LIMIT ?2"
                )
            }
            CandidateSource::Queue => {
                candidates!(
                    "SELECT number FROM jobs INDEXED BY jobs_queue
                     WHERE queue = ?4 AND number < ?1 ORDER BY number DESC LIMIT ?2"
                )
            }
            CandidateSource::Name => {
                candidates!(
                    "SELECT number FROM jobs INDEXED BY jobs_name
                     WHERE name = ?5 AND number < ?1 ORDER BY number DESC LIMIT ?2"
                )
            }
            CandidateSource::Token => {
                candidates!(
                    "SELECT number FROM jobs INDEXED BY jobs_token
                     WHERE token = ?10 AND token IS NOT NULL AND number < ?1
                     ORDER BY number DESC LIMIT ?2"
                )
            }
            CandidateSource::Label(key, value) => {
                candidates!(
                    "SELECT job AS number FROM job_labels
                     WHERE key = ?13 AND value = ?14 AND job < ?1 ORDER BY job DESC LIMIT ?2",
                    key,
                    value
                )
            }
            CandidateSource::Since => {
                candidates!(
                    "SELECT number FROM jobs INDEXED BY jobs_submitted
                     WHERE submitted_at >= ?6 AND number < ?1 LIMIT ?2"
                )
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
