//! Delivers notices: takes what is due out of the database's outbox, hands it to its receiver by an
//! HTTP request or a command, and stores what became of it. Each is delivered at least once.
//!
//! The outbox is written by the store, with the state changes (docs/design/notices.md).

mod backoff;
mod command;
mod deliverer;
mod http;
mod resolve;
mod signature;
mod tls;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    job::{Delivery, NotifyTarget},
    store::Store,
    sys::vital::Vital,
};
use command::CommandEnvironment;

pub use command::{COMMAND_ROLE, main};
use deliverer::Deliverer;
use http::HttpClient;

/// The most tests of receivers that run at a time.
const TESTS_MAX: usize = 4;
/// How long a stop waits for deliveries that have begun.
const FINISH_WITHIN: Duration = Duration::from_millis(500);
/// How long it then waits until they are interrupted.
const INTERRUPTED_WITHIN: Duration = Duration::from_secs(1);

/// The bounds of deliveries. Each is a setting of the server with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoticeSettings {
    /// The most deliveries at a time.
    pub running_max: u64,
    /// How long an attempt may take, seconds.
    pub timeout_s: u64,
    /// The most attempts of a notice.
    pub attempts_max: u64,
    /// After this time a notice that is not delivered is given up, seconds.
    pub age_max_s: u64,
    /// The pause after the first failed attempt, milliseconds; each further one is twice as long.
    pub backoff_ms: u64,
    /// With this many waiting notices, jobs with `notify` are refused.
    pub waiting_max: u64,
}

/// Why an attempt has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryFailure {
    /// For people: what the receiver or the system answered. It names no URL and no secret.
    pub error: String,
    /// How long the receiver wants to be left alone.
    retry_after: Option<Duration>,
    /// Whether the receiver wants no other attempt.
    is_final: bool,
}

impl DeliveryFailure {
    fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            retry_after: None,
            is_final: false,
        }
    }
}

/// The server's deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notices {
    inner: Arc<NoticesInner>,
}

#[derive(Debug)]
struct NoticesInner {
    settings: NoticeSettings,
    sender: Sender,
    tests: Semaphore,
    /// No delivery begins any more.
    stopping: CancellationToken,
    /// Those that have begun are interrupted.
    interrupted: CancellationToken,
    /// The deliverer has returned.
    stopped: CancellationToken,
}

impl Notices {
    /// Begins to deliver what is due in `store`.
    ///
    /// # Errors
    ///
    /// There is no descriptor or no memory for a timer.
    pub fn start(
        store: Store,
        settings: NoticeSettings,
        data_dir: PathBuf,
        vital: &Vital,
    ) -> io::Result<Self> {
        let sender = Sender {
            http: HttpClient::default(),
            environment: CommandEnvironment::new(data_dir),
            timeout: Duration::from_secs(settings.timeout_s),
        };
        let notices = Self {
            inner: Arc::new(NoticesInner {
                settings,
                sender,
                tests: Semaphore::new(TESTS_MAX),
                stopping: CancellationToken::new(),
                interrupted: CancellationToken::new(),
                stopped: CancellationToken::new(),
            }),
        };
        let deliverer = Deliverer::new(notices.clone(), store)?;
        let stopped = notices.inner.stopped.clone().drop_guard();
        vital.spawn("delivering notices", async move {
            deliverer.run().await;
            drop(stopped);
        });
        Ok(notices)
    }

    /// The bounds.
    pub fn settings(&self) -> &NoticeSettings {
        &self.inner.settings
    }

    /// Makes one attempt now, whatever else is delivered; nothing is stored.
    ///
    /// # Errors
    ///
    /// Why it has failed.
    pub async fn test(&self, delivery: &Delivery) -> Result<(), DeliveryFailure> {
        // The semaphore is never closed.
        let _turn = self.inner.tests.acquire().await;
        let interrupted = self.inner.interrupted.cancelled();
        tokio::select! {
            sent = self.inner.sender.send(delivery) => sent,
            () = interrupted => Err(DeliveryFailure::new("the server is stopping")),
        }
    }

    /// Begins no more deliveries, and waits a moment for those that have begun. What is not delivered
    /// then waits for the next server.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        let within = FINISH_WITHIN + INTERRUPTED_WITHIN;
        if tokio::time::timeout(within, self.inner.stopped.cancelled())
            .await
            .is_err()
        {
            tracing::warn!("a delivery of a notice could not be interrupted in time");
        }
    }
}

/// Makes single attempts.
#[derive(Debug)]
struct Sender {
    http: HttpClient,
    environment: CommandEnvironment,
    timeout: Duration,
}

impl Sender {
    /// Hands a notice to its receiver; returns when the receiver has taken it.
    async fn send(&self, delivery: &Delivery) -> Result<(), DeliveryFailure> {
        let attempt = async {
            match &delivery.target {
                NotifyTarget::Url(url) => self.http.post(url, delivery).await,
                NotifyTarget::Argv(argv) => {
                    command::run(argv, &self.environment.of(delivery), &delivery.body).await
                }
            }
        };
        let within = tokio::time::timeout(self.timeout, attempt);
        within.await.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            let error = format!("no success within {seconds} s (notice_timeout_s)");
            Err(DeliveryFailure::new(error))
        })
    }
}
