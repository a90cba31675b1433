//! The virtual table `history_output`: all output, in rows and in segments. It is a TEMP table, so
//! its name hides the view of the same name in the database file.
//!
//! This file implements SQLite's interface of a virtual table (<https://sqlite.org/vtab.html>); `scan`
//! reads the output.
#![allow(unsafe_code)] // A virtual table begins with SQLite's own structure, as its trait demands.

use std::{ffi::c_int, marker::PhantomData, sync::Arc};

use chrono::{DateTime, NaiveDate, Utc};
use rusqlite::{
    Connection, Result,
    types::ValueRef,
    vtab::{
        Context, CreateVTab, Filters, IndexConstraintOp, IndexInfo, VTab, VTabConnection,
        VTabCursor, VTabKind, read_only_module, sqlite3_vtab, sqlite3_vtab_cursor,
    },
};

use super::scan::{OutputScan, OutputSource, ScanFilter, ScannedPiece};
use crate::job::Micros;

/// Its columns, in the order of [`Column`].
const COLUMNS: &str = "CREATE TABLE history_output (job INTEGER, attempt INTEGER, offset INTEGER, \
                       bytes INTEGER, stream TEXT, at TEXT, data BLOB, text TEXT)";

/// Numbers of columns.
mod column {
    pub const JOB: i32 = 0;
    pub const ATTEMPT: i32 = 1;
    pub const OFFSET: i32 = 2;
    pub const BYTES: i32 = 3;
    pub const STREAM: i32 = 4;
    pub const AT: i32 = 5;
    pub const DATA: i32 = 6;
    pub const TEXT: i32 = 7;
}

/// Registers the table as `temp.history_output`.
pub fn register(conn: &Connection, source: OutputSource) -> Result<()> {
    conn.create_module(
        "history_output",
        read_only_module::<OutputTable>(),
        Some(Arc::new(source)),
    )?;
    conn.execute_batch("CREATE VIRTUAL TABLE temp.history_output USING history_output;")
}

/// The table; its layout begins as SQLite's own structure.
#[repr(C)]
struct OutputTable {
    base: sqlite3_vtab,
    outputs: Arc<OutputSource>,
}

/// One scan of the table.
#[repr(C)]
struct OutputCursor<'vtab> {
    base: sqlite3_vtab_cursor,
    outputs: Arc<OutputSource>,
    scan: Option<OutputScan>,
    piece: Option<ScannedPiece>,
    row: i64,
    table: PhantomData<&'vtab OutputTable>,
}

// SAFETY: `base` comes first, and the struct is laid out as C does.
unsafe impl<'vtab> VTab<'vtab> for OutputTable {
    type Aux = Arc<OutputSource>;
    type Cursor = OutputCursor<'vtab>;

    fn connect(
        _: &mut VTabConnection,
        outputs: Option<&Arc<OutputSource>>,
        _: &[&[u8]],
    ) -> Result<(String, Self)> {
        let outputs = outputs.ok_or(rusqlite::Error::InvalidQuery)?.clone();
        let base = sqlite3_vtab::default();
        Ok((COLUMNS.to_owned(), Self { base, outputs }))
    }

    /// Tells SQLite which constraints make a scan shorter: one letter each, in the order in which
    /// `filter` gets their values. SQLite checks all constraints again.
    fn best_index(&self, info: &mut IndexInfo) -> Result<()> {
        let (mut letters, mut plan) = (String::new(), ScanPlan::default());
        for (constraint, mut usage) in info.constraints_and_usages() {
            if !constraint.is_usable() {
                continue;
            }
            let Some(letter) = letter(constraint.column(), &constraint.operator()) else {
                continue;
            };
            letters.push(letter);
            usage.set_argv_index(letters.len() as c_int);
            plan.shorten(letter);
        }
        info.set_idx_str(&letters);
        // One bit per column: only `data` and `text` need the bytes.
        let needs = 1 << column::DATA | 1 << column::TEXT;
        info.set_idx_num(c_int::from(info.col_used() & needs != 0));
        let (cost, rows) = plan.cost();
        info.set_estimated_cost(cost);
        info.set_estimated_rows(rows);
        Ok(())
    }

    fn open(&'vtab mut self) -> Result<OutputCursor<'vtab>> {
        Ok(OutputCursor {
            base: sqlite3_vtab_cursor::default(),
            outputs: self.outputs.clone(),
            scan: None,
            piece: None,
            row: 0,
            table: PhantomData,
        })
    }
}

impl CreateVTab<'_> for OutputTable {
    const KIND: VTabKind = VTabKind::Default;
}

/// The constraints of a scan, from which SQLite's planner gets its cost.
#[derive(Debug, Clone, Copy, Default)]
struct ScanPlan {
    of_one_job: bool,
    since: bool,
    ends: i32,
}

impl ScanPlan {
    fn shorten(&mut self, letter: char) {
        match letter {
            'j' => self.of_one_job = true,
            't' => self.since = true,
            _ => self.ends += 1,
        }
    }

    /// Its estimated cost and rows. With these, SQLite prefers one scan of the last hour to one scan
    /// per job, unless there are few jobs.
    fn cost(self) -> (f64, i64) {
        let (cost, rows) = match (self.of_one_job, self.since) {
            (true, _) => (300.0, 100),
            (false, true) => (50_000.0, 5_000),
            (false, false) => (1e9, 10_000_000),
        };
        let part = 0.5_f64.powi(self.ends);
        (cost * part, (f64::from(rows) * part) as i64)
    }
}

/// The letter of a constraint that makes a scan shorter.
fn letter(at: c_int, operator: &IndexConstraintOp) -> Option<char> {
    use IndexConstraintOp::{
        SQLITE_INDEX_CONSTRAINT_EQ as EQ, SQLITE_INDEX_CONSTRAINT_GE as GE,
        SQLITE_INDEX_CONSTRAINT_GT as GT, SQLITE_INDEX_CONSTRAINT_LE as LE,
        SQLITE_INDEX_CONSTRAINT_LT as LT,
    };
    match (at, operator) {
        (column::JOB, EQ) => Some('j'),
        (column::OFFSET, EQ) => Some('='),
        (column::OFFSET, GE | GT) => Some('>'),
        (column::OFFSET, LE | LT) => Some('<'),
        (column::AT, EQ | GE | GT) => Some('t'),
        _ => None,
    }
}

/// The filter that follows from the constraints. A value of another type than the column's does not
/// filter: SQLite checks such a comparison itself.
fn scan_filter<'a>(
    letters: &str,
    values: impl Iterator<Item = ValueRef<'a>>,
    data: bool,
) -> ScanFilter {
    let mut filter = ScanFilter {
        job: None,
        from: 0,
        to: i64::MAX,
        since_us: None,
        data,
    };
    for (letter, value) in letters.chars().zip(values) {
        match (letter, integer(value)) {
            ('j', Some(job)) => filter.job = Some(job),
            ('=', Some(at)) => {
                filter.from = filter.from.max(at);
                filter.to = filter.to.min(at);
            }
            ('>', Some(at)) => filter.from = filter.from.max(at),
            ('<', Some(at)) => filter.to = filter.to.min(at),
            ('t', _) => {
                let since = text(value).and_then(moment_us);
                filter.since_us = filter.since_us.max(since);
            }
            _ => {}
        }
    }
    filter
}

fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => Some(number),
        ValueRef::Real(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(number as i64)
        }
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    match value {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// A time that is not after any time whose text sorts at or after `text`, µs since 1970. It is exact to
/// a second if `text` is written as in the views, and else the beginning of its day (`datetime()`
/// writes a blank for the `T`).
fn moment_us(text: &str) -> Option<i64> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text)
        && text.as_bytes().get(10) == Some(&b'T')
        && text.ends_with('Z')
    {
        // With fewer digits of the fraction, texts sort otherwise than times: allow a second.
        return Some(moment.with_timezone(&Utc).timestamp_micros() - 1_000_000);
    }
    let day = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

// SAFETY: `base` comes first, and the struct is laid out as C does.
unsafe impl VTabCursor for OutputCursor<'_> {
    fn filter(&mut self, data: c_int, letters: Option<&str>, values: &Filters<'_>) -> Result<()> {
        let filter = scan_filter(letters.unwrap_or_default(), values.iter(), data != 0);
        self.scan = Some(OutputScan::new(filter));
        self.next()
    }

    fn next(&mut self) -> Result<()> {
        self.row += 1;
        self.piece = match &mut self.scan {
            Some(scan) => scan.next(&self.outputs)?,
            None => None,
        };
        Ok(())
    }

    fn eof(&self) -> bool {
        self.piece.is_none()
    }

    fn column(&self, context: &mut Context, at: c_int) -> Result<()> {
        let Some(piece) = &self.piece else {
            return Ok(());
        };
        match at {
            column::JOB => context.set_result(&piece.job),
            column::ATTEMPT => context.set_result(&piece.attempt),
            column::OFFSET => context.set_result(&piece.offset),
            column::BYTES => context.set_result(&piece.bytes),
            column::STREAM => context.set_result(&piece.stream),
            column::AT => context.set_result(&Micros(piece.at_us).to_rfc3339()),
            column::DATA => context.set_result(&&piece.data[..]),
            _ => context.set_result(&String::from_utf8_lossy(&piece.data).as_ref()),
        }
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_shorten_the_walk() {
        let values = [
            ValueRef::Integer(7),
            ValueRef::Integer(100),
            ValueRef::Text(b"200"),
            ValueRef::Text(b"2026-11-22T10:00:00.000000Z"),
        ];
        let found = scan_filter("j><t", values.into_iter(), true);
        assert_eq!((found.job, found.from, found.to), (Some(7), 100, 200));
        assert_eq!(found.since_us, Some(1_795_341_599_000_000));
        let all = scan_filter(
            "jt",
            [ValueRef::Text(b"x"), ValueRef::Null].into_iter(),
            false,
        );
        assert_eq!((all.job, all.since_us), (None, None));
    }

    /// A text with a blank sorts before all texts of its day that have a `T`.
    #[test]
    fn moments_in_other_spellings_are_days() {
        let day = 1_795_305_600_000_000;
        for text in [
            "2026-11-22",
            "2026-11-22 10:00:00",
            "2026-11-22T10:00",
            "2026-11-22T10:00:00+01:00",
        ] {
            assert_eq!(moment_us(text), Some(day), "{text}");
        }
        assert_eq!(moment_us("yesterday"), None);
        assert_eq!(moment_us("2026"), None);
    }
}
