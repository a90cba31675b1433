//! The end of an output: its last line, and whether that is a prompt.

use std::time::Duration;

use super::{
    super::{
        excerpt::{self, Piece, Pieces},
        reply,
    },
    output::{self, ReadOutput},
};
use crate::{
    executor::{ReadItem, ReadOptions},
    job::{Job, JobRef, Offset},
    protocol::caller::Caller,
    sys::clock,
};

/// Bytes at the end in which the last line is looked for.
const LAST_LINE_BYTES: u64 = 4 << 10;
/// Longest last line, characters.
const LAST_LINE_CHARS: usize = 200;

/// The last line with text; empty if there is none or it cannot be read.
pub async fn last_line(caller: &Caller, job: JobRef) -> String {
    let executor = &caller.server.executor;
    let Ok(job) = executor.get(job, Default::default()).await else {
        return String::new();
    };
    let from = job.output_bytes.saturating_sub(LAST_LINE_BYTES);
    let mut part = ReadOutput::new(&job, from);
    let to = job.output_bytes;
    match output::read(caller, &job, (from, to), None, &mut part).await {
        Ok(()) => last_text(&part.pieces()),
        Err(_) => String::new(),
    }
}

/// What a job that is waited for does: its last line, or how it stands if it has not written one.
pub async fn progress(caller: &Caller, job: JobRef) -> String {
    let last = last_line(caller, job).await;
    if !last.is_empty() {
        return last;
    }
    match caller.server.executor.get(job, Default::default()).await {
        Ok(job) => format!("job {} {}, no output yet", job.number, reply::outcome(&job)),
        Err(_) => String::new(),
    }
}

/// The last line with text.
fn last_text(pieces: &Pieces<'_>) -> String {
    let mut last = String::new();
    excerpt::clean(pieces, |entry| {
        if let excerpt::Entry::Line(line) = entry
            && !line.text.trim().is_empty()
        {
            last.clear();
            last.extend(line.text.chars().take(LAST_LINE_CHARS));
        }
    });
    last
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
    if !is_old || !is_end(last.offset, &last.data, job.output_bytes) || last.data.ends_with(b"\n") {
        return None;
    }
    let piece = Piece {
        from: last.offset,
        bytes: &last.data,
    };
    let mut pieces = Pieces::new(vec![piece], job.output_bytes);
    pieces.from = last.offset;
    Some(last_text(&pieces))
}

/// Whether these bytes are the end of the output: newer ones may exist that cannot be read yet.
fn is_end(offset: Offset, bytes: &[u8], output_bytes: Offset) -> bool {
    offset + bytes.len() as u64 == output_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_at_the_end_can_be_a_prompt() {
        assert!(is_end(10, b"Go? ", 14));
        assert!(!is_end(10, b"Go? ", 20), "an answer was printed since");
    }
}
