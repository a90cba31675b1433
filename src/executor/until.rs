//! The conditions of a wait, and when one job has met its condition or never will. `wait` combines
//! several jobs.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Error, Executor, SessionTurns};
use crate::{
    job::{Job, JobNumber, JobRef, JobState, Micros, Offset, Stream},
    output::{
        Cursor, Pattern, ReadError, Search, Watch,
        hub::HubClosed,
        search::{Progress, TURN_VISITS},
    },
    store::Include,
};

/// How much of an output one search reads and holds at once, bytes.
pub(super) const READ_BYTES: usize = 64 << 10;

/// The condition of a wait.
#[derive(Debug, Clone, PartialEq)]
pub enum Until {
    /// The job is final.
    Final,
    /// A process of it has started.
    Running,
    /// Its output matches.
    Match {
        /// The pattern to search for.
        pattern: Pattern,
        /// Search only this stream; `None`: the whole output as one sequence.
        stream: Option<Stream>,
        /// The offset at which the search begins.
        from: Offset,
    },
    /// It runs and has written nothing for this time. The time begins with the last byte, the last
    /// input, the start or the last resume, whichever came last, also if that was before the wait.
    Quiet(Duration),
    /// Its output has at least this many bytes.
    Bytes(u64),
}

/// Whether a job has met the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitState {
    /// It has; for a match, with the offset at which that ends.
    Met(Option<Offset>),
    /// Not yet.
    Open,
    /// It never will.
    Impossible,
}

/// What a wait must know about a job. The rest of the job, which may be long, is read for the
/// answer: a wait can hold a thousand jobs for days.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitedFacts {
    pub number: JobNumber,
    pub state: JobState,
    pub started_at: Option<Micros>,
    pub output_bytes: Offset,
}

impl WaitedFacts {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            number: job.number,
            state: job.state,
            started_at: job.started_at,
            output_bytes: job.output_bytes,
        }
    }
}

/// One of the jobs that are waited for.
#[derive(Debug)]
pub(super) struct WaitedJob {
    /// As it was last read.
    pub job: WaitedFacts,
    /// Woken when there is more to see.
    pub watch: Watch,
    /// Makes the jobs of a wait be read one after the other: a thousand that end together do not
    /// fill the queue of the database's readers.
    pub turn: Arc<Semaphore>,
    /// The turns of the session that waits.
    pub turns: SessionTurns,
}

/// Held until a job was looked at for the first time.
pub(super) type FirstLook = Option<TaskTrackerToken>;

impl Until {
    /// The state as far as the job's row alone tells.
    pub(super) fn state(&self, job: &WaitedFacts) -> WaitState {
        let is_final = job.state.is_final();
        match self {
            Self::Final if is_final => WaitState::Met(None),
            Self::Running if job.started_at.is_some() => WaitState::Met(None),
            Self::Bytes(bytes) if job.output_bytes >= *bytes => WaitState::Met(None),
            Self::Running | Self::Bytes(_) | Self::Quiet(_) if is_final => WaitState::Impossible,
            _ => WaitState::Open,
        }
    }
}

impl Executor {
    /// Waits until a job has met the condition, or never will. A deleted job was final before: what
    /// its end decided stays decided, but a condition on its output can no longer be met.
    pub(super) async fn wait_for_one(
        &self,
        one: &mut WaitedJob,
        until: &Until,
        look: FirstLook,
    ) -> Result<WaitState, Error> {
        match until {
            Until::Final | Until::Running => self.until_changed(one, until, look).await,
            Until::Bytes(bytes) => self.until_grown(one, until, *bytes, look).await,
            Until::Quiet(length) => self.until_quiet(one, until, *length, look).await,
            Until::Match {
                pattern,
                stream,
                from,
            } => {
                let search = Search::new(pattern.clone(), *stream, *from);
                self.until_found(one, search, *from, look).await
            }
        }
    }

    async fn until_changed(
        &self,
        one: &mut WaitedJob,
        until: &Until,
        look: FirstLook,
    ) -> Result<WaitState, Error> {
        drop(look);
        loop {
            one.watch.changed().await.map_err(stopping)?;
            let has_changed = one.watch.look();
            // A wait for the end does not read the row at other changes: there may be a thousand
            // jobs. An end that comes after the look above changes the row once more.
            let may_matter = *until != Until::Final || one.watch.has_ended();
            if has_changed && may_matter {
                self.look_again(one).await?;
                match until.state(&one.job) {
                    WaitState::Open => {}
                    state => return Ok(state),
                }
            }
        }
    }

    async fn until_grown(
        &self,
        one: &mut WaitedJob,
        until: &Until,
        bytes: u64,
        mut look: FirstLook,
    ) -> Result<WaitState, Error> {
        let mut looks = true;
        loop {
            if one.watch.look() || looks {
                let _slot = self.read_slot().await?;
                match self.snapshot(one.job.number).await {
                    Err(Error::NotFound(_)) => return Ok(WaitState::Impossible),
                    job => one.job = WaitedFacts::of(&job?),
                }
                match until.state(&one.job) {
                    WaitState::Open => {}
                    state => return Ok(state),
                }
            }
            // Bytes that are dropped as they come are in no segment: only the shim reports them
            // before the end.
            if one.watch.grown_to() >= bytes {
                return Ok(WaitState::Met(None));
            }
            looks = false;
            drop(look.take());
            let last = bytes.saturating_sub(1);
            one.watch.woken(last).await.map_err(stopping)?;
        }
    }

    async fn until_found(
        &self,
        one: &mut WaitedJob,
        search: Search,
        from: Offset,
        look: FirstLook,
    ) -> Result<WaitState, Error> {
        match self.search_through(one, search, from, look).await {
            // The job was deleted, and its output with it.
            Err(_) if !self.look_again(one).await? => Ok(WaitState::Impossible),
            found => found,
        }
    }

    async fn search_through(
        &self,
        one: &mut WaitedJob,
        mut search: Search,
        from: Offset,
        mut look: FirstLook,
    ) -> Result<WaitState, Error> {
        let number = one.job.number;
        let mut cursor = Cursor::new(from);
        let mut missing = false;
        loop {
            if one.watch.look() {
                if !self.look_again(one).await? {
                    return Ok(WaitState::Impossible);
                }
                cursor.look_again();
            }
            let before = cursor.offset;
            let (found, at_end);
            (search, found, at_end) = self
                .search_on(&one.turns, number, &mut cursor, search)
                .await?;
            if found.is_some() {
                return Ok(WaitState::Met(found));
            }
            let is_final = one.job.state.is_final();
            if is_final && cursor.offset >= one.job.output_bytes {
                let found = search.finish();
                return Ok(found.map_or(WaitState::Impossible, |end| WaitState::Met(Some(end))));
            }
            if !at_end {
                continue;
            }
            if is_final {
                // Bytes that were in the segment a moment ago are rows now. A new cursor reads the
                // database again and finds them.
                if std::mem::replace(&mut missing, cursor.offset == before) && missing {
                    return Err(ReadError::Missing(number, cursor.offset).into());
                }
                cursor = Cursor::new(cursor.offset);
                continue;
            }
            drop(look.take());
            one.watch.woken(cursor.offset).await.map_err(stopping)?;
        }
    }

    /// Reads and searches one piece. Also returns whether the present end was reached.
    async fn search_on(
        &self,
        turns: &SessionTurns,
        number: JobNumber,
        cursor: &mut Cursor,
        mut search: Search,
    ) -> Result<(Search, Option<Offset>, bool), Error> {
        // One piece of a session at a time, so that a wait for a thousand jobs holds one piece.
        let _piece = turns.piece().await?;
        let mut batch = {
            let _slot = self.read_slot().await?;
            self.inner.log.read(number, cursor, READ_BYTES).await?
        };
        // An expensive pattern takes many turns over a piece; other sessions get theirs in between.
        let (mut at, mut found) = (Progress::default(), None);
        while !at.is_through() {
            let turn = move || {
                let found = search.find_some(&batch.items, &mut at, TURN_VISITS);
                (search, batch, at, found.map(|found| found.end))
            };
            (search, batch, at, found) = self.in_turn(turn).await?;
        }
        Ok((search, found, batch.at_end))
    }

    /// A slot to read output, in the order in which they were asked for: a wait for a thousand jobs
    /// holds the bytes of a few.
    pub(super) async fn read_slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let slot = self.inner.read_slots.acquire().await;
        slot.map_err(|_| Error::stopping())
    }

    /// Reads the job's row again. Returns false if it is gone; the job is then as it last was.
    pub(super) async fn look_again(&self, one: &mut WaitedJob) -> Result<bool, Error> {
        let turn = one.turn.clone().acquire_owned().await;
        let _turn = turn.map_err(|_| Error::stopping())?;
        let job = JobRef::Number(one.job.number);
        let row = self.inner.store.job(job, Include::default()).await?;
        let is_there = row.is_some();
        one.job = match row {
            Some(job) => WaitedFacts::of(&job),
            None => WaitedFacts::of(&*one.watch.deleted().await.map_err(stopping)?),
        };
        Ok(is_there)
    }
}

pub(super) fn stopping(_: HubClosed) -> Error {
    Error::stopping()
}
