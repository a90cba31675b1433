//! Searches the outputs of one job or of many for lines with a match, newest jobs first, in turns with
//! other sessions' work and within a bound of time and one of bytes. `output::line_search` finds the
//! lines.

mod options;
mod run;

use tokio::sync::OwnedSemaphorePermit;

pub use self::options::{
    SearchBound, SearchCursor, SearchHit, SearchOptions, SearchResult, SearchScope, SearchSettings,
};
use self::run::{SearchRun, SearchedJob};
use super::{
    Error, Executor, LinePosition, ListFilter, SessionTurns, admission::Admission, turns::acquire,
};
use crate::{
    access::Principal,
    job::{Job, JobNumber, JobRef, Offset},
    output::{ReadError, tail},
    store::Include,
};

/// Jobs that are read from the database at once.
const PAGE_JOBS: u32 = 200;

/// Most jobs of one search whose output cannot be read. Beyond it, it fails.
const UNREADABLE_MAX: usize = 100;

/// Bounds the searches that wait and run.
#[derive(Debug)]
pub(super) struct Searches {
    settings: SearchSettings,
    admission: Admission,
}

impl Searches {
    pub(super) fn new(settings: SearchSettings) -> Self {
        let SearchSettings {
            searches_max,
            waiting_max,
            ..
        } = settings;
        let limit = "searches_waiting_max";
        Self {
            settings,
            admission: Admission::new("searches", limit, searches_max, waiting_max),
        }
    }
}

/// The right of a session to search. Keep it until the result has been taken: it bounds the results
/// that wait in memory.
#[derive(Debug)]
pub struct SearchTurn {
    turns: SessionTurns,
    _own: OwnedSemaphorePermit,
}

impl Executor {
    /// Waits for a turn to search: a session has one at a time.
    ///
    /// # Errors
    ///
    /// The server is stopping.
    pub async fn turn_to_search(&self, turns: &SessionTurns) -> Result<SearchTurn, Error> {
        Ok(SearchTurn {
            turns: turns.clone(),
            _own: acquire(&turns.searching).await?,
        })
    }

    /// Searches outputs. Those of jobs that run are searched up to their present end. It can be dropped
    /// at any time, and then ends within a fraction of a second.
    ///
    /// # Errors
    ///
    /// `NotFound` for one job that does not exist; `Invalid` where the search begins beyond its output,
    /// or the cursor is another job's; `Limit` if too many searches wait. A job of many that is deleted
    /// meanwhile is no error.
    pub async fn search(
        &self,
        turn: &SearchTurn,
        mut options: SearchOptions,
        principal: &Principal,
    ) -> Result<SearchResult, Error> {
        match &mut options.scope {
            SearchScope::Job { job, .. } => self.check_reach(principal, *job).await?,
            SearchScope::Jobs(filter) => filter.reach = principal.grant.reach.clone(),
        }
        if let Some(cursor) = options.cursor {
            // A cursor is the client's word, and names a job.
            self.check_reach(principal, cursor.number.into()).await?;
        }
        let Searches {
            settings,
            admission,
        } = &self.inner.searches;
        let _admitted = admission.enter().await?;
        let (scope, cursor) = (options.scope.clone(), options.cursor);
        let run = SearchRun::new(options, settings);
        let run = match scope {
            SearchScope::Job { job, from } => {
                self.search_one(&turn.turns, run, job, from, cursor).await?
            }
            SearchScope::Jobs(filter) => self.search_many(&turn.turns, run, filter, cursor).await?,
        };
        Ok(run.result())
    }

    async fn search_one(
        &self,
        turns: &SessionTurns,
        run: SearchRun,
        job: JobRef,
        from: Offset,
        cursor: Option<SearchCursor>,
    ) -> Result<SearchRun, Error> {
        let number = self.number(job).await?;
        let job = self.snapshot(number).await?;
        let position = match cursor {
            Some(cursor) if cursor.number != number => {
                return Err(wrong_cursor(cursor.number));
            }
            Some(cursor) => cursor.position,
            None => LinePosition::begin(from),
        };
        if position.from > job.output_bytes {
            return Err(Error::beyond_end(job.output_bytes));
        }
        let mut run = self
            .search_output(turns, run, &SearchedJob::of(&job), position)
            .await?;
        match run.unread() {
            None => Ok(run),
            Some(_) if !self.is_there(number).await? => {
                Err(Error::no_such_job(JobRef::Number(number)))
            }
            Some(error) => Err(error.into()),
        }
    }

    async fn search_many(
        &self,
        turns: &SessionTurns,
        mut run: SearchRun,
        filter: ListFilter,
        cursor: Option<SearchCursor>,
    ) -> Result<SearchRun, Error> {
        let mut below = None;
        if let Some(cursor) = cursor {
            below = Some(cursor.number);
            run = self
                .search_present(turns, run, cursor.number, cursor.position)
                .await?;
        }
        loop {
            let page = ListFilter {
                limit: PAGE_JOBS,
                below,
                ..filter.clone()
            };
            let page = self.inner.store.list(page).await?;
            for job in page.jobs {
                if run.is_over() {
                    return Ok(run);
                }
                let begin = LinePosition::begin(0);
                run = match job.state.is_active() {
                    true => self.search_present(turns, run, job.number, begin).await?,
                    false if job.output_bytes == 0 => run.pass_over(&job),
                    false => self.search_among(turns, run, &job, begin).await?,
                };
            }
            match page.next {
                Some(next) => below = Some(next),
                None => return Ok(run),
            }
        }
    }

    /// Searches a job of many up to its present end.
    async fn search_present(
        &self,
        turns: &SessionTurns,
        run: SearchRun,
        number: JobNumber,
        position: LinePosition,
    ) -> Result<SearchRun, Error> {
        let snapshot = tail::snapshot(&self.inner.store, &self.inner.log, number);
        match snapshot.await {
            Ok(None) => Ok(run),
            Ok(Some(job)) => self.search_among(turns, run, &job, position).await,
            Err(ReadError::Store(error)) => Err(error.into()),
            Err(error) => self.note_unread(run, number, error).await,
        }
    }

    /// Searches a job of many: if it is deleted meanwhile, or cannot be read, the others are searched
    /// all the same.
    async fn search_among(
        &self,
        turns: &SessionTurns,
        run: SearchRun,
        job: &Job,
        position: LinePosition,
    ) -> Result<SearchRun, Error> {
        let searched = SearchedJob::of(job);
        let mut run = self.search_output(turns, run, &searched, position).await?;
        match run.unread() {
            None => Ok(run),
            Some(error) => self.note_unread(run, job.number, error).await,
        }
    }

    async fn note_unread(
        &self,
        mut run: SearchRun,
        number: JobNumber,
        error: ReadError,
    ) -> Result<SearchRun, Error> {
        if !self.is_there(number).await? {
            return Ok(run);
        }
        run.unreadable.push(number);
        if run.unreadable.len() > UNREADABLE_MAX {
            return Err(error.into());
        }
        tracing::warn!(job = number, %error, "a search could not read an output");
        Ok(run)
    }

    /// Whether the job was not deleted meanwhile.
    async fn is_there(&self, number: JobNumber) -> Result<bool, Error> {
        let row = JobRef::Number(number);
        let row = self.inner.store.job(row, Include::default()).await?;
        Ok(row.is_some())
    }
}

fn wrong_cursor(number: JobNumber) -> Error {
    Error::Invalid {
        message: format!(
            "the cursor is of a search in job {number}; repeat the search that it came from"
        ),
        output_bytes: None,
    }
}
