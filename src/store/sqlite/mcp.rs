//! What an MCP client must find again after a restart of the server: sessions, and which jobs it has been
//! told about.

use sqlx::{SqliteConnection, SqlitePool};

use crate::{access::TokenNumber, job::JobNumber};

/// Most sessions that are kept, the newest.
pub const SESSIONS_MAX: i64 = 10_000;

/// Stores a session's opening, JSON, and forgets the oldest sessions beyond [`SESSIONS_MAX`].
pub(super) async fn save_session(
    conn: &mut SqliteConnection,
    id: &str,
    opening: &str,
    token: Option<TokenNumber>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mcp_sessions (id, opening, serial, token)
         SELECT ?1, ?2, coalesce(max(serial), 0) + 1, ?3 FROM mcp_sessions WHERE true
         ON CONFLICT (id) DO UPDATE SET opening = excluded.opening, serial = excluded.serial",
        id,
        opening,
        token,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM mcp_sessions WHERE serial <= (SELECT max(serial) FROM mcp_sessions) - ?1",
        SESSIONS_MAX,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets a session that its client has ended.
pub(super) async fn delete_session(conn: &mut SqliteConnection, id: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM mcp_sessions WHERE id = ?1", id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores that the submitter of a job has been told about it. A job that is gone is none.
pub(super) async fn set_answered(conn: &mut SqliteConnection, job: JobNumber) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO mcp_answered (job) SELECT number FROM jobs WHERE number = ?1
         ON CONFLICT (job) DO NOTHING",
        job,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The job with this idempotency key.
pub(in crate::store) async fn job_with_key(
    readers: &SqlitePool,
    key: &str,
) -> sqlx::Result<Option<JobNumber>> {
    sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs WHERE idempotency_key = ?1"#,
        key
    )
    .fetch_optional(readers)
    .await
}

/// The opening of a session, JSON.
pub(in crate::store) async fn session(
    readers: &SqlitePool,
    id: &str,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"SELECT opening AS "opening!: String" FROM mcp_sessions WHERE id = ?1"#,
        id
    )
    .fetch_optional(readers)
    .await
}

/// Whether the submitter of a job has been told about it.
pub(in crate::store) async fn is_answered(
    readers: &SqlitePool,
    job: JobNumber,
) -> sqlx::Result<bool> {
    let row = sqlx::query_scalar!(
        r#"SELECT job AS "job!: i64" FROM mcp_answered WHERE job = ?1"#,
        job
    )
    .fetch_optional(readers)
    .await?;
    Ok(row.is_some())
}
