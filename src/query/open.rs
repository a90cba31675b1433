//! How a query process opens the database: read-only, with private memory that is bounded.

use rusqlite::{Connection, OpenFlags};

use crate::{spool::Layout, store::LongPath};

/// A connection that reads only; private memory of all connections together is bounded.
pub fn read_only(way: &LongPath, layout: &Layout) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(way.name(&layout.database()), flags)?;
    // Sorting and grouping may not make files.
    conn.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{}; PRAGMA mmap_size = 0;",
        CACHE_BYTES / 1024
    ))?;
    Ok(conn)
}

/// Page cache, bytes.
const CACHE_BYTES: u64 = 16 << 20;
