//! The virtual table `history_output`: all output, in rows and in segments. It is a TEMP table, so
//! its name hides the view of the same name in the database file.
//!
//! This file implements SQLite's interface of a virtual table (<https://sqlite.org/vtab.html>); `scan`
//! reads the output.
#![allow(unsafe_code)] // A virtual table begins with SQLite's own structure, as its trait demands.

use std::{ffi::c_int, marker::PhantomData, sync::Arc};

use rusqlite::{
    Connection, Error, Result,
    types::ValueRef,
    vtab::{
        Context, CreateVTab, Filters, IndexConstraintOp, IndexInfo, VTab, VTabConnection,
        VTabCursor, VTabKind, read_only_module, sqlite3_vtab, sqlite3_vtab_cursor,
    },
};

use super::{
    moments,
    scan::{OutputScan, OutputSource, ScanFilter, ScannedPiece},
};
use crate::job::Micros;

/// Its columns, in the order of [`column`]. The key names a row in every scan, wherever the piece is by
/// then: SQLite uses it to take a row once where several scans find it (OR) and to know which rows had a
/// partner (RIGHT JOIN). A number of the row would be another one in each scan.
const COLUMNS: &str = "CREATE TABLE history_output (job INTEGER, attempt INTEGER, offset INTEGER, \
                       bytes INTEGER, stream TEXT, at TEXT, data BLOB, text TEXT, \
                       PRIMARY KEY (job, offset, attempt)) WITHOUT ROWID";

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
        let outputs = outputs.ok_or(Error::InvalidQuery)?.clone();
        let base = sqlite3_vtab::default();
        Ok((COLUMNS.to_owned(), Self { base, outputs }))
    }

    /// Tells SQLite which constraints make a scan shorter: one letter each, in the order in which
    /// `filter` gets their values. SQLite checks all constraints again.
    fn best_index(&self, info: &mut IndexInfo) -> Result<()> {
        let (mut letters, mut plan) = (String::new(), ScanPlan::default());
        let in_order = constraints_in_order(info)?;
        for (in_order, (constraint, mut usage)) in
            in_order.into_iter().zip(info.constraints_and_usages())
        {
            let letter = letter(constraint.column(), &constraint.operator());
            let Some(letter) = letter.filter(|_| in_order && constraint.is_usable()) else {
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
            table: PhantomData,
        })
    }
}

impl CreateVTab<'_> for OutputTable {
    const KIND: VTabKind = VTabKind::Default;
}

/// Whether each constraint compares as bytes do, which is how a scan compares times.
fn constraints_in_order(info: &IndexInfo) -> Result<Vec<bool>> {
    let count = info.constraints().count();
    (0..count)
        .map(|at| info.collation(at).map(|name| name == "BINARY"))
        .collect()
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
            't' | '@' => self.since = true,
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
        (column::AT, EQ) => Some('@'),
        (column::AT, GE | GT) => Some('t'),
        (column::AT, LE | LT) => Some('u'),
        _ => None,
    }
}

/// The filter that follows from the constraints; `None`: no row can satisfy them, because one compares
/// with NULL. A value of another type than the column's does not filter: SQLite checks such a comparison
/// itself.
fn scan_filter<'a>(
    letters: &str,
    values: impl Iterator<Item = ValueRef<'a>>,
    data: bool,
) -> Option<ScanFilter> {
    let mut filter = ScanFilter::all(data);
    for (letter, value) in letters.chars().zip(values) {
        if value == ValueRef::Null {
            return None;
        }
        if let ('t' | 'u' | '@', ValueRef::Text(text)) = (letter, value) {
            if letter != 'u' {
                filter.since_us = filter.since_us.max(moments::first_at(text));
            }
            if letter != 't' {
                filter.until_us = filter.until_us.min(moments::last_at(text));
            }
        }
        let Some(number) = integer(value) else {
            continue;
        };
        match letter {
            'j' => filter.job = Some(number),
            '=' => {
                filter.from = filter.from.max(number);
                filter.to = filter.to.min(number);
            }
            '>' => filter.from = filter.from.max(number),
            '<' => filter.to = filter.to.min(number),
            _ => {}
        }
    }
    Some(filter)
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

// SAFETY: `base` comes first, and the struct is laid out as C does.
unsafe impl VTabCursor for OutputCursor<'_> {
    fn filter(&mut self, data: c_int, letters: Option<&str>, values: &Filters<'_>) -> Result<()> {
        let filter = scan_filter(letters.unwrap_or_default(), values.iter(), data != 0);
        self.scan = filter.map(OutputScan::new);
        self.next()
    }

    fn next(&mut self) -> Result<()> {
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

    /// SQLite does not ask a table WITHOUT ROWID.
    fn rowid(&self) -> Result<i64> {
        Err(Error::InvalidQuery)
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
        let found = scan_filter("j><t", values.into_iter(), true).expect("a filter");
        assert_eq!((found.job, found.from, found.to), (Some(7), 100, 200));
        let at = 1_795_341_600_000_000;
        assert_eq!((found.since_us, found.until_us), (at, i64::MAX));
        let found = scan_filter("u", values[3..].iter().copied(), true).expect("a filter");
        assert_eq!((found.since_us, found.until_us), (i64::MIN, at));
        let all = [ValueRef::Text(b"x"), ValueRef::Blob(b"2026")];
        let all = scan_filter("jt", all.into_iter(), false);
        assert_eq!(all, Some(ScanFilter::all(false)));
        let none = [ValueRef::Integer(1), ValueRef::Null];
        assert_eq!(scan_filter("jt", none.into_iter(), false), None);
    }
}
