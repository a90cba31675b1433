//! Finds where the last lines of an output begin.
//!
//! It reads backwards in windows, so that the cost depends on the lines asked for and not on the
//! length of the output.

use super::{
    item::{Item, ReadError},
    log::{Cursor, Log},
};
use crate::job::{JobNumber, Offset, Stream};

/// How much is read at once, bytes.
const WINDOW_BYTES: u64 = 256 << 10;

/// The offset at which the last `lines` lines before `end` begin. A last line without a newline
/// counts as one. With `streams`, only lines of those count.
pub async fn last_lines(
    log: &Log,
    job: JobNumber,
    end: Offset,
    lines: u64,
    streams: Option<&[Stream]>,
) -> Result<Offset, ReadError> {
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let mut last_byte_seen = false;
    let mut window_end = end;
    while window_end > 0 {
        // A dropped range can be much longer than all that is kept.
        if let Some(start) = log.gap_start(job, window_end - 1).await? {
            window_end = start;
            continue;
        }
        let window_start = window_end.saturating_sub(WINDOW_BYTES);
        let bytes = window(log, job, window_start, window_end, streams).await?;
        for (offset, data) in bytes.iter().rev() {
            for (i, byte) in data.iter().enumerate().rev() {
                // No line begins after the newline that ends the output.
                let ends_output = !std::mem::replace(&mut last_byte_seen, true);
                if *byte == b'\n' && !ends_output {
                    found += 1;
                    if found == lines {
                        return Ok(offset + i as u64 + 1);
                    }
                }
            }
        }
        window_end = window_start;
    }
    Ok(0)
}

/// The chunks of a window, each with its offset.
async fn window(
    log: &Log,
    job: JobNumber,
    from: Offset,
    to: Offset,
    streams: Option<&[Stream]>,
) -> Result<Vec<(Offset, Vec<u8>)>, ReadError> {
    let mut pieces = Vec::new();
    let mut cursor = Cursor::new(from);
    while cursor.offset < to {
        let batch = log.read(job, &mut cursor, (to - from) as usize).await?;
        for item in batch.items {
            if let Item::Chunk(mut chunk) = item {
                if chunk.offset >= to {
                    break;
                }
                chunk.data.truncate((to - chunk.offset) as usize);
                if streams.is_none_or(|wanted| wanted.contains(&chunk.stream)) {
                    pieces.push((chunk.offset, chunk.data));
                }
            }
        }
        if batch.at_end {
            break;
        }
    }
    Ok(pieces)
}
