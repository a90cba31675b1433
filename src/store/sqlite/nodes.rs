//! Who runs jobs: this data directory's one node, its instance and its epoch.
//!
//! It does not know what an epoch is good for; the supervisor and the shims do.

use sqlx::SqliteConnection;

use super::columns::hex;
use crate::{job::Queue, store::types::Epoch};

/// Slots of the queue `default` on a machine with few cores.
const DEFAULT_CONCURRENCY_MIN: usize = 4;
/// Length of an instance's random id, bytes.
const INSTANCE_BYTES: usize = 16;

/// Writes what a new data directory begins with: its node, and as many slots as there are cores.
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

/// Gives a copy of a data directory, which lies at this place, an instance of its own; returns it.
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

/// Counts a server start and remembers under which boot of the machine, and at which place, it
/// happened. One at another place is the start of a copy: what the original has started is not its own.
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

/// Only for people who look at the row; an unreadable one is no reason not to start.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
