//! Tells the rest of the server what a transaction has changed, after the commit and before anybody is
//! answered. Who has asked for the change does not matter: some follow from others.

use std::sync::{Arc, OnceLock};

use crate::{audit::AuditEntry, store::types::StateMove};

type OnCommit = dyn Fn(&[StateMove], &[AuditEntry]) + Send + Sync;

/// Whom the writer tells. It must not block: nothing is written meanwhile.
#[derive(Clone, Default)]
pub(in crate::store) struct Listener(Arc<OnceLock<Box<OnCommit>>>);

impl Listener {
    /// Tells `listen` from now on. Only the first call has an effect.
    pub fn set(&self, listen: impl Fn(&[StateMove], &[AuditEntry]) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(listen));
    }

    /// Tells of the state changes of a transaction and its entries in the audit trail, in their order.
    pub(super) fn tell(&self, moves: &[StateMove], entries: &[AuditEntry]) {
        if let Some(listen) = self.0.get()
            && !(moves.is_empty() && entries.is_empty())
        {
            listen(moves, entries);
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
