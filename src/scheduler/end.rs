//! Commits how an attempt ended, and unlinks segments whose bytes are rows now.
//!
//! `claim` makes the claim for the shim's next job; here it becomes part of the same transaction.

use crate::{
    store::{Claimed, Fenced, Store, StoreError},
    supervisor::{Finalized, Supervisor},
    sys::retry,
};

/// Commits an end together with the `claim` for the shim that it frees. `None`: the server stops,
/// and nothing is committed.
pub async fn commit(
    supervisor: &Supervisor,
    finalized: &Finalized,
    claim: impl Future<Output = Result<Claimed, StoreError>>,
) -> Option<(Fenced, Result<Claimed, StoreError>)> {
    let store = &supervisor.context().store;
    // All three are queued at the writer in this order before any of them is answered, so they
    // share a transaction.
    let (_, finished, claimed) = tokio::join!(
        record_start(store, finalized),
        store.finish(finalized.finish.clone()),
        claim
    );
    let fenced = match finished {
        Ok(fenced) => fenced,
        Err(error) => retry_finish(store, finalized, error).await.ok()?,
    };
    Some((fenced, claimed))
}

/// Unlinks the files in the spool that the commit has made useless. An end that came too late
/// (`Stale`) was not committed, and its files stay.
pub async fn unlink(supervisor: &Supervisor, finalized: &Finalized, fenced: Fenced) {
    if fenced == Fenced::Stale {
        return;
    }
    let unlinker = &supervisor.context().unlinker;
    if let Err(error) = unlinker.unlink(finalized.unlink.clone()).await {
        tracing::warn!(job = finalized.key.job, %error, "a file in the spool could not be unlinked");
    }
}

/// Commits a start together with its end, if it was not committed before.
async fn record_start(store: &Store, finalized: &Finalized) {
    if let Some(started) = finalized.start.clone()
        && let Err(error) = store.started(started).await
    {
        tracing::warn!(job = finalized.key.job, %error, "a start could not be committed");
    }
}

/// Tries again to commit an end that failed with `error`, until it is committed or the server
/// stops. The shim keeps the end as long.
async fn retry_finish(
    store: &Store,
    finalized: &Finalized,
    error: StoreError,
) -> Result<Fenced, StoreError> {
    // The failed try counts as the first one.
    let mut tried = Some(Err(error));
    retry::until_some(|| {
        let tried = tried.take();
        async move {
            let tried = match tried {
                Some(tried) => tried,
                None => store.finish(finalized.finish.clone()).await,
            };
            match tried {
                Ok(_) | Err(StoreError::Stopping) => Some(tried),
                Err(error) => {
                    tracing::error!(job = finalized.key.job, %error, "an end could not be committed; trying again");
                    None
                }
            }
        }
    })
    .await
}
