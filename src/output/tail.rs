//! A tail: one loop that replays a job's output from an offset and then follows it.
//!
//! It keeps a cursor and a few events: it arms the watch, reads to the end, hands out, and waits.
//! `protocol/ws/tails` sends its events to clients.

use std::{collections::VecDeque, ops::RangeInclusive};

use super::{
    hub::{Hub, Watch},
    read::{
        item::{Item, ReadError},
        lines::last_lines,
        log::{Cursor, Log},
    },
};
use crate::{
    job::{
        Chunk, Gap, GapReason, Job, JobId, JobNumber, JobRef, JobState, Micros, Offset, Reason,
        Stream,
    },
    store::{Include, Store, StoreError},
};

/// Longest chunk that is handed out, bytes.
pub const CHUNK_BYTES_MAX: usize = 32 << 10;

/// How much a tail reads ahead of its reader, bytes: the memory that an idle reader costs. It grows
/// with what the reader has taken, so that a reader which takes nothing costs the least.
const READ_AHEAD_BYTES: RangeInclusive<usize> = 4096..=CHUNK_BYTES_MAX;
/// Read-ahead is what was read so far divided by this.
const READ_AHEAD_DIVISOR: u64 = 16;

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At this offset.
    Offset(Offset),
    /// This many bytes before the current end.
    LastBytes(u64),
    /// This many lines before the current end.
    LastLines(u64),
}

/// Where a tail begins, and what it returns.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOptions {
    /// Where it begins.
    pub from: StartAt,
    /// Whether it goes on after the current end.
    pub follow: bool,
    /// Only these streams; `None`: all.
    pub streams: Option<Vec<Stream>>,
}

/// What a tail returns, in offset order.
#[derive(Debug, Clone, PartialEq)]
pub enum TailEvent {
    /// Bytes; never more than [`CHUNK_BYTES_MAX`].
    Output(Chunk),
    /// Bytes that cannot be read, and why.
    Gap(Gap),
    /// A state that is not final.
    State {
        /// The new state.
        state: JobState,
        /// Why it was entered; `None` where the state says all.
        reason: Option<Reason>,
        /// When it was entered.
        at: Micros,
    },
    /// The replay has reached the end as it was when the tail began; once, before `End`.
    CaughtUp {
        /// The first byte that was not returned yet.
        next_offset: Offset,
    },
    /// The job is final and all its output was returned. The last event.
    End(Box<Job>),
}

/// Why a tail cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// There is no such job.
    #[error("no such job")]
    NotFound,
    /// The offset to begin at is after the end of the output.
    #[error("the output has only {0} bytes")]
    BeyondEnd(Offset),
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
    /// The output cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StoreError> for TailError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// A reader that replays and then follows. Dropping it ends it. While its next event is not asked
/// for, it costs no work.
#[derive(Debug)]
pub struct OutputTail {
    store: Store,
    log: Log,
    watch: Watch,
    id: JobId,
    number: JobNumber,
    from: Offset,
    follow: bool,
    streams: Option<Vec<Stream>>,
    cursor: Cursor,
    /// The end of the output when the tail began.
    replay_to: Offset,
    caught_up: bool,
    last_event: i64,
    /// The job's row has changed and the changes have not been read yet.
    changed: bool,
    /// Set once the job is known to be final.
    end: Option<Box<Job>>,
    pending: VecDeque<TailEvent>,
    /// The last look reached the current end: there is nothing to look for before a wake-up.
    idle: bool,
    over: bool,
}

/// What a look finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// The next event.
    Event(TailEvent),
    /// Nothing yet.
    Nothing,
    /// No event will come: the last one was `End`, or `CaughtUp` where the tail does not follow and
    /// the job is not final.
    Over,
}

impl OutputTail {
    /// Begins a tail of `job`; also the job as it is now.
    pub async fn begin(
        store: &Store,
        log: &Log,
        hub: &Hub,
        job: JobRef,
        options: TailOptions,
    ) -> Result<(Self, Job), TailError> {
        let number = number(store, job).await?;
        // Register the watch first, then read: the tail then returns what happens in between.
        let watch = hub.watch(number);
        let (job, last_event) = with_newest_change(store, log, number).await?;
        let end = job.output_bytes;
        let from = match options.from {
            StartAt::Offset(offset) if offset > end => return Err(TailError::BeyondEnd(end)),
            StartAt::Offset(offset) => offset,
            StartAt::LastBytes(bytes) => end.saturating_sub(bytes),
            StartAt::LastLines(lines) => {
                last_lines(log, number, end, lines, options.streams.as_deref()).await?
            }
        };
        let tail = Self {
            store: store.clone(),
            log: log.clone(),
            watch,
            from,
            follow: options.follow,
            streams: options.streams,
            cursor: Cursor::new(from),
            replay_to: end,
            caught_up: false,
            last_event,
            changed: false,
            end: job.state.is_final().then(|| Box::new(job.clone())),
            id: job.id,
            number,
            pending: VecDeque::new(),
            idle: false,
            over: false,
        };
        Ok((tail, job))
    }

    /// The id of the job whose output it reads.
    pub fn job_id(&self) -> JobId {
        self.id
    }

    /// The number of that job.
    pub fn number(&self) -> JobNumber {
        self.number
    }

    /// The offset at which it begins.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// The offset of the next byte that it reads.
    pub fn next_offset(&self) -> Offset {
        self.cursor.offset
    }

    /// The next event; waits for it. `None` after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<TailEvent>, TailError> {
        loop {
            self.ready().await?;
            match self.look().await? {
                Observed::Event(event) => return Ok(Some(event)),
                Observed::Nothing => {}
                Observed::Over => return Ok(None),
            }
        }
    }

    /// Waits until a look may find something; holds no output meanwhile. Cancel-safe.
    pub async fn ready(&mut self) -> Result<(), TailError> {
        if self.idle {
            self.watch
                .woken(self.cursor.offset)
                .await
                .map_err(|_| TailError::Stopping)?;
            self.idle = false;
        }
        Ok(())
    }

    /// Whether events have been read that a look will return. A tail that is looked at until there
    /// are none holds no output in memory.
    pub fn holds_events(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next event that is there, without waiting for output. It reads once at most: where that
    /// finds only bytes of other streams, it returns `Nothing`, and is ready for the next look. Cancel-safe.
    pub async fn look(&mut self) -> Result<Observed, TailError> {
        if self.pending.is_empty() && !self.over {
            self.changed |= self.watch.look();
            if self.changed {
                self.read_changes().await?;
            }
            let at_end = self.read_output().await?;
            self.push_caught_up_and_end(at_end);
            self.idle = at_end && self.pending.is_empty() && !self.over;
        }
        Ok(match self.pending.pop_front() {
            Some(event) => Observed::Event(event),
            None if self.over => Observed::Over,
            None => Observed::Nothing,
        })
    }

    /// Queues the states that were committed since the last look.
    async fn read_changes(&mut self) -> Result<(), TailError> {
        let number = self.number;
        let changes = self.store.changes(number, self.last_event).await?;
        if changes.iter().any(|change| change.state.is_final()) {
            self.end = Some(Box::new(self.ended_job().await?));
        }
        // Nothing below awaits, so a cancelled call loses no event.
        self.changed = false;
        self.cursor.look_again();
        for change in changes {
            self.last_event = change.event;
            if !change.state.is_final() {
                self.pending.push_back(TailEvent::State {
                    state: change.state,
                    reason: change.reason,
                    at: change.at,
                });
            }
        }
        Ok(())
    }

    /// The job as it ended, even if it has been deleted since.
    async fn ended_job(&mut self) -> Result<Job, TailError> {
        match self.row().await? {
            Some(job) => Ok(job),
            None => match self.watch.deleted().await {
                Ok(job) => Ok(Job::clone(&job)),
                Err(_) => Err(TailError::Stopping),
            },
        }
    }

    async fn row(&self) -> Result<Option<Job>, StoreError> {
        let job = JobRef::Number(self.number);
        self.store.job(job, Include::default()).await
    }

    /// Reads on; returns whether the current end was reached.
    async fn read_output(&mut self) -> Result<bool, TailError> {
        let number = self.number;
        // Read with a copy: a cancelled read then leaves the cursor where it was.
        let mut cursor = self.cursor;
        let ahead = read_ahead(cursor.offset.saturating_sub(self.from));
        let batch = self.log.read(number, &mut cursor, ahead).await?;
        let stuck = batch.at_end
            && self
                .end
                .as_ref()
                .is_some_and(|end| cursor.offset < end.output_bytes);
        if stuck && cursor.offset == self.cursor.offset {
            // The job is final and bytes are still missing: ask the store once more where they are.
            cursor = Cursor::new(cursor.offset);
            let again = self.log.read(number, &mut cursor, ahead).await?;
            if again.at_end && again.items.is_empty() {
                let is_there = self.row().await?.is_some();
                self.skip_to_end(is_there);
                return Ok(true);
            }
            self.push_items(again.items);
            self.cursor = cursor;
            return Ok(false);
        }
        self.cursor = cursor;
        self.push_items(batch.items);
        Ok(batch.at_end && !stuck)
    }

    /// Turns what it has not returned yet into a gap: the job was deleted while this tail read it, or the job
    /// is there and its bytes are not.
    fn skip_to_end(&mut self, job_is_there: bool) {
        let from = self.cursor.offset;
        let to = self.end.as_ref().map_or(from, |end| end.output_bytes);
        self.cursor = Cursor::new(to);
        let reason = if job_is_there {
            tracing::error!(job = self.number, from, to, "output is missing");
            GapReason::Damaged
        } else {
            GapReason::Deleted
        };
        self.pending
            .push_back(TailEvent::Gap(Gap { from, to, reason }));
    }

    fn push_items(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Gap(gap) => self.pending.push_back(TailEvent::Gap(gap)),
                Item::Chunk(chunk) if self.wants(chunk.stream) => {
                    self.pending
                        .extend(split(chunk, CHUNK_BYTES_MAX).map(TailEvent::Output));
                }
                Item::Chunk(_) => {}
            }
        }
    }

    fn wants(&self, stream: Stream) -> bool {
        self.streams
            .as_ref()
            .is_none_or(|streams| streams.contains(&stream))
    }

    /// Queues `CaughtUp` and `End` when they are due.
    fn push_caught_up_and_end(&mut self, at_end: bool) {
        let next_offset = self.cursor.offset;
        if !self.caught_up && (at_end || next_offset >= self.replay_to) {
            self.caught_up = true;
            self.pending.push_back(TailEvent::CaughtUp { next_offset });
            self.over = !self.follow && self.end.is_none();
        }
        let end = self
            .end
            .take_if(|end| at_end && next_offset >= end.output_bytes);
        if let Some(end) = end {
            self.pending.push_back(TailEvent::End(end));
            self.over = true;
        }
    }
}

/// How many bytes to read ahead of a reader that has taken `taken` bytes.
fn read_ahead(taken: u64) -> usize {
    let bytes = usize::try_from(taken / READ_AHEAD_DIVISOR).unwrap_or(usize::MAX);
    bytes.clamp(*READ_AHEAD_BYTES.start(), *READ_AHEAD_BYTES.end())
}

/// Cuts a chunk into pieces of at most `bytes_max` bytes.
pub fn split(chunk: Chunk, bytes_max: usize) -> impl Iterator<Item = Chunk> {
    let Chunk {
        offset,
        stream,
        attempt,
        at,
        data,
    } = chunk;
    let pieces: Vec<Vec<u8>> = if data.len() <= bytes_max {
        vec![data]
    } else {
        data.chunks(bytes_max).map(<[u8]>::to_vec).collect()
    };
    pieces.into_iter().scan(offset, move |next, data| {
        let offset = *next;
        *next += data.len() as u64;
        Some(Chunk {
            offset,
            stream,
            attempt,
            at,
            data,
        })
    })
}

/// The number of a job. A number is not checked here: reading the row does that.
async fn number(store: &Store, job: JobRef) -> Result<JobNumber, TailError> {
    match job {
        JobRef::Number(number) => Ok(number),
        JobRef::Id(id) => store.job_number(id).await?.ok_or(TailError::NotFound),
    }
}

/// A job as it is now, and the newest change of its state, which it shows: the tail tells of later ones.
async fn with_newest_change(
    store: &Store,
    log: &Log,
    number: JobNumber,
) -> Result<(Job, i64), TailError> {
    let mut before = store.newest_change(number).await?;
    loop {
        let job = snapshot(store, log, number).await?;
        let job = job.ok_or(TailError::NotFound)?;
        // A change between the two reads may be in the job or not.
        match store.newest_change(number).await? {
            after if after == before => return Ok((job, after)),
            after => before = after,
        }
    }
}

/// A job, with the current length of its output if it runs: the row of a running job lags.
pub async fn snapshot(
    store: &Store,
    log: &Log,
    number: JobNumber,
) -> Result<Option<Job>, ReadError> {
    let read = || store.job(JobRef::Number(number), Include::default());
    let Some(mut job) = read().await? else {
        return Ok(None);
    };
    if job.state.is_active() {
        match log.open_end(number, job.output_bytes).await? {
            Some(end) => end.apply_to(&mut job),
            // Nothing is written yet, or the attempt has just ended: the row has the length.
            None => return Ok(read().await?),
        }
    }
    Ok(Some(job))
}
