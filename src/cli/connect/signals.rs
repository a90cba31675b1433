//! The signals that ask `run` and `export` to stop: SIGINT, SIGTERM and SIGHUP.
//!
//! A signal that was ignored when this process started (`nohup`, `&` in a script) stays ignored.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::proc;

/// What a signal asks for.
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
    /// The exit code of a verb that this signal ends: 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::HangUp => 129,
        }
    }
}

/// The watched signals; `None` for one that is ignored.
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
