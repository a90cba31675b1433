//! The handle on the store: each method hands one write to the one task that writes, or reads.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::sqlite::{
    self, attempts, audit,
    damage::{Checked, DamageCheck},
    dependencies, events, explain, job_snapshot, jobs,
    keys::{self, ShimSeed},
    list,
    listener::Listener,
    long_path::LongPath,
    migrate::OnMigration,
    notice_counts::NoticeCounts,
    open,
    published_counts::PublishedCounts,
    queues,
    read_gate::ReadGate,
    reader_pool::{self, ReaderPool},
    records,
    releases::Releases,
    snapshot::{Snapshot, SnapshotError},
    stored,
    tally::Tally,
    view, writer,
    writer::{Writer, WriterRequest},
};
use super::{
    types::*,
    write::{
        AuditedWrite, ClaimRequest, PauseReport, PauseRequest, RefusalReport, VoidReport, Write,
        WriteResult,
    },
};
use crate::{
    access::ClientOrigin,
    audit::{AuditEntry, ChainHead},
    job::{
        Expectation, Input, Job, JobChange, JobId, JobNumber, JobRef, JobState, Micros, Offset,
        Queue, QueueChange, StopRequest, Survivor, chain::Recorded,
    },
    sys::{clock, disk_reserve::DiskReserve},
};

/// How many lists are read at a time.
const LISTS_MAX: usize = 2;

/// The ledger: one writer, a few read-only connections. Cheap to clone.
///
/// A write is answered after its transaction is durable; writes that arrive together share one.
/// Within a transaction they are executed in the order of a job's life (submit, started, requests,
/// segments, finish, claim), and else in the order of arrival. A write is handed in when its future
/// is first polled: of a `finish` and a `claim` that are polled together (`join!`), the claim fills
/// the slot that the finish frees, in the same transaction.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) inner: Arc<StoreInner>,
    /// Who asks for what is written through this handle; `None`: the server itself.
    origin: Option<Arc<ClientOrigin>>,
}

#[derive(Debug)]
pub(super) struct StoreInner {
    pub(super) requests: mpsc::Sender<WriterRequest>,
    pub(super) readers: ReaderPool,
    gate: ReadGate,
    path: PathBuf,
    long_path: LongPath,
    /// Cancelled by [`Store::close`].
    closing: CancellationToken,
    /// Lists use so many of the readers at most; the others are for reads of single jobs.
    pub(super) lists: Semaphore,
    failed: CancellationToken,
    counts: Arc<PublishedCounts>,
    /// How many attempts have ended.
    pub(super) ends: watch::Sender<u64>,
    pub(super) notices: Arc<NoticeCounts>,
    disk_reserve: DiskReserve,
    checked: Checked,
    /// Which file the database was when it was opened; see `Presence::file_id`.
    file_id: String,
    /// What the keys of shims are made from.
    shim_seed: ShimSeed,
    listener: Listener,
}

impl Store {
    /// Opens the ledger at `path`, or creates one where there is no file. Needs a tokio runtime.
    /// The caller must be the only server on this data directory.
    ///
    /// # Errors
    ///
    /// A file that is not cc-executor's, is damaged, or was written by a newer version is refused,
    /// and left as it is.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_within(path, &StoreBounds::default(), &|_| ()).await
    }

    /// The same within these bounds. A file of more than `check_bytes_max` bytes is not checked for
    /// damage: [`Self::check`] does that. `on_migration` is called about once a second while an
    /// existing file is brought up to date.
    pub async fn open_within(
        path: &Path,
        bounds: &StoreBounds,
        on_migration: OnMigration<'_>,
    ) -> Result<Self, OpenError> {
        let mut connections = open::open(path, bounds, on_migration).await?;
        let counts = Arc::<PublishedCounts>::default();
        let unreadable = |error| OpenError::failed(path, "cannot be read: its jobs", error);
        let (wall, now) = (clock::now(), clock::since_boot());
        let tally = Tally::load_at(&mut connections.writer, &counts, wall, now).await;
        let tally = tally.map_err(unreadable)?;
        let releases = Releases::load(&mut connections.writer).await;
        let releases = releases.map_err(unreadable)?;
        let notices = NoticeCounts::load(&mut connections.writer).await;
        let notices = notices
            .map_err(|error| OpenError::failed(path, "cannot be read: its notices", error))?;
        let trail = audit::head(&mut connections.writer).await;
        let trail = trail
            .map_err(|error| OpenError::failed(path, "cannot be read: its audit trail", error))?;
        let counts = (tally, counts, Arc::new(notices));
        Ok(Self::over(path, connections, counts, (releases, trail)))
    }

    /// Opens an existing ledger for reading, beside its server or without one, and changes nothing. Writes are refused
    /// with `Stopping`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or an earlier version wrote it.
    pub async fn open_to_read(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |error: std::io::Error| OpenError::failed(path, "cannot be read", error);
        let long_path = LongPath::to(path).map_err(unreadable)?;
        let readers = reader_pool::connect_alone(path, &long_path).await?;
        let older = |error: sqlite::EngineFailure| {
            OpenError::failed(path, "has no audit trail that this version can read", error)
        };
        let shim_seed = {
            let mut reader = readers.acquire().await.map_err(older)?;
            audit::head(&mut reader).await.map_err(older)?;
            keys::stored_shim_seed(&mut reader).await.map_err(older)?
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        let inner = StoreInner {
            // Nothing receives.
            requests: mpsc::channel(1).0,
            readers,
            gate: ReadGate::default(),
            path: path.to_owned(),
            long_path,
            closing: CancellationToken::new(),
            lists: Semaphore::new(LISTS_MAX),
            shim_seed,
            failed: CancellationToken::new(),
            counts: Arc::default(),
            ends: watch::Sender::new(0),
            notices: Arc::default(),
            disk_reserve: DiskReserve::of_data_dir(directory).map_err(unreadable)?,
            checked: Checked::Whole,
            file_id: String::new(),
            listener: Listener::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            origin: None,
        })
    }

    /// The secret that the keys of this data directory's shims are derived from.
    pub fn shim_seed(&self) -> &ShimSeed {
        &self.inner.shim_seed
    }

    /// Checks the database for damage, if opening it did not, while others work with it. Damage
    /// does not end running jobs, but nothing more is acknowledged after it: see [`Self::failed`].
    /// What cannot be read now is no damage, and is read again later.
    pub async fn check(&self) {
        if self.inner.checked == Checked::Whole {
            return;
        }
        let check = DamageCheck {
            path: &self.inner.path,
            long_path: &self.inner.long_path,
            gate: &self.inner.gate,
            closing: &self.inner.closing,
        };
        if let Some(damage) = check.run().await {
            self.distrust(&format!("the database is damaged: {damage}"));
        }
    }

    /// Calls `listen` after each commit with the changes of jobs' states, in their order, before anybody
    /// is answered. It must not block. Only the first call has an effect.
    pub fn listen(&self, listen: impl Fn(&[StateMove], &[AuditEntry]) + Send + Sync + 'static) {
        self.inner.listener.set(listen);
    }

    /// The gate that every read passes that may last long and has a connection of its own.
    pub fn read_gate(&self) -> &ReadGate {
        &self.inner.gate
    }

    /// Starts the writer's task.
    fn over(
        path: &Path,
        connections: open::Connections,
        (tally, counts, notices): (Tally, Arc<PublishedCounts>, Arc<NoticeCounts>),
        (releases, trail): (Releases, ChainHead),
    ) -> Self {
        let open::Connections {
            writer,
            digest_key,
            shim_seed,
            readers,
            long_path,
            presence,
            disk_reserve,
            checked,
            log,
            gate,
        } = connections;
        let (requests, incoming) = mpsc::channel(writer::WAITING_MAX);
        let failed = CancellationToken::new();
        let file_id = presence.file_id();
        let listener = Listener::default();
        let writer = Writer {
            conn: writer,
            key: digest_key,
            _long_path: long_path.clone(),
            presence,
            disk_reserve: disk_reserve.clone(),
            requests: incoming,
            failed: failed.clone(),
            tally,
            counts: counts.clone(),
            notices: notices.clone(),
            log,
            releases,
            release_refused: false,
            trail,
            listener: listener.clone(),
        };
        tokio::spawn(writer.run());
        let inner = StoreInner {
            requests,
            readers,
            gate,
            path: path.to_owned(),
            long_path,
            closing: CancellationToken::new(),
            lists: Semaphore::new(LISTS_MAX),
            shim_seed,
            failed,
            counts,
            ends: watch::Sender::new(0),
            notices,
            disk_reserve,
            checked,
            file_id,
            listener,
        };
        Self {
            inner: Arc::new(inner),
            origin: None,
        }
    }

    /// The same store for the writes of a client: the audit trail names it.
    pub fn by(&self, origin: &Arc<ClientOrigin>) -> Self {
        Self {
            inner: self.inner.clone(),
            origin: Some(origin.clone()),
        }
    }

    /// Cancelled when the database file cannot be trusted any more (an I/O error, damage). Nothing
    /// is acknowledged from then on: the server must exit, and the next start verifies the file.
    pub fn failed(&self) -> CancellationToken {
        self.inner.failed.clone()
    }

    /// Reports a failure of the disk outside the database, such as a segment that could not be
    /// synced: nothing is acknowledged from here on, as after a failure of the database itself.
    pub fn distrust(&self, error: &dyn std::fmt::Display) {
        if !self.inner.failed.is_cancelled() {
            tracing::error!(%error, "the disk cannot be trusted any more: stopping");
            self.inner.failed.cancel();
        }
    }

    /// Disk space that is kept for what must be stored on a full disk.
    pub fn disk_reserve(&self) -> &DiskReserve {
        &self.inner.disk_reserve
    }

    /// Increments and commits the epoch of a server without a policy.
    pub async fn begin_epoch(&self, boot_id: &str) -> Result<Epoch, StoreError> {
        self.begin_epoch_under(boot_id, None).await
    }

    /// Increments and commits the epoch; `policy` is the digest of the policy that is in force.
    pub async fn begin_epoch_under(
        &self,
        boot_id: &str,
        policy: Option<String>,
    ) -> Result<Epoch, StoreError> {
        let file_id = self.inner.file_id.clone();
        let write = Write::BeginEpoch(boot_id.to_owned(), file_id, policy);
        self.write(write, |result| match result {
            WriteResult::Epoch(epoch) => Some(epoch),
            _ => None,
        })
        .await
    }

    /// Commits what has been handed in, checkpoints, and closes. Later calls get `Stopping`.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.readers.close().await;
        let (reply, closed) = oneshot::channel();
        // Where the writer has ended already, there is nothing left to close.
        if self
            .inner
            .requests
            .send(WriterRequest::Close(reply))
            .await
            .is_ok()
        {
            let _ = closed.await;
        }
    }

    // ---- writes

    /// Stores a job, unless its idempotency key names a stored one.
    ///
    /// # Errors
    ///
    /// `UnknownQueue` and `KeyConflict` store nothing.
    pub async fn submit(&self, submission: Submission) -> Result<StoredSubmission, SubmitError> {
        let submissions: Arc<[Submission]> = [submission].into();
        loop {
            let outcomes = self.submit_all(Arc::clone(&submissions)).await;
            let outcomes = outcomes.map_err(|refused| refused.error)?;
            for (submission, outcome) in submissions.iter().zip(outcomes) {
                let created = outcome.created;
                if created && outcome.state != JobState::Blocked {
                    let job = jobs::as_submitted(submission, outcome);
                    return Ok(StoredSubmission { job, created });
                }
                // One that waits for other jobs may have failed with its submission, because of one
                // that had failed before. And a job that was deleted a moment ago has freed its key:
                // try again.
                if let Some(job) = self
                    .job(JobRef::Number(outcome.number), Include::default())
                    .await?
                {
                    return Ok(StoredSubmission { job, created });
                }
            }
        }
    }

    /// Stores all of these jobs or none; those with a known idempotency key are not stored again.
    /// The outcomes are in the order of the submissions.
    ///
    /// # Errors
    ///
    /// Names the first submission that is refused; nothing is stored.
    pub async fn submit_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<SubmitOutcome>, BatchRefused> {
        self.submit_all(submissions.into()).await
    }

    async fn submit_all(
        &self,
        submissions: Arc<[Submission]>,
    ) -> Result<Vec<SubmitOutcome>, BatchRefused> {
        self.write(Write::Submit(submissions), |result| match result {
            WriteResult::Submitted(outcomes) => Some(outcomes),
            _ => None,
        })
        .await?
    }

    /// Creates a queue, with as many slots as `default` unless a number is named, or changes it.
    pub async fn set_queue(&self, change: QueueChange) -> Result<QueueSet, StoreError> {
        self.write(Write::SetQueue(change), |result| match result {
            WriteResult::QueueSet(set) => Some(set),
            _ => None,
        })
        .await
    }

    /// Deletes a queue whose jobs are all final. The caller refuses it for built-in queues.
    pub async fn delete_queue(&self, name: String) -> Result<QueueDeleted, StoreError> {
        self.write(Write::DeleteQueue(name), |result| match result {
            WriteResult::QueueDeleted(deleted) => Some(deleted),
            _ => None,
        })
        .await
    }

    /// Gives queued jobs to offered shims: to queues with free slots by their weights, within a queue
    /// by priority and number. A shim whose attempt is not final must not be offered; such a claim is
    /// refused as a whole.
    pub async fn claim(
        &self,
        offers: Vec<ShimOffer>,
        boot_id: String,
        instance: String,
    ) -> Result<Claimed, StoreError> {
        let write = Write::Claim(ClaimRequest {
            offers,
            boot_id,
            instance,
        });
        self.write(write, |result| match result {
            WriteResult::Claimed(claimed) => Some(claimed),
            _ => None,
        })
        .await
    }

    /// Queues the jobs that wait for a time up to `now`.
    pub async fn due(&self, now: Micros) -> Result<NextDue, StoreError> {
        self.write(Write::Due(now), |result| match result {
            WriteResult::Due(due) => Some(due),
            _ => None,
        })
        .await
    }

    /// Makes an attempt and its job final, with its output.
    pub async fn finish(&self, finish: Finish) -> Result<Fenced, StoreError> {
        let fenced = self.fenced(Write::Finish(Box::new(finish))).await?;
        self.inner.ends.send_modify(|ends| *ends += 1);
        Ok(fenced)
    }

    /// Stores that the attempt's process exists. `Stale` also where that was known already.
    pub async fn started(&self, started: StartedAttempt) -> Result<Fenced, StoreError> {
        self.fenced(Write::Started(started)).await
    }

    /// Stores that the shim has stopped the process tree. `Stale` also where the job was paused
    /// already.
    pub async fn paused(
        &self,
        number: JobNumber,
        attempt: u32,
        actor: String,
        at: Micros,
    ) -> Result<Fenced, StoreError> {
        self.fenced(Write::Paused(PauseReport {
            number,
            attempt,
            paused: true,
            actor,
            at,
        }))
        .await
    }

    /// Stores that the shim has continued the process tree. `Stale` also where the job was running
    /// already.
    pub async fn resumed(
        &self,
        number: JobNumber,
        attempt: u32,
        actor: String,
        at: Micros,
    ) -> Result<Fenced, StoreError> {
        self.fenced(Write::Paused(PauseReport {
            number,
            attempt,
            paused: false,
            actor,
            at,
        }))
        .await
    }

    /// Stores which processes the kernel does not let the shim signal for the requested stop.
    /// `Stale` where no stop is requested.
    pub async fn stop_refused(
        &self,
        number: JobNumber,
        attempt: u32,
        refused: Vec<Survivor>,
    ) -> Result<Fenced, StoreError> {
        self.fenced(Write::StopRefused(RefusalReport {
            number,
            attempt,
            refused,
        }))
        .await
    }

    /// Cancels a waiting job at once; stores the request for a running one. `request.cause` is
    /// `Cancel` or `Kill`.
    pub async fn request_stop(
        &self,
        job: JobRef,
        request: StopRequest,
    ) -> Result<StopRequested, StoreError> {
        self.write(Write::RequestStop(job, request), |result| match result {
            WriteResult::StopRequested(outcome) => Some(*outcome),
            _ => None,
        })
        .await
    }

    /// Stores the request that a running job pauses (`pause`) or resumes.
    pub async fn request_pause(
        &self,
        job: JobRef,
        pause: bool,
        actor: String,
        at: Micros,
    ) -> Result<PauseRequested, StoreError> {
        let write = Write::RequestPause(PauseRequest {
            job,
            pause,
            actor,
            at,
        });
        self.write(write, |result| match result {
            WriteResult::PauseRequested(outcome) => Some(*outcome),
            _ => None,
        })
        .await
    }

    /// Keeps an input of a waiting job, or names the shim that must get it.
    pub async fn input(&self, job: JobRef, input: Input) -> Result<InputOutcome, StoreError> {
        self.write(Write::Input(job, input), |result| match result {
            WriteResult::InputOutcome(outcome) => Some(*outcome),
            _ => None,
        })
        .await
    }

    /// Changes a job that has not started, as `actor` has asked for.
    pub async fn update(
        &self,
        job: JobRef,
        change: JobChange,
        actor: &str,
    ) -> Result<Updated, StoreError> {
        self.write(
            Write::Update(job, Box::new(change), actor.to_owned()),
            |result| match result {
                WriteResult::Updated(updated) => Some(*updated),
                _ => None,
            },
        )
        .await
    }

    /// Deletes a final job, with its attempts and its output. The caller unlinks its segment files;
    /// a start on this data directory unlinks those that no row names.
    pub async fn delete(&self, job: JobRef) -> Result<Deleted, StoreError> {
        self.write(Write::Delete(job), |result| match result {
            WriteResult::Deleted(deleted) => Some(*deleted),
            _ => None,
        })
        .await
    }

    /// Makes an attempt that provably never started `void`, and its job `queued` again (or
    /// `cancelled`, where a stop is requested).
    pub async fn void(
        &self,
        number: JobNumber,
        attempt: u32,
        at: Micros,
    ) -> Result<Fenced, StoreError> {
        self.fenced(Write::Void(VoidReport {
            number,
            attempt,
            at,
        }))
        .await
    }

    /// Stores that a segment of a running attempt is complete and has been hashed.
    pub async fn segment_read(&self, row: SegmentRow) -> Result<Fenced, StoreError> {
        self.fenced(Write::SegmentRead(row)).await
    }

    async fn fenced(&self, write: Write) -> Result<Fenced, StoreError> {
        self.write(write, |result| match result {
            WriteResult::Fenced(fenced) => Some(fenced),
            _ => None,
        })
        .await
    }

    /// Hands a write in and waits for its result. While the channel has room this happens at the
    /// first poll, so writes keep the order in which their futures are polled.
    pub(super) async fn write<T>(
        &self,
        write: Write,
        pick: fn(WriteResult) -> Option<T>,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        let origin = self.origin.clone();
        let write = AuditedWrite { write, origin };
        match self
            .inner
            .requests
            .try_send(WriterRequest::Write(write, reply))
        {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => {
                let sent = self.inner.requests.send(request).await;
                sent.map_err(|_| StoreError::Stopping)?;
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(StoreError::Stopping),
        }
        let result = result.await.map_err(|_| StoreError::Stopping)??;
        pick(result).ok_or(StoreError::WrongAnswer)
    }

    // ---- reads

    /// A job as users see it.
    pub async fn job(&self, job: JobRef, include: Include) -> Result<Option<Job>, StoreError> {
        Ok(view::job(&self.inner.readers, job, include).await?)
    }

    /// The id of the job with this number.
    pub async fn job_id(&self, number: JobNumber) -> Result<Option<JobId>, StoreError> {
        Ok(job_snapshot::id_of(&self.inner.readers, number).await?)
    }

    /// What a job expects of its output; nothing where there is no such job.
    pub async fn expectations(&self, job: JobNumber) -> Result<Vec<Expectation>, StoreError> {
        Ok(view::expectations(&self.inner.readers, job).await?)
    }

    /// Why this job is where it is.
    pub async fn causes(&self, job: &Job) -> Result<Causes, StoreError> {
        Ok(explain::causes(&self.inner.readers, job).await?)
    }

    /// The numbers of the jobs that wait or have waited for one of these, directly, in their order.
    pub async fn dependants(&self, jobs: &[JobNumber]) -> Result<Vec<JobNumber>, StoreError> {
        Ok(dependencies::dependants(&self.inner.readers, jobs).await?)
    }

    /// The id of the job that the first submission under an idempotency key waits for in the entry `nth`
    /// of its `after`, if it was deleted since and may have had this number.
    pub async fn deleted_dependency(
        &self,
        key: &str,
        nth: usize,
        number: JobNumber,
    ) -> Result<Option<JobId>, StoreError> {
        Ok(dependencies::deleted(&self.inner.readers, key, nth, number).await?)
    }

    /// A job that was deleted without having succeeded, although this one needed that; events of deleted
    /// jobs stay.
    pub async fn deleted_unmet(&self, job: JobNumber) -> Result<Option<JobNumber>, StoreError> {
        Ok(dependencies::deleted_unmet(&self.inner.readers, job).await?)
    }

    /// These jobs, all jobs that they are retries of, and all retries of those, in the order of their
    /// numbers.
    pub async fn retry_kin(&self, jobs: &[JobNumber]) -> Result<Vec<RetryKin>, StoreError> {
        Ok(dependencies::retry_kin(&self.inner.readers, jobs).await?)
    }

    /// The newest job that tries this one again; `None` where there is none.
    pub async fn newest_retry(&self, job: JobId) -> Result<Option<JobId>, StoreError> {
        Ok(dependencies::newest_retry(&self.inner.readers, job).await?)
    }

    /// A page of jobs, newest first. A page for which many jobs had to be examined may be short, or
    /// even empty, and still say where the next one begins.
    pub async fn list(&self, filter: ListFilter) -> Result<JobPage, StoreError> {
        // The semaphore is never closed.
        let _turn = self.inner.lists.acquire().await;
        Ok(list::list(&self.inner.readers, &filter).await?)
    }

    /// All queues, by name.
    pub async fn queues(&self) -> Result<Vec<Queue>, StoreError> {
        Ok(queues::all(&self.inner.readers, &self.inner.counts).await?)
    }

    /// State changes of a job with `event > after`, in order.
    pub async fn changes(
        &self,
        number: JobNumber,
        after: i64,
    ) -> Result<Vec<StateChange>, StoreError> {
        Ok(events::changes(&self.inner.readers, number, after).await?)
    }

    /// The id of a job's newest event; 0 where there is no such job.
    pub async fn newest_change(&self, number: JobNumber) -> Result<i64, StoreError> {
        Ok(events::newest(&self.inner.readers, number).await?)
    }

    /// When the current attempt of a job was started and last resumed; `None` where it has none.
    pub async fn life_signs(&self, number: JobNumber) -> Result<Option<LifeSigns>, StoreError> {
        Ok(events::life_signs(&self.inner.readers, number).await?)
    }

    /// Attempts that are not final, in the order of their jobs.
    pub async fn open_attempts(&self) -> Result<Vec<OpenAttempt>, StoreError> {
        Ok(attempts::open(&self.inner.readers).await?)
    }

    /// This attempt, if it is not final.
    pub async fn open_attempt(
        &self,
        number: JobNumber,
        attempt: u32,
    ) -> Result<Option<OpenAttempt>, StoreError> {
        Ok(attempts::open_one(&self.inner.readers, number, attempt).await?)
    }

    /// Where the byte at `offset` is; rows up to about `max_bytes` of data (at least one row).
    pub async fn stored(
        &self,
        number: JobNumber,
        offset: Offset,
        max_bytes: u64,
    ) -> Result<Stored, StoreError> {
        Ok(stored::stored(&self.inner.readers, number, offset, max_bytes).await?)
    }

    /// Up to `limit` segments of a job that have rows and begin before `below`, the last one first.
    pub async fn segments_before(
        &self,
        number: JobNumber,
        below: Offset,
        limit: u32,
    ) -> Result<Vec<CountedSegment>, StoreError> {
        Ok(stored::segments_before(&self.inner.readers, number, below, limit).await?)
    }

    /// What the row of a job says, and the id of its newest event.
    pub async fn job_record(&self, number: JobNumber) -> Result<Option<JobRecord>, StoreError> {
        Ok(records::job(&self.inner.readers, number).await?)
    }

    /// The stored records of a job's attempts, in order.
    pub async fn attempt_records(
        &self,
        number: JobNumber,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        Ok(records::attempts(&self.inner.readers, number).await?)
    }

    /// Up to `limit` events of a job after the event `after`, in order.
    pub async fn recorded(
        &self,
        number: JobNumber,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Recorded>, StoreError> {
        Ok(records::recorded(&self.inner.readers, number, after, limit).await?)
    }

    /// The first offset after `offset` at which a row of a job's output begins.
    pub async fn next_row(
        &self,
        number: JobNumber,
        offset: Offset,
    ) -> Result<Option<Offset>, StoreError> {
        Ok(records::next_row(&self.inner.readers, number, offset).await?)
    }

    /// Those of these jobs that are final.
    pub async fn final_among(&self, numbers: Vec<JobNumber>) -> Result<Vec<JobNumber>, StoreError> {
        Ok(list::final_among(&self.inner.readers, &numbers).await?)
    }

    /// How many jobs are in each state; states without jobs are missing.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        if self.inner.readers.is_closed() {
            return Err(StoreError::Stopping);
        }
        Ok(self.inner.counts.states())
    }

    /// The highest number that a job has had; 0 before the first one.
    pub async fn last_number(&self) -> Result<JobNumber, StoreError> {
        Ok(jobs::last_number(&self.inner.readers).await?)
    }

    /// Copies what is committed into the file `to`, which must not exist; see [`Snapshot`].
    pub async fn snapshot(
        &self,
        to: &Path,
        stop: &CancellationToken,
    ) -> Result<Snapshot, SnapshotError> {
        Snapshot::write(&self.inner.readers, &self.inner.gate, to, stop).await
    }

    /// The number of the job with this id.
    pub async fn job_number(&self, id: JobId) -> Result<Option<JobNumber>, StoreError> {
        Ok(job_snapshot::number_of(&self.inner.readers, id).await?)
    }
}
