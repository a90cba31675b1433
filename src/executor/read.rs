//! Reads output: tails, and single reads.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Error, Executor, ExecutorInner};
use crate::{
    job::{Chunk, Gap, Job, JobId, JobRef, Offset, Stream},
    output::{self, Cursor, Item, Observed, TailEvent, TailOptions, tail},
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

    /// The offset at which it begins.
    pub fn from(&self) -> Offset {
        self.0.from()
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
        let ExecutorInner {
            store, log, hub, ..
        } = &*self.inner;
        let number = self.number(job).await?;
        let mut watch = hub.watch(number);
        let deadline = Instant::now() + options.wait;
        let mut reading = ReadProgress::new(&options);
        let mut job = self.snapshot(number).await?;
        if options.from > job.output_bytes {
            return Err(Error::beyond_end(job.output_bytes));
        }
        loop {
            if watch.look() {
                let now = store.job(JobRef::Number(number), Include::default());
                job = now
                    .await?
                    .ok_or_else(|| Error::no_such_job(JobRef::Number(number)))?;
                reading.cursor.look_again();
            }
            let at_end = reading.fill(log, number).await?;
            let end = job.state.is_final() && reading.next >= job.output_bytes;
            if end || reading.is_enough() || Instant::now() >= deadline {
                return Ok(reading.result(end.then(|| Box::new(job))));
            }
            if at_end {
                // After the deadline there is one more look, so that nothing is missed.
                if let Ok(Err(_)) = timeout_at(deadline, watch.woken(reading.next)).await {
                    return Err(Error::stopping());
                }
            }
        }
    }

    /// The last bytes of a job's output as one chunk: up to `bytes_max`, not across a gap, with the
    /// stream of its last byte.
    pub(super) async fn last_output(
        &self,
        job: &Job,
        bytes_max: u64,
    ) -> Result<Option<Chunk>, Error> {
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

/// How far one read searches for bytes of the requested streams, bytes.
const SCAN_BYTES_MAX: u64 = 64 << 20;

/// Most items of one read: more would not fit into a message.
const ITEMS_MAX: usize = 8192;

/// The progress of a read.
struct ReadProgress<'a> {
    streams: Option<&'a [Stream]>,
    budget: u64,
    cursor: Cursor,
    from: Offset,
    next: Offset,
    items: Vec<ReadItem>,
}

impl<'a> ReadProgress<'a> {
    fn new(options: &'a ReadOptions) -> Self {
        Self {
            streams: options.streams.as_deref(),
            budget: options.max_bytes,
            cursor: Cursor::new(options.from),
            from: options.from,
            next: options.from,
            items: Vec::new(),
        }
    }

    /// Reads until the budget is used up or the present end is reached; returns whether the end
    /// was.
    async fn fill(&mut self, log: &output::Log, number: i64) -> Result<bool, Error> {
        while self.budget > 0 && self.has_room() {
            let batch = log
                .read(number, &mut self.cursor, self.budget as usize)
                .await?;
            for item in batch.items {
                self.take(item);
            }
            if batch.at_end {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_room(&self) -> bool {
        self.items.len() < ITEMS_MAX && self.next - self.from < SCAN_BYTES_MAX
    }

    /// Whether there is something to return: items, or `SCAN_BYTES_MAX` of other streams that were
    /// skipped.
    fn is_enough(&self) -> bool {
        !self.items.is_empty() || self.next - self.from >= SCAN_BYTES_MAX
    }

    fn take(&mut self, item: Item) {
        if self.budget == 0 {
            return;
        }
        match item {
            Item::Gap(gap) => {
                self.next = gap.to;
                self.items.push(ReadItem::Gap(gap));
            }
            Item::Chunk(chunk) if self.wants(chunk.stream) => self.take_chunk(chunk),
            Item::Chunk(chunk) => self.next = chunk.next_offset(),
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

    fn wants(&self, stream: Stream) -> bool {
        self.streams.is_none_or(|wanted| wanted.contains(&stream))
    }

    fn result(self, end: Option<Box<Job>>) -> Read {
        Read {
            items: self.items,
            next_offset: self.next,
            end,
        }
    }
}
