//! Random queries over `history_output` and `history_jobs`, compared with the same queries over plain
//! copies of the same rows: whatever SQLite's planner makes of a constraint, the rows are the same.

use std::{env, fmt::Write};

use rusqlite::{Connection, types::Value};

use super::{
    functions,
    testing::{DAY_US, DataDir, JOBS},
};
use crate::job::Micros;

/// Queries of an ordinary run; the variable asks for another number.
const QUERIES: u64 = 2000;
const QUERIES_VARIABLE: &str = "CC_EXECUTOR_TEST_QUERIES";
/// The first seed of a run; a failure names the seed of its query.
const SEED_VARIABLE: &str = "CC_EXECUTOR_TEST_SEED";

/// The tables as the views declare them: a column that is an expression in the view has no affinity.
const COPIES: [(&str, &str); 4] = [
    (
        "history_output",
        "job INTEGER, attempt INTEGER, offset INTEGER, bytes INTEGER, stream TEXT, at TEXT,
         data BLOB, text TEXT",
    ),
    (
        "history_jobs",
        "job INTEGER, state TEXT, reason TEXT, exit_code INTEGER, signal, queue TEXT, name TEXT, labels TEXT,
         submitted_at, started_at, finished_at, waited_s, duration_s, output_bytes INTEGER, retry_of TEXT",
    ),
    (
        "history_attempts",
        "job INTEGER, attempt INTEGER, state TEXT, claimed_at, started_at, ended_at, duration_s",
    ),
    (
        "history_events",
        "id INTEGER, job INTEGER, attempt INTEGER, to_state TEXT, actor TEXT, at",
    ),
];

/// Numbers that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    /// A column of a table with this alias.
    fn column(&mut self, alias: &str) -> String {
        let columns: &[&str] = match alias {
            "j" => &[
                "job",
                "job",
                "state",
                "reason",
                "exit_code",
                "signal",
                "queue",
                "name",
                "labels",
                "submitted_at",
                "started_at",
                "finished_at",
                "finished_at",
                "waited_s",
                "duration_s",
                "output_bytes",
                "retry_of",
            ],
            "t" => &[
                "job",
                "attempt",
                "state",
                "claimed_at",
                "started_at",
                "ended_at",
                "duration_s",
            ],
            "v" => &["id", "job", "attempt", "to_state", "actor", "at", "at"],
            _ => &[
                "job", "job", "job", "offset", "offset", "offset", "at", "at", "at", "bytes",
                "stream", "attempt", "text", "data",
            ],
        };
        let column = self.one(columns);
        format!("{alias}.{column}")
    }

    /// A literal that is mostly near what the column has.
    fn literal(&mut self, column: &str) -> String {
        let name = column.rsplit('.').next().unwrap_or(column);
        if self.chance(4) {
            let odd = [
                "NULL",
                "x'35'",
                "''",
                "1e300",
                "-9223372036854775808",
                "0.5",
            ];
            return self.one(&odd).to_owned();
        }
        match name {
            "job" => self.number(JOBS as u64 + 2, 1),
            "offset" | "output_bytes" => self.number(7, 10),
            "bytes" => self.number(12, 1),
            "attempt" | "exit_code" => self.number(4, 1),
            "at" | "submitted_at" | "started_at" | "finished_at" | "claimed_at" | "ended_at" => {
                self.moment()
            }
            "id" => self.number(26, 1),
            "duration_s" | "waited_s" => self.number(5, 1),
            "signal" => self
                .one(&["'SIGKILL'", "'sigkill'", "'SIG40'", "9"])
                .to_owned(),
            "reason" => self.one(&["'exit_code'", "'signal'"]).to_owned(),
            "stream" => self
                .one(&["'stdout'", "'stderr'", "'STDOUT'", "'pty'"])
                .to_owned(),
            "state" | "to_state" => self
                .one(&["'failed'", "'running'", "'ended'", "'Failed'"])
                .to_owned(),
            "queue" | "name" => self.one(&["'n1'", "'N1'", "'batch'", "'n'"]).to_owned(),
            _ => self
                .one(&["'1.0 Line0'", "x'312e30'", "'%line1%'", "'1.0 LINE0\u{e4}'"])
                .to_owned(),
        }
    }

    fn number(&mut self, below: u64, step: i64) -> String {
        let number = self.below(below) as i64 * step;
        let number =
            number + if self.chance(20) { 1 } else { 0 } - if self.chance(10) { 2 } else { 0 };
        match self.below(14) {
            0 => format!("'{number}'"),
            1 => format!("' {number}'"),
            2 => format!("'{number}.0'"),
            3 => format!("{number}.0"),
            4 => format!("{number}.5"),
            5 => format!("-{}", number.unsigned_abs()),
            6 => format!("'+{number}'"),
            7 => format!("'{number}x'"),
            8 => format!("CAST('{number}' AS BLOB)"),
            9 => format!("(SELECT {number})"),
            _ => number.to_string(),
        }
    }

    /// A time near those of the pieces, in many spellings.
    fn moment(&mut self) -> String {
        let hours = self.below(JOBS as u64 + 2) as i64;
        let us = DAY_US + hours * 3_600_000_000 + self.below(6) as i64 * 1_000_000;
        let text = Micros(us).to_rfc3339();
        let (day, time) = text.split_at(10);
        let text = match self.below(20) {
            0 => day.to_owned(),
            1 => format!("{day} {}", &time[1..9]),
            2 => format!(" {text}"),
            3 => text.replace("-11-", "-1-"),
            4 => text.replace('T', "t"),
            5 => text.replace('Z', "z"),
            6 => format!("{}+00:00", &text[..26]),
            7 => format!("{}Z", &text[..19]),
            8 => format!("{}.5Z", &text[..19]),
            9 => text[..16].to_owned(),
            10 => format!("+{text}"),
            11 => text[1..].to_owned(),
            12 => format!("1{text}"),
            13 => format!("{day}Thursday"),
            14 => format!("{day}~"),
            15 => format!("{text} "),
            16 => text[..self.below(27) as usize].to_owned(),
            _ => text,
        };
        match self.below(12) {
            0 => format!("CAST('{text}' AS BLOB)"),
            1 => "2026".to_owned(),
            _ => format!("'{text}'"),
        }
    }

    /// A condition over the columns of these tables.
    fn condition(&mut self, aliases: &[&str], depth: u32) -> String {
        if depth > 0 && self.chance(60) {
            let (a, b) = (
                self.condition(aliases, depth - 1),
                self.condition(aliases, depth - 1),
            );
            return match self.below(8) {
                0..=3 => format!("({a} OR {b})"),
                4..=6 => format!("({a} AND {b})"),
                _ => format!("NOT ({a})"),
            };
        }
        let alias = self.one(aliases);
        let column = self.column(alias);
        let compared = match self.below(12) {
            0 => format!("+{column}"),
            1 => format!("{column} COLLATE NOCASE"),
            2 => format!("{column} COLLATE RTRIM"),
            _ => column.clone(),
        };
        let comparison = ["=", "=", "<", "<=", ">", ">=", ">=", "<>", "IS", "IS NOT"];
        match self.below(20) {
            0..=8 => {
                let (operator, value) = (self.one(&comparison), self.literal(&column));
                match self.chance(15) {
                    true => format!("{value} {operator} {compared}"),
                    false => format!("{compared} {operator} {value}"),
                }
            }
            9..=11 => {
                let (a, b) = (self.literal(&column), self.literal(&column));
                format!("{compared} BETWEEN {a} AND {b}")
            }
            12..=14 => {
                let values: Vec<String> = (0..1 + self.below(4))
                    .map(|_| self.literal(&column))
                    .collect();
                let not = if self.chance(15) { "NOT " } else { "" };
                format!("{compared} {not}IN ({})", values.join(", "))
            }
            15 => format!("{compared} IS {}NULL", self.one(&["", "NOT "])),
            16 => format!("{compared} LIKE {}", self.literal("x.text")),
            17 => self.subquery(&column, aliases),
            18 => self.row_value(alias),
            _ => {
                let other = self.one(aliases);
                let same = match column.split_once('.') {
                    Some((_, name)) if other == alias || (is_output(other) && is_output(alias)) => {
                        name
                    }
                    _ => "job",
                };
                let operator = self.one(&comparison);
                format!("{compared} {operator} {other}.{same}")
            }
        }
    }

    fn subquery(&mut self, column: &str, aliases: &[&str]) -> String {
        let (alias, name) = column.split_once('.').unwrap_or(("a", column));
        let inner = self.condition(&["x"], 1);
        let outer = self.one(aliases);
        let link = self.one(&["x.job = ", "x.job >= "]);
        if !is_output(alias) || self.chance(50) {
            return format!(
                "{}EXISTS (SELECT 1 FROM history_output x WHERE {link}{outer}.job AND {inner})",
                self.one(&["", "NOT "])
            );
        }
        match self.chance(50) {
            true => format!("{column} IN (SELECT x.{name} FROM history_output x WHERE {inner})"),
            false => format!(
                "{column} >= (SELECT min(x.{name}) FROM history_output x WHERE {link}{outer}.job \
                 AND {inner})"
            ),
        }
    }

    fn row_value(&mut self, alias: &str) -> String {
        let (a, b) = match !is_output(alias) {
            true => ("job", if alias == "v" { "at" } else { "started_at" }),
            false => (self.one(&["job", "at"]), self.one(&["offset", "at", "job"])),
        };
        let (x, y) = (self.literal(a), self.literal(b));
        match self.chance(50) {
            true => {
                let operator = self.one(&["=", "<", "<=", ">", ">="]);
                format!("({alias}.{a}, {alias}.{b}) {operator} ({x}, {y})")
            }
            false => {
                let (z, w) = (self.literal(a), self.literal(b));
                format!("({alias}.{a}, {alias}.{b}) IN (VALUES ({x}, {y}), ({z}, {w}))")
            }
        }
    }

    /// `FROM` with its tables, and their aliases.
    fn tables(&mut self) -> (String, Vec<&'static str>) {
        let join = self.one(&[
            "JOIN",
            "JOIN",
            "LEFT JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
        ]);
        let on = |dice: &mut Self, aliases: &[&str]| match dice.chance(70) {
            true => {
                let (a, b) = (aliases[0], aliases[1]);
                let more = match dice.chance(40) {
                    true => format!(" AND {}", dice.condition(aliases, 1)),
                    false => String::new(),
                };
                format!("{a}.job = {b}.job{more}")
            }
            false => dice.condition(aliases, 2),
        };
        match self.below(15) {
            10 => ("history_jobs j".to_owned(), vec!["j"]),
            11 => ("history_events v".to_owned(), vec!["v"]),
            12 => ("history_attempts t".to_owned(), vec!["t"]),
            13 => {
                let on = on(self, &["j", "t"]);
                (
                    format!("history_jobs j {join} history_attempts t ON {on}"),
                    vec!["j", "t"],
                )
            }
            14 => {
                let on = on(self, &["v", "j"]);
                (
                    format!("history_events v {join} history_jobs j ON {on}"),
                    vec!["v", "j"],
                )
            }
            0..=3 => ("history_output a".to_owned(), vec!["a"]),
            4 => {
                let inner = self.condition(&["x"], 2);
                let from = format!("(SELECT * FROM history_output x WHERE {inner}) a");
                (from, vec!["a"])
            }
            5..=6 => {
                let on = on(self, &["a", "b"]);
                let from = format!("history_output a {join} history_output b ON {on}");
                (from, vec!["a", "b"])
            }
            7 => {
                let on = on(self, &["j", "a"]);
                (
                    format!("history_jobs j {join} history_output a ON {on}"),
                    vec!["j", "a"],
                )
            }
            8 => {
                let on = on(self, &["a", "j"]);
                (
                    format!("history_output a {join} history_jobs j ON {on}"),
                    vec!["a", "j"],
                )
            }
            _ => (
                "history_jobs j, history_output a".to_owned(),
                vec!["j", "a"],
            ),
        }
    }

    fn query(&mut self) -> String {
        let (from, aliases) = self.tables();
        let mut tail = format!(" FROM {from}");
        if self.chance(90) {
            let _ = write!(tail, " WHERE {}", self.condition(&aliases, 3));
        }
        let all: Vec<String> = aliases
            .iter()
            .map(|alias| match *alias {
                "j" => "j.job, j.state, j.finished_at".to_owned(),
                "t" => "t.job, t.attempt, t.ended_at".to_owned(),
                "v" => "v.job, v.id, v.at".to_owned(),
                _ => format!("{alias}.job, {alias}.offset, {alias}.at"),
            })
            .collect();
        let all = all.join(", ");
        let first = aliases[0];
        let (group, other) = (self.column(first), self.column(first));
        match self.below(12) {
            0..=3 => {
                let of = self.one(&aliases);
                let more = self.column(of);
                format!("SELECT {all}, {more}{tail}")
            }
            4 => format!(
                "SELECT count(*), count({other}), sum({first}.job), min({group}), max({other}){tail}"
            ),
            5 => format!(
                "SELECT {group}, count(*), max({first}.job){tail} GROUP BY {group} \
                 HAVING count(*) <> 2"
            ),
            6 => format!("SELECT DISTINCT {group}, {other}{tail}"),
            7 => {
                let (limit, order) = (1 + self.below(20), self.one(&["", " DESC"]));
                format!("SELECT {all}{tail} ORDER BY {group}{order}, {all} LIMIT {limit}")
            }
            8 => format!(
                "SELECT {all}, row_number() OVER (PARTITION BY {group} ORDER BY {all}), \
                 sum({first}.job) OVER (ORDER BY {all}){tail}"
            ),
            9 => {
                let (operator, two) = (
                    self.one(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]),
                    self.condition(&["y"], 2),
                );
                format!(
                    "SELECT {first}.job{tail} {operator} SELECT y.job FROM history_output y WHERE {two}"
                )
            }
            10 => format!("SELECT count(DISTINCT {group}), total({first}.job){tail}"),
            _ => format!("SELECT * FROM (SELECT {all}, {group} AS g{tail}) WHERE g IS NOT NULL"),
        }
    }
}

/// Whether a table with this alias is `history_output`; the aliases of other views are j, t and v.
fn is_output(alias: &str) -> bool {
    !matches!(alias, "j" | "t" | "v")
}

/// The rows of a query, sorted; or that it is refused.
fn rows(conn: &Connection, sql: &str) -> Result<Vec<String>, String> {
    let read = || {
        let mut statement = conn.prepare(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values: Vec<Value> = (0..columns)
                .map(|at| row.get(at))
                .collect::<Result<_, _>>()?;
            Ok(format!("{values:?}"))
        })?;
        rows.collect::<rusqlite::Result<Vec<String>>>()
    };
    let mut rows = read().map_err(|error| error.to_string())?;
    rows.sort();
    Ok(rows)
}

/// Plain tables with the names and the rows of the views.
fn copy(of: &Connection) -> Connection {
    let to = Connection::open_in_memory().expect("opens");
    functions::register(&to).expect("registered");
    for (name, columns) in COPIES {
        to.execute_batch(&format!("CREATE TABLE {name} ({columns})"))
            .expect("a table");
        let names: Vec<&str> = columns
            .split(',')
            .filter_map(|column| column.split_whitespace().next())
            .collect();
        let marks = vec!["?"; names.len()].join(", ");
        let sql = format!("SELECT {} FROM {name}", names.join(", "));
        let mut statement = of.prepare(&sql).expect("compiles");
        let mut rows = statement.query([]).expect("runs");
        while let Some(row) = rows.next().expect("a row") {
            let values: Vec<Value> = (0..names.len())
                .map(|at| row.get(at).expect("a value"))
                .collect();
            to.execute(
                &format!("INSERT INTO {name} VALUES ({marks})"),
                rusqlite::params_from_iter(values),
            )
            .expect("copied");
        }
    }
    to
}

fn variable(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn random_queries_have_the_rows_that_plain_tables_have() {
    let directory = DataDir::new();
    let ours = directory.for_user();
    let plain = copy(&ours);
    let count = rows(&plain, "SELECT count(*) FROM history_output");
    assert_eq!(count, Ok(vec!["[Integer(60)]".to_owned()]));
    let first = variable(SEED_VARIABLE).unwrap_or(1);
    let mut different = Vec::new();
    let mut refused = 0;
    for seed in first..first + variable(QUERIES_VARIABLE).unwrap_or(QUERIES) {
        let sql = Dice(seed).query();
        let (here, there) = (rows(&ours, &sql), rows(&plain, &sql));
        refused += u64::from(there.is_err());
        if here != there && !(here.is_err() && there.is_err()) {
            let count = |rows: &Result<Vec<String>, String>| match rows {
                Ok(rows) => format!("{} rows", rows.len()),
                Err(error) => error.clone(),
            };
            different.push(format!(
                "seed {seed}: {sql}\n  {} instead of {}",
                count(&here),
                count(&there)
            ));
        }
    }
    let some: Vec<&String> = different.iter().take(20).collect();
    assert!(
        different.is_empty(),
        "{} differ: {some:#?}",
        different.len()
    );
    assert!(refused * 50 < QUERIES, "{refused} queries do not compile");
}
