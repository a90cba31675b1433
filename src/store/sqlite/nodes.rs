//! The row of this data directory's one node: its instance and its epoch.
//!
//! The supervisor and the shims use the epoch.

use sqlx::SqliteConnection;

use super::columns::hex;
use crate::{job::Queue, store::types::Epoch};

/// Least slots of the queue `default`, also on a machine with fewer cores.
const DEFAULT_CONCURRENCY_MIN: usize = 4;
/// Length of an instance's random id, bytes.
const INSTANCE_BYTES: usize = 16;

/// Writes the first rows of a new data directory: its node, and as many slots as there are cores.
pub(super) async fn set_up(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let instance = random_id()?;
    let hostname = hostname();
    sqlx::query!(
        "INSERT INTO nodes (id, instance, hostname, version) VALUES (1, ?1, ?2, ?3)",
        instance,
        hostname,
        env!("CARGO_PKG_VERSION"),
    )
    .execute(&mut *conn)
    .await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = cores.clamp(DEFAULT_CONCURRENCY_MIN, Queue::CONCURRENCY_MAX as usize) as i64;
    sqlx::query!(
        "UPDATE queues SET concurrency = ?1 WHERE name = 'default'",
        slots
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a copied database, which is the file `file_id`, an instance of its own; returns it.
pub(super) async fn renew(conn: &mut SqliteConnection, file_id: &str) -> sqlx::Result<String> {
    let instance = random_id()?;
    sqlx::query!(
        "UPDATE nodes SET instance = ?1, place = ?2 WHERE id = 1",
        instance,
        file_id
    )
    .execute(conn)
    .await?;
    Ok(instance)
}

/// Counts a server start and stores the boot of the machine and the database's file id. If the file
/// id has changed, the directory is a copy: what the original has started does not belong to it.
pub(super) async fn begin_epoch(
    conn: &mut SqliteConnection,
    boot_id: &str,
    file_id: &str,
) -> sqlx::Result<Epoch> {
    let hostname = hostname();
    let before = sqlx::query_scalar!("SELECT place FROM nodes WHERE id = 1")
        .fetch_one(&mut *conn)
        .await?;
    let is_copy = before.is_some_and(|before| before != file_id);
    if is_copy {
        renew(conn, file_id).await?;
    }
    let row = sqlx::query!(
        r#"UPDATE nodes SET epoch = epoch + 1, boot_id = ?1, hostname = ?2, version = ?3, place = ?4
           WHERE id = 1
           RETURNING epoch AS "epoch!: i64", instance AS "instance!: String""#,
        boot_id,
        hostname,
        env!("CARGO_PKG_VERSION"),
        file_id,
    )
    .fetch_one(conn)
    .await?;
    Ok(Epoch {
        epoch: row.epoch as u64,
        instance: row.instance,
        is_copy,
    })
}

fn random_id() -> sqlx::Result<String> {
    let mut bytes = [0u8; INSTANCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| sqlx::Error::Encode(error.to_string().into()))?;
    Ok(hex(&bytes))
}

/// Only for people who look at the row; a start does not fail if it cannot be read.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
