//! Functions that queries have in addition to SQLite's: `ago`, `regexp` for the operator REGEXP, and
//! a faster `instr`.
//!
//! `rules` lists all functions that may be called.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
};

use memchr::memmem;
use rusqlite::{
    Connection, Error,
    functions::{Context, FunctionFlags},
    types::ValueRef,
};

use crate::{
    job::Micros,
    output::{Pattern, search},
    sys::{clock, lock},
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
        let at = ago(now, context.get_raw(0))?;
        Ok(at.map(Micros::to_rfc3339))
    })?;
    let texts = Arc::new(Texts::default());
    let same = texts.clone();
    conn.create_scalar_function("regexp", 2, flags, move |context| regexp(&same, context))?;
    conn.create_scalar_function("instr", 2, flags, move |context| {
        instr(&texts, context.get_raw(0), context.get_raw(1))
    })
}

/// Numbers as SQLite writes them: its own conversion, on a connection of its own that is opened when the
/// first number comes.
#[derive(Default)]
struct Texts(Mutex<Option<Connection>>);

impl Texts {
    /// The bytes of a value as SQLite would write it as text; `None` for NULL.
    fn of<'a>(&self, value: ValueRef<'a>) -> rusqlite::Result<Option<Cow<'a, [u8]>>> {
        Ok(match value {
            ValueRef::Null => None,
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.into()),
            ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
            ValueRef::Real(number) => Some(self.of_real(number)?.into_bytes().into()),
        })
    }

    fn of_real(&self, number: f64) -> rusqlite::Result<String> {
        let mut conn = lock(&self.0);
        let conn = match &mut *conn {
            Some(conn) => conn,
            none => none.insert(Connection::open_in_memory()?),
        };
        conn.query_row("SELECT CAST(?1 AS TEXT)", [number], |row| row.get(0))
    }
}

/// `instr` as SQLite defines it, about ten times as fast: where `needle` begins in `text`, counted
/// from 1, in bytes for two BLOBs and else in characters; 0 if it is not in it.
fn instr(texts: &Texts, text: ValueRef<'_>, needle: ValueRef<'_>) -> rusqlite::Result<Option<i64>> {
    let is_bytes = matches!((text, needle), (ValueRef::Blob(_), ValueRef::Blob(_)));
    let (Some(text), Some(needle)) = (texts.of(text)?, texts.of(needle)?) else {
        return Ok(None);
    };
    let place = match is_bytes {
        true => memmem::find(&text, &needle).map(|at| at + 1),
        false => character_of(&text, &needle),
    };
    Ok(place.map_or(Some(0), |place| i64::try_from(place).ok()))
}

/// The number of the character at which `needle` begins. A character begins at the first byte, and at each
/// byte that does not continue one (UTF-8); a needle in the middle of a character is not found.
fn character_of(text: &[u8], needle: &[u8]) -> Option<usize> {
    let begins = |byte: &&u8| **byte & 0xc0 != 0x80;
    let mut places = memmem::find_iter(text, needle);
    let at = places.find(|at| *at == 0 || text.get(*at).as_ref().is_some_and(begins))?;
    let after_first = text.get(1..=at).unwrap_or_default();
    Some(1 + after_first.iter().filter(begins).count())
}

/// `ago('90 minutes')`, `ago(3600)`: the time that long before now; `None` for NULL.
fn ago(now: Micros, length: ValueRef<'_>) -> Result<Option<Micros>, Error> {
    let seconds = match length {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(seconds) => Some(seconds as f64),
        ValueRef::Real(seconds) => Some(seconds),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            std::str::from_utf8(text).ok().and_then(seconds)
        }
    };
    let seconds = seconds.filter(|s| s.is_finite() && s.abs() < 1e10);
    let seconds = seconds.ok_or_else(|| {
        problem("ago() takes seconds, or a text such as '90 minutes', '1 hour', '7 days'")
    })?;
    Ok(Some(Micros(now.0.saturating_sub((seconds * 1e6) as i64))))
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

/// `text REGEXP pattern`: whether the text has a match; `None` if either is NULL. Patterns are those of
/// `job.wait`.
fn regexp(texts: &Texts, context: &Context<'_>) -> Result<Option<bool>, Error> {
    let Some(pattern) = texts.of(context.get_raw(0))? else {
        return Ok(None);
    };
    let pattern: Arc<Pattern> = context.get_or_create_aux(0, |_| {
        let text = std::str::from_utf8(&pattern).map_err(|_| problem("REGEXP needs a text"))?;
        Pattern::new(text).map_err(|error| problem(&error.to_string()))
    })?;
    let bytes = texts.of(context.get_raw(1))?;
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
        let values = "NULL, '', 'a', 'äb', 'bäbäb', 'bäb', x'', x'62', x'c3a462', x'ff62', 12, 1, 1.5, 5,
            'xxneedle', 'needle', 'needl', x'a4', x'a462', x'a4c3a4', CAST(x'a4a462' AS TEXT), x'80',
            CAST(x'c3' AS TEXT), 'a' || char(0) || 'b', char(0), zeroblob(3), x'00', 1e100, 1e20, 1e15,
            -0.0, 0.1 + 0.2, 1.0, 1e-7, 9e999, -9e999, 123456789012345678, 1234567890123456789.0, 'e+20',
            '.0', 'Inf', '0.3', -9223372036854775808, 100000000000000000000";
        for text in values.split(',') {
            for needle in values.split(',') {
                let sql =
                    format!("SELECT instr({text}, {needle}), instr({text} || {needle}, {needle})");
                let ask = |conn: &Connection| -> [Option<i64>; 2] {
                    conn.query_row(&sql, [], |row| Ok([row.get(0)?, row.get(1)?]))
                        .expect("a row")
                };
                assert_eq!(ask(&ours), ask(&theirs), "{sql}");
            }
        }
    }

    /// NULL for NULL, and numbers and bytes are the texts that SQLite makes of them.
    #[test]
    fn values_of_every_type_are_taken_as_sqlite_does() {
        let conn = Connection::open_in_memory().expect("opens");
        register(&conn).expect("registered");
        for (sql, expected) in [
            ("ago(NULL) IS NULL", 1),
            ("count(*) FROM (SELECT 1 WHERE '2026' > ago(NULL))", 0),
            ("ago(CAST('1 hour' AS BLOB)) = ago(3600.0)", 1),
            ("('x' REGEXP NULL) IS NULL", 1),
            ("(NULL REGEXP 'x') IS NULL", 1),
            ("(NULL REGEXP NULL) IS NULL", 1),
            (
                "count(*) FROM (SELECT NULL AS p UNION ALL SELECT 'a' UNION ALL SELECT 'b') WHERE 'b' REGEXP p",
                1,
            ),
            ("12 REGEXP 2", 1),
            ("1e20 REGEXP '^1[.]0e[+]20$'", 1),
            ("9e999 REGEXP '^Inf$'", 1),
            ("'a1.5' REGEXP 1.5", 1),
            ("x'6162' REGEXP x'62'", 1),
            ("'x' REGEXP ''", 1),
        ] {
            let found: i64 = conn
                .query_row(&format!("SELECT {sql}"), [], |row| row.get(0))
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(found, expected, "{sql}");
        }
        for wrong in [
            "ago('soon')",
            "ago('')",
            "ago(9e999)",
            "'x' REGEXP '('",
            "'x' REGEXP x'ff'",
        ] {
            let refused = conn.query_row(&format!("SELECT {wrong}"), [], |_| Ok(()));
            assert!(refused.is_err(), "{wrong}");
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
