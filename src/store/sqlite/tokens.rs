//! Tokens with scopes: their rows, and which token has submitted a job.

use sqlx::{SqliteConnection, SqlitePool};

use super::columns::{from_json, json, malformed};
use crate::{
    access::{JobPlace, TokenNumber},
    job::{JobRef, Micros},
    store::token_types::{NewToken, StoredToken, TokenAdded, TokenChange},
};

/// Stores a new token.
pub(super) async fn add(conn: &mut SqliteConnection, new: &NewToken) -> sqlx::Result<TokenAdded> {
    let scopes = json(&new.scopes)?;
    let restrictions = json(&new.restrictions)?;
    let (nonce, digest) = (&new.nonce[..], &new.digest[..]);
    let expires = new.expires_at.map(|at| at.0);
    let added = sqlx::query_scalar!(
        r#"INSERT INTO tokens (name, nonce, digest, scopes, restrictions, created_at, created_by,
               expires_at)
           SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
           WHERE (SELECT count(*) FROM tokens WHERE revoked_at IS NULL) < ?9
             AND NOT EXISTS (SELECT 1 FROM tokens WHERE name = ?1 AND revoked_at IS NULL)
           RETURNING number AS "number!: i64""#,
        new.name,
        nonce,
        digest,
        scopes,
        restrictions,
        new.at.0,
        new.created_by,
        expires,
        NewToken::COUNT_MAX,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(number) = added {
        return Ok(TokenAdded::Done(number));
    }
    let name = &new.name;
    let known = sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM tokens WHERE name = ?1 AND revoked_at IS NULL"#,
        name
    );
    Ok(match known.fetch_optional(conn).await? {
        Some(_) => TokenAdded::NameTaken,
        None => TokenAdded::TooMany,
    })
}

/// Changes a token that was not revoked; false where there is none with this number.
pub(super) async fn change(
    conn: &mut SqliteConnection,
    (number, change): &(TokenNumber, TokenChange),
) -> sqlx::Result<bool> {
    let done = match change {
        TokenChange::Revoked(at) => {
            sqlx::query!(
                "UPDATE tokens SET revoked_at = ?2 WHERE number = ?1 AND revoked_at IS NULL",
                number,
                at.0
            )
            .execute(conn)
            .await?
        }
        TokenChange::Expired(now) => {
            sqlx::query!(
                "UPDATE tokens SET expired = 1 WHERE number = ?1 AND expires_at <= ?2",
                number,
                now.0
            )
            .execute(conn)
            .await?
        }
        TokenChange::Rotated {
            nonce,
            digest,
            expires_at,
            at,
        } => {
            let (nonce, digest) = (&nonce[..], &digest[..]);
            let expires = expires_at.map(|at| at.0);
            sqlx::query!(
                "UPDATE tokens SET nonce = ?2, digest = ?3, expires_at = ?4, rotated_at = ?5,
                     expired = 0
                 WHERE number = ?1 AND revoked_at IS NULL",
                number,
                nonce,
                digest,
                expires,
                at.0
            )
            .execute(conn)
            .await?
        }
    };
    Ok(done.rows_affected() > 0)
}

/// All tokens, revoked ones too, by number.
pub(in crate::store) async fn all(readers: &SqlitePool) -> sqlx::Result<Vec<StoredToken>> {
    let rows = sqlx::query!(
        r#"SELECT number AS "number!: i64", name AS "name!: String", nonce AS "nonce!: Vec<u8>",
               digest AS "digest!: Vec<u8>", scopes AS "scopes!: String",
               restrictions AS "restrictions!: String", created_at AS "created_at!: i64",
               created_by AS "created_by!: String", rotated_at AS "rotated_at: i64",
               expires_at AS "expires_at: i64", expired AS "expired!: bool",
               revoked_at AS "revoked_at: i64"
           FROM tokens ORDER BY number"#
    );
    let rows = rows.fetch_all(readers).await?.into_iter();
    rows.map(|row| {
        let wrong = |_| malformed("a token has a nonce of 16 and a digest of 32 bytes");
        Ok(StoredToken {
            number: row.number,
            name: row.name,
            nonce: row.nonce.try_into().map_err(wrong)?,
            digest: row.digest.try_into().map_err(wrong)?,
            scopes: from_json(&row.scopes)?,
            restrictions: from_json(&row.restrictions)?,
            created_at: Micros(row.created_at),
            created_by: row.created_by,
            rotated_at: row.rotated_at.map(Micros),
            expires_at: row.expires_at.map(Micros),
            expired: row.expired,
            revoked_at: row.revoked_at.map(Micros),
        })
    })
    .collect()
}

/// What decides whether a token reaches this job.
pub(in crate::store) async fn place(
    readers: &SqlitePool,
    job: JobRef,
) -> sqlx::Result<Option<JobPlace>> {
    let (number, id) = match job {
        JobRef::Number(number) => (Some(number), None),
        JobRef::Id(id) => (None, Some(id.to_string())),
    };
    let row = sqlx::query!(
        r#"SELECT token AS "token: i64", queue AS "queue!: String", labels AS "labels!: String"
           FROM jobs WHERE number = ?1
           UNION ALL SELECT token, queue, labels FROM jobs WHERE id = ?2"#,
        number,
        id
    );
    let row = row.fetch_optional(readers).await?;
    row.map(|row| {
        Ok(JobPlace {
            token: row.token,
            queue: row.queue,
            labels: from_json(&row.labels)?,
        })
    })
    .transpose()
}

/// The token that opened a session of MCP; the outer `None`: there is no such session.
pub(in crate::store) async fn of_mcp_session(
    readers: &SqlitePool,
    id: &str,
) -> sqlx::Result<Option<Option<TokenNumber>>> {
    let row = sqlx::query!(
        r#"SELECT token AS "token: i64" FROM mcp_sessions WHERE id = ?1"#,
        id
    );
    Ok(row.fetch_optional(readers).await?.map(|row| row.token))
}
