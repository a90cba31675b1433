//! Writes rows of stored output: chunks and gaps of small outputs, and which segments hold the
//! rest.
//!
//! It opens no file; a segment's row only says where its bytes are.

use serde::Serialize;

use super::{
    attempts::fenced,
    columns::{hex, int, json},
    job_snapshot::WriteBatch,
};
use crate::{
    job::{Chunk, Gap, GapReason, JobNumber},
    store::types::{Fenced, SegmentRow},
};

/// Rows are inserted in statements of about this much data, so that finishing many jobs at once
/// does not hold all their output a second time, bytes.
const STATEMENT_BYTES: usize = 1 << 20;

/// A chunk or a gap that becomes a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputRow<'a> {
    job: JobNumber,
    attempt: u32,
    item: RowContent<'a>,
}

#[derive(Debug, Clone, Copy)]
enum RowContent<'a> {
    Chunk(&'a Chunk),
    Gap(&'a Gap),
}

/// The columns of a row; `start` says where its bytes begin in the statement's BLOB.
#[derive(Serialize)]
struct ChunkRow {
    job: JobNumber,
    offset: i64,
    length: i64,
    attempt: u32,
    stream: Option<&'static str>,
    at: Option<i64>,
    gap: Option<&'static str>,
    gap_because: Option<&'static str>,
    start: usize,
}

/// All chunks and gaps of an attempt.
pub(super) fn output_rows<'a>(
    job: JobNumber,
    attempt: u32,
    chunks: &'a [Chunk],
    gaps: &'a [Gap],
) -> impl Iterator<Item = OutputRow<'a>> {
    let chunks = chunks
        .iter()
        .map(move |chunk| (chunk.attempt, RowContent::Chunk(chunk)));
    let gaps = gaps.iter().map(move |gap| (attempt, RowContent::Gap(gap)));
    chunks
        .chain(gaps)
        .map(move |(attempt, item)| OutputRow { job, attempt, item })
}

/// Inserts rows: one bound BLOB, and a list of where each row's bytes are in it.
pub(super) async fn insert_output_rows(
    batch: &mut WriteBatch<'_>,
    output_rows: &[OutputRow<'_>],
) -> sqlx::Result<()> {
    let mut bytes = Vec::new();
    let mut rows = Vec::new();
    for (nth, piece) in output_rows.iter().enumerate() {
        rows.push(piece.row(bytes.len()));
        if let RowContent::Chunk(chunk) = piece.item {
            bytes.extend_from_slice(&chunk.data);
        }
        if bytes.len() >= STATEMENT_BYTES || nth + 1 == output_rows.len() {
            insert_rows(
                batch,
                std::mem::take(&mut bytes),
                &std::mem::take(&mut rows),
            )
            .await?;
        }
    }
    Ok(())
}

async fn insert_rows(
    batch: &mut WriteBatch<'_>,
    bytes: Vec<u8>,
    rows: &[ChunkRow],
) -> sqlx::Result<()> {
    let rows = json(&rows)?;
    sqlx::query!(
        "INSERT INTO output_chunks (job, offset, length, attempt, stream, at, gap, gap_because,
                                    data)
         SELECT value ->> 'job', value ->> 'offset', value ->> 'length', value ->> 'attempt',
                value ->> 'stream', value ->> 'at', value ->> 'gap', value ->> 'gap_because',
                CASE WHEN value ->> 'gap' IS NULL
                     THEN substr(?1, (value ->> 'start') + 1, value ->> 'length') END
         FROM json_each(?2)",
        bytes,
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// The nearest reason that the first version's CHECK on the column `gap` allows.
fn listed(reason: GapReason) -> GapReason {
    match reason {
        GapReason::DiskFull => GapReason::DropNewest,
        other => other,
    }
}

impl OutputRow<'_> {
    fn row(&self, start: usize) -> ChunkRow {
        let (job, attempt) = (self.job, self.attempt);
        match self.item {
            RowContent::Chunk(chunk) => ChunkRow {
                job,
                offset: int(chunk.offset),
                length: chunk.data.len() as i64,
                attempt,
                stream: Some(chunk.stream.name()),
                at: Some(chunk.at.0),
                gap: None,
                gap_because: None,
                start,
            },
            RowContent::Gap(gap) => ChunkRow {
                job,
                offset: int(gap.from),
                length: int(gap.to.saturating_sub(gap.from)),
                attempt,
                stream: None,
                at: None,
                gap: Some(listed(gap.reason).name()),
                gap_because: (listed(gap.reason) != gap.reason).then(|| gap.reason.name()),
                start,
            },
        }
    }
}

/// The columns of a segment's row; the digest's state travels as hex.
#[derive(Serialize)]
struct SegmentColumns {
    job: JobNumber,
    attempt: u32,
    first_offset: i64,
    end_offset: i64,
    file_bytes: i64,
    hash_state: String,
    counts: Option<String>,
}

/// Inserts rows of segments. An existing row stays: a segment with a row never changes.
pub(super) async fn insert_segments(
    batch: &mut WriteBatch<'_>,
    segments: &[&SegmentRow],
) -> sqlx::Result<()> {
    if segments.is_empty() {
        return Ok(());
    }
    let rows = segments.iter().map(|segment| {
        Ok(SegmentColumns {
            job: segment.number,
            attempt: segment.attempt,
            first_offset: int(segment.first_offset),
            end_offset: int(segment.end_offset),
            file_bytes: int(segment.file_bytes),
            hash_state: hex(&segment.hash_state),
            counts: segment.counts.as_ref().map(json).transpose()?,
        })
    });
    let rows = json(&rows.collect::<sqlx::Result<Vec<_>>>()?)?;
    sqlx::query!(
        "INSERT INTO segments (job, attempt, first_offset, end_offset, file_bytes, hash_state, counts)
         SELECT value ->> 'job', value ->> 'attempt', value ->> 'first_offset',
                value ->> 'end_offset', value ->> 'file_bytes', unhex(value ->> 'hash_state'),
                value ->> 'counts'
         FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// Deletes the rows of an attempt's segments: its bytes are in rows of their own now.
pub(super) async fn forget_segments(
    batch: &mut WriteBatch<'_>,
    job: JobNumber,
    attempt: u32,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM segments WHERE job = ?1 AND attempt = ?2",
        job,
        attempt
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// Deletes the rows of those segments of an attempt that lie in gaps.
pub(super) async fn forget_dropped(
    batch: &mut WriteBatch<'_>,
    job: JobNumber,
    attempt: u32,
    gaps: &[Gap],
) -> sqlx::Result<()> {
    for gap in gaps {
        let (from, to) = (int(gap.from), int(gap.to));
        sqlx::query!(
            "DELETE FROM segments WHERE job = ?1 AND attempt = ?2
               AND first_offset >= ?3 AND first_offset < ?4 AND end_offset <= ?4",
            job,
            attempt,
            from,
            to
        )
        .execute(&mut *batch.conn)
        .await?;
    }
    Ok(())
}

/// Stores a complete segment while its attempt goes on.
pub(super) async fn segment_read(
    batch: &mut WriteBatch<'_>,
    segment: &SegmentRow,
) -> sqlx::Result<Fenced> {
    let end = int(segment.end_offset);
    let done = sqlx::query!(
        "UPDATE jobs SET output_bytes = max(output_bytes, ?3)
         WHERE number = ?1 AND attempt = ?2 AND state IN ('running', 'paused')",
        segment.number,
        segment.attempt,
        end
    )
    .execute(&mut *batch.conn)
    .await?;
    let current = done.rows_affected() == 1;
    if current {
        insert_segments(batch, &[segment]).await?;
    }
    Ok(fenced(current))
}
