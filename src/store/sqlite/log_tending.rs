//! What the writer knows about its write-ahead log, and what it waits for before it can begin again.
//!
//! `checkpoints` acts on it, `log_bounds` has the lengths.

use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    log_bounds::{LogBounds, LogGrowth},
    log_copier::{CopyFailure, LogCopier},
    read_gate::ReadGate,
    reader_pool::{ReaderPause, ReaderPool},
};

/// How long new long reads wait until those that run have ended by themselves.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What the writer knows and decides about the log.
#[derive(Debug)]
pub(in crate::store) struct LogTending {
    pub(super) bounds: LogBounds,
    pub(super) growth: LogGrowth,
    pub(super) copier: LogCopier,
    /// The end of a copy that has not been looked at.
    pub(super) copied: Option<Result<(), CopyFailure>>,
    pub(super) gate: ReadGate,
    pub(super) readers: ReaderPool,
    pub(super) pause: ReaderPause,
    /// Set while the gate is closed and the writer waits for long reads to end.
    pub(super) drain: Option<Drain>,
    /// Who waits until the log's file is empty.
    pub(super) to_empty: Vec<oneshot::Sender<bool>>,
    /// Whether the log says already that another process keeps it from beginning again.
    pub(super) warned: bool,
}

#[derive(Debug)]
pub(super) struct Drain {
    pub(super) until: Instant,
    pub(super) retry_at: Instant,
    pub(super) tries: u32,
    pub(super) copy: DrainCopy,
}

/// The copy that is made once no long read runs, so that little is left for the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DrainCopy {
    NotBegun,
    Running,
    Done,
}

impl LogTending {
    pub fn new(
        bounds: LogBounds,
        copier: SqliteConnection,
        gate: ReadGate,
        readers: ReaderPool,
        pause: ReaderPause,
    ) -> Self {
        Self {
            bounds,
            growth: LogGrowth::new(bounds),
            copier: LogCopier::start(copier),
            copied: None,
            gate,
            readers,
            pause,
            drain: None,
            to_empty: Vec::new(),
            warned: false,
        }
    }

    pub(super) fn bounds(&self) -> LogBounds {
        self.bounds
    }

    /// Returns when something can be done about the log although nothing is written. Cancel-safe.
    pub(super) async fn due(&mut self) {
        let is_busy = self.copier.is_busy();
        let wants_drain = self.growth.wants_drain();
        let (drain, gate) = (&self.drain, &self.gate);
        let ready = async {
            match drain {
                Some(drain) => {
                    let quiet = async {
                        gate.quiet().await;
                        sleep_until(drain.retry_at).await;
                    };
                    tokio::select! {
                        () = quiet, if !is_busy => {}
                        () = sleep_until(drain.until) => {}
                    }
                }
                None if wants_drain && gate.has_copies() => gate.no_copies().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = self.copier.end() => self.copied = Some(end),
            () = ready => {}
        }
    }

    pub(super) fn begin_drain(&mut self) {
        let now = Instant::now();
        self.gate.close();
        self.drain = Some(Drain {
            until: now + DRAIN_WITHIN,
            retry_at: now,
            tries: 0,
            copy: DrainCopy::NotBegun,
        });
    }

    /// Stops long reads; the writer goes on meanwhile.
    pub(super) fn begin_stop(&mut self, copies: bool) {
        tracing::info!(
            wal_bytes = self.growth.bytes(),
            "the write-ahead log is too long: reads that last long are stopped"
        );
        if self.drain.is_none() {
            self.begin_drain();
        }
        self.gate.stop_all(copies);
    }

    pub(super) fn end_drain(&mut self) {
        self.drain = None;
        self.gate.open();
    }

    /// The log begins again with the next transaction.
    pub(super) fn begun_again(&mut self) {
        self.growth.begun_again();
        self.warned = false;
        self.end_drain();
    }

    /// Logs, once until the log begins again, that a reader prevents it that this server cannot
    /// stop.
    pub(super) fn warn_of_others(&mut self) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                wal_bytes = self.growth.bytes(),
                "the database's write-ahead log cannot begin again and grows: another program (such as \
                 sqlite3) has had the database open in one read transaction for long; end that program, \
                 or its transaction"
            );
        }
    }
}
