//! The connection that a user's statement runs on: read-only, with bounds, the whole output under
//! its name, and the rules in force.
//!
//! What the rules are is `rules`' business.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{
    Connection,
    config::DbConfig,
    hooks::{AuthContext, Authorization},
    limits::Limit,
};

use super::{
    functions,
    open::read_only,
    output_table,
    pieces::OutputSource,
    rules::{self, Denied},
    views,
};
use crate::{spool::Layout, store::LongPath};

/// Longest value, bytes: what a user's own functions make must not grow into the memory's bound.
pub const VALUE_BYTES_MAX: i32 = 16 << 20;
/// Longest statement, bytes.
pub const SQL_BYTES_MAX: i32 = 64 << 10;

/// Bounds of a statement (sqlite3_limit).
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

/// What the process needs beside SQLite, bytes: the answer, a piece of a segment, the program.
const OURS_BYTES: u64 = 48 << 20;

/// The rule that a statement has hurt, if any.
pub type Hurt = Arc<Mutex<Option<Denied>>>;

/// The connection for one statement of a user, and where the rule is told that it hurts.
pub fn for_user(
    way: &LongPath,
    layout: &Layout,
    memory_bytes: u64,
) -> rusqlite::Result<(Connection, Hurt)> {
    let conn = read_only(way, layout)?;
    let heap = memory_bytes.saturating_sub(OURS_BYTES).max(OURS_BYTES / 4);
    conn.execute_batch(&format!("PRAGMA hard_heap_limit = {heap};"))?;
    let behalf = views::shadow(&conn)?;
    let library = OutputSource::new(read_only(way, layout)?, way.clone(), layout.clone())?;
    output_table::register(&conn, library)?;
    functions::register(&conn)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    for (limit, value) in LIMITS {
        conn.set_limit(limit, value)?;
    }
    let hurt = Hurt::default();
    let told = hurt.clone();
    conn.authorizer(Some(move |context: AuthContext<'_>| {
        match rules::judge(&context, &behalf) {
            Ok(()) => Authorization::Allow,
            Err(denied) => {
                // The first one is what the user wrote.
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.get_or_insert(denied);
                Authorization::Deny
            }
        }
    }))?;
    Ok((conn, hurt))
}
