//! Counts the lines that a job's earlier attempts have stored, for the next one's bound.
//!
//! Only a lost attempt has another one after it, so the output is read again rather than counted
//! for every job.

use std::time::Duration;

use super::Context;
use crate::{
    job::{Offset, WhenFull},
    output::{Cursor, Item, Log, ReadError},
    store::ClaimedJob,
};

/// How much is read at once, bytes.
const READ_BYTES: usize = 1 << 20;

/// The pause before output that could not be read is read again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is read at most. Meanwhile the shim's handle takes no other command.
const TRIES_MAX: u32 = 4;

/// How many lines are stored before the attempt of this claim, if the job's lines are bounded over
/// all attempts; otherwise 0. Where the output cannot be read, the bound is that of this attempt
/// alone: a job that can run is not held back by what it has written. `None`: the server stops.
pub async fn lines_before(ctx: &Context, claim: &ClaimedJob) -> Option<u64> {
    let output = claim.job.output;
    let end = claim.start_offset;
    if output.max_lines.is_none() || output.when_full == WhenFull::DropOldest || end == 0 {
        return Some(0);
    }
    let log = Log::new(ctx.store.clone(), ctx.layout.spool());
    for _ in 0..TRIES_MAX {
        let error = tokio::select! {
            () = ctx.stopping.cancelled() => return None,
            counted = count(&log, claim, end) => match counted {
                Ok(lines) => return Some(lines),
                Err(error) => error,
            },
        };
        tracing::warn!(job = claim.number, %error, "the lines of earlier attempts cannot be counted; \
            trying again");
        #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    tracing::error!(
        job = claim.number,
        "the lines of earlier attempts are not counted; max_lines bounds this attempt alone"
    );
    Some(0)
}

async fn count(log: &Log, claim: &ClaimedJob, end: Offset) -> Result<u64, ReadError> {
    let (mut lines, mut cursor) = (0, Cursor::new(0));
    while cursor.offset < end {
        let batch = log.read(claim.number, &mut cursor, READ_BYTES).await?;
        let chunks = batch.items.iter().filter_map(|item| match item {
            Item::Chunk(chunk) => Some(&chunk.data),
            Item::Gap(_) => None,
        });
        lines += chunks
            .map(|data| memchr::memchr_iter(b'\n', data).count() as u64)
            .sum::<u64>();
        if batch.at_end {
            break;
        }
    }
    Ok(lines)
}
