//! Commits how an attempt ended, and what follows from that: readers are woken, segments whose
//! bytes are rows now go.
//!
//! What the shim does next is decided in `claim`; here the claim is only made part of the same
//! transaction.

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
    // They are handed to the writer in this order before any of them is answered.
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

/// Tells the readers of a committed end.
pub fn notify_readers(supervisor: &Supervisor, finalized: &Finalized, fenced: Fenced) {
    let hub = &supervisor.context().hub;
    match fenced {
        Fenced::Done => hub.ended(finalized.key.job),
        Fenced::Again => hub.changed(finalized.key.job),
        Fenced::Stale => {}
    }
}

/// Unlinks what the commit has made useless in the spool. An end that came too late has made
/// nothing so.
pub async fn unlink(supervisor: &Supervisor, finalized: &Finalized, fenced: Fenced) {
    if fenced == Fenced::Stale {
        return;
    }
    let unlinker = &supervisor.context().unlinker;
    if let Err(error) = unlinker.unlink(finalized.unlink.clone()).await {
        tracing::warn!(job = finalized.key.job, %error, "a file in the spool could not be unlinked");
    }
}

/// A start that was not entered before the end came goes in with it.
async fn record_start(store: &Store, finalized: &Finalized) {
    if let Some(started) = finalized.start.clone()
        && let Err(error) = store.started(started).await
    {
        tracing::warn!(job = finalized.key.job, %error, "a start could not be entered");
    }
}

/// An end that the ledger did not take is tried until it does, or the server stops: the shim keeps
/// it as long.
async fn retry_finish(
    store: &Store,
    finalized: &Finalized,
    error: StoreError,
) -> Result<Fenced, StoreError> {
    // The first try is the one that failed.
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
