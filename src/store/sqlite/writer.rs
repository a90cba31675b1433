//! The one task that writes: it takes what has arrived, commits it as one transaction, and only
//! then answers.
//!
//! A result that a caller has received is on disk. `execute` executes the writes.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    audit,
    batches::{WriteReply, split_into_transactions},
    errno,
    error::{FailureAction, failure_action, is_failed_write, is_file_error, is_out_of_room},
    event_writer::write_events,
    execute::execute,
    job_snapshot::WriteBatch,
    keys::DigestKey,
    listener::Listener,
    log_tending::LogTending,
    long_path::LongPath,
    notice_counts::{NoticeCounts, NoticesChanged},
    presence::Presence,
    published_counts::PublishedCounts,
    releases::Releases,
    tally::Tally,
};
use crate::store::write::{AuditedWrite, Write, WriteResult};
use crate::{
    audit::ChainHead,
    store::types::StoreError,
    sys::{clock, descriptors::is_shortage, disk_reserve::DiskReserve},
};

/// The most writes that wait in the channel; the next caller waits for a free place.
pub(in crate::store) const WAITING_MAX: usize = 1024;
/// The most writes in one transaction.
const BATCH_MAX: usize = 256;

/// What the writer's channel carries.
#[derive(Debug)]
pub(in crate::store) enum WriterRequest {
    /// Execute this write and answer.
    Write(AuditedWrite, WriteReply),
    /// Commit what has arrived, empty the log's file, and answer whether it is empty.
    EmptyLog(oneshot::Sender<bool>),
    /// Commit what has arrived, checkpoint, close, and answer.
    Close(oneshot::Sender<()>),
}

/// The state of the task.
pub(in crate::store) struct Writer {
    pub conn: SqliteConnection,
    /// The secret key of digests.
    pub key: DigestKey,
    /// `conn` needs it.
    pub _long_path: LongPath,
    /// The file that `conn` writes to.
    pub presence: Presence,
    /// Disk space for what must be written on a full disk.
    pub disk_reserve: DiskReserve,
    pub requests: mpsc::Receiver<WriterRequest>,
    /// Cancelled when the file cannot be trusted any more.
    pub failed: CancellationToken,
    /// The counts of jobs, with the order of the queues.
    pub tally: Tally,
    /// Where they are published after each commit.
    pub counts: Arc<PublishedCounts>,
    /// The counts of notices, and who waits for new ones.
    pub notices: Arc<NoticeCounts>,
    /// What is done about the log of `conn`.
    pub log: LogTending,
    /// Final jobs that others still wait for.
    pub releases: Releases,
    /// Whether the last try to let those follow was refused; tried again after the next commit.
    pub release_refused: bool,
    /// Where the audit trail ends.
    pub trail: ChainHead,
    /// Is told of every committed change of a job's state.
    pub listener: Listener,
}

impl Writer {
    /// Runs until it is closed, or until every handle is gone.
    pub async fn run(mut self) {
        // A panic of this task cancels `failed` too: no other task can write.
        let guard = self.failed.clone().drop_guard();
        let mut requests = Vec::new();
        loop {
            let received = tokio::select! {
                received = self.requests.recv_many(&mut requests, BATCH_MAX) => received,
                () = self.log.due() => {
                    self.tend_log().await;
                    continue;
                }
                () = std::future::ready(()), if self.has_releases() => {
                    self.release().await;
                    continue;
                }
            };
            if received == 0 {
                break;
            }
            let (pending, close) = self.complete_batch(std::mem::take(&mut requests)).await;
            for pending in split_into_transactions(pending, self.log.bounds().transaction) {
                self.make_room(&pending).await;
                self.commit(pending).await;
                self.tend_log().await;
            }
            self.empty_log().await;
            if let Some(closed) = close {
                self.close().await;
                // The caller may have stopped waiting.
                let _ = closed.send(());
                break;
            }
        }
        guard.disarm();
    }

    /// Lets the log begin again if it would become too long with a transaction that is larger than others.
    async fn make_room(&mut self, pending: &[(AuditedWrite, WriteReply)]) {
        let bytes = pending.iter().map(|(write, _)| write.log_bytes());
        self.make_room_in_log(bytes.sum()).await;
    }

    fn has_releases(&self) -> bool {
        !self.releases.is_empty() && !self.release_refused
    }

    /// Lets more of the jobs follow that wait for final ones, which are too many for one transaction.
    async fn release(&mut self) {
        if let Err(error) = self.transaction(&[Write::Release.into()]).await {
            self.refusal(error);
            self.release_refused = true;
        }
        self.tend_log().await;
    }

    /// Takes what else has arrived beside `requests`.
    async fn complete_batch(
        &mut self,
        mut requests: Vec<WriterRequest>,
    ) -> (Vec<(AuditedWrite, WriteReply)>, Option<oneshot::Sender<()>>) {
        // A task that is about to hand something in, such as the claim after a finish, gets the
        // chance to be part of this batch.
        tokio::task::yield_now().await;
        while requests.len() < BATCH_MAX
            && let Ok(request) = self.requests.try_recv()
        {
            requests.push(request);
        }
        let mut pending = Vec::with_capacity(requests.len());
        let mut close = None;
        for request in requests {
            match request {
                WriterRequest::Write(write, reply) => pending.push((write, reply)),
                WriterRequest::EmptyLog(reply) => self.log.to_empty.push(reply),
                WriterRequest::Close(reply) => close = Some(reply),
            }
        }
        if close.is_some() {
            self.take_the_rest(&mut pending).await;
        }
        (pending, close)
    }

    /// Closes the channel and takes what was handed in before.
    async fn take_the_rest(&mut self, pending: &mut Vec<(AuditedWrite, WriteReply)>) {
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            if let WriterRequest::Write(write, reply) = request {
                pending.push((write, reply));
            }
        }
    }

    /// Commits writes together and answers each. If one is refused, each gets a transaction of its
    /// own, so that the others are not lost with it.
    async fn commit(&mut self, mut pending: Vec<(AuditedWrite, WriteReply)>) {
        if self.failed.is_cancelled() {
            return refuse_all(
                pending.into_iter().map(|(_, reply)| reply),
                &StoreError::Untrusted,
            );
        }
        pending.sort_by_key(|(write, _)| write.rank());
        if self.lacks_space_for_new(&pending) {
            // An input may be for a running process, and then costs no disk space.
            pending = refuse(pending, |write| {
                write.can_wait() && !matches!(**write, Write::Input(..))
            });
        }
        let (mut writes, mut replies): (Vec<_>, Vec<_>) = pending.into_iter().unzip();
        let mut results = self.transaction(&writes).await;
        if is_disk_full(&results) {
            // A checkpointed WAL is written again from its beginning: that is often enough space
            // for a small write, such as a cancel.
            self.checkpoint().await;
            results = self.transaction(&writes).await;
        }
        if is_disk_full(&results) && writes.iter().any(|write| !write.can_wait()) {
            let pending = writes.into_iter().zip(replies).collect();
            (writes, replies) = refuse(pending, |write| write.can_wait())
                .into_iter()
                .unzip();
            results = self.transaction(&writes).await;
            while is_disk_full(&results) && self.disk_reserve.release() {
                tracing::warn!(
                    "the disk is full: a part of the reserve is released for ends and requests"
                );
                self.checkpoint().await;
                results = self.transaction(&writes).await;
            }
        }
        self.reply(writes, replies, results).await;
    }

    async fn reply(
        &mut self,
        writes: Vec<AuditedWrite>,
        replies: Vec<WriteReply>,
        results: sqlx::Result<Vec<WriteResult>>,
    ) {
        match results {
            Ok(results) => {
                for (reply, result) in replies.into_iter().zip(results) {
                    let _ = reply.send(Ok(result));
                }
            }
            Err(error) if writes.len() > 1 && failure_action(&error) == FailureAction::Refused => {
                for (write, reply) in writes.iter().zip(replies) {
                    let result = self.transaction(std::slice::from_ref(write)).await;
                    let result = result.map(|mut results| results.remove(0));
                    let _ = reply.send(result.map_err(|error| self.refusal(error)));
                }
            }
            Err(error) => refuse_all(replies, &self.refusal(error)),
        }
    }

    /// Whether the disk has no space for something new: the part of the reserve that was released
    /// for ends and requests must be refilled first. Only checked if something new is among the
    /// writes.
    fn lacks_space_for_new(&self, pending: &[(AuditedWrite, WriteReply)]) -> bool {
        let new = pending.iter().any(|(write, _)| write.can_wait());
        if !new || matches!(self.disk_reserve.missing(), Ok(0)) {
            return false;
        }
        let refilled = self.disk_reserve.refill();
        if refilled {
            tracing::info!("the disk has room again");
        }
        !refilled
    }

    /// Executes writes in one transaction; if it fails, none of them is stored.
    ///
    /// BEGIN and COMMIT are plain statements: sqlx counts transactions by itself, and its count
    /// stays wrong after SQLite has rolled one back on its own, as it does on a full disk.
    async fn transaction(&mut self, writes: &[AuditedWrite]) -> sqlx::Result<Vec<WriteResult>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let result = self.execute_and_commit(writes).await;
        let result = match result {
            Err(error) => Err(self.with_system_cause(error).await),
            done => done,
        };
        if result.is_err() {
            // This fails where SQLite has rolled back already.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.conn).await;
            self.tally.roll_back();
        }
        result
    }

    /// Finds the cause of a failed write: a quota, a lack of memory or of descriptors is no damage,
    /// and the write can be repeated later.
    pub(super) async fn with_system_cause(&mut self, error: sqlx::Error) -> sqlx::Error {
        if !is_file_error(&error) {
            return error;
        }
        let cause = errno::of_last_failure(&mut self.conn).await;
        self.with_cause(error, cause)
    }

    /// The same for an error of another connection and the system's error that belongs to it.
    pub(super) fn with_cause(&self, error: sqlx::Error, cause: Option<io::Error>) -> sqlx::Error {
        if !is_file_error(&error) {
            return error;
        }
        if is_failed_write(&error) {
            let no_room = cause.as_ref().is_some_and(is_out_of_room);
            if no_room || self.disk_reserve.is_out_of_room() {
                return io::Error::from(io::ErrorKind::QuotaExceeded).into();
            }
        }
        match cause {
            Some(cause) if is_shortage(&cause) => cause.into(),
            _ => error,
        }
    }

    async fn execute_and_commit(
        &mut self,
        writes: &[AuditedWrite],
    ) -> sqlx::Result<Vec<WriteResult>> {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut self.conn)
            .await?;
        self.tally
            .begin(&mut self.conn, clock::since_boot())
            .await?;
        let mut releases = self.releases.clone();
        let mut batch = WriteBatch {
            conn: &mut self.conn,
            events: Vec::new(),
            notices: NoticesChanged::default(),
            tally: &mut self.tally,
            key: &self.key,
            moves: Vec::new(),
            entries: Vec::new(),
            ends: HashMap::new(),
            touched_keys: BTreeSet::new(),
            releases: &mut releases,
        };
        let results = execute(&mut batch, writes).await?;
        write_events(&mut batch).await?;
        let trail = audit::append(&mut batch, self.trail).await?;
        let (notices, moves, entries) = (batch.notices, batch.moves, batch.entries);
        sqlx::query("COMMIT").execute(&mut self.conn).await?;
        // A commit to a file that has lost its name is lost when this process ends.
        if !self.presence.is_in_place() {
            return Err(io::Error::other("it was removed or replaced").into());
        }
        self.tally.commit(&self.counts);
        self.trail = trail;
        self.releases = releases;
        self.release_refused = false;
        self.notices.apply(notices);
        self.listener.tell(&moves, &entries);
        Ok(results)
    }

    /// The error for the callers of a failed transaction; also decides whether the writer can go
    /// on.
    fn refusal(&mut self, error: sqlx::Error) -> StoreError {
        match failure_action(&error) {
            FailureAction::DiskFull => {
                tracing::warn!("the disk is full: a transaction was refused")
            }
            FailureAction::Busy => tracing::warn!(%error, "the database could not be written now"),
            FailureAction::Refused => tracing::error!(%error, "the database refused a write"),
            FailureAction::Broken => self.fail(&error),
        }
        error.into()
    }

    /// From here on nothing is acknowledged: no later fsync brings back what a failed one has lost.
    pub(super) fn fail(&self, error: impl std::fmt::Display) {
        if !self.failed.is_cancelled() {
            tracing::error!(%error, "the database file cannot be trusted any more: stopping");
            self.failed.cancel();
        }
    }

    async fn close(mut self) {
        self.truncate_log().await;
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }
}

fn refuse_all(replies: impl IntoIterator<Item = WriteReply>, error: &StoreError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}

/// Answers the writes that `refused` selects with `DiskFull`, and returns the others.
fn refuse(
    pending: Vec<(AuditedWrite, WriteReply)>,
    refused: impl Fn(&AuditedWrite) -> bool,
) -> Vec<(AuditedWrite, WriteReply)> {
    let (refused, others): (Vec<_>, Vec<_>) =
        pending.into_iter().partition(|(write, _)| refused(write));
    let refused = refused.into_iter().map(|(_, reply)| reply);
    refuse_all(refused, &StoreError::DiskFull);
    others
}

fn is_disk_full<T>(results: &sqlx::Result<T>) -> bool {
    matches!(results, Err(error) if failure_action(error) == FailureAction::DiskFull)
}

#[cfg(test)]
impl Writer {
    /// A writer without its task; a test calls its methods.
    pub(super) async fn of(path: &std::path::Path) -> Self {
        let (_, requests) = mpsc::channel(1);
        let opened = super::open::open(path, &crate::store::StoreBounds::default(), &|_| ()).await;
        let mut opened = opened.expect("opens");
        let counts = Arc::default();
        let tally = Tally::load(&mut opened.writer, &counts).await;
        let releases = Releases::load(&mut opened.writer).await;
        let trail = audit::head(&mut opened.writer).await;
        Self {
            conn: opened.writer,
            key: opened.digest_key,
            _long_path: opened.long_path,
            presence: opened.presence,
            disk_reserve: opened.disk_reserve,
            requests,
            failed: CancellationToken::new(),
            tally: tally.expect("counts"),
            counts,
            notices: Arc::default(),
            log: opened.log,
            releases: releases.expect("reads"),
            release_refused: false,
            trail: trail.expect("reads"),
            listener: Listener::default(),
        }
    }

    /// Commits writes that have arrived together.
    pub(super) async fn write(
        &mut self,
        writes: Vec<Write>,
    ) -> Vec<Result<WriteResult, StoreError>> {
        let (replies, results): (Vec<_>, Vec<_>) =
            writes.iter().map(|_| oneshot::channel()).unzip();
        let writes = writes.into_iter().map(AuditedWrite::from);
        self.commit(writes.zip(replies).collect()).await;
        let results = results.into_iter().map(|mut result| result.try_recv());
        results.map(|result| result.expect("answered")).collect()
    }

    /// Bounds the file, as a full disk does.
    pub(super) async fn allow_pages(&mut self, pages: i64) {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        sqlx::query(sqlx::AssertSqlSafe(pragma))
            .execute(&mut self.conn)
            .await
            .expect("sets the limit");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{
        job::{Command, JobId, JobSpec, Micros},
        store::Submission,
    };

    /// A job of about 40 KB.
    fn submit() -> Write {
        let mut job = JobSpec::new(Command::Shell(":".into()));
        job.stdin = Some("x".repeat(40_000));
        Write::Submit(
            [Submission {
                retry_of: None,
                id: JobId(uuid::Uuid::now_v7()),
                job,
                fingerprint: [0; 32],
                actor: "test".into(),
                token: None,
                policy: None,
                at: Micros(0),
            }]
            .into(),
        )
    }

    async fn jobs(writer: &mut Writer) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM jobs")
            .fetch_one(&mut writer.conn)
            .await
            .expect("counts")
    }

    #[tokio::test]
    async fn a_full_disk_refuses_everything_until_there_is_room() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let mut writer = Writer::of(&directory.path().join("db")).await;
        assert!(writer.write(vec![submit()]).await[0].is_ok());
        writer.allow_pages(60).await;
        let mut stored = 1;
        let refusals = loop {
            let results = writer.write(vec![submit(), submit()]).await;
            if results[0].is_err() {
                break results;
            }
            stored += 2;
            assert!(stored < 20, "60 pages hold no more than 6 such jobs");
        };
        for refusal in refusals {
            assert_eq!(refusal.err(), Some(StoreError::DiskFull));
        }
        assert_eq!(jobs(&mut writer).await, stored, "what was answered stays");
        assert!(!writer.failed.is_cancelled(), "a full disk is not the end");

        writer.allow_pages(10_000).await;
        assert!(writer.write(vec![submit()]).await[0].is_ok());
        assert_eq!(jobs(&mut writer).await, stored + 1);
    }

    #[tokio::test]
    async fn a_broken_file_is_the_end_of_all_acknowledgements() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let path = directory.path().join("db");
        let mut writer = Writer::of(&path).await;
        // Every page but the first, without which SQLite would not recognise the file.
        let pages = std::fs::metadata(&path).expect("is there").len() / 4096;
        let mut file = std::fs::OpenOptions::new().write(true).open(&path);
        let file = file.as_mut().expect("opens");
        io::Seek::seek(file, io::SeekFrom::Start(4096)).expect("seeks");
        file.write_all(&vec![0xa5; (pages as usize - 1) * 4096])
            .expect("damages");

        let results = writer.write(vec![submit(), submit()]).await;
        for result in results {
            assert!(matches!(result, Err(StoreError::Database(_))), "{result:?}");
        }
        assert!(writer.failed.is_cancelled());
        let results = writer.write(vec![submit()]).await;
        assert!(results[0].is_err(), "nothing is tried again");
    }
}
