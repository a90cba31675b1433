//! Wakes the scheduler when there may be something to do.

use std::sync::Arc;

use tokio::sync::Notify;

/// Wakes the scheduler. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Wakeup(Arc<Notify>);

impl Wakeup {
    /// Waits for a wake-up. Wake-ups since the last wait count as one.
    pub(super) async fn wait(&self) {
        self.0.notified().await;
    }

    /// Wakes the scheduler: there may be something to claim.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}
