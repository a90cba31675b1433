//! Rows of stored output: chunks and gaps of small outputs, and which segments hold the rest.
//!
//! No file is opened here; a segment's row only says where its bytes are.

use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::SqlitePool;

use super::{
    Fenced, OpenTail, SegmentRow, Stored, StoredItem,
    attempts::fenced,
    columns::{hex, int, json, malformed},
    events,
    standing::Batch,
};
use crate::job::{Chunk, Gap, GapReason, JobNumber, Micros, Offset, Stream};

/// Rows are inserted in statements of about this much data, so that finishing many jobs at once
/// does not hold all their output a second time, bytes.
const STATEMENT_BYTES: usize = 1 << 20;

/// A chunk or a gap on its way into a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    job: JobNumber,
    attempt: u32,
    item: Item<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Chunk(&'a Chunk),
    Gap(&'a Gap),
}

/// The columns of a row; `start` says where its bytes begin in the statement's BLOB.
#[derive(Serialize)]
struct Row {
    job: JobNumber,
    offset: i64,
    length: i64,
    attempt: u32,
    stream: Option<&'static str>,
    at: Option<i64>,
    gap: Option<&'static str>,
    start: usize,
}

/// All chunks and gaps of an attempt.
pub(super) fn pieces<'a>(
    job: JobNumber,
    attempt: u32,
    chunks: &'a [Chunk],
    gaps: &'a [Gap],
) -> impl Iterator<Item = Piece<'a>> {
    let chunks = chunks
        .iter()
        .map(move |chunk| (chunk.attempt, Item::Chunk(chunk)));
    let gaps = gaps.iter().map(move |gap| (attempt, Item::Gap(gap)));
    chunks
        .chain(gaps)
        .map(move |(attempt, item)| Piece { job, attempt, item })
}

/// Inserts rows: one BLOB bound, and cut by a list of where each row's bytes are.
pub(super) async fn insert_pieces(batch: &mut Batch<'_>, pieces: &[Piece<'_>]) -> sqlx::Result<()> {
    let mut bytes = Vec::new();
    let mut rows = Vec::new();
    for (nth, piece) in pieces.iter().enumerate() {
        rows.push(piece.row(bytes.len()));
        if let Item::Chunk(chunk) = piece.item {
            bytes.extend_from_slice(&chunk.data);
        }
        if bytes.len() >= STATEMENT_BYTES || nth + 1 == pieces.len() {
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

async fn insert_rows(batch: &mut Batch<'_>, bytes: Vec<u8>, rows: &[Row]) -> sqlx::Result<()> {
    let rows = json(&rows)?;
    sqlx::query!(
        "INSERT INTO output_chunks (job, offset, length, attempt, stream, at, gap, data)
         SELECT value ->> 'job', value ->> 'offset', value ->> 'length', value ->> 'attempt',
                value ->> 'stream', value ->> 'at', value ->> 'gap',
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

impl Piece<'_> {
    fn row(&self, start: usize) -> Row {
        let (job, attempt) = (self.job, self.attempt);
        match self.item {
            Item::Chunk(chunk) => Row {
                job,
                offset: int(chunk.offset),
                length: chunk.data.len() as i64,
                attempt,
                stream: Some(chunk.stream.name()),
                at: Some(chunk.at.0),
                gap: None,
                start,
            },
            Item::Gap(gap) => Row {
                job,
                offset: int(gap.from),
                length: int(gap.to.saturating_sub(gap.from)),
                attempt,
                stream: None,
                at: None,
                gap: Some(gap.reason.name()),
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
}

/// Inserts rows of segments. One that is there already stays: a segment with a row never changes.
pub(super) async fn insert_segments(
    batch: &mut Batch<'_>,
    segments: &[&SegmentRow],
) -> sqlx::Result<()> {
    if segments.is_empty() {
        return Ok(());
    }
    let rows = segments.iter().map(|segment| SegmentColumns {
        job: segment.number,
        attempt: segment.attempt,
        first_offset: int(segment.first_offset),
        end_offset: int(segment.end_offset),
        file_bytes: int(segment.file_bytes),
        hash_state: hex(&segment.hash_state),
    });
    let rows = json(&rows.collect::<Vec<_>>())?;
    sqlx::query!(
        "INSERT INTO segments (job, attempt, first_offset, end_offset, file_bytes, hash_state)
         SELECT value ->> 'job', value ->> 'attempt', value ->> 'first_offset',
                value ->> 'end_offset', value ->> 'file_bytes', unhex(value ->> 'hash_state')
         FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// Takes the rows of an attempt's segments out: its bytes are in rows of their own now.
pub(super) async fn forget_segments(
    batch: &mut Batch<'_>,
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

/// Writes down a segment that is complete, while its attempt goes on.
pub(super) async fn segment_read(
    batch: &mut Batch<'_>,
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

/// What one statement finds about a place in a job's output.
struct Place {
    active: bool,
    attempt: u32,
    start_offset: Option<i64>,
    row_offset: Option<i64>,
    segment: Option<SegmentRow>,
    segments_end: Option<i64>,
}

/// Where the byte at `offset` is.
pub(super) async fn stored(
    readers: &SqlitePool,
    number: JobNumber,
    offset: Offset,
    max_bytes: u64,
) -> sqlx::Result<Stored> {
    let Some(place) = place(readers, number, offset).await? else {
        return Ok(Stored::Open(None));
    };
    // Rows never change once they are there, so a second statement may read them.
    if let Some(first) = place.row_offset {
        return rows_from(readers, number, first, offset, max_bytes)
            .await
            .map(Stored::Rows);
    }
    if let Some(segment) = place.segment {
        return Ok(Stored::Segment(segment));
    }
    let tail = place.active.then(|| OpenTail {
        attempt: place.attempt,
        first_offset: place.start_offset.max(place.segments_end).unwrap_or(0) as u64,
    });
    Ok(Stored::Open(tail))
}

/// Everything in one statement: between two of them an output may move from segments into rows.
async fn place(
    readers: &SqlitePool,
    number: JobNumber,
    offset: Offset,
) -> sqlx::Result<Option<Place>> {
    let offset = int(offset);
    let row = sqlx::query!(
        r#"SELECT j.state AS "state!: String", j.attempt AS "attempt!: u32",
               a.start_offset AS "start_offset: i64",
               (SELECT c.offset FROM
                   (SELECT offset, length FROM output_chunks
                    WHERE job = j.number AND offset <= ?2 ORDER BY offset DESC LIMIT 1) AS c
                WHERE c.offset + c.length > ?2) AS "row_offset: i64",
               s.first_offset AS "first_offset: i64", s.attempt AS "segment_attempt: u32",
               s.end_offset AS "end_offset: i64", s.file_bytes AS "file_bytes: i64",
               s.hash_state AS "hash_state: Vec<u8>",
               (SELECT l.end_offset FROM segments AS l
                WHERE l.job = j.number AND l.attempt = j.attempt
                ORDER BY l.first_offset DESC LIMIT 1) AS "segments_end: i64"
           FROM jobs AS j
           LEFT JOIN attempts AS a ON a.job = j.number AND a.attempt = j.attempt
           LEFT JOIN segments AS s ON s.job = j.number AND s.end_offset > ?2
                AND (s.first_offset, s.attempt) = (
                    SELECT first_offset, attempt FROM segments AS n
                    WHERE n.job = j.number AND n.first_offset <= ?2
                      AND n.end_offset > n.first_offset
                    ORDER BY n.first_offset DESC LIMIT 1)
           WHERE j.number = ?1"#,
        number,
        offset
    )
    .fetch_optional(readers)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let segment = match (row.first_offset, row.segment_attempt, row.end_offset) {
        (Some(first_offset), Some(attempt), Some(end_offset)) => Some(SegmentRow {
            number,
            attempt,
            first_offset: first_offset as u64,
            end_offset: end_offset as u64,
            file_bytes: row.file_bytes.unwrap_or(0) as u64,
            hash_state: row.hash_state.unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(Some(Place {
        active: events::state(&row.state)?.is_active(),
        attempt: row.attempt,
        start_offset: row.start_offset,
        row_offset: row.row_offset,
        segment,
        segments_end: row.segments_end,
    }))
}

/// Rows from the one at `first` on, until `max_bytes` behind `offset` are there. The rows come one
/// by one, so no more is read than is returned (but for SQLite's few rows of read-ahead).
async fn rows_from(
    readers: &SqlitePool,
    number: JobNumber,
    first: i64,
    offset: Offset,
    max_bytes: u64,
) -> sqlx::Result<Vec<StoredItem>> {
    let mut rows = sqlx::query!(
        r#"SELECT offset AS "offset!: i64", length AS "length!: i64", attempt AS "attempt!: u32",
                  stream AS "stream: String", at AS "at: i64", gap AS "gap: String",
                  data AS "data: Vec<u8>"
           FROM output_chunks WHERE job = ?1 AND offset >= ?2 ORDER BY offset"#,
        number,
        first
    )
    .fetch(readers);
    let mut items = Vec::new();
    let mut next = first as u64;
    while let Some(row) = rows.try_next().await? {
        // Behind a hole the rest may be in segments.
        if row.offset as u64 != next {
            break;
        }
        next += row.length as u64;
        items.push(match (row.data, row.gap) {
            (Some(data), None) => StoredItem::Chunk(Chunk {
                offset: row.offset as u64,
                stream: stream(row.stream.as_deref())?,
                attempt: row.attempt,
                at: Micros(row.at.unwrap_or(0)),
                data,
            }),
            (None, Some(reason)) => StoredItem::Gap(Gap {
                from: row.offset as u64,
                to: next,
                reason: GapReason::from_name(&reason)
                    .ok_or_else(|| malformed(format!("no gap is called {reason}")))?,
            }),
            _ => return Err(malformed("a row of output is neither bytes nor a gap")),
        });
        if next.saturating_sub(offset) >= max_bytes {
            break;
        }
    }
    Ok(items)
}

fn stream(name: Option<&str>) -> sqlx::Result<Stream> {
    [Stream::Stdout, Stream::Stderr, Stream::Pty]
        .into_iter()
        .find(|stream| Some(stream.name()) == name)
        .ok_or_else(|| malformed(format!("no stream is called {name:?}")))
}
