//! Shows output: reads a bounded part of it, and makes the text of a result from it.

use std::time::Duration;

use serde_json::json;

use super::super::{
    excerpt::{self, Bounds, Page, Piece, Source},
    reply::{self, NextCall, body_chars, is_failure},
};
use crate::{
    executor::{Error, ReadItem, ReadOptions},
    job::{Job, JobRef, Offset, Stream},
    protocol::{caller::Caller, jsonrpc::error::Refusal},
    sys::clock,
};

/// How much of an output is looked through for one answer, bytes. Of a longer one the head and the tail
/// are.
const SCAN_BYTES_MAX: u64 = 4 << 20;
/// How much of that is the head, bytes.
const SCAN_HEAD_BYTES: u64 = 1 << 20;
/// Bytes of one read.
const READ_BYTES: u64 = 512 << 10;
/// Bytes from which a page of characters is made: a character takes up to four.
const PAGE_BYTES_MAX: u64 = 256 << 10;
/// Bytes at the end in which the last line is looked for.
const LAST_LINE_BYTES: u64 = 4 << 10;
/// Longest last line, characters.
const LAST_LINE_CHARS: usize = 200;

/// Bytes that were read, contiguous.
#[derive(Debug)]
struct Part {
    from: Offset,
    bytes: Vec<u8>,
}

/// The text of a result about a job: its status, an excerpt of its output from an offset on, and what to
/// call next. `note` begins the status line.
pub async fn report(
    caller: &Caller,
    job: &Job,
    note: Option<&str>,
    from: Offset,
    chars: usize,
) -> Result<String, Refusal> {
    let _scan = caller.server.mcp.scan_permit().await;
    let mut status = reply::status_line(job);
    if let Some(note) = note {
        status = format!("{note}: {status}");
    }
    let next = next_call(job, true);
    let left = body_chars(&status, &next, chars);
    let parts = scan(caller, job, from, None).await?;
    let (total, end) = (job.output_bytes, job.output_bytes);
    let excerpt = in_turn(caller, parts, move |pieces| {
        let source = Source {
            pieces,
            output_bytes: total,
        };
        excerpt::excerpt(&source, Bounds::of(left))
    });
    let body = excerpt.await?;
    let body = match (body.is_empty(), from == 0 || end == from) {
        (false, true) | (true, _) => body,
        (false, false) => format!("output from byte {from}:\n{body}"),
    };
    Ok(reply::compose(&status, &body, &next, chars))
}

/// What a model is likely to do next.
fn next_call(job: &Job, is_cut: bool) -> NextCall {
    let number = job.number;
    match (job.state.is_final(), is_failure(job)) {
        (false, _) => NextCall::new("wait", json!({"jobs": [number], "from": job.output_bytes})),
        (true, true) if is_cut && job.output_bytes > 0 => NextCall::new(
            "search_output",
            json!({"job": number, "pattern": "(?i)error|fail|panic"}),
        ),
        (true, _) => NextCall::new("read_output", json!({"job": number, "tail_lines": 100})),
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
    let _scan = caller.server.mcp.scan_permit().await;
    let to = job.output_bytes.min(from + PAGE_BYTES_MAX);
    let mut parts = Vec::new();
    read(caller, job, (from, to), stream, &mut parts).await?;
    let page = in_turn(caller, parts, move |pieces| {
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
    let _scan = caller.server.mcp.scan_permit().await;
    let from = job.output_bytes.saturating_sub(PAGE_BYTES_MAX);
    let mut parts = Vec::new();
    read(caller, job, (from, job.output_bytes), stream, &mut parts).await?;
    in_turn(caller, parts, move |pieces| {
        excerpt::last_lines(pieces, lines, chars)
    })
    .await
}

/// The lines that match a pattern which compiles.
pub async fn grep(
    caller: &Caller,
    job: &Job,
    pattern: &str,
    from: Offset,
    stream: Option<Stream>,
    chars: usize,
) -> Result<String, Refusal> {
    let _scan = caller.server.mcp.scan_permit().await;
    let parts = scan(caller, job, from, stream).await?;
    let pattern = pattern.to_owned();
    in_turn(caller, parts, move |pieces| {
        excerpt::grep(pieces, &pattern, chars)
    })
    .await
}

/// The last line with text; empty if there is none or it cannot be read.
pub async fn last_line(caller: &Caller, job: JobRef) -> String {
    let executor = &caller.server.executor;
    let Ok(job) = executor.get(job, Default::default()).await else {
        return String::new();
    };
    let from = job.output_bytes.saturating_sub(LAST_LINE_BYTES);
    let mut parts = Vec::new();
    if read(caller, &job, (from, job.output_bytes), None, &mut parts)
        .await
        .is_err()
    {
        return String::new();
    }
    excerpt::last_lines(&pieces(&parts), 1, LAST_LINE_CHARS)
}

/// The prompt at the end of an output: a last line without a line end that is at least this old.
pub async fn prompt(caller: &Caller, job: &Job, age: Duration) -> Option<String> {
    let options = ReadOptions {
        from: job.output_bytes.saturating_sub(LAST_LINE_BYTES),
        max_bytes: LAST_LINE_BYTES,
        wait: Duration::ZERO,
        streams: None,
    };
    let read = caller
        .server
        .executor
        .read(JobRef::Number(job.number), options);
    let items = read.await.ok()?.items;
    let ReadItem::Chunk(last) = items.last()? else {
        return None;
    };
    let is_old = clock::now().0 - last.at.0 >= age.as_micros() as i64;
    if !is_old || last.data.ends_with(b"\n") {
        return None;
    }
    let piece = Piece {
        from: last.offset,
        bytes: &last.data,
    };
    Some(excerpt::last_lines(&[piece], 1, LAST_LINE_CHARS))
}

/// Reads what is looked through of an output: all of it, or its head and its tail.
async fn scan(
    caller: &Caller,
    job: &Job,
    from: Offset,
    stream: Option<Stream>,
) -> Result<Vec<Part>, Refusal> {
    let mut parts = Vec::new();
    let end = job.output_bytes;
    if end - from.min(end) <= SCAN_BYTES_MAX {
        read(caller, job, (from, end), stream, &mut parts).await?;
        return Ok(parts);
    }
    read(
        caller,
        job,
        (from, from + SCAN_HEAD_BYTES),
        stream,
        &mut parts,
    )
    .await?;
    let tail = end - (SCAN_BYTES_MAX - SCAN_HEAD_BYTES);
    read(caller, job, (tail, end), stream, &mut parts).await?;
    Ok(parts)
}

/// Reads a range of offsets. Missing bytes, and those of other streams, end a part.
async fn read(
    caller: &Caller,
    job: &Job,
    (from, to): (Offset, Offset),
    stream: Option<Stream>,
    parts: &mut Vec<Part>,
) -> Result<(), Error> {
    let executor = &caller.server.executor;
    let mut next = from;
    while next < to {
        let options = ReadOptions {
            from: next,
            max_bytes: READ_BYTES.min(to - next),
            wait: Duration::ZERO,
            streams: stream.map(|stream| vec![stream]),
        };
        let read = executor.read(JobRef::Number(job.number), options).await?;
        for item in read.items {
            if let ReadItem::Chunk(chunk) = item {
                append(parts, chunk.offset, &chunk.data);
            }
        }
        if read.next_offset <= next {
            break;
        }
        next = read.next_offset;
    }
    Ok(())
}

fn append(parts: &mut Vec<Part>, from: Offset, bytes: &[u8]) {
    if let Some(last) = parts.last_mut()
        && last.from + last.bytes.len() as u64 == from
    {
        last.bytes.extend_from_slice(bytes);
        return;
    }
    parts.push(Part {
        from,
        bytes: bytes.to_vec(),
    });
}

fn pieces(parts: &[Part]) -> Vec<Piece<'_>> {
    parts
        .iter()
        .map(|part| Piece {
            from: part.from,
            bytes: &part.bytes,
        })
        .collect()
}

/// Makes a text in turn with other sessions, because it keeps a processor busy.
async fn in_turn<T: Send + 'static>(
    caller: &Caller,
    parts: Vec<Part>,
    make: impl FnOnce(&[Piece<'_>]) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let executor = &caller.server.executor;
    Ok(executor.in_turn(move || make(&pieces(&parts))).await?)
}
