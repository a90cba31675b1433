//! Keeps the write-ahead log short: checkpoints it while it grows, and lets it begin again from its
//! start (docs/design/wal.md).
//!
//! A log begins again only when all of it is in the database and no connection reads from it.
//! `log_bounds` says at which length what is done; `read_gate` holds long reads back.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    error::{FailureAction, failure_action},
    log_copier::{CopyFailure, PASSIVE},
    log_tending::DrainCopy,
    options::BUSY_TIMEOUT,
    writer::Writer,
};

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

    /// Lets the log begin again before a transaction that is larger than others, if with its `bytes` the log
    /// would become longer than it may.
    pub(super) async fn make_room_in_log(&mut self, bytes: u64) {
        let has_copies = self.log.gate.has_copies();
        if self.log.growth.wants_room(bytes, has_copies) && !self.failed.is_cancelled() {
            self.restart_alone(has_copies).await;
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

    /// Empties the log's file for those who have asked for it: what was deleted from the database may
    /// still stand there, behind the place where the log begins again. Answers whether it is empty.
    pub(super) async fn empty_log(&mut self) {
        let waiting = std::mem::take(&mut self.log.to_empty);
        if waiting.is_empty() || self.failed.is_cancelled() {
            return;
        }
        self.wait_for_copy().await;
        let emptied = self.begin_again("PRAGMA wal_checkpoint(TRUNCATE)", RESTART_WITHIN);
        let emptied = emptied.await;
        if emptied {
            self.log.begun_again();
        }
        for reply in waiting {
            let _ = reply.send(emptied);
        }
    }

    /// Copies all of the log into the database and makes it begin again with the next transaction,
    /// if the reads that run end within `wait`. Whether that is so.
    async fn restart_log(&mut self, wait: Duration) -> bool {
        self.begin_again("PRAGMA wal_checkpoint(RESTART)", wait)
            .await
    }

    async fn begin_again(&mut self, checkpoint: &'static str, wait: Duration) -> bool {
        let restarted = match self.wait_for_locks(wait).await {
            Ok(()) => {
                sqlx::query_as::<_, (i64, i64, i64)>(checkpoint)
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
