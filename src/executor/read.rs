//! Reads output: tails, and single reads.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Error, Executor, ExecutorInner};
use crate::{
    job::{Chunk, Gap, Job, JobId, JobNumber, JobRef, Offset, Stream},
    output::{self, Cursor, Item, Observed, ReadError, TailEvent, TailOptions, tail},
    store::Include,
};

/// A reader that replays output from an offset and then follows it. Dropping it ends it. While it
/// is not asked for events it costs nothing but its memory.
#[derive(Debug)]
pub struct Tail(output::OutputTail);

impl Tail {
    /// The job whose output it reads.
    pub fn job_id(&self) -> JobId {
        self.0.job_id()
    }

    /// The number of that job.
    pub fn number(&self) -> JobNumber {
        self.0.number()
    }

    /// The offset at which it begins.
    pub fn from(&self) -> Offset {
        self.0.from()
    }

    /// The offset of the next byte that it reads.
    pub fn next_offset(&self) -> Offset {
        self.0.next_offset()
    }

    /// The next event; waits for it. `None` after the last one (`End`, or `CaughtUp` of a tail
    /// that does not follow). Cancel-safe: a dropped call loses no event.
    pub async fn next(&mut self) -> Result<Option<TailEvent>, Error> {
        Ok(self.0.next().await?)
    }

    /// Waits until `look` may find something; holds no output meanwhile. Cancel-safe.
    pub async fn ready(&mut self) -> Result<(), Error> {
        Ok(self.0.ready().await?)
    }

    /// The next event if it is there already; does not wait for output. Cancel-safe.
    pub async fn look(&mut self) -> Result<Observed, Error> {
        Ok(self.0.look().await?)
    }

    /// Whether it holds events that `look` will return.
    pub fn holds_events(&self) -> bool {
        self.0.holds_events()
    }
}

/// What a read is to return.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Where to begin.
    pub from: Offset,
    /// Return up to this many bytes, cut exactly.
    pub max_bytes: u64,
    /// How long to wait for the first byte; zero for not at all.
    pub wait: Duration,
    /// Only these streams; `None`: all.
    pub streams: Option<Vec<Stream>>,
}

/// One item of a read.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadItem {
    /// Bytes of one stream.
    Chunk(Chunk),
    /// A range of missing bytes.
    Gap(Gap),
}

/// The result of a read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The chunks and gaps, in the order of their offsets.
    pub items: Vec<ReadItem>,
    /// The offset for the next read.
    pub next_offset: Offset,
    /// The job, if it is final and its output was read to the end.
    pub end: Option<Box<Job>>,
}

impl Executor {
    /// Begins a tail; also the job as it is now.
    pub async fn tail(&self, job: JobRef, options: TailOptions) -> Result<(Tail, Job), Error> {
        let ExecutorInner {
            store, log, hub, ..
        } = &*self.inner;
        output::OutputTail::begin(store, log, hub, job, options)
            .await
            .map(|(tail, job)| (Tail(tail), job))
            .map_err(|error| match error {
                output::TailError::NotFound => Error::no_such_job(job),
                error => error.into(),
            })
    }

    /// Reads once, and waits for the first byte if that was asked for.
    pub async fn read(&self, job: JobRef, options: ReadOptions) -> Result<Read, Error> {
        let number = self.number(job).await?;
        let from = match options.wait.is_zero() {
            true => options.from,
            false => self.wait_to_read(job, &options).await?,
        };
        let job = self.snapshot(number).await?;
        if options.from > job.output_bytes {
            return Err(Error::beyond_end(job.output_bytes));
        }
        let mut reading = ReadProgress::new(&options, from);
        reading.fill(&self.inner.log, number).await?;
        let end = job.state.is_final() && reading.next >= job.output_bytes;
        Ok(reading.result(end.then(|| Box::new(job))))
    }

    /// Waits until a read finds something to return, and no longer than it may; returns the offset from
    /// which on it does. Before that there are only bytes of other streams.
    pub async fn wait_to_read(&self, job: JobRef, options: &ReadOptions) -> Result<Offset, Error> {
        let ExecutorInner {
            store, log, hub, ..
        } = &*self.inner;
        let number = self.number(job).await?;
        let mut watch = hub.watch(number);
        let deadline = Instant::now() + options.wait;
        let mut job = self.snapshot(number).await?;
        if options.from > job.output_bytes {
            return Err(Error::beyond_end(job.output_bytes));
        }
        let streams = options.streams.as_deref();
        let mut cursor = Cursor::new(options.from);
        loop {
            if watch.look() {
                let now = store.job(JobRef::Number(number), Include::default());
                job = now
                    .await?
                    .ok_or_else(|| Error::no_such_job(JobRef::Number(number)))?;
                cursor.look_again();
            }
            let batch = {
                let _slot = self.read_slot().await?;
                log.read(number, &mut cursor, piece_bytes(streams, 1))
                    .await?
            };
            if let Some(item) = batch.items.iter().find(|item| is_wanted(item, streams)) {
                return Ok(offset_of(item));
            }
            let is_end = job.state.is_final() && cursor.offset >= job.output_bytes;
            if is_end || Instant::now() >= deadline {
                return Ok(cursor.offset);
            }
            if batch.at_end {
                // After the deadline there is one more look, so that nothing is missed.
                if let Ok(Err(_)) = timeout_at(deadline, watch.woken(cursor.offset)).await {
                    return Err(Error::stopping());
                }
            }
        }
    }

    /// The last bytes of a job's output as one chunk: up to `bytes_max`, not across a gap, with the
    /// stream of its last byte. `None` also where they cannot be read: the job is known all the same.
    pub(super) async fn last_output(&self, job: &Job, bytes_max: u64) -> Option<Chunk> {
        match self.read_last(job, bytes_max).await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(job = job.number, %error, "the end of an output cannot be read");
                None
            }
        }
    }

    async fn read_last(&self, job: &Job, bytes_max: u64) -> Result<Option<Chunk>, ReadError> {
        let mut cursor = Cursor::new(job.output_bytes.saturating_sub(bytes_max));
        let mut last: Option<Chunk> = None;
        while cursor.offset < job.output_bytes {
            let batch = self
                .inner
                .log
                .read(job.number, &mut cursor, bytes_max as usize)
                .await?;
            for item in batch.items {
                last = join(last, item);
            }
            if batch.at_end {
                break;
            }
        }
        Ok(last.map(|chunk| keep_last(chunk, bytes_max as usize)))
    }

    /// The number of a job that exists.
    pub(super) async fn number(&self, job: JobRef) -> Result<i64, Error> {
        match job {
            JobRef::Number(number) => Ok(number),
            JobRef::Id(id) => {
                let number = self.inner.store.job_number(id).await?;
                number.ok_or_else(|| Error::no_such_job(job))
            }
        }
    }
}

fn join(last: Option<Chunk>, item: Item) -> Option<Chunk> {
    match (last, item) {
        (_, Item::Gap(_)) => None,
        (None, Item::Chunk(chunk)) => Some(chunk),
        (Some(before), Item::Chunk(chunk)) => {
            let mut data = before.data;
            data.extend(&chunk.data);
            Some(Chunk {
                offset: before.offset,
                data,
                ..chunk
            })
        }
    }
}

fn keep_last(mut chunk: Chunk, bytes_max: usize) -> Chunk {
    let surplus = chunk.data.len().saturating_sub(bytes_max);
    chunk.data.drain(..surplus);
    chunk.offset += surplus as u64;
    chunk
}

/// How much is read at once to find bytes of the requested streams among others, bytes.
const PIECE_BYTES: usize = 256 << 10;

/// How far one read searches for bytes of the requested streams, bytes. Each chunk of the others counts
/// as [`Chunk::OVERHEAD_BYTES`] more.
const SCAN_BYTES_MAX: u64 = 64 << 20;

/// Most items of one read: more would not fit into a message.
const ITEMS_MAX: usize = 8192;

/// How much to read at once, if `wanted` bytes of these streams are wanted.
fn piece_bytes(streams: Option<&[Stream]>, wanted: usize) -> usize {
    match streams {
        None => wanted,
        Some(_) => wanted.max(PIECE_BYTES),
    }
}

/// Whether a read of these streams returns the item: gaps are none of a stream's.
fn is_wanted(item: &Item, streams: Option<&[Stream]>) -> bool {
    match item {
        Item::Gap(_) => true,
        Item::Chunk(chunk) => streams.is_none_or(|wanted| wanted.contains(&chunk.stream)),
    }
}

fn offset_of(item: &Item) -> Offset {
    match item {
        Item::Gap(gap) => gap.from,
        Item::Chunk(chunk) => chunk.offset,
    }
}

/// The progress of a read.
struct ReadProgress<'a> {
    streams: Option<&'a [Stream]>,
    budget: u64,
    cursor: Cursor,
    next: Offset,
    /// What bytes of other streams have cost, bytes.
    passed: u64,
    items: Vec<ReadItem>,
}

impl<'a> ReadProgress<'a> {
    fn new(options: &'a ReadOptions, from: Offset) -> Self {
        Self {
            streams: options.streams.as_deref(),
            budget: options.max_bytes,
            cursor: Cursor::new(from),
            next: from,
            passed: 0,
            items: Vec::new(),
        }
    }

    /// Reads until the budget is used up, enough was searched, or the present end is reached.
    async fn fill(&mut self, log: &output::Log, number: i64) -> Result<(), Error> {
        while self.budget > 0 && self.has_room() {
            let bytes = piece_bytes(self.streams, self.budget as usize);
            let batch = log.read(number, &mut self.cursor, bytes).await?;
            for item in batch.items {
                self.take(item);
            }
            if batch.at_end {
                break;
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.items.len() < ITEMS_MAX && self.passed < SCAN_BYTES_MAX
    }

    fn take(&mut self, item: Item) {
        if self.budget == 0 {
            return;
        }
        let is_wanted = is_wanted(&item, self.streams);
        match item {
            Item::Gap(gap) => {
                self.next = gap.to;
                self.items.push(ReadItem::Gap(gap));
            }
            Item::Chunk(chunk) if is_wanted => self.take_chunk(chunk),
            Item::Chunk(chunk) => {
                self.next = chunk.next_offset();
                self.passed += (chunk.data.len() + Chunk::OVERHEAD_BYTES) as u64;
            }
        }
    }

    fn take_chunk(&mut self, mut chunk: Chunk) {
        chunk
            .data
            .truncate(self.budget.min(usize::MAX as u64) as usize);
        self.budget -= chunk.data.len() as u64;
        self.next = chunk.next_offset();
        let pieces = tail::split(chunk, tail::CHUNK_BYTES_MAX);
        self.items.extend(pieces.map(ReadItem::Chunk));
    }

    fn result(self, end: Option<Box<Job>>) -> Read {
        Read {
            items: self.items,
            next_offset: self.next,
            end,
        }
    }
}
