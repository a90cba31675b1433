//! How the scheduler is told that there may be something to do.

use std::sync::Arc;

use tokio::sync::Notify;

/// Tells the scheduler that there may be something to claim. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Wakeup(Arc<Notify>);

impl Wakeup {
    /// Waits until somebody says so; what was said before counts, once.
    pub(super) async fn wait(&self) {
        self.0.notified().await;
    }

    /// There may be something to claim.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}
