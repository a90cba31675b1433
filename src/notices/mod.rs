//! Delivers notices: takes what is due out of the database's outbox, hands it to its receiver by an
//! HTTP request or a command, and stores what became of it. Each is delivered at least once.
//!
//! The outbox is written by the store, with the state changes (docs/design/notices.md).

mod backoff;
mod command;
mod deliverer;
mod http;
mod resolve;
mod sender;
mod signature;
mod tls;
mod types;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    job::Delivery, policy::PolicyGuard, spool::PinnedRun, store::Store, sys::vital::Vital,
};
use deliverer::{Deliverer, DeliveryContext, FINISH_WITHIN};
use sender::NoticeSender;

pub use command::{COMMAND_ROLE, main, run as run_command};
pub use types::{DeliveryFailure, NoticeSettings};

/// The most tests of receivers that run at a time.
const TESTS_MAX: usize = 4;
/// How long a stop waits, after the time that deliveries have to end, until they are interrupted.
const INTERRUPTED_WITHIN: Duration = Duration::from_secs(1);

/// The server's deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notices {
    inner: Arc<NoticesInner>,
}

#[derive(Debug)]
struct NoticesInner {
    context: Arc<DeliveryContext>,
    tests: Semaphore,
    /// The deliverer has returned.
    stopped: CancellationToken,
}

impl Notices {
    /// Begins to deliver what is due in `store`; `policy` judges commands.
    ///
    /// # Errors
    ///
    /// There is no descriptor or no memory for a timer.
    pub fn start(
        store: Store,
        settings: NoticeSettings,
        data_dir: PathBuf,
        policy: Option<Arc<PolicyGuard>>,
        vital: &Vital,
    ) -> io::Result<Self> {
        let timeout = Duration::from_secs(settings.timeout_s);
        let context = Arc::new(DeliveryContext {
            settings,
            sender: NoticeSender::new(data_dir, timeout),
            policy,
            stopping: CancellationToken::new(),
            interrupted: CancellationToken::new(),
        });
        let deliverer = Deliverer::new(context.clone(), store)?;
        let notices = Self {
            inner: Arc::new(NoticesInner {
                context,
                tests: Semaphore::new(TESTS_MAX),
                stopped: CancellationToken::new(),
            }),
        };
        let stopped = notices.inner.stopped.clone().drop_guard();
        vital.spawn("delivering notices", async move {
            deliverer.run().await;
            drop(stopped);
        });
        Ok(notices)
    }

    /// The bounds.
    pub fn settings(&self) -> &NoticeSettings {
        &self.inner.context.settings
    }

    /// Makes one attempt now, whatever else is delivered; nothing is stored. `pinned` is what of a command the
    /// policy has judged.
    ///
    /// # Errors
    ///
    /// Why it has failed.
    pub async fn test(
        &self,
        delivery: &Delivery,
        pinned: Option<&PinnedRun>,
    ) -> Result<(), DeliveryFailure> {
        // The semaphore is never closed.
        let _turn = self.inner.tests.acquire().await;
        let interrupted = self.inner.context.interrupted.cancelled();
        tokio::select! {
            sent = self.inner.context.sender.send(delivery, pinned) => sent,
            () = interrupted => Err(DeliveryFailure::new("the server is stopping")),
        }
    }

    /// Begins no more deliveries, and waits a moment for those that have begun. What is not delivered
    /// then waits for the next server.
    pub async fn stop(&self) {
        self.inner.context.stopping.cancel();
        let within = FINISH_WITHIN + INTERRUPTED_WITHIN;
        if tokio::time::timeout(within, self.inner.stopped.cancelled())
            .await
            .is_err()
        {
            tracing::warn!("a delivery of a notice could not be interrupted in time");
        }
    }
}
