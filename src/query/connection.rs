//! The connection that a user's statement runs on: read-only, with SQLite's limits set, the table
//! `history_output` registered, and `rules` installed as the authorizer.

use std::sync::{Arc, Mutex};

use rusqlite::{
    Connection,
    config::DbConfig,
    hooks::{AuthContext, Authorization},
    limits::Limit,
};

use super::{
    confine, functions,
    open::read_only,
    output_table,
    rules::{self, Denied},
    scan::OutputSource,
    views,
};
use crate::{spool::Layout, store::LongPath, sys::lock};

/// Longest value, bytes: a value that a function builds must not use up the memory limit.
pub const VALUE_BYTES_MAX: i32 = 16 << 20;
/// Longest statement, bytes.
pub const SQL_BYTES_MAX: i32 = 64 << 10;

/// Limits of a statement (sqlite3_limit).
const LIMITS: [(Limit, i32); 11] = [
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX),
    (Limit::SQLITE_LIMIT_COLUMN, 256),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
    (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1000),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Memory that the process needs besides SQLite's, bytes: the reply, a piece of a segment, the
/// program.
const OTHER_BYTES: u64 = 48 << 20;

/// Instructions of SQLite's virtual machine between two looks at the CPU time: about a millisecond.
const SHARE_CHECKED_EVERY: i32 = 20_000;

/// The first rule that the statement has violated, if any.
pub type Violation = Arc<Mutex<Option<Denied>>>;

/// The connection for a user's statement, and where the authorizer puts a violation.
pub fn for_user(
    database: &LongPath,
    layout: &Layout,
    memory_bytes: u64,
) -> rusqlite::Result<(Connection, Violation)> {
    let conn = read_only(database, layout)?;
    let heap = memory_bytes
        .saturating_sub(OTHER_BYTES)
        .max(OTHER_BYTES / 4);
    conn.execute_batch(&format!("PRAGMA hard_heap_limit = {heap};"))?;
    let trusted = views::shadow(&conn)?;
    let source = OutputSource::new(
        read_only(database, layout)?,
        database.clone(),
        layout.clone(),
    )?;
    output_table::register(&conn, source)?;
    functions::register(&conn)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    for (limit, value) in LIMITS {
        conn.set_limit(limit, value)?;
    }
    conn.progress_handler(
        SHARE_CHECKED_EVERY,
        Some(|| {
            confine::yield_after_share();
            false
        }),
    )?;
    let violation = Violation::default();
    let first = violation.clone();
    conn.authorizer(Some(move |context: AuthContext<'_>| {
        match rules::judge(&context, &trusted) {
            Ok(()) => Authorization::Allow,
            Err(denied) => {
                // Keep the first one: it is about what the user wrote.
                let mut first = lock(&first);
                first.get_or_insert(denied);
                Authorization::Deny
            }
        }
    }))?;
    Ok((conn, violation))
}
