//! Scans all stored output, piece by piece: first the rows of the database, then the segments, also
//! those of running attempts. Each byte comes once.
//!
//! The rows and the list of segments are of one moment (a read transaction). If an attempt ends
//! meanwhile and its segments go, the scan looks for its bytes in the database again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    sync::{Mutex, MutexGuard},
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
    sys::{descriptors::is_shortage, lock},
};

/// Rows that are read at once, with their bytes (up to 64 KiB each) and without.
const ROWS_WITH_DATA: i64 = 32;
const ROWS_WITHOUT_DATA: i64 = 4096;
/// How much earlier a file's modification time may be than the time of its last record, µs: the
/// kernel uses a coarse clock for files.
const CLOCKS_DIFFER_US: i64 = 1_000_000;

/// Which pieces a scan must find. It may find more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanFilter {
    /// Only pieces of this job; `None`: of all jobs.
    pub job: Option<i64>,
    /// Only pieces that begin at this offset or after it.
    pub from: i64,
    /// Only pieces that begin at this offset or before it.
    pub to: i64,
    /// Only pieces captured at this time or later, µs since 1970.
    pub since_us: i64,
    /// Only pieces captured at this time or earlier, µs since 1970.
    pub until_us: i64,
    /// Whether the bytes are wanted, too.
    pub data: bool,
}

impl ScanFilter {
    /// Finds all pieces, with their bytes or without.
    pub fn all(data: bool) -> Self {
        Self {
            job: None,
            from: 0,
            to: i64::MAX,
            since_us: i64::MIN,
            until_us: i64::MAX,
            data,
        }
    }

    /// Whether the rows are best found by their times.
    fn by_time(&self) -> bool {
        self.job.is_none() && (self.since_us > i64::MIN || self.until_us < i64::MAX)
    }

    fn has_time(&self, at_us: i64) -> bool {
        (self.since_us..=self.until_us).contains(&at_us)
    }
}

/// Bytes of one stream: one row or one record.
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
    /// The bytes; empty if the filter does not ask for them.
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

/// Where output is found: a connection in a read transaction, and the spool.
#[derive(Debug)]
pub struct OutputSource {
    conn: Mutex<Connection>,
    database: LongPath,
    layout: Layout,
}

impl OutputSource {
    /// The output as it is stored now: begins the read transaction of `conn`.
    pub fn new(conn: Connection, database: LongPath, layout: Layout) -> rusqlite::Result<Self> {
        conn.execute_batch("BEGIN; SELECT count(*) FROM nodes;")?;
        Ok(Self {
            conn: Mutex::new(conn),
            database,
            layout,
        })
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        // A panic cannot leave it half-changed.
        lock(&self.conn)
    }

    /// What is stored now, in rows and segments, of an attempt that was open when the transaction
    /// began, from the range on.
    fn later(
        &self,
        range: &SegmentRange,
        filter: &ScanFilter,
    ) -> rusqlite::Result<(Vec<ScannedPiece>, Vec<SegmentRange>)> {
        let conn = open::read_only(&self.database, &self.layout)?;
        let from = filter.from.max(range.first);
        let mut rows = conn.prepare(&format!(
            "{PIECES} WHERE c.job = ?2 AND c.offset BETWEEN ?3 AND ?4 AND c.attempt = ?5
             AND c.at BETWEEN ?6 AND ?7 ORDER BY c.offset"
        ))?;
        let (since, until) = (filter.since_us, filter.until_us);
        let pieces = rows.query_map(
            params![
                filter.data,
                range.job,
                from,
                filter.to,
                range.attempt,
                since,
                until
            ],
            ScannedPiece::of_row,
        )?;
        let mut segments = conn.prepare(&format!(
            "{SEGMENTS} WHERE job = ?1 AND attempt = ?2 AND first_offset >= ?3"
        ))?;
        let ranges = segments.query_map(
            params![range.job, range.attempt, range.first],
            SegmentRange::of_row,
        )?;
        Ok((
            pieces.collect::<rusqlite::Result<_>>()?,
            ranges.collect::<rusqlite::Result<_>>()?,
        ))
    }
}

/// Pieces in rows; `?1` is whether with their bytes.
const PIECES: &str = "SELECT c.job, c.attempt, c.offset, c.length, c.stream, c.at,
                             CASE WHEN ?1 THEN c.data END FROM output_chunks c";
const SEGMENTS: &str = "SELECT job, attempt, first_offset, end_offset FROM segments";

/// A segment, or the first segment of a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SegmentRange {
    job: i64,
    attempt: u32,
    first: i64,
    /// `None` for an attempt that ran when the transaction began.
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

    fn may_have(&self, filter: &ScanFilter) -> bool {
        self.first <= filter.to && self.end.is_none_or(|end| end > filter.from)
    }
}

/// A scan in progress.
#[derive(Debug)]
pub struct OutputScan {
    filter: ScanFilter,
    /// Time, job and offset of the last row that was read; `None` once all rows were.
    row: Option<(i64, i64, i64)>,
    ready: VecDeque<ScannedPiece>,
    /// `None` until all rows were read.
    ranges: Option<VecDeque<SegmentRange>>,
    open: Option<(SegmentRange, SegmentReader)>,
}

impl OutputScan {
    /// A scan from the first piece that matches the filter.
    pub fn new(filter: ScanFilter) -> Self {
        let nothing = filter.since_us > filter.until_us || filter.from > filter.to;
        Self {
            filter,
            // Before the first row: numbers and offsets are never negative.
            row: (!nothing).then_some((filter.since_us, -1, -1)),
            ready: VecDeque::new(),
            ranges: nothing.then(VecDeque::new),
            open: None,
        }
    }

    /// The next piece; `None` at the end.
    pub fn next(&mut self, source: &OutputSource) -> rusqlite::Result<Option<ScannedPiece>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if let Some(after) = self.row {
                self.read_rows(source, after)?;
            } else if let Some((range, mut reader)) = self.open.take() {
                match next_of(&mut reader, &range, &self.filter) {
                    Ok(Some(piece)) => {
                        self.open = Some((range, reader));
                        return Ok(Some(piece));
                    }
                    Ok(None) => {}
                    Err(error) if range.end.is_some() && !is_shortage(&error) => {}
                    Err(error) => return Err(io_failure(error)),
                }
            } else if !self.open_next(source)? {
                return Ok(None);
            }
        }
    }

    fn read_rows(&mut self, source: &OutputSource, after: (i64, i64, i64)) -> rusqlite::Result<()> {
        let ScanFilter {
            job,
            from,
            to,
            since_us,
            until_us,
            data,
        } = self.filter;
        let limit = if data {
            ROWS_WITH_DATA
        } else {
            ROWS_WITHOUT_DATA
        };
        let (at, number, offset) = after;
        let conn = source.conn();
        let read = |tail: &str, params: &[&dyn rusqlite::ToSql]| {
            let mut statement = conn.prepare(&format!("{PIECES} {tail}"))?;
            let rows = statement.query_map(params, ScannedPiece::of_row)?;
            rows.collect::<rusqlite::Result<VecDeque<ScannedPiece>>>()
        };
        // Only rows with bytes have a time.
        self.ready = match job {
            Some(job) => read(
                "WHERE c.job = ?2 AND c.offset > ?3 AND c.offset BETWEEN ?4 AND ?5
                 AND +c.at BETWEEN ?6 AND ?7 ORDER BY c.offset LIMIT ?8",
                params![data, job, offset, from, to, since_us, until_us, limit],
            ),
            None if self.filter.by_time() => read(
                "WHERE (c.at, c.job, c.offset) > (?2, ?3, ?4) AND c.at <= ?5
                 AND c.offset BETWEEN ?6 AND ?7 ORDER BY c.at, c.job, c.offset LIMIT ?8",
                params![data, at, number, offset, until_us, from, to, limit],
            ),
            None => read(
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

    /// Opens the next segment if it may match; `false` if there is none.
    fn open_next(&mut self, source: &OutputSource) -> rusqlite::Result<bool> {
        if self.ranges.is_none() {
            self.ranges = Some(ranges(source, &self.filter)?);
        }
        let Some(range) = self.ranges.as_mut().and_then(VecDeque::pop_front) else {
            return Ok(false);
        };
        if !range.may_have(&self.filter) || is_older(source, &range, &self.filter) {
            return Ok(true);
        }
        match SegmentReader::open(&source.layout.spool(), Position::first(range.name())) {
            Ok(reader) => self.open = Some((range, reader)),
            // The segment was deleted, is damaged or cannot be read: there are no bytes.
            Err(error) if range.end.is_some() && !is_shortage(&error) => {}
            Err(error) if is_no_segment(&error) => self.take_later(source, &range)?,
            Err(error) => return Err(io_failure(error)),
        }
        Ok(true)
    }

    /// The attempt has ended meanwhile, or its shim has dropped that segment: reads from the database
    /// where its output is now. It does so once: a segment that is gone later has no bytes.
    fn take_later(&mut self, source: &OutputSource, range: &SegmentRange) -> rusqlite::Result<()> {
        let (pieces, segments) = source.later(range, &self.filter)?;
        let is_in_rows = !pieces.is_empty();
        self.ready.extend(pieces);
        let left = self.ranges.get_or_insert_default();
        left.retain_mut(|other| {
            if (other.job, other.attempt) != (range.job, range.attempt) || other.end.is_some() {
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

/// The segments of the job or of all jobs: those with a row, as the database lists them, and those of
/// running attempts, as the spool lists them.
fn ranges(source: &OutputSource, filter: &ScanFilter) -> rusqlite::Result<VecDeque<SegmentRange>> {
    let (mut ranges, running) = {
        let conn = source.conn();
        let list = |sql: &str, none: &str| match filter.job {
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
        ranges.iter().map(|s| (s.job, s.attempt, s.first)).collect();
    if !running.is_empty() {
        let files = files_of(source, &running).map_err(io_failure)?;
        for attempt in running {
            match files.get(&(attempt.job, attempt.attempt)) {
                Some(firsts) => ranges.extend(
                    firsts
                        .iter()
                        .filter(|first| !known.contains(&(attempt.job, attempt.attempt, **first)))
                        .map(|first| SegmentRange {
                            first: *first,
                            ..attempt
                        }),
                ),
                // It has not begun, or has ended.
                None => ranges.push(attempt),
            }
        }
    }
    Ok(ranges.into())
}

/// The first offsets of the segments of these attempts, from one listing of the spool.
fn files_of(
    source: &OutputSource,
    running: &[SegmentRange],
) -> io::Result<BTreeMap<(i64, u32), BTreeSet<i64>>> {
    let attempts: BTreeSet<(i64, u32)> = running.iter().map(|s| (s.job, s.attempt)).collect();
    let mut files: BTreeMap<_, BTreeSet<i64>> = BTreeMap::new();
    for entry in fs::read_dir(source.layout.spool())? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(SegmentName::parse) else {
            continue;
        };
        let of = (name.job, name.attempt);
        if let (true, Ok(first)) = (attempts.contains(&of), i64::try_from(name.first_offset)) {
            files.entry(of).or_default().insert(first);
        }
    }
    Ok(files)
}

/// Whether the file was last written before the time that the filter asks for.
fn is_older(source: &OutputSource, range: &SegmentRange, filter: &ScanFilter) -> bool {
    if filter.since_us == i64::MIN {
        return false;
    }
    let path = source.layout.spool().join(range.name().to_string());
    let written = fs::metadata(path).and_then(|meta| meta.modified());
    let written = written
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written = written.and_then(|at| i64::try_from(at.as_micros()).ok());
    written.is_some_and(|at| at.saturating_add(CLOCKS_DIFFER_US) < filter.since_us)
}

/// The next output record of a segment that matches the filter.
fn next_of(
    reader: &mut SegmentReader,
    range: &SegmentRange,
    filter: &ScanFilter,
) -> io::Result<Option<ScannedPiece>> {
    loop {
        let NextRecord::Record(header, payload) = reader.next_record()? else {
            return Ok(None);
        };
        let offset = i64::try_from(header.offset).unwrap_or(i64::MAX);
        if offset > filter.to || matches!(header.kind, RecordKind::Seal | RecordKind::Exit) {
            return Ok(None);
        }
        let wanted = offset >= filter.from && filter.has_time(header.wall_us);
        if header.kind == RecordKind::Output && wanted {
            return Ok(Some(ScannedPiece {
                job: range.job,
                attempt: range.attempt,
                offset,
                bytes: payload.len() as i64,
                stream: Stream::name(header.stream).to_owned(),
                at_us: header.wall_us,
                data: if filter.data {
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
