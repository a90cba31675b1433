//! Keeps the write-ahead log short: checkpoints it while it grows, and lets it begin again from its
//! start (docs/design/wal.md).
//!
//! A log begins again only when all of it is in the database and no connection reads from it.
//! `log_bounds` says at which length what is done; `read_gate` holds long reads back.

use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    error::{FailureAction, failure_action},
    log_bounds::{LogBounds, LogGrowth},
    log_copier::{CopyFailure, LogCopier, PASSIVE},
    open::BUSY_TIMEOUT,
    read_gate::ReadGate,
    reader_pool::{ReaderPause, ReaderPool},
    writer::Writer,
};

/// How long new long reads wait until those that run have ended by themselves.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long the writer waits for short reads when the log may begin again.
const RESTART_WITHIN: Duration = Duration::from_millis(20);
/// The pause between two such tries.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// After so many tries without a read of this server it is another process that reads.
const RESTARTS_MAX: u32 = 10;
/// How long the writer waits until long reads that it has stopped are gone.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);
/// How long short reads get to end by themselves before they are interrupted as well.
const SHORT_READS_WITHIN: Duration = Duration::from_millis(250);
/// How long the writer waits until reads that it has interrupted are gone.
const INTERRUPTED_WITHIN: Duration = Duration::from_secs(1);

/// What the writer knows and decides about the log.
#[derive(Debug)]
pub(in crate::store) struct LogTending {
    bounds: LogBounds,
    growth: LogGrowth,
    copier: LogCopier,
    /// The end of a copy that has not been looked at.
    copied: Option<Result<(), CopyFailure>>,
    gate: ReadGate,
    readers: ReaderPool,
    pause: ReaderPause,
    /// Set while the gate is closed and the writer waits for long reads to end.
    drain: Option<Drain>,
    /// Whether the log says already that another process keeps it from beginning again.
    warned: bool,
}

#[derive(Debug)]
struct Drain {
    until: Instant,
    retry_at: Instant,
    tries: u32,
    copy: DrainCopy,
}

/// The copy that is made once no long read runs, so that little is left for the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DrainCopy {
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

    fn begin_drain(&mut self) {
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
    fn begin_stop(&mut self, copies: bool) {
        tracing::info!(
            wal_bytes = self.growth.bytes(),
            "the write-ahead log is too long: reads that last long are stopped"
        );
        if self.drain.is_none() {
            self.begin_drain();
        }
        self.gate.stop_all(copies);
    }

    fn end_drain(&mut self) {
        self.drain = None;
        self.gate.open();
    }

    /// The log begins again with the next transaction.
    fn begun_again(&mut self) {
        self.growth.begun_again();
        self.warned = false;
        self.end_drain();
    }

    /// Logs, once until the log begins again, that a reader prevents it that this server cannot
    /// stop.
    fn warn_of_others(&mut self) {
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

impl Writer {
    /// Looks at the log's length, and does what is due about it.
    pub(super) async fn tend_log(&mut self) {
        if self.failed.is_cancelled() {
            return;
        }
        let Some(frames) = self.log_frames().await else {
            return;
        };
        if self.log.growth.look(frames) {
            self.log.warned = false;
            self.log.end_drain();
        }
        self.look_at_copy().await;
        if self.log.growth.takes_checkpoint() {
            self.log.copier.begin();
        }
        let has_copies = self.log.gate.has_copies();
        if self.log.growth.wants_wait(has_copies) {
            return self.restart_alone(has_copies).await;
        }
        if self.log.growth.wants_stop(has_copies) {
            if !self.log.gate.is_stopping() {
                self.log.begin_stop(has_copies);
            }
        } else if self.log.drain.is_none() && self.log.growth.wants_drain() && !has_copies {
            self.log.begin_drain();
        }
        if self.log.drain.is_some() {
            self.go_on_draining().await;
        }
    }

    /// Looks at how a copy beside the writer has ended.
    async fn look_at_copy(&mut self) {
        match self.log.copied.take() {
            Some(Ok(())) => match &mut self.log.drain {
                Some(drain) if drain.copy == DrainCopy::Running => drain.copy = DrainCopy::Done,
                Some(_) => {}
                // What was committed meanwhile is little. Where no reader needs it, the log begins
                // again after this.
                None => self.checkpoint().await,
            },
            Some(Err(CopyFailure { error, cause })) => {
                if let Some(drain) = &mut self.log.drain {
                    drain.copy = DrainCopy::Done;
                }
                let error = self.with_cause(error, cause);
                self.report_checkpoint(&error);
            }
            None => {}
        }
    }

    /// How many pages are in the log since it began. It costs about as much as reading a counter.
    async fn log_frames(&mut self) -> Option<u64> {
        let looked = sqlx::query_as("PRAGMA wal_checkpoint(NOOP)")
            .fetch_one(&mut self.conn)
            .await;
        let (_, frames, _): (i64, i64, i64) = looked
            .inspect_err(|error| tracing::warn!(%error, "the log's length cannot be read"))
            .ok()?;
        u64::try_from(frames).ok()
    }

    /// Tries to let the log begin again once no long read runs.
    async fn go_on_draining(&mut self) {
        let now = Instant::now();
        let due = self.log.drain.as_ref().is_some_and(|d| now >= d.retry_at);
        if due && self.log.gate.is_quiet() && !self.log.copier.is_busy() {
            if let Some(drain) = &mut self.log.drain
                && drain.copy != DrainCopy::Done
            {
                drain.copy = match self.log.copier.begin() {
                    true => DrainCopy::Running,
                    false => DrainCopy::Done,
                };
                if drain.copy == DrainCopy::Running {
                    return;
                }
            }
            if self.restart_log(RESTART_WITHIN).await {
                return self.log.begun_again();
            }
            if let Some(drain) = &mut self.log.drain {
                drain.retry_at = Instant::now() + RESTART_PAUSE;
                drain.tries += 1;
                if drain.tries >= RESTARTS_MAX && self.log.pause.is_idle(&self.log.readers) {
                    self.log.warn_of_others();
                    if self.log.gate.is_stopping() {
                        self.log.growth.put_wait_off();
                    }
                    self.log.growth.put_drain_off();
                    return self.log.end_drain();
                }
            }
        }
        if self.log.drain.as_ref().is_some_and(|d| now >= d.until) {
            match self.log.gate.is_stopping() {
                true => self.log.growth.put_stop_off(),
                false => self.log.growth.put_drain_off(),
            }
            self.log.end_drain();
        }
    }

    /// Ends all reads of this server, so that the log can begin again. Writes wait meanwhile.
    async fn restart_alone(&mut self, copies: bool) {
        self.log.begin_stop(copies);
        self.wait_for_copy().await;
        let gone = timeout(STOPPED_WITHIN, self.log.gate.quiet()).await.is_ok();
        self.log.pause.begin();
        let (pause, readers) = (&self.log.pause, &self.log.readers);
        let idle = pause.idle(readers, SHORT_READS_WITHIN).await || {
            pause.interrupt();
            pause.idle(readers, INTERRUPTED_WITHIN).await
        };
        let restarted = self.restart_log(SHORT_READS_WITHIN).await;
        self.log.pause.end();
        if restarted {
            return self.log.begun_again();
        }
        if gone && idle {
            self.log.warn_of_others();
        }
        self.log.growth.put_wait_off();
        self.log.end_drain();
    }

    /// Copies all of the log into the database and makes it begin again with the next transaction,
    /// if the reads that run end within `wait`. Whether that is so.
    async fn restart_log(&mut self, wait: Duration) -> bool {
        let restarted = match self.wait_for_locks(wait).await {
            Ok(()) => {
                sqlx::query_as::<_, (i64, i64, i64)>("PRAGMA wal_checkpoint(RESTART)")
                    .fetch_one(&mut self.conn)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = self.wait_for_locks(BUSY_TIMEOUT).await {
            tracing::warn!(%error, "the time that the writer waits for locks could not be set");
        }
        match restarted {
            Ok((busy, ..)) => busy == 0,
            Err(error) => {
                self.checkpoint_failed(error).await;
                false
            }
        }
    }

    /// How long statements of the writer wait for the locks of other connections.
    async fn wait_for_locks(&mut self, wait: Duration) -> sqlx::Result<()> {
        let pragma = format!("PRAGMA busy_timeout = {}", wait.as_millis());
        let set = sqlx::query(sqlx::AssertSqlSafe(pragma));
        set.execute(&mut self.conn).await.map(drop)
    }

    /// Checkpoints what no reader needs. If readers or a full disk prevent it, it is tried again
    /// later; only an I/O error is final.
    pub(super) async fn checkpoint(&mut self) {
        self.wait_for_copy().await;
        self.run_checkpoint(PASSIVE).await;
    }

    /// Waits until no copy is made beside the writer: there is one checkpoint at a time.
    async fn wait_for_copy(&mut self) {
        if self.log.copier.is_busy() {
            let end = self.log.copier.end().await;
            self.log.copied = Some(end);
        }
    }

    /// Copies all of the log into the database and empties its file, before a close.
    pub(super) async fn truncate_log(&mut self) {
        self.wait_for_copy().await;
        self.log.copier.close().await;
        self.run_checkpoint("PRAGMA wal_checkpoint(TRUNCATE)").await;
    }

    async fn run_checkpoint(&mut self, statement: &'static str) {
        if self.failed.is_cancelled() {
            return;
        }
        if let Err(error) = sqlx::query(statement).execute(&mut self.conn).await {
            self.checkpoint_failed(error).await;
        }
    }

    async fn checkpoint_failed(&mut self, error: sqlx::Error) {
        let error = self.with_system_cause(error).await;
        self.report_checkpoint(&error);
    }

    fn report_checkpoint(&self, error: &sqlx::Error) {
        match failure_action(error) {
            FailureAction::Broken => self.fail(error),
            _ => tracing::warn!(%error, "a checkpoint failed; it is tried again later"),
        }
    }
}
