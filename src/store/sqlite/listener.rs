//! Tells the rest of the server which jobs have changed their state, after the commit and before anybody
//! is answered. Who has asked for the change does not matter: some follow from others.

use std::sync::{Arc, OnceLock};

use crate::store::types::StateMove;

type OnMoves = dyn Fn(&[StateMove]) + Send + Sync;

/// Whom the writer tells. It must not block: nothing is written meanwhile.
#[derive(Clone, Default)]
pub(in crate::store) struct Listener(Arc<OnceLock<Box<OnMoves>>>);

impl Listener {
    /// Tells `listen` from now on. Only the first call has an effect.
    pub fn set(&self, listen: impl Fn(&[StateMove]) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(listen));
    }

    /// Tells of the changes of a transaction, in their order.
    pub(super) fn tell(&self, moves: &[StateMove]) {
        if let Some(listen) = self.0.get().filter(|_| !moves.is_empty()) {
            listen(moves);
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
