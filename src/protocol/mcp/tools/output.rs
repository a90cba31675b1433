//! Shows output: reads a bounded part of it, and makes the text of a result from it.

use std::{ops::Range, time::Duration};

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::super::{
    excerpt::{self, Bounds, Hits, Page, Piece, Pieces, ShownLinePattern},
    reply::{self, NextCall, body_chars},
};
use crate::{
    executor::{Error, ReadItem, ReadOptions},
    job::{Job, JobRef, JobState, Offset, Reason, Stream},
    protocol::{caller::Caller, jsonrpc::error::Refusal},
};

/// How much of an output is looked through for one answer, bytes. Of a longer one the head and the tail
/// are.
const SCAN_BYTES_MAX: u64 = 4 << 20;
/// How much of that is the head, bytes.
const SCAN_HEAD_BYTES: u64 = 1 << 20;
/// Ends the status line of a job whose last line has no line end.
const PROMPT: &str = "it may wait for input: its last line has no line end";
/// Output from which an answer is made at once, without a turn, bytes.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// How long a read waits for bytes that exist.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of one read.
const READ_BYTES: u64 = 512 << 10;
/// Bytes from which a page of characters is made: a character takes up to four.
const PAGE_BYTES_MAX: u64 = 256 << 10;

/// What was read of an output.
#[derive(Debug)]
pub(super) struct ReadOutput {
    /// Contiguous bytes, each with the offset of its first.
    parts: Vec<(Offset, Vec<u8>)>,
    dropped: Vec<Range<Offset>>,
    /// Ranges of other streams.
    skipped: Vec<Range<Offset>>,
    from: Offset,
    output_bytes: Offset,
    is_final: bool,
}

impl ReadOutput {
    /// Nothing yet, from this offset on.
    pub(super) fn new(job: &Job, from: Offset) -> Self {
        Self {
            parts: Vec::new(),
            dropped: Vec::new(),
            skipped: Vec::new(),
            from,
            output_bytes: job.output_bytes,
            is_final: job.state.is_final(),
        }
    }

    /// Whether the last line has no line end: a program that asks for input prints such a line.
    fn ends_at_a_prompt(&self) -> bool {
        let last = self.parts.last().and_then(|(_, bytes)| bytes.last());
        last.is_some_and(|byte| *byte != b'\n')
    }

    fn append(&mut self, item: ReadItem) {
        let chunk = match item {
            ReadItem::Gap(gap) => return self.dropped.push(gap.from..gap.to),
            ReadItem::Chunk(chunk) => chunk,
        };
        match self.parts.last_mut() {
            Some((from, bytes)) if *from + bytes.len() as u64 == chunk.offset => {
                bytes.extend_from_slice(&chunk.data);
            }
            _ => self.parts.push((chunk.offset, chunk.data)),
        }
    }

    pub(super) fn pieces(&self) -> Pieces<'_> {
        Pieces {
            pieces: self
                .parts
                .iter()
                .map(|(from, bytes)| Piece { from: *from, bytes })
                .collect(),
            dropped: self.dropped.clone(),
            skipped: self.skipped.clone(),
            from: self.from,
            output_bytes: self.output_bytes,
            is_final: self.is_final,
        }
    }
}

/// What a result about a job says besides its status and its output.
#[derive(Debug, Default)]
pub struct JobReport<'a> {
    /// Ends the status line.
    pub note: Option<&'a str>,
    /// Lines after it.
    pub beside: &'a str,
    /// The offset from which the output is shown.
    pub from: Offset,
    /// The next call, if it is not the usual one.
    pub next: Option<NextCall>,
    /// Most characters of the text.
    pub chars: usize,
}

/// The text of a result about a job: its status, an excerpt of its output, and what to call next.
pub async fn report(caller: &Caller, job: &Job, report: JobReport<'_>) -> Result<String, Refusal> {
    let JobReport {
        note,
        beside,
        from,
        next,
        chars,
    } = report;
    let _turn = Turn::to_read(caller, job.output_bytes.saturating_sub(from)).await?;
    let principal = caller.principal();
    let reasons = caller.server.executor.reasons(job, &principal);
    let reasons = reasons.await?;
    let beside = match reasons.as_str() {
        "" => beside.to_owned(),
        reasons => format!("{}\n{beside}", reply::brief(reasons)),
    };
    let read = scan(caller, job, from, None).await?;
    let is_at_prompt = job.state == JobState::Running && read.ends_at_a_prompt();
    let mut status = reply::status_line(job);
    let prompt = (is_at_prompt && job.spec.interactive).then_some(PROMPT);
    for note in note.into_iter().chain(prompt) {
        status.push_str("; ");
        status.push_str(note);
    }
    let next = next.unwrap_or_else(|| next_call(job, is_at_prompt));
    let label = match from {
        0 => String::new(),
        from => format!("output from byte {from}:\n"),
    };
    let beside_chars = beside.chars().count() + label.chars().count();
    let bounds = Bounds {
        chars_max: body_chars(&status, &next, chars).saturating_sub(beside_chars),
        ..Bounds::default()
    };
    let excerpt = in_turn(caller, read, move |pieces| excerpt::excerpt(pieces, bounds));
    let body = match excerpt.await? {
        empty if empty.is_empty() => beside,
        excerpt => format!("{beside}{label}{excerpt}"),
    };
    Ok(reply::compose(&status, &body, &next, chars))
}

/// What a model is likely to do next.
fn next_call(job: &Job, is_at_prompt: bool) -> NextCall {
    let number = job.number;
    if let Some(on) = &job.failed_dependency {
        return NextCall::new("read_output", json!({"job": on.number}));
    }
    match job.state {
        JobState::Running if is_at_prompt && job.spec.interactive => NextCall::new(
            "send_input",
            json!({"job": number, "text": "…", "enter": true}),
        ),
        JobState::Failed if job.output_bytes > 0 && job.reason != Some(Reason::Unverified) => {
            NextCall::new(
                "search_output",
                json!({"job": number, "pattern": "(?i)error|fail|panic"}),
            )
        }
        state if state.is_final() && job.output_bytes == 0 => {
            NextCall::new("list_jobs", json!({"limit": 5}))
        }
        state if state.is_final() => {
            NextCall::new("read_output", json!({"job": number, "tail_lines": 100}))
        }
        _ => NextCall::new("wait", json!({"jobs": [number], "from": job.output_bytes})),
    }
}

/// The output from an offset on, up to `chars` characters.
pub async fn page(
    caller: &Caller,
    job: &Job,
    from: Offset,
    stream: Option<Stream>,
    raw: bool,
    chars: usize,
) -> Result<Page, Refusal> {
    let _turn = Turn::to_read(caller, job.output_bytes.saturating_sub(from)).await?;
    let to = job.output_bytes.min(from + PAGE_BYTES_MAX);
    let mut part = ReadOutput::new(job, from);
    read(caller, job, (from, to), stream, &mut part).await?;
    let page = in_turn(caller, part, move |pieces| {
        excerpt::page(pieces, from, chars, raw)
    });
    page.await
}

/// The last lines.
pub async fn last_lines(
    caller: &Caller,
    job: &Job,
    lines: usize,
    stream: Option<Stream>,
    chars: usize,
) -> Result<String, Refusal> {
    let _turn = Turn::to_read(caller, job.output_bytes.min(PAGE_BYTES_MAX)).await?;
    let from = job.output_bytes.saturating_sub(PAGE_BYTES_MAX);
    let mut part = ReadOutput::new(job, 0);
    read(caller, job, (from, job.output_bytes), stream, &mut part).await?;
    let last = in_turn(caller, part, move |pieces| {
        excerpt::last_lines(pieces, lines, chars).text
    });
    last.await
}

/// The lines that match.
pub async fn grep(
    caller: &Caller,
    job: &Job,
    pattern: ShownLinePattern,
    from: Offset,
    stream: Option<Stream>,
    chars: usize,
) -> Result<Hits, Refusal> {
    let _turn = Turn::to_read(caller, job.output_bytes.saturating_sub(from)).await?;
    let read = scan(caller, job, from, stream).await?;
    let hits = in_turn(caller, read, move |pieces| {
        excerpt::grep(pieces, &pattern, chars)
    });
    hits.await
}

/// Reads what is looked through of an output: all of it, or its head and its tail.
async fn scan(
    caller: &Caller,
    job: &Job,
    from: Offset,
    stream: Option<Stream>,
) -> Result<ReadOutput, Refusal> {
    let mut all = ReadOutput::new(job, from);
    let end = job.output_bytes;
    if end.saturating_sub(from) <= SCAN_BYTES_MAX {
        read(caller, job, (from, end), stream, &mut all).await?;
        return Ok(all);
    }
    let head = from + SCAN_HEAD_BYTES;
    read(caller, job, (from, head), stream, &mut all).await?;
    let tail = end - (SCAN_BYTES_MAX - SCAN_HEAD_BYTES);
    read(caller, job, (tail, end), stream, &mut all).await?;
    Ok(all)
}

/// Reads a range of offsets.
pub(super) async fn read(
    caller: &Caller,
    job: &Job,
    (from, to): (Offset, Offset),
    stream: Option<Stream>,
    all: &mut ReadOutput,
) -> Result<(), Error> {
    let executor = &caller.server.executor;
    let mut next = from;
    while next < to {
        let options = ReadOptions {
            from: next,
            max_bytes: READ_BYTES.min(to - next),
            // The bytes exist, but may just be moving from a file into the database.
            wait: READ_TIMEOUT,
            streams: stream.map(|stream| vec![stream]),
        };
        let read = executor.read(JobRef::Number(job.number), options).await?;
        for item in read.items {
            all.append(item);
        }
        if read.next_offset <= next {
            break;
        }
        next = read.next_offset;
    }
    if stream.is_some() {
        all.skipped.push(from..next.max(to));
    }
    Ok(())
}

/// The turn to hold a part of an output: one part for each session, and a few for all.
struct Turn<'a> {
    _own: OwnedSemaphorePermit,
    _shared: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    /// Waits for the turn to read this much; a little needs none.
    async fn to_read(caller: &'a Caller, bytes: u64) -> Result<Option<Self>, Error> {
        if bytes <= SMALL_BYTES_MAX {
            return Ok(None);
        }
        Ok(Some(Self {
            _own: caller.turns.piece().await?,
            _shared: caller.server.mcp.scan_permit().await,
        }))
    }
}

/// Makes a text; from much output in turn with other sessions, because that keeps a processor busy.
async fn in_turn<T: Send + 'static>(
    caller: &Caller,
    read: ReadOutput,
    make: impl FnOnce(&Pieces<'_>) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let bytes: usize = read.parts.iter().map(|(_, bytes)| bytes.len()).sum();
    if bytes as u64 <= SMALL_BYTES_MAX {
        return Ok(make(&read.pieces()));
    }
    let executor = &caller.server.executor;
    Ok(executor.in_turn(move || make(&read.pieces())).await?)
}
