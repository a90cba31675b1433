//! The secrets of this data directory: the key of digests, and the seed that the keys of its shims
//! are derived from.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{Connection, SqliteConnection};

use super::columns::{hex, json, malformed};

/// Length of a key and of a digest, bytes.
const KEY_BYTES: usize = 32;

/// The most rows of jobs that one statement changes.
const ROWS: i64 = 10_000;

/// The secret key of digests. Never shown.
#[derive(Clone)]
pub(in crate::store) struct DigestKey([u8; KEY_BYTES]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey")
    }
}

impl DigestKey {
    /// The keyed digest of something whose plain SHA-256 is `plain`. Both parts have a fixed
    /// length, so a digest cannot be extended without the key (length extension).
    pub(super) fn digest(&self, plain: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(plain);
        hasher.finalize().into()
    }

    /// The digest of a text.
    pub(super) fn digest_of(&self, text: &str) -> [u8; KEY_BYTES] {
        self.digest(&Sha256::digest(text.as_bytes()).into())
    }
}

/// The secret that the keys of shims are derived from. Never shown.
#[derive(Clone)]
pub struct ShimSeed([u8; KEY_BYTES]);

impl ShimSeed {
    /// The 32 secret bytes.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for ShimSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShimSeed")
    }
}

/// The key of digests. The first call creates it, and replaces the digests that earlier versions
/// have stored without a key, all in one transaction.
pub(super) async fn digest_key(conn: &mut SqliteConnection) -> sqlx::Result<DigestKey> {
    let found = sqlx::query_scalar!("SELECT key FROM digest_key WHERE id = 1")
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(found) = found {
        return Ok(DigestKey(exactly(&found)?));
    }
    let key = DigestKey(random()?);
    let mut transaction = conn.begin().await?;
    rekey_environments(&mut transaction, &key).await?;
    rekey_fingerprints(&mut transaction, &key).await?;
    let bytes = &key.0[..];
    sqlx::query!("INSERT INTO digest_key (id, key) VALUES (1, ?1)", bytes)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(key)
}

/// The seed of the shims' keys; the first call creates it.
pub(super) async fn shim_seed(conn: &mut SqliteConnection) -> sqlx::Result<ShimSeed> {
    let found = sqlx::query_scalar!("SELECT key FROM shim_key WHERE id = 1")
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(found) = found {
        return Ok(ShimSeed(exactly(&found)?));
    }
    let key = random()?;
    let bytes = &key[..];
    sqlx::query!("INSERT INTO shim_key (id, key) VALUES (1, ?1)", bytes)
        .execute(conn)
        .await?;
    Ok(ShimSeed(key))
}

/// The seed of the shims' keys, which exists since the first start of a server.
pub(in crate::store) async fn stored_shim_seed(
    conn: &mut SqliteConnection,
) -> sqlx::Result<ShimSeed> {
    let found = sqlx::query_scalar!("SELECT key FROM shim_key WHERE id = 1")
        .fetch_one(conn)
        .await?;
    Ok(ShimSeed(exactly(&found)?))
}

/// A row's old digest or number, and its new digest, as hex.
#[derive(Serialize)]
struct Rekeyed<T> {
    of: T,
    to: String,
}

async fn rekey_environments(conn: &mut SqliteConnection, key: &DigestKey) -> sqlx::Result<()> {
    // Jobs refer to environments by hash; both sides change here.
    sqlx::query("PRAGMA defer_foreign_keys = ON")
        .execute(&mut *conn)
        .await?;
    let hashes = sqlx::query_scalar!("SELECT hash FROM environments")
        .fetch_all(&mut *conn)
        .await?;
    let rows = hashes.iter().map(|hash| {
        Ok(Rekeyed {
            of: hex(hash),
            to: hex(&key.digest(&exactly(hash)?)),
        })
    });
    let rows = json(&rows.collect::<sqlx::Result<Vec<_>>>()?)?;
    sqlx::query!(
        "UPDATE jobs SET environment = unhex(value ->> 'to') FROM json_each(?1)
         WHERE environment = unhex(value ->> 'of')",
        rows
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE environments SET hash = unhex(value ->> 'to') FROM json_each(?1)
         WHERE hash = unhex(value ->> 'of')",
        rows
    )
    .execute(&mut *conn)
    .await?;
    Ok(())
}

async fn rekey_fingerprints(conn: &mut SqliteConnection, key: &DigestKey) -> sqlx::Result<()> {
    let mut after = 0;
    loop {
        let jobs = sqlx::query!(
            r#"SELECT number AS "number!: i64", fingerprint FROM jobs WHERE number > ?1
               ORDER BY number LIMIT ?2"#,
            after,
            ROWS
        )
        .fetch_all(&mut *conn)
        .await?;
        let Some(last) = jobs.last() else {
            return Ok(());
        };
        after = last.number;
        let rows = jobs.iter().map(|job| {
            Ok(Rekeyed {
                of: job.number,
                to: hex(&key.digest(&exactly(&job.fingerprint)?)),
            })
        });
        let rows = json(&rows.collect::<sqlx::Result<Vec<_>>>()?)?;
        sqlx::query!(
            "UPDATE jobs SET fingerprint = unhex(value ->> 'to') FROM json_each(?1)
             WHERE number = value ->> 'of'",
            rows
        )
        .execute(&mut *conn)
        .await?;
    }
}

fn exactly(bytes: &[u8]) -> sqlx::Result<[u8; KEY_BYTES]> {
    let wrong = |_| malformed("a key or a digest has 32 bytes");
    bytes.try_into().map_err(wrong)
}

fn random() -> sqlx::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    let drawn = getrandom::fill(&mut key);
    drawn.map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_depend_on_the_key_and_are_not_the_plain_ones() {
        let plain: [u8; KEY_BYTES] = Sha256::digest(b"{}").into();
        let [one, other] = [1, 2].map(|byte| DigestKey([byte; KEY_BYTES]));
        assert_eq!(one.digest_of("{}"), one.digest(&plain));
        assert_ne!(one.digest(&plain), plain);
        assert_ne!(one.digest(&plain), other.digest(&plain));
        assert_eq!(format!("{one:?}"), "DigestKey");
    }
}
