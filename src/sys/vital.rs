//! Tasks that a server needs to keep its promises. If one of them panics the server ends, as after
//! a failed sync: its shims go on, and the next start recovers what the task was about.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The vital tasks of one server. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Vital {
    failed: CancellationToken,
}

impl Vital {
    /// Starts a task that must run to its own end. A task that is aborted, or dropped with the
    /// runtime, has not failed.
    pub fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(self.watched(what, task))
    }

    /// The task as a future; [`Self::failed`] returns if it panics.
    pub fn watched(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let failed = self.failed.clone();
        async move {
            // It is dropped while the panic unwinds through this future.
            let _guard = PanicGuard { what, failed };
            task.await;
        }
    }

    /// Returns after one of them has panicked.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }
}

/// Reports the panic that drops it.
struct PanicGuard {
    what: &'static str,
    failed: CancellationToken,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.what, "a vital task panicked; the server ends");
            self.failed.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_one_task_is_told_and_an_end_is_not() {
        let vital = Vital::default();
        let ended = vital.spawn("one that ends", async {});
        ended.await.expect("no panic");
        let aborted = vital.spawn("one that is aborted", std::future::pending());
        aborted.abort();
        assert!(aborted.await.expect_err("aborted").is_cancelled());
        assert!(!vital.failed.is_cancelled());
        let panicked = vital.spawn("one that panics", async { panic!("as planned") });
        assert!(panicked.await.is_err());
        vital.failed().await;
    }
}
