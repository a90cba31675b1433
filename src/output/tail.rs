//! A tail: one loop that replays a job's output from an offset and then follows it.
//!
//! It is a cursor and nothing else: arm, read to the end, hand out, wait. How events look on a
//! wire is not known here.

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

/// How much a tail reads ahead of its reader, bytes: what a reader that stands still costs. It
/// grows with what the reader has taken, so that one which never takes anything costs the least.
const READ_AHEAD_BYTES: RangeInclusive<usize> = 4096..=CHUNK_BYTES_MAX;
/// It is this part of what was read so far.
const READ_AHEAD_PART: u64 = 16;

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At this offset.
    Offset(Offset),
    /// So many bytes of the log before the end as it stands.
    LastBytes(u64),
    /// So many lines before the end as it stands.
    LastLines(u64),
}

/// What a tail shall do.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOptions {
    /// Where it begins.
    pub from: StartAt,
    /// Whether it goes on behind the end as it stands.
    pub follow: bool,
    /// Only these streams; `None`: all.
    pub streams: Option<Vec<Stream>>,
}

/// What a tail says, in offset order.
#[derive(Debug, Clone, PartialEq)]
pub enum TailEvent {
    /// Bytes; never more than [`CHUNK_BYTES_MAX`].
    Output(Chunk),
    /// Missing bytes.
    Gap(Gap),
    /// A state that is not final.
    State {
        /// The new state.
        state: JobState,
        /// Why.
        reason: Option<Reason>,
        /// When.
        at: Micros,
    },
    /// The replay has reached the end as it stood; once, before `End`.
    CaughtUp {
        /// The first byte not yet told.
        next_offset: Offset,
    },
    /// The job is final and all its output was told. The last event.
    End(Box<Job>),
}

/// Why a tail cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// There is no such job.
    #[error("no such job")]
    NotFound,
    /// It shall begin behind the end of the output.
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

/// A reader that replays and then follows. Dropping it ends it; one that is not asked for its next
/// event costs nothing.
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
    /// The end as it stood when the tail began.
    replay_to: Offset,
    caught_up: bool,
    last_event: i64,
    /// The job's row has changed and the changes have not been read yet.
    changed: bool,
    /// Set once the job is known to be final.
    end: Option<Box<Job>>,
    pending: VecDeque<TailEvent>,
    /// The last look found the end as it stands: nothing to look for before it is woken.
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
    /// Nothing any more: the last event was `End`, or `CaughtUp` of a tail that does not follow a
    /// job that is not final.
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
        // Interest first, then the look: what happens in between is told.
        let watch = hub.watch(number);
        let last_event = store.newest_change(number).await?;
        let job = snapshot(store, log, number)
            .await?
            .ok_or(TailError::NotFound)?;
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

    /// Whose output it is.
    pub fn job_id(&self) -> JobId {
        self.id
    }

    /// The offset at which it begins.
    pub fn from(&self) -> Offset {
        self.from
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

    /// Whether events have been read that a look will return: whoever looks until there are none
    /// leaves nothing in memory.
    pub fn holds_events(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next event that is there, without waiting for output. Cancel-safe.
    pub async fn look(&mut self) -> Result<Observed, TailError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Observed::Event(event));
            }
            if self.over {
                return Ok(Observed::Over);
            }
            self.changed |= self.watch.look();
            if self.changed {
                self.read_changes().await?;
            }
            let at_end = self.read_output().await?;
            self.turn(at_end);
            if self.pending.is_empty() && at_end && !self.over {
                self.idle = true;
                return Ok(Observed::Nothing);
            }
        }
    }

    /// Tells states that were committed since the last look.
    async fn read_changes(&mut self) -> Result<(), TailError> {
        let number = self.number;
        let changes = self.store.changes(number, self.last_event).await?;
        if changes.iter().any(|change| change.state.is_final()) {
            self.end = Some(Box::new(self.ended_job().await?));
        }
        // From here on nothing waits, so a dropped call loses nothing.
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

    /// The job as it ended, also where it has been deleted since.
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

    /// Reads on; returns whether the end as it stands was reached.
    async fn read_output(&mut self) -> Result<bool, TailError> {
        let number = self.number;
        // A cancelled read leaves the cursor as it was: its copy is what moves.
        let mut cursor = self.cursor;
        let ahead = read_ahead(cursor.offset.saturating_sub(self.from));
        let batch = self.log.read(number, &mut cursor, ahead).await?;
        let stuck = batch.at_end
            && self
                .end
                .as_ref()
                .is_some_and(|end| cursor.offset < end.output_bytes);
        if stuck && cursor.offset == self.cursor.offset {
            // Final, and still bytes missing: ask the ledger anew where they are, once.
            cursor = Cursor::new(cursor.offset);
            let again = self.log.read(number, &mut cursor, ahead).await?;
            if again.at_end && again.items.is_empty() {
                if self.row().await?.is_some() {
                    return Err(ReadError::Missing(number, cursor.offset).into());
                }
                self.skip_deleted();
                return Ok(true);
            }
            self.tell(again.items);
            self.cursor = cursor;
            return Ok(false);
        }
        self.cursor = cursor;
        self.tell(batch.items);
        Ok(batch.at_end && !stuck)
    }

    /// The job was deleted under this tail: what it has not told yet is missing.
    fn skip_deleted(&mut self) {
        let from = self.cursor.offset;
        let to = self.end.as_ref().map_or(from, |end| end.output_bytes);
        self.cursor = Cursor::new(to);
        let reason = GapReason::Deleted;
        self.pending
            .push_back(TailEvent::Gap(Gap { from, to, reason }));
    }

    fn tell(&mut self, items: Vec<Item>) {
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

    /// Tells the turning points of a tail: caught up, and the end.
    fn turn(&mut self, at_end: bool) {
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

/// How much to read ahead of a reader that was told so many bytes.
fn read_ahead(told: u64) -> usize {
    let part = usize::try_from(told / READ_AHEAD_PART).unwrap_or(usize::MAX);
    part.clamp(*READ_AHEAD_BYTES.start(), *READ_AHEAD_BYTES.end())
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

/// The number of a job that exists (a number is believed until the row is read).
async fn number(store: &Store, job: JobRef) -> Result<JobNumber, TailError> {
    match job {
        JobRef::Number(number) => Ok(number),
        JobRef::Id(id) => store.job_number(id).await?.ok_or(TailError::NotFound),
    }
}

/// A job with the length of its output as it stands, also of a running one.
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
            Some(end) => end.tell(&mut job),
            // Nothing written yet, or just ended: only the row can tell.
            None => return Ok(read().await?),
        }
    }
    Ok(Some(job))
}
