//! Functions that queries have in addition to SQLite's: `ago`, `regexp` for the operator REGEXP, and
//! a faster `instr`.
//!
//! `rules` lists all functions that may be called.

use std::{borrow::Cow, sync::Arc};

use memchr::memmem;
use rusqlite::{
    Connection, Error,
    functions::{Context, FunctionFlags},
    types::ValueRef,
};

use crate::{
    job::Micros,
    output::{Pattern, search},
    sys::clock,
};

/// Registers all functions of this module.
pub fn register(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    // All calls of `ago` in a statement use the same `now`, so it may be declared deterministic and
    // SQLite can use an index.
    let now = clock::now();
    conn.create_scalar_function("ago", 1, flags, move |context| {
        ago(now, context.get_raw(0)).map(|at| at.to_rfc3339())
    })?;
    conn.create_scalar_function("regexp", 2, flags, regexp)?;
    conn.create_scalar_function("instr", 2, flags, |context| {
        Ok(instr(context.get_raw(0), context.get_raw(1)))
    })
}

/// `instr` as SQLite defines it, about ten times as fast: where `needle` begins in `text`, counted
/// from 1, in bytes for two BLOBs and else in characters; 0 if it is not in it.
fn instr(text: ValueRef<'_>, needle: ValueRef<'_>) -> Option<i64> {
    let is_bytes = matches!((text, needle), (ValueRef::Blob(_), ValueRef::Blob(_)));
    let (text, needle) = (bytes_of(text)?, bytes_of(needle)?);
    let Some(at) = memmem::find(&text, &needle) else {
        return Some(0);
    };
    let before = &text[..at];
    let count = match is_bytes {
        true => before.len(),
        // Every byte that is no UTF-8 continuation byte begins a character.
        false => before.iter().filter(|byte| **byte & 0xc0 != 0x80).count(),
    };
    i64::try_from(count + 1).ok()
}

/// The bytes of a value as SQLite would write it as text; `None` for NULL.
fn bytes_of(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.into()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
        ValueRef::Real(number) => Some(format!("{number:?}").into_bytes().into()),
    }
}

/// `ago('90 minutes')`, `ago(3600)`: the time that long before now.
fn ago(now: Micros, length: ValueRef<'_>) -> Result<Micros, Error> {
    let seconds = match length {
        ValueRef::Integer(seconds) => Some(seconds as f64),
        ValueRef::Real(seconds) => Some(seconds),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(seconds),
        _ => None,
    };
    let seconds = seconds.filter(|s| s.is_finite() && s.abs() < 1e10);
    let seconds = seconds.ok_or_else(|| {
        problem("ago() takes seconds, or a text such as '90 minutes', '1 hour', '7 days'")
    })?;
    Ok(Micros(now.0.saturating_sub((seconds * 1e6) as i64)))
}

/// `2 hours` as seconds.
fn seconds(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 5] = [
        ("second", 1.0),
        ("minute", 60.0),
        ("hour", 3600.0),
        ("day", 86_400.0),
        ("week", 604_800.0),
    ];
    let text = text.trim();
    if let Some(length) = text.strip_prefix('-') {
        return seconds(length)
            .filter(|length| *length >= 0.0)
            .map(|length| -length);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = match unit.as_str() {
        "" | "s" => "second",
        "m" | "min" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        other => other.trim_end_matches('s'),
    };
    let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(number * length)
}

/// `text REGEXP pattern`: whether the text has a match. Patterns are those of `job.wait`.
fn regexp(context: &Context<'_>) -> Result<Option<bool>, Error> {
    let pattern: Arc<Pattern> = context.get_or_create_aux(0, |value| {
        let text = value.as_str().map_err(|_| problem("REGEXP needs a text"))?;
        Pattern::new(text).map_err(|error| problem(&error.to_string()))
    })?;
    let bytes = bytes_of(context.get_raw(1));
    Ok(bytes.map(|bytes| search::is_in(&pattern, &bytes)))
}

fn problem(message: &str) -> Error {
    Error::UserFunctionError(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, expected) in [
            ("90 minutes", 5400.0),
            ("1 hour", 3600.0),
            ("1.5h", 5400.0),
            ("7 days", 604_800.0),
            ("2 Weeks", 1_209_600.0),
            ("30", 30.0),
            ("-1 day", -86_400.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for wrong in ["", "soon", "1 fortnight", "--1 day", "1 month"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    /// Compares it with SQLite's own, which a connection without our functions has.
    #[test]
    fn instr_is_what_sqlite_has() {
        let (ours, theirs) = (Connection::open_in_memory(), Connection::open_in_memory());
        let (ours, theirs) = (ours.expect("opens"), theirs.expect("opens"));
        register(&ours).expect("registered");
        let values = [
            "NULL",
            "''",
            "'a'",
            "'äb'",
            "'bäbäb'",
            "'bäb'",
            "x''",
            "x'62'",
            "x'c3a462'",
            "x'ff62'",
            "12",
            "1",
            "1.5",
            "5",
            "'xxneedle'",
            "'needle'",
            "'needl'",
        ];
        for text in values {
            for needle in values {
                let sql = format!("SELECT instr({text}, {needle})");
                let ask = |conn: &Connection| -> Option<i64> {
                    conn.query_row(&sql, [], |row| row.get(0)).expect("a row")
                };
                assert_eq!(ask(&ours), ask(&theirs), "{sql}");
            }
        }
    }

    #[test]
    fn a_statement_has_one_now() {
        let conn = Connection::open_in_memory().expect("opens");
        register(&conn).expect("registered");
        let same: bool = conn
            .query_row(
                "SELECT ago('1 hour') < ago(0) AND ago(0) = ago('0 s')",
                [],
                |row| row.get(0),
            )
            .expect("a row");
        assert!(same);
        let found: (bool, bool, Option<bool>) = conn
            .query_row(
                "SELECT 'an error: 5' REGEXP 'error: [0-9]', 'fine' REGEXP '^error', NULL REGEXP 'x'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .expect("a row");
        assert_eq!(found, (true, false, None));
    }
}
