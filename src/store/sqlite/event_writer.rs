//! Writes the state changes that a transaction has made, with the notices of them.
//!
//! What a row has in it is in `events` and in `notices`.

use super::{events, job_snapshot::WriteBatch, notices};

/// Writes the state changes so far, if somebody is notified of one of them: a notice shows the job as it
/// is right after the change.
pub(super) async fn write_noticed_events(batch: &mut WriteBatch<'_>) -> sqlx::Result<()> {
    match batch.events.iter().any(|event| event.notify) {
        true => write_events(batch).await,
        false => Ok(()),
    }
}

/// Writes the state changes so far, in order, and their notices.
pub(super) async fn write_events(batch: &mut WriteBatch<'_>) -> sqlx::Result<()> {
    let events = std::mem::take(&mut batch.events);
    if events.is_empty() {
        return Ok(());
    }
    let first = events::insert(batch.conn, &events).await?;
    let added = notices::insert(batch.conn, first, &events).await?;
    batch.notices.added(added);
    batch
        .moves
        .extend(events.iter().map(events::NewEvent::state_move));
    Ok(())
}
