//! Returns free pages of the database's file to the file system, a few at a time.
//!
//! This needs a file with `auto_vacuum=INCREMENTAL`; see `open`.

use sqlx::{Sqlite, SqliteConnection};

use crate::store::retention_types::FreePages;

/// The value of `PRAGMA auto_vacuum` for INCREMENTAL.
const INCREMENTAL: i64 = 2;
/// Files of earlier versions up to this length are rewritten once so that they can shrink, bytes. That
/// takes a fraction of a second, and as much memory.
const REWRITTEN_BYTES_MAX: u64 = 32 << 20;

/// Moves up to so many pages from the end of the file into free ones before them, and cuts the file
/// there. Its length changes with the next checkpoint.
pub(super) async fn reclaim(conn: &mut SqliteConnection, pages: u32) -> sqlx::Result<FreePages> {
    // SQLite takes no bound value there.
    let statement = format!("PRAGMA incremental_vacuum({pages})");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut *conn)
        .await?;
    free_pages(conn).await
}

/// How much of the file is free.
pub(in crate::store) async fn free_pages(conn: &mut SqliteConnection) -> sqlx::Result<FreePages> {
    let free: i64 = pragma(&mut *conn, "PRAGMA freelist_count").await?;
    let all: i64 = pragma(&mut *conn, "PRAGMA page_count").await?;
    let page_bytes: i64 = pragma(&mut *conn, "PRAGMA page_size").await?;
    Ok(FreePages {
        free: free as u64,
        all: all as u64,
        page_bytes: page_bytes as u64,
        can_shrink: can_shrink(conn).await?,
    })
}

/// Whether the file can be made shorter in steps.
pub(in crate::store) async fn can_shrink(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    Ok(pragma(conn, "PRAGMA auto_vacuum").await? == INCREMENTAL)
}

async fn pragma<'c>(
    conn: impl sqlx::Executor<'c, Database = Sqlite>,
    statement: &'static str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar(statement).fetch_one(conn).await
}

/// Makes a file of an earlier version one that can shrink, if it is short; a longer one stays as it is
/// until a backup of it is used (`VACUUM INTO` makes files that can shrink). If it fails, such as on a
/// full disk, it is tried again at the next start.
pub(in crate::store) async fn make_shrinkable(conn: &mut SqliteConnection) {
    if let Err(error) = rewrite_short(conn).await {
        tracing::warn!(%error, "the database could not be rewritten so that its file can shrink; the \
            next start tries again");
    }
}

async fn rewrite_short(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let now = free_pages(conn).await?;
    if now.can_shrink || now.all * now.page_bytes > REWRITTEN_BYTES_MAX {
        return Ok(());
    }
    for statement in [
        "PRAGMA auto_vacuum = INCREMENTAL",
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ] {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    Ok(())
}
