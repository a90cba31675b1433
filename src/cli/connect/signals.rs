//! What a person or a system asks of `run` by signals.
//!
//! A signal that was ignored when we were started (`nohup`, `&` in a script) stays ignored.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::proc;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalRequest {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

impl SignalRequest {
    /// The exit code of a verb that only this has ended: 128 and the signal.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::HangUp => 129,
        }
    }
}

/// The signals that `run` answers.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Begins to watch.
    pub fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hang_up: watch(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            () = received(&mut self.interrupt) => SignalRequest::Interrupt,
            () = received(&mut self.terminate) => SignalRequest::Terminate,
            () = received(&mut self.hang_up) => SignalRequest::HangUp,
        }
    }
}

fn watch(kind: SignalKind) -> anyhow::Result<Option<Signal>> {
    if proc::ignores(kind.as_raw_value()) {
        return Ok(None);
    }
    signal(kind).map(Some).context("signals cannot be watched")
}

async fn received(signal: &mut Option<Signal>) {
    let got = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if got.is_none() {
        std::future::pending().await
    }
}
