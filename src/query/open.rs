//! Opens the database for a query process: read-only, with a bounded page cache.

use rusqlite::{Connection, OpenFlags};

use crate::{spool::Layout, store::LongPath};

/// A read-only connection. `connection` bounds the heap of all connections together.
pub fn read_only(database: &LongPath, layout: &Layout) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database.name(&layout.database()), flags)?;
    // The process may not create files, so sorting and grouping must use memory.
    conn.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{}; PRAGMA mmap_size = 0;",
        CACHE_BYTES / 1024
    ))?;
    Ok(conn)
}

/// Page cache of one connection, bytes.
const CACHE_BYTES: u64 = 16 << 20;
