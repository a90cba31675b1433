//! A ledger in a temporary directory, and short ways to move jobs through it.

use std::path::{Path, PathBuf};

use cc_executor::{
    job::{
        Command, Dropped, Exit, ExitFacts, Job, JobId, JobNumber, JobRef, JobSpec, JobState,
        Micros, Reason, StopCause, StopRequest, Usage,
    },
    store::*,
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

pub const BOOT: &str = "boot-1";
pub const INSTANCE: &str = "instance-1";

/// A ledger that is deleted with its directory.
pub struct Ledger {
    pub store: Store,
    directory: tempfile::TempDir,
}

impl Ledger {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("ledger.db"))
            .await
            .unwrap();
        Self { store, directory }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    /// Another store on the same file, as after a kill: the first one was not closed.
    pub async fn reopen(self) -> Self {
        let Self { store, directory } = self;
        drop(store);
        let store = Store::open(&directory.path().join("ledger.db"))
            .await
            .unwrap();
        Self { store, directory }
    }

    pub async fn submit(&self, job: JobSpec) -> Job {
        self.store.submit(submission(job)).await.unwrap().job
    }

    /// A queued job that does nothing.
    pub async fn queued(&self) -> Job {
        self.submit(true_job()).await
    }

    /// A job that is running its first attempt under `shim`.
    pub async fn running(&self, shim: &str) -> ClaimedJob {
        self.queued().await;
        let mut claimed = self.claim(&[shim]).await;
        assert_eq!(claimed.claims.len(), 1);
        claimed.claims.remove(0)
    }

    pub async fn claim(&self, shims: &[&str]) -> Claimed {
        let offers = shims.iter().map(|shim| offer(shim)).collect();
        self.store
            .claim(offers, BOOT.into(), INSTANCE.into())
            .await
            .unwrap()
    }

    pub async fn get(&self, number: JobNumber) -> Job {
        self.store
            .job(JobRef::Number(number), Include::default())
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn states(&self, number: JobNumber) -> Vec<JobState> {
        let changes = self.store.changes(number, 0).await.unwrap();
        changes.into_iter().map(|change| change.state).collect()
    }

    /// A connection beside the store's, for what only a test may look at or do.
    pub async fn raw(&self) -> SqliteConnection {
        raw(&self.path()).await
    }
}

pub async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    SqliteConnection::connect_with(&options).await.unwrap()
}

pub fn offer(shim: &str) -> ShimOffer {
    ShimOffer {
        shim: shim.into(),
        version: "0.1.0".into(),
    }
}

pub fn true_job() -> JobSpec {
    JobSpec::new(Command::Argv(vec!["true".into()]))
}

pub fn submission(job: JobSpec) -> Submission {
    let fingerprint = fingerprint(&job);
    let cwd = job.cwd.clone().or_else(|| Some("/home/user".into()));
    Submission {
        retry_of: None,
        id: JobId(uuid::Uuid::now_v7()),
        fingerprint,
        job: JobSpec { cwd, ..job },
        actor: "tester".into(),
        token: None,
        policy: None,
        at: Micros(1000),
    }
}

fn fingerprint(job: &JobSpec) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(job.fingerprint_source().unwrap()).into()
}

pub fn started(claim: &ClaimedJob) -> StartedAttempt {
    StartedAttempt {
        number: claim.number,
        attempt: claim.attempt,
        pid: 4242,
        start_ticks: 77,
        at: Micros(3000),
    }
}

pub fn facts(exit: Exit) -> ExitFacts {
    ExitFacts {
        exit,
        started_at_us: Some(2500),
        ended_at_us: 4000,
        stop: None,
        leaked: 0,
        survivors: Vec::new(),
        usage: Usage {
            user_s: 0.123457,
            system_s: 1.000001,
            max_rss_bytes: 1 << 20,
        },
        end_offset: 0,
        dropped: Dropped::default(),
    }
}

/// An end without output, after exit code 0.
pub fn success(number: JobNumber, attempt: u32) -> Finish {
    Finish {
        number,
        attempt,
        state: JobState::Succeeded,
        reason: None,
        facts: Some(facts(Exit::Code(0))),
        survivors: Vec::new(),
        survivors_unknown: None,
        unmet_expectations: Vec::new(),
        end_offset: 0,
        dropped: Dropped::default(),
        kept: OutputPlacement::Rows {
            chunks: Vec::new(),
            gaps: Vec::new(),
        },
        output_sha256: Some("e".repeat(64)),
        hash_state: None,
        actor: "shim".into(),
        at: Micros(5000),
    }
}

/// An end of which nobody knows how it came.
pub fn lost(number: JobNumber, attempt: u32) -> Finish {
    Finish {
        unmet_expectations: Vec::new(),
        state: JobState::Failed,
        reason: Some(Reason::Lost),
        facts: None,
        actor: "rescue".into(),
        ..success(number, attempt)
    }
}

pub fn wish(cause: StopCause) -> StopRequest {
    StopRequest {
        by: "tester".into(),
        cause,
        asked_at_us: 3500,
        grace_ms: if cause == StopCause::Kill { 0 } else { 10_000 },
    }
}
