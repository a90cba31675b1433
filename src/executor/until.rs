//! What a wait can wait for, and when one job has come to it or never will.
//!
//! What that means for a wait over several jobs is `wait`'s business.

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

/// How much of an output is searched at once, bytes: what one search holds of it.
pub(super) const READ_BYTES: usize = 64 << 10;

/// What a wait waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum Until {
    /// The job is final.
    Final,
    /// A process of it has started.
    Running,
    /// Its output matches.
    Match {
        /// What is looked for.
        pattern: Pattern,
        /// Only in this stream; `None`: in the output as it is one sequence.
        stream: Option<Stream>,
        /// From here on.
        from: Offset,
    },
    /// It runs and has written nothing for so long. The clock begins with the last byte, the last
    /// input, the start or the last resume, whichever came last, also when that was before the
    /// wait.
    Quiet(Duration),
    /// Its output has so many bytes.
    Bytes(u64),
}

/// How a job stands to what is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitState {
    /// It has come to it; of a match, where that ends.
    Met(Option<Offset>),
    /// It may come to it.
    Open,
    /// It never will.
    Impossible,
}

/// What a wait has to know about a job. What may be long about it is read when it is told: a wait
/// holds a thousand jobs for days.
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
    /// As it was last seen.
    pub job: WaitedFacts,
    /// Woken when there is more to see.
    pub watch: Watch,
    /// The jobs of a wait are read anew one after the other: a thousand that end together do not
    /// fill the ledger's queue of readers.
    pub turn: Arc<Semaphore>,
    /// That of the session that waits.
    pub turns: SessionTurns,
}

/// Held until a job was looked at for the first time.
pub(super) type FirstLook = Option<TaskTrackerToken>;

impl Until {
    /// What the job's row alone tells.
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
    /// Waits until a job has come to it, or never will. One that is deleted was final before: what
    /// its end decided stays decided, and what only its output could tell is never told.
    pub(super) async fn verdict(
        &self,
        one: &mut WaitedJob,
        until: &Until,
        look: FirstLook,
    ) -> Result<WaitState, Error> {
        match until {
            Until::Final | Until::Running => self.moved(one, until, look).await,
            Until::Bytes(bytes) => self.grown(one, until, *bytes, look).await,
            Until::Quiet(length) => self.quiet(one, until, *length, look).await,
            Until::Match {
                pattern,
                stream,
                from,
            } => {
                let search = Search::new(pattern.clone(), *stream, *from);
                self.found(one, search, *from, look).await
            }
        }
    }

    async fn moved(
        &self,
        one: &mut WaitedJob,
        until: &Until,
        look: FirstLook,
    ) -> Result<WaitState, Error> {
        drop(look);
        loop {
            one.watch.changed().await.map_err(stopping)?;
            // A thousand starts are no reason to read a thousand rows.
            let worth_it = *until != Until::Final || one.watch.has_ended();
            if one.watch.look() && worth_it {
                self.look_again(one).await?;
                match until.state(&one.job) {
                    WaitState::Open => {}
                    state => return Ok(state),
                }
            }
        }
    }

    async fn grown(
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
            // Of bytes that are dropped as they come, only the shim's word tells before the end.
            if one.watch.grown_to() >= bytes {
                return Ok(WaitState::Met(None));
            }
            looks = false;
            drop(look.take());
            let last = bytes.saturating_sub(1);
            one.watch.woken(last).await.map_err(stopping)?;
        }
    }

    async fn found(
        &self,
        one: &mut WaitedJob,
        search: Search,
        from: Offset,
        look: FirstLook,
    ) -> Result<WaitState, Error> {
        match self.search_through(one, search, from, look).await {
            // Its output went with it.
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
                // Bytes that were in the segment a moment ago are rows now: they are found once
                // the ledger is asked again.
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

    /// Reads and searches one piece; also whether the end as it stands was reached.
    async fn search_on(
        &self,
        turns: &SessionTurns,
        number: JobNumber,
        cursor: &mut Cursor,
        mut search: Search,
    ) -> Result<(Search, Option<Offset>, bool), Error> {
        // One piece of a session at a time: a thousand jobs of one wait hold no more of their outputs.
        let _piece = turns.piece().await?;
        let mut batch = {
            let _slot = self.read_slot().await?;
            self.inner.log.read(number, cursor, READ_BYTES).await?
        };
        // A hard pattern takes many turns over a piece, and others theirs between them.
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

    /// So many read for waits at once, in the order in which they came: a wait over a thousand
    /// jobs holds the bytes of a few.
    pub(super) async fn read_slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let slot = self.inner.read_slots.acquire().await;
        slot.map_err(|_| Error::stopping())
    }

    /// Reads the job's row anew; false where it is gone, and then the job is what it was last.
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
