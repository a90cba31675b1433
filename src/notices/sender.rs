//! One attempt to hand a notice to its receiver, within the time that it may take.

use std::{path::PathBuf, time::Duration};

use super::{
    command::{self, CommandEnvironment},
    http::HttpClient,
    types::DeliveryFailure,
};
use crate::{
    job::{Delivery, NotifyTarget},
    spool::PinnedRun,
};

/// Makes single attempts.
#[derive(Debug)]
pub struct NoticeSender {
    http: HttpClient,
    environment: CommandEnvironment,
    timeout: Duration,
}

impl NoticeSender {
    /// For the commands of a server on this data directory.
    pub fn new(data_dir: PathBuf, timeout: Duration) -> Self {
        Self {
            http: HttpClient::default(),
            environment: CommandEnvironment::new(data_dir),
            timeout,
        }
    }

    /// Hands a notice to its receiver; returns when the receiver has taken it. `pinned` is what of a command
    /// the policy has judged; without a policy there is none.
    ///
    /// # Errors
    ///
    /// The receiver has not taken it, or not in time.
    pub async fn send(
        &self,
        delivery: &Delivery,
        pinned: Option<&PinnedRun>,
    ) -> Result<(), DeliveryFailure> {
        let attempt = async {
            match &delivery.target {
                NotifyTarget::Url(url) => self.http.post(url, delivery).await,
                NotifyTarget::Argv(argv) => {
                    let env = self.environment.of(delivery);
                    command::run_judged(argv, pinned, &env, &delivery.body).await
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
