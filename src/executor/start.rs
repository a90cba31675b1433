//! Starts and stops the executor: opens the database, recovers, then works.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Executor, ExecutorInner,
    audit::{AuditRuns, AuditSettings},
    backup::Backups,
    disconnect::Ties,
    last_input::LastInputs,
    log_events,
    queues::Defaults,
    retention::{RetentionRuns, RetentionSettings},
    schedules::ScheduleChanges,
    search::{SearchSettings, Searches},
    usage::UsageCache,
    verify::{Verifies, VerifySettings},
};
use crate::{
    job::{JobNumber, JobState},
    notices::{NoticeSettings, Notices},
    output::{Hub, Log, Unlinker},
    policy::{PolicyError, PolicyGuard},
    query::{Queries, QuerySettings},
    scheduler::{DueJobs, Scheduler, Wakeup, rescue::Rescuer},
    secrets::{SecretSettings, SecretSources, SecretsDirError},
    spool::{Layout, SegmentName, dropped_range, unsynced},
    store::{Epoch, OnMigration, OpenAttempt, OpenError, Store, StoreBounds, Stored},
    supervisor::{
        Budget, Context, Directory, Isolation, OrphanSearcher, RunLimits, SearchGuard, ShimEvent,
        ShimSearch, Supervisor, WantedLevel, forget_all_traces, look_up_user, starting_max,
    },
    sys::{clock, descriptors, disk_reserve::DiskReserve, proc, threads::blocking, vital::Vital},
};

/// What stays free by default: up to this, bytes.
const FREE_BYTES_DEFAULT_MAX: u64 = 256 << 20;

/// What stays free, and the disk reserve, by default: up to this part of the file system, as a
/// divisor (5 %).
const FREE_DIVISOR: u64 = 20;

/// The disk reserve by default: up to this, bytes.
const BALLAST_BYTES_DEFAULT_MAX: u64 = 8 << 20;

/// What a start may have to write before it can serve, bytes. If less than that is free, the disk
/// reserve is given up for it.
const START_BYTES: u64 = 1 << 20;

/// How long a stop waits until a backup that was interrupted has removed its files.
const BACKUP_OVER_WITHIN: Duration = Duration::from_secs(1);
/// How long a start waits for shims, and for the rescues of dead ones' attempts. The rest is
/// rescued later.
const RECOVERY_WITHIN: Duration = Duration::from_secs(1);
/// The shortest time that the rescues get, even if shims do not answer.
const RESCUES_AT_LEAST: Duration = Duration::from_millis(250);

/// The bounds of an executor. Each is a setting of the server with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorSettings {
    /// Segments are sealed at this size, bytes.
    pub segment_bytes: u64,
    /// Output up to this size goes into rows of the database when the job is final, bytes.
    pub inline_bytes_max: u64,
    /// Bound of all segments together, bytes; `None`: no bound.
    pub spool_bytes_max: Option<u64>,
    /// What stays free on the data directory's file system, bytes; `None`: the smaller of 256 MiB
    /// and 5 % of it.
    pub free_bytes_min: Option<u64>,
    /// The size of the disk reserve, which is kept for ends and cancels on a full disk, bytes;
    /// `None`: the smaller of 8 MiB and 5 % of the file system.
    pub ballast_bytes: Option<u64>,
    /// How the processes of jobs are held together.
    pub isolation: WantedLevel,
    /// Idle shims that are kept ready.
    pub warm_shims: u32,
    /// How long a shim may take to answer before it is left as it is, milliseconds.
    pub shim_answer_ms: u64,
    /// The bounds of the database.
    pub store: StoreBounds,
    /// The bounds of queries over the history.
    pub queries: QuerySettings,
    /// The bounds of verifications.
    pub verifies: VerifySettings,
    /// How long the check of what a job expects may compute, seconds, and as much again for each 4 GiB.
    pub expect_timeout_s: u64,
    /// The bounds of searches over outputs.
    pub searches: SearchSettings,
    /// When the rules of retention are applied.
    pub retention: RetentionSettings,
    /// The bounds of deliveries of notices.
    pub notices: NoticeSettings,
    /// The file of the policy, if there is one.
    pub policy: Option<PathBuf>,
    /// What the last server had and this one has not.
    pub ceased: Ceased,
    /// The audit trail.
    pub audit: AuditSettings,
    /// Where secrets come from.
    pub secrets: SecretSettings,
}

/// What the last server of a data directory had in force, and this one has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceased {
    /// The file of its policy.
    pub policy: Option<PathBuf>,
    /// Whether it had sources of secrets that this one has not.
    pub secrets: bool,
}

/// Why an executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be written.
    #[error("the database cannot be written: {0}")]
    Store(#[from] crate::store::StoreError),
    /// There is output and no database. With an empty one, the output would belong to no job.
    #[error(
        "{0} is missing, and the spool beside it holds the output of its jobs: put the database \
         back, or move the spool away to begin anew"
    )]
    DatabaseMissing(PathBuf),
    /// The spool has output of jobs that the database does not know: the database is an older copy,
    /// or its write-ahead log is missing.
    #[error(
        "{database} knows jobs up to {last}, and {segment} in the spool beside it is of a later one: \
         a newer database, or its write-ahead log, is missing; put it back, or move those segments \
         away"
    )]
    DatabaseOlder {
        /// The path of the database.
        database: PathBuf,
        /// The highest number that it knows.
        last: JobNumber,
        /// A segment of a job with a higher number.
        segment: SegmentName,
    },
    /// The policy cannot be put in force. Without it, more would be allowed than its author wants.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The wanted level of isolation is not possible.
    #[error(
        "isolation = A is set, and level A is not possible here: {0}; set auto or B, or give the server a control \
         group that it may write to (Delegate=yes in a systemd unit)"
    )]
    Isolation(String),
    /// The audit trail cannot be continued.
    #[error("the audit trail cannot be continued: {0}")]
    AuditTrail(super::Error),
    /// The directory of secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsDirError),
    /// The data directory or the kernel's own files cannot be read.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl Executor {
    /// Opens the database in a data directory whose lock the caller holds, recovers every open
    /// attempt, and begins to claim. When it returns, every acknowledged job is there, and every
    /// offset that was ever shown can be read. `on_migration` is called about once a second while
    /// the database is brought up to date.
    pub async fn start(
        layout: Layout,
        settings: ExecutorSettings,
        on_migration: OnMigration<'_>,
    ) -> Result<Self, StartError> {
        refuse_missing_database(&layout)?;
        look_up_user()?;
        let (policy, secrets) = load_given(&settings)?;
        make_room_for_start(&layout)?;
        let store = Store::open_within(&layout.database(), &settings.store, on_migration).await?;
        // Before anything new can begin.
        let leftovers = list_spool(&layout)?;
        refuse_older_database(&layout, &store, &leftovers).await?;
        let boot_id = proc::boot_id()?;
        let queries = Queries::new(
            layout.root().to_owned(),
            settings.queries,
            store.read_gate().clone(),
        );
        let digest = policy.as_ref().and_then(|policy| policy.status().digest);
        let epoch = begin_epoch(&store, &layout, &boot_id, digest).await?;
        keep_disk_reserve(&store, &layout, &settings)?;
        let (arms, armed) = mpsc::unbounded_channel();
        let hub = Hub::new(arms);
        let log = Log::new(store.clone(), layout.spool());
        let mut ctx = context(layout, &settings, &store, &hub, epoch, boot_id)?;
        ctx.isolation = find_isolation(settings.isolation, &ctx.instance).await?;
        (ctx.policy, ctx.secrets) = (policy, secrets);
        let (event_sender, mut events) = mpsc::unbounded_channel();
        let supervisor = Supervisor::new(ctx, event_sender.clone(), armed);
        let (wakeup, due) = listen(&store, &hub)?;
        let rescuer = Rescuer::new(supervisor.clone(), wakeup.clone());
        let open = store.open_attempts().await?;
        supervisor.context().isolation.tidy(&open);
        let begun = Instant::now();
        supervisor.probe_all(open.clone()).await?;
        let until = (begun + RECOVERY_WITHIN).max(Instant::now() + RESCUES_AT_LEAST);
        rescue_dead_attempts(&rescuer, &mut events, &event_sender, until).await;
        tokio::spawn(tidy_spool(supervisor.clone(), open, leftovers));
        let defaults = Defaults::load(&store).await?;
        let warm = settings.warm_shims;
        let scheduler = Scheduler::new(supervisor.clone(), rescuer, wakeup.clone(), events, warm);
        let executor = Self {
            inner: Arc::new(ExecutorInner {
                notices: start_notices(supervisor.context(), settings.notices)?,
                store,
                hub,
                log,
                supervisor,
                wakeup,
                defaults,
                ties: Ties::default(),
                schedules: ScheduleChanges::default(),
                schedules_stopped: CancellationToken::new(),
                last_inputs: LastInputs::default(),
                backups: Backups::default(),
                read_slots: Semaphore::new(read_slots()),
                search_slots: Arc::new(Semaphore::new(read_slots())),
                queries,
                verifies: Verifies::new(settings.verifies),
                searches: Searches::new(settings.searches),
                retention: RetentionRuns::new(settings.retention),
                usage: UsageCache::default(),
                audit: AuditRuns::new(settings.audit),
                started_at: clock::now(),
            }),
            origin: None,
        };
        executor.begin(scheduler, due, &settings.ceased).await
    }

    /// Notes what is in force, and begins what the server does by itself.
    async fn begin(
        self,
        scheduler: Scheduler,
        due: DueJobs,
        ceased: &Ceased,
    ) -> Result<Self, StartError> {
        let noted = self.note_start().await;
        noted.map_err(StartError::AuditTrail)?;
        let noted = self.note_ceased(ceased).await;
        noted.map_err(StartError::AuditTrail)?;
        self.spawn_tasks(scheduler, due);
        Ok(self)
    }

    /// Begins what the server does by itself.
    fn spawn_tasks(&self, scheduler: Scheduler, due: DueJobs) {
        let ctx = self.inner.supervisor.context();
        let stopping = || ctx.stopping.clone();
        ctx.vital.spawn("scheduling", scheduler.run());
        ctx.vital.spawn("queueing what is due", due.run(stopping()));
        let store = self.inner.store.clone();
        tokio::spawn(async move { store.check().await });
        let watching = self.inner.ties.clone().watch(self.clone(), stopping());
        ctx.vital
            .spawn("cancelling what lost its connection", watching);
        let retention = self.clone().apply_retention(stopping());
        ctx.vital.spawn("retention", retention);
        let keeping = self.clone().keep_time(stopping());
        ctx.vital.spawn("firing schedules", keeping);
        let auditing = self.clone().keep_audit(stopping());
        ctx.vital.spawn("keeping the audit trail", auditing);
    }

    /// Takes no more work, leaves running jobs to their shims, ends all tails and waits
    /// ([`super::Error::Stopping`]), and closes the database.
    pub async fn stop(&self) {
        self.inner.hub.close();
        tokio::join!(self.inner.supervisor.stop(), self.inner.notices.stop());
        let given_up = self.inner.backups.wait_until_none();
        if tokio::time::timeout(BACKUP_OVER_WITHIN, given_up)
            .await
            .is_err()
        {
            tracing::warn!("a backup could not be interrupted in time: its .partial is left");
        }
        self.end_audit().await;
        self.inner.store.close().await;
    }
}

/// Gives the disk reserve up on a full disk, as far as the start needs it.
fn make_room_for_start(layout: &Layout) -> io::Result<()> {
    if DiskReserve::of_data_dir(layout.root())?.release_below(START_BYTES) {
        tracing::warn!(
            "the disk is full: the disk reserve (ballast_bytes) is given up for the start"
        );
    }
    Ok(())
}

/// Loads what the operator gives beside the settings: the policy, if there is one, and the sources of secrets.
fn load_given(
    settings: &ExecutorSettings,
) -> Result<(Option<Arc<PolicyGuard>>, Arc<SecretSources>), StartError> {
    let policy = settings.policy.as_deref().map(PolicyGuard::load);
    let secrets = SecretSources::new(&settings.secrets)?;
    Ok((policy.transpose()?.map(Arc::new), Arc::new(secrets)))
}

/// Has every committed change of a job's state told to the job's readers, and to who looks for jobs that
/// may start: the scheduler, and the task that waits for their times.
fn listen(store: &Store, hub: &Hub) -> io::Result<(Wakeup, DueJobs)> {
    let (wakeup, due_wakeup) = (Wakeup::default(), Wakeup::default());
    let (hub, scheduler, due) = (hub.clone(), wakeup.clone(), due_wakeup.clone());
    store.listen(move |moves, entries| {
        log_events::started(moves);
        entries.iter().for_each(log_events::entry);
        for one in moves {
            match one.to.is_final() {
                true => hub.ended(one.job),
                false => hub.changed(one.job),
            }
        }
        let any = |state| moves.iter().any(|one| one.to == state);
        if any(JobState::Queued) {
            scheduler.wake();
        }
        if any(JobState::Scheduled) {
            due.wake();
        }
    });
    Ok((wakeup, DueJobs::new(store.clone(), due_wakeup)?))
}

/// Begins to deliver notices.
fn start_notices(ctx: &Context, settings: NoticeSettings) -> io::Result<Notices> {
    let data_dir = ctx.layout.root().to_owned();
    let policy = ctx.policy.clone();
    Notices::start(ctx.store.clone(), settings, data_dir, policy, &ctx.vital)
}

/// Committed before any shim is contacted: from then on shims ignore earlier servers.
async fn begin_epoch(
    store: &Store,
    layout: &Layout,
    boot_id: &str,
    policy: Option<String>,
) -> Result<Epoch, StartError> {
    let epoch = store.begin_epoch_under(boot_id, policy).await?;
    if epoch.is_copy {
        tracing::warn!(
            instance = epoch.instance,
            "this is a copy of a data directory: jobs that run belong to the original and are left \
             alone, here they are lost"
        );
        forget_all_traces(layout).await?;
    }
    Ok(epoch)
}

/// What the supervisor's parts share.
fn context(
    layout: Layout,
    settings: &ExecutorSettings,
    store: &Store,
    hub: &Hub,
    epoch: Epoch,
    boot_id: String,
) -> io::Result<Context> {
    let open_files_max = descriptors::open_files_max();
    Ok(Context {
        bounds: bounds(&layout, settings)?,
        policy: None,
        secrets: Arc::default(),
        unlinker: Unlinker::new(layout.spool()),
        directory: Directory::new(layout.shims()),
        shim_search: ShimSearch::new(layout.root().to_owned()),
        isolation: Isolation::default(),
        orphans: OrphanSearcher::default(),
        budget: Budget::of(open_files_max),
        starting: Arc::new(Semaphore::new(starting_max(open_files_max))),
        check_slots: Arc::new(Semaphore::new(read_slots().div_ceil(2))),
        expect_timeout_s: settings.expect_timeout_s,
        layout,
        store: store.clone(),
        hub: hub.clone(),
        epoch: epoch.epoch,
        instance: epoch.instance,
        boot_id,
        answer: Duration::from_millis(settings.shim_answer_ms),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
        vital: Vital::default(),
    })
}

/// Finds out which level of isolation is possible.
async fn find_isolation(wanted: WantedLevel, instance: &str) -> Result<Isolation, StartError> {
    let instance = instance.to_owned();
    let found = blocking(move || Ok(Isolation::find(wanted, &instance))).await?;
    let isolation = found.map_err(StartError::Isolation)?;
    let (level, reason) = (isolation.level(), isolation.reason());
    tracing::info!(level, reason, "how the processes of jobs are held together");
    Ok(isolation)
}

/// How many waits may read output at once, and how many may search it: one for each processor.
fn read_slots() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Refuses to create a missing database if segments show that there was one.
fn refuse_missing_database(layout: &Layout) -> Result<(), StartError> {
    let database = layout.database();
    let is_segment = |name: &String| SegmentName::parse(name).is_some();
    // Anything else with its name is refused when it is opened.
    let is_free = match std::fs::symlink_metadata(&database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        found => found.map(|_| false)?,
    };
    if is_free && list_spool(layout)?.iter().any(is_segment) {
        return Err(StartError::DatabaseMissing(database));
    }
    Ok(())
}

/// Refuses a database that does not know a job of the spool. A job is in the database before
/// anything of it is in the spool, so acknowledged jobs are missing, and their output would be
/// unlinked.
async fn refuse_older_database(
    layout: &Layout,
    store: &Store,
    names: &[String],
) -> Result<(), StartError> {
    let last = store.last_number().await?;
    let mut segments = names.iter().filter_map(|name| SegmentName::parse(name));
    let Some(segment) = segments.find(|name| name.job > last) else {
        return Ok(());
    };
    store.close().await;
    Err(StartError::DatabaseOlder {
        database: layout.database(),
        last,
        segment,
    })
}

/// Rescues the attempts of dead shims before the server is ready, or at least tries to. What is
/// left of their process trees is searched for once; until it is proven gone, which takes longer,
/// the server already works.
async fn rescue_dead_attempts(
    rescuer: &Rescuer,
    events: &mut mpsc::UnboundedReceiver<ShimEvent>,
    event_sender: &mpsc::UnboundedSender<ShimEvent>,
    until: Instant,
) {
    let mut waiting = Vec::new();
    while let Ok(event) = events.try_recv() {
        waiting.push(event);
    }
    // Each rescue holds a sender as long as the start has to wait for it.
    let (held, mut let_go) = mpsc::channel(1);
    for event in waiting {
        let (rescuer, event_sender, held) = (rescuer.clone(), event_sender.clone(), held.clone());
        let vital = rescuer.vital().clone();
        vital.spawn("rescuing an attempt at the start", async move {
            // The scheduler receives the rest when it runs.
            if let Some(event) = rescue_event(&rescuer, event, held).await {
                let _ = event_sender.send(event);
            }
        });
    }
    drop(held);
    if tokio::time::timeout_at(until, let_go.recv()).await.is_err() {
        tracing::warn!(
            "rescuing the attempts of dead shims takes long; the server begins before that is done"
        );
    }
}

/// Rescues the event's attempt, if it has one; returns what is left for the scheduler.
async fn rescue_event(rescuer: &Rescuer, event: ShimEvent, held: SearchGuard) -> Option<ShimEvent> {
    let key = match &event {
        ShimEvent::Dead { attempt, .. } => *attempt,
        ShimEvent::NeverRan { key, .. } => Some(*key),
        ShimEvent::Idle(_) | ShimEvent::Ended { .. } => None,
    };
    match key {
        Some(key) if rescuer.try_once(key, held).await => match event {
            ShimEvent::NeverRan { offer, .. } => offer.map(ShimEvent::Idle),
            _ => None,
        },
        _ => Some(event),
    }
}

/// Creates the disk reserve. Without one the server works, too, until the disk is full.
fn keep_disk_reserve(
    store: &Store,
    layout: &Layout,
    settings: &ExecutorSettings,
) -> io::Result<()> {
    let bytes = or_default_part(settings.ballast_bytes, layout, BALLAST_BYTES_DEFAULT_MAX)?;
    if let Err(error) = store.disk_reserve().keep(bytes) {
        tracing::warn!(%error, "no disk reserve (ballast_bytes) can be kept for a full disk");
    }
    Ok(())
}

/// What is set, or the smaller of `most` and the default part of the file system, bytes.
fn or_default_part(set: Option<u64>, layout: &Layout, most: u64) -> io::Result<u64> {
    if let Some(bytes) = set {
        return Ok(bytes);
    }
    let fs = rustix::fs::statvfs(layout.root())?;
    Ok((fs.f_blocks * fs.f_frsize / FREE_DIVISOR).min(most))
}

fn bounds(layout: &Layout, settings: &ExecutorSettings) -> io::Result<RunLimits> {
    let free_bytes_min = or_default_part(settings.free_bytes_min, layout, FREE_BYTES_DEFAULT_MAX)?;
    Ok(RunLimits {
        segment_bytes: settings.segment_bytes,
        inline_bytes_max: settings.inline_bytes_max,
        spool_bytes_max: settings.spool_bytes_max,
        free_bytes_min,
    })
}

/// The names of all files in the spool.
fn list_spool(layout: &Layout) -> io::Result<Vec<String>> {
    std::fs::read_dir(layout.spool())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Unlinks what an earlier server could not: segments whose bytes are rows, notes and drafts.
/// `names` were listed before anything new could begin.
async fn tidy_spool(supervisor: Supervisor, open: Vec<OpenAttempt>, names: Vec<String>) {
    let ctx = supervisor.context();
    for file in names {
        let keep = match classify(&file) {
            SpoolFile::Segment(name) => is_needed(&ctx.store, &open, name).await,
            SpoolFile::Note => is_needed_note(&open, &file),
            SpoolFile::Foreign => {
                tracing::warn!(file, "a file in the spool is not ours; it is left alone");
                true
            }
        };
        if keep {
            continue;
        }
        if let Err(error) = ctx.unlinker.unlink([file.clone()]).await {
            tracing::warn!(file, %error, "a leftover in the spool could not be unlinked");
        }
    }
}

/// What a file in the spool is by its name.
enum SpoolFile {
    Segment(SegmentName),
    /// A note beside the segments of an attempt, or a draft of a note or of a segment.
    Note,
    Foreign,
}

fn classify(file: &str) -> SpoolFile {
    if let Some(name) = SegmentName::parse(file) {
        return SpoolFile::Segment(name);
    }
    let begins_as_ours = file.starts_with(|first: char| first.is_ascii_digit());
    if begins_as_ours && NOTES.iter().any(|end| file.ends_with(end)) {
        SpoolFile::Note
    } else {
        SpoolFile::Foreign
    }
}

/// How the names of notes and drafts end.
const NOTES: [&str; 4] = [".hole", ".draft", ".rescue", ".unsynced"];

/// Whether a note is still needed: that of an open attempt. Once the attempt is final, rows have
/// what it says. Until then its shim may be about to rename a draft that was listed.
fn is_needed_note(open: &[OpenAttempt], file: &str) -> bool {
    let of_file = |attempt: &OpenAttempt| {
        let (job, attempt) = (attempt.number, attempt.attempt);
        [
            dropped_range::file_name(job, attempt),
            dropped_range::draft_name(job, attempt),
            unsynced::file_name(job, attempt),
        ]
        .contains(&file.to_owned())
    };
    open.iter().any(of_file)
}

async fn is_needed(store: &Store, open: &[OpenAttempt], name: SegmentName) -> bool {
    let attempt = |a: &OpenAttempt| a.number == name.job && a.attempt == name.attempt;
    if open.iter().any(attempt) {
        return true;
    }
    match store.stored(name.job, name.first_offset, 0).await {
        Ok(Stored::Segment(row)) => {
            row.attempt == name.attempt && row.first_offset == name.first_offset
        }
        Ok(Stored::Rows(_) | Stored::Open(_)) => false,
        // If the database cannot be read, the file stays: it may hold output.
        Err(_) => true,
    }
}
