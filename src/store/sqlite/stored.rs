//! Where a byte of a job's output is: in a row, in a segment that has a row, or after both.
//!
//! `output` reads the segments.

use futures_util::TryStreamExt;
use sqlx::SqlitePool;

use super::{
    columns::{from_json_opt, int, malformed},
    events,
};
use crate::{
    job::{Chunk, Gap, GapReason, JobNumber, Micros, Offset, Stream},
    store::types::{CountedSegment, OpenTail, SegmentRow, Stored, StoredItem},
};

/// What one statement finds about an offset of a job's output.
struct OffsetLookup {
    active: bool,
    attempt: u32,
    start_offset: Option<i64>,
    row_offset: Option<i64>,
    segment: Option<SegmentRow>,
    segments_end: Option<i64>,
}

/// Where the byte at `offset` is.
pub(in crate::store) async fn stored(
    readers: &SqlitePool,
    number: JobNumber,
    offset: Offset,
    max_bytes: u64,
) -> sqlx::Result<Stored> {
    let Some(lookup) = lookup(readers, number, offset).await? else {
        return Ok(Stored::Open(None));
    };
    // Rows never change once they are there, so a second statement may read them.
    if let Some(first) = lookup.row_offset {
        return rows_from(readers, number, first, offset, max_bytes)
            .await
            .map(Stored::Rows);
    }
    if let Some(segment) = lookup.segment {
        return Ok(Stored::Segment(segment));
    }
    let tail = lookup.active.then(|| OpenTail {
        attempt: lookup.attempt,
        first_offset: lookup.start_offset.max(lookup.segments_end).unwrap_or(0) as u64,
    });
    Ok(Stored::Open(tail))
}

/// Everything in one statement: between two of them an output may move from segments into rows.
async fn lookup(
    readers: &SqlitePool,
    number: JobNumber,
    offset: Offset,
) -> sqlx::Result<Option<OffsetLookup>> {
    let offset = int(offset);
    let row = sqlx::query!(
        r#"SELECT j.state AS "state!: String", j.attempt AS "attempt!: u32",
               a.start_offset AS "start_offset: i64",
               (SELECT latest.offset FROM
                   (SELECT offset, length FROM output_chunks
                    WHERE job = j.number AND offset <= ?2 ORDER BY offset DESC LIMIT 1) AS latest
                WHERE latest.offset + latest.length > ?2) AS "row_offset: i64",
               s.first_offset AS "first_offset: i64", s.attempt AS "segment_attempt: u32",
               s.end_offset AS "end_offset: i64", s.file_bytes AS "file_bytes: i64",
               s.hash_state AS "hash_state: Vec<u8>", s.counts AS "counts: String",
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
            counts: from_json_opt(row.counts.as_deref())?,
        }),
        _ => None,
    };
    Ok(Some(OffsetLookup {
        active: events::state(&row.state)?.is_active(),
        attempt: row.attempt,
        start_offset: row.start_offset,
        row_offset: row.row_offset,
        segment,
        segments_end: row.segments_end,
    }))
}

/// Up to `limit` segments of a job that have rows and begin before `below`, the last one first.
pub(in crate::store) async fn segments_before(
    readers: &SqlitePool,
    number: JobNumber,
    below: Offset,
    limit: u32,
) -> sqlx::Result<Vec<CountedSegment>> {
    let below = int(below);
    let rows = sqlx::query!(
        r#"SELECT first_offset AS "first_offset!: i64", end_offset AS "end_offset!: i64",
               counts AS "counts: String"
           FROM segments WHERE job = ?1 AND first_offset < ?2 AND end_offset > first_offset
           ORDER BY first_offset DESC LIMIT ?3"#,
        number,
        below,
        limit
    )
    .fetch_all(readers)
    .await?;
    let segments = rows.into_iter().map(|row| {
        Ok(CountedSegment {
            first_offset: row.first_offset as u64,
            end_offset: row.end_offset as u64,
            counts: from_json_opt(row.counts.as_deref())?,
        })
    });
    segments.collect()
}

/// Rows from the one at `first` on, up to `max_bytes` after `offset`. The rows come one by one, so
/// no more is read than is returned (but for SQLite's few rows of read-ahead).
async fn rows_from(
    readers: &SqlitePool,
    number: JobNumber,
    first: i64,
    offset: Offset,
    max_bytes: u64,
) -> sqlx::Result<Vec<StoredItem>> {
    let mut rows = sqlx::query!(
        r#"SELECT offset AS "offset!: i64", length AS "length!: i64", attempt AS "attempt!: u32",
                  stream AS "stream: String", at AS "at: i64",
                  coalesce(gap_because, gap) AS "gap: String",
                  data AS "data: Vec<u8>"
           FROM output_chunks WHERE job = ?1 AND offset >= ?2 ORDER BY offset"#,
        number,
        first
    )
    .fetch(readers);
    let mut items = Vec::new();
    let mut next = first as u64;
    while let Some(row) = rows.try_next().await? {
        // The rows are not contiguous here: the rest may be in segments.
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
        let overhead = (items.len() * Chunk::OVERHEAD_BYTES) as u64;
        if next.saturating_sub(offset) + overhead >= max_bytes {
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
