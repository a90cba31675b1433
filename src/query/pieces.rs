//! All stored output, piece by piece: rows of the database first, then segments, those of attempts
//! that still run included. Each byte comes once.
//!
//! The rows and the list of segments are of one moment (a read transaction). An attempt that ends
//! meanwhile takes its segments away; its bytes are looked for in the rows again then.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use rusqlite::{Connection, Row, params};

use super::open;
use crate::{
    job::Stream,
    spool::{
        Layout, Position, RecordKind, SegmentName, SegmentReader,
        reader::{NextRecord, is_no_segment},
    },
    store::LongPath,
};

/// Rows that are read at once, with and without their bytes: each has up to 64 KiB of those.
const ROWS_WITH_DATA: i64 = 32;
const ROWS_WITHOUT_DATA: i64 = 4096;
/// How much earlier a file may seem to have been written than its last record says, µs: the kernel's
/// clock for files is a coarse one.
const CLOCKS_DIFFER_US: i64 = 1_000_000;

/// Which pieces somebody wants. More may be found than are wanted, never less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanFilter {
    /// Of one job.
    pub job: Option<i64>,
    /// That begin here or behind.
    pub from: i64,
    /// That begin here or before.
    pub to: i64,
    /// That were written then or later, µs since 1970.
    pub since_us: Option<i64>,
    /// With their bytes.
    pub data: bool,
}

/// Bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedPiece {
    /// The job's number.
    pub job: i64,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Where it begins in the job's output.
    pub offset: i64,
    /// How many bytes it has.
    pub bytes: i64,
    /// `stdout`, `stderr` or `pty`.
    pub stream: String,
    /// When it was captured, µs since 1970.
    pub at_us: i64,
    /// The bytes, if they are wanted.
    pub data: Vec<u8>,
}

impl ScannedPiece {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get(0)?,
            attempt: row.get(1)?,
            offset: row.get(2)?,
            bytes: row.get(3)?,
            stream: row.get(4)?,
            at_us: row.get(5)?,
            data: row.get::<_, Option<Vec<u8>>>(6)?.unwrap_or_default(),
        })
    }
}

/// Where output is found: a connection that stays at one moment, and the spool.
#[derive(Debug)]
pub struct OutputSource {
    conn: Mutex<Connection>,
    way: LongPath,
    layout: Layout,
}

impl OutputSource {
    /// As things stand now.
    pub fn new(conn: Connection, way: LongPath, layout: Layout) -> rusqlite::Result<Self> {
        conn.execute_batch("BEGIN; SELECT count(*) FROM nodes;")?;
        Ok(Self {
            conn: Mutex::new(conn),
            way,
            layout,
        })
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        // A panic cannot leave it half-changed.
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How an attempt that was open at that moment was stored when it had ended, from an offset on.
    fn later(
        &self,
        span: &SegmentRange,
        wanted: &ScanFilter,
    ) -> rusqlite::Result<(Vec<ScannedPiece>, Vec<SegmentRange>)> {
        let conn = open::read_only(&self.way, &self.layout)?;
        let from = wanted.from.max(span.first);
        let mut rows = conn.prepare(&format!(
            "{PIECES} WHERE c.job = ?2 AND c.offset BETWEEN ?3 AND ?4 AND c.attempt = ?5
             AND c.data IS NOT NULL ORDER BY c.offset"
        ))?;
        let pieces = rows.query_map(
            params![wanted.data, span.job, from, wanted.to, span.attempt],
            ScannedPiece::of_row,
        )?;
        let mut segments = conn.prepare(&format!(
            "{SEGMENTS} WHERE job = ?1 AND attempt = ?2 AND first_offset >= ?3"
        ))?;
        let spans = segments.query_map(
            params![span.job, span.attempt, span.first],
            SegmentRange::of_row,
        )?;
        Ok((
            pieces.collect::<rusqlite::Result<_>>()?,
            spans.collect::<rusqlite::Result<_>>()?,
        ))
    }
}

/// Pieces in rows; `?1` is whether with their bytes.
const PIECES: &str = "SELECT c.job, c.attempt, c.offset, c.length, c.stream, c.at,
                             CASE WHEN ?1 THEN c.data END FROM output_chunks c";
const SEGMENTS: &str = "SELECT job, attempt, first_offset, end_offset FROM segments";

/// A segment, or what is known of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SegmentRange {
    job: i64,
    attempt: u32,
    first: i64,
    /// `None`: of an attempt that ran at that moment.
    end: Option<i64>,
}

impl SegmentRange {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get(0)?,
            attempt: row.get(1)?,
            first: row.get(2)?,
            end: row.get(3)?,
        })
    }

    fn name(&self) -> SegmentName {
        SegmentName {
            job: self.job,
            attempt: self.attempt,
            first_offset: u64::try_from(self.first).unwrap_or(0),
        }
    }

    fn may_have(&self, wanted: &ScanFilter) -> bool {
        self.first <= wanted.to && self.end.is_none_or(|end| end > wanted.from)
    }
}

/// Walks through the pieces that are wanted.
#[derive(Debug)]
pub struct OutputScan {
    wanted: ScanFilter,
    /// The last row that was read: when, of which job, where; `None` when all were.
    row: Option<(i64, i64, i64)>,
    ready: VecDeque<ScannedPiece>,
    /// `None` before the rows are read through.
    spans: Option<VecDeque<SegmentRange>>,
    open: Option<(SegmentRange, SegmentReader)>,
}

impl OutputScan {
    /// From the beginning.
    pub fn new(wanted: ScanFilter) -> Self {
        // Nothing is before the first row: no time, no number and no offset is negative, but for
        // times before 1970.
        let since = wanted.since_us.map_or(i64::MIN, |us| us.saturating_sub(1));
        Self {
            wanted,
            row: Some((
                since,
                if wanted.since_us.is_some() {
                    i64::MAX
                } else {
                    -1
                },
                -1,
            )),
            ready: VecDeque::new(),
            spans: None,
            open: None,
        }
    }

    /// The next one.
    pub fn next(&mut self, library: &OutputSource) -> rusqlite::Result<Option<ScannedPiece>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if let Some(after) = self.row {
                self.read_rows(library, after)?;
            } else if let Some((span, mut reader)) = self.open.take() {
                let next = next_of(&mut reader, &span, &self.wanted);
                if let Some(piece) = next.map_err(io_failure)? {
                    self.open = Some((span, reader));
                    return Ok(Some(piece));
                }
            } else if !self.open_next(library)? {
                return Ok(None);
            }
        }
    }

    fn read_rows(
        &mut self,
        library: &OutputSource,
        after: (i64, i64, i64),
    ) -> rusqlite::Result<()> {
        let ScanFilter {
            job,
            from,
            to,
            since_us,
            data,
        } = self.wanted;
        let limit = if data {
            ROWS_WITH_DATA
        } else {
            ROWS_WITHOUT_DATA
        };
        let (at, number, offset) = after;
        let conn = library.conn();
        let read = |tail: &str, params: &[&dyn rusqlite::ToSql]| {
            let mut statement = conn.prepare(&format!("{PIECES} {tail}"))?;
            let rows = statement.query_map(params, ScannedPiece::of_row)?;
            rows.collect::<rusqlite::Result<VecDeque<ScannedPiece>>>()
        };
        self.ready = match (job, since_us) {
            (Some(job), _) => read(
                "WHERE c.job = ?2 AND c.offset > ?3 AND c.offset BETWEEN ?4 AND ?5
                 AND c.data IS NOT NULL ORDER BY c.offset LIMIT ?6",
                params![data, job, offset, from, to, limit],
            ),
            (None, Some(_)) => read(
                "WHERE (c.at, c.job, c.offset) > (?2, ?3, ?4) AND c.at IS NOT NULL
                 AND c.offset BETWEEN ?5 AND ?6 ORDER BY c.at, c.job, c.offset LIMIT ?7",
                params![data, at, number, offset, from, to, limit],
            ),
            (None, None) => read(
                "WHERE (c.job, c.offset) > (?2, ?3) AND c.offset BETWEEN ?4 AND ?5
                 AND c.data IS NOT NULL ORDER BY c.job, c.offset LIMIT ?6",
                params![data, number, offset, from, to, limit],
            ),
        }?;
        let more = self.ready.len() as i64 == limit;
        let last = self.ready.back().filter(|_| more);
        self.row = last.map(|last| (last.at_us, last.job, last.offset));
        Ok(())
    }

    /// Opens the next segment that may have something; false where there is none.
    fn open_next(&mut self, library: &OutputSource) -> rusqlite::Result<bool> {
        if self.spans.is_none() {
            self.spans = Some(spans(library, &self.wanted)?);
        }
        let Some(span) = self.spans.as_mut().and_then(VecDeque::pop_front) else {
            return Ok(false);
        };
        if !span.may_have(&self.wanted) || is_older(library, &span, &self.wanted) {
            return Ok(true);
        }
        match SegmentReader::open(&library.layout.spool(), Position::first(span.name())) {
            Ok(reader) => self.open = Some((span, reader)),
            Err(error) if !is_no_segment(&error) => return Err(io_failure(error)),
            // Deleted, or damaged: there are no bytes.
            Err(_) if span.end.is_some() => {}
            Err(_) => self.take_later(library, &span)?,
        }
        Ok(true)
    }

    /// The attempt has ended meanwhile, or has dropped that segment: what is left of it is where it is
    /// stored now. It is asked for once; of segments that are gone later there is nothing more.
    fn take_later(&mut self, library: &OutputSource, span: &SegmentRange) -> rusqlite::Result<()> {
        let (pieces, segments) = library.later(span, &self.wanted)?;
        let is_in_rows = !pieces.is_empty();
        self.ready.extend(pieces);
        let left = self.spans.get_or_insert_default();
        left.retain_mut(|other| {
            if (other.job, other.attempt) != (span.job, span.attempt) || other.end.is_some() {
                return true;
            }
            other.end = Some(i64::MAX);
            !is_in_rows && segments.iter().all(|segment| segment.first != other.first)
        });
        for segment in segments.into_iter().rev() {
            if !left.contains(&segment) {
                left.push_front(segment);
            }
        }
        Ok(())
    }
}

/// The segments that hold something of what is wanted, as they stand in the database, and those of
/// attempts that run, as they stand in the spool.
fn spans(library: &OutputSource, wanted: &ScanFilter) -> rusqlite::Result<VecDeque<SegmentRange>> {
    let (mut spans, running) = {
        let conn = library.conn();
        let list = |sql: &str, none: &str| match wanted.job {
            Some(job) => {
                let mut statement = conn.prepare(&format!("{sql} job = ?1"))?;
                let rows = statement.query_map([job], SegmentRange::of_row)?;
                rows.collect::<rusqlite::Result<Vec<SegmentRange>>>()
            }
            None => {
                let mut statement = conn.prepare(&format!("{sql} {none}"))?;
                let rows = statement.query_map([], SegmentRange::of_row)?;
                rows.collect()
            }
        };
        let complete = list(&format!("{SEGMENTS} WHERE"), "true")?;
        let running = list(
            "SELECT job, attempt, start_offset, NULL FROM attempts
             WHERE state IN ('claimed', 'started') AND",
            "true",
        )?;
        (complete, running)
    };
    let known: BTreeSet<(i64, u32, i64)> =
        spans.iter().map(|s| (s.job, s.attempt, s.first)).collect();
    if !running.is_empty() {
        let files = files_of(library, &running).map_err(io_failure)?;
        for attempt in running {
            match files.get(&(attempt.job, attempt.attempt)) {
                Some(firsts) => spans.extend(
                    firsts
                        .iter()
                        .filter(|first| !known.contains(&(attempt.job, attempt.attempt, **first)))
                        .map(|first| SegmentRange {
                            first: *first,
                            ..attempt
                        }),
                ),
                // It has not begun, or has ended.
                None => spans.push(attempt),
            }
        }
    }
    Ok(spans.into())
}

/// The first offsets of the segments of these attempts, from one look at the spool.
fn files_of(
    library: &OutputSource,
    running: &[SegmentRange],
) -> io::Result<BTreeMap<(i64, u32), BTreeSet<i64>>> {
    let wanted: BTreeSet<(i64, u32)> = running.iter().map(|s| (s.job, s.attempt)).collect();
    let mut files: BTreeMap<_, BTreeSet<i64>> = BTreeMap::new();
    for entry in fs::read_dir(library.layout.spool())? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(SegmentName::parse) else {
            continue;
        };
        let of = (name.job, name.attempt);
        if let (true, Ok(first)) = (wanted.contains(&of), i64::try_from(name.first_offset)) {
            files.entry(of).or_default().insert(first);
        }
    }
    Ok(files)
}

/// Whether the file was last written before what is wanted was.
fn is_older(library: &OutputSource, span: &SegmentRange, wanted: &ScanFilter) -> bool {
    let Some(since) = wanted.since_us else {
        return false;
    };
    let path = library.layout.spool().join(span.name().to_string());
    let written = fs::metadata(path).and_then(|meta| meta.modified());
    let written = written
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written = written.and_then(|at| i64::try_from(at.as_micros()).ok());
    written.is_some_and(|at| at.saturating_add(CLOCKS_DIFFER_US) < since)
}

/// The next output record of a segment that is wanted.
fn next_of(
    reader: &mut SegmentReader,
    span: &SegmentRange,
    wanted: &ScanFilter,
) -> io::Result<Option<ScannedPiece>> {
    loop {
        let NextRecord::Record(header, payload) = reader.next_record()? else {
            return Ok(None);
        };
        let offset = i64::try_from(header.offset).unwrap_or(i64::MAX);
        if offset > wanted.to || matches!(header.kind, RecordKind::Seal | RecordKind::Exit) {
            return Ok(None);
        }
        if header.kind == RecordKind::Output && offset >= wanted.from {
            return Ok(Some(ScannedPiece {
                job: span.job,
                attempt: span.attempt,
                offset,
                bytes: payload.len() as i64,
                stream: Stream::name(header.stream).to_owned(),
                at_us: header.wall_us,
                data: if wanted.data {
                    payload.to_vec()
                } else {
                    Vec::new()
                },
            }));
        }
    }
}

fn io_failure(error: io::Error) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
}
