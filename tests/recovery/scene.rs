//! A data directory between two servers: made with the ledger's own calls, with real shims on
//! their sockets, then given to the real binary. What becomes of it is the tests' business.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf, process::Stdio};

use cc_executor::{
    job::{Command, JobId, JobRef, JobSpec, Micros, OnLost, StopCause, StopRequest},
    spool::{
        Layout, Position, RecordKind, RunSpec, SegmentName, SegmentReader, ShimKey,
        reader::NextRecord,
    },
    store::{ClaimedJob, ShimOffer, StopRequested, Store, Submission},
    sys::proc::boot_id,
};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::runtime::Runtime;

use crate::{
    harness::{BINARY, Client, Server},
    shim::{self, Shim},
};

/// The mark of a job's processes (proc_pid_environ(5)).
pub const JOB_ID_VARIABLE: &str = "CC_EXECUTOR_JOB_ID";
/// The data directory's part of that mark.
pub const INSTANCE_VARIABLE: &str = "CC_EXECUTOR_INSTANCE";

/// A queue with more slots than a test needs.
const QUEUE: &str = "interactive";

/// A data directory, the ledger in it, its shims, and the server that comes.
pub struct Scene {
    /// Dropped first: it ends what runs and proves that nothing is left.
    pub server: Server,
    pub layout: Layout,
    pub instance: String,
    pub boot_id: String,
    pub store: Option<Store>,
    pub runtime: Runtime,
    shims: Vec<Shim>,
    /// The newest event before the server's start.
    last_event: u64,
}

impl Scene {
    /// An empty data directory as an earlier server left it, with the first epoch taken. Its
    /// servers keep no shims warm: then there are never more shims than slots, and one that is
    /// free is sure to get work.
    pub fn new() -> Self {
        Self::with(&["--warm-shims", "0"])
    }

    /// The same for a server with these arguments.
    pub fn with(args: &[&str]) -> Self {
        let mut scene = Self::bare(args);
        let layout = &scene.layout;
        for dir in [layout.root().to_owned(), layout.spool(), layout.shims()] {
            let mut builder = fs::DirBuilder::new();
            builder.mode(0o700).create(dir).expect("a directory");
        }
        let (store, epoch) = scene.wait(async {
            let store = Store::open(&layout.database()).await.expect("open");
            let epoch = store.begin_epoch(&scene.boot_id).await.expect("an epoch");
            (store, epoch)
        });
        scene.instance = epoch.instance;
        scene.store = Some(store);
        scene
    }

    /// A data directory that is still to be made, by somebody else.
    pub fn bare(args: &[&str]) -> Self {
        let server = Server::stopped(args, &[]);
        Self {
            layout: Layout::new(server.data_dir()),
            server,
            instance: String::new(),
            boot_id: boot_id().expect("the boot id"),
            store: None,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime"),
            shims: Vec::new(),
            last_event: 0,
        }
    }

    /// The ledger of the server that is gone.
    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("before the server's start")
    }

    /// Waits for what the ledger answers.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Stores a line of shell as a job.
    pub fn submit(&self, line: &str) -> JobId {
        self.submit_new(JobSpec::new(Command::Shell(line.to_owned())))
    }

    /// Stores a job that runs again where an attempt is lost.
    pub fn submit_again(&self, line: &str) -> JobId {
        let mut job = JobSpec::new(Command::Shell(line.to_owned()));
        job.on_lost = OnLost::Retry;
        self.submit_new(job)
    }

    fn submit_new(&self, mut job: JobSpec) -> JobId {
        job.queue = QUEUE.to_owned();
        job.cwd = Some("/".to_owned());
        let data_dir = self.layout.root().display().to_string();
        job.env.insert("CC_TEST_MARK".to_owned(), data_dir.into());
        let id = JobId(uuid::Uuid::now_v7());
        let submission = Submission {
            retry_of: None,
            id,
            job,
            fingerprint: [0; 32],
            actor: "test".to_owned(),
            token: None,
            policy: None,
            at: Micros(1_000_000),
        };
        let submitted = self.wait(self.store().submit(submission)).expect("stored");
        assert!(submitted.created);
        id
    }

    /// Claims the one job that waits for this shim.
    pub fn claim(&self, shim: &str) -> ClaimedJob {
        let offer = ShimOffer {
            shim: shim.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let claimed = self.wait(self.store().claim(
            vec![offer],
            self.boot_id.clone(),
            self.instance.clone(),
        ));
        let mut claims = claimed.expect("claimed").claims;
        assert_eq!(claims.len(), 1, "one job for one shim");
        claims.remove(0)
    }

    /// Stores a job and claims it for this shim.
    pub fn claimed(&self, shim: &str, line: &str) -> ClaimedJob {
        let id = self.submit(line);
        let claim = self.claim(shim);
        assert_eq!(claim.id, id);
        claim
    }

    /// The same for one that runs again where an attempt is lost.
    pub fn claimed_again(&self, shim: &str, line: &str) -> ClaimedJob {
        let id = self.submit_again(line);
        let claim = self.claim(shim);
        assert_eq!(claim.id, id);
        claim
    }

    /// Jobs that run until they are killed, so many that every free shim gets one.
    pub fn submit_crowd(&self) {
        for _ in 0..6 {
            self.submit("sleep 1000");
        }
    }

    /// Starts a shim; it is idle when this returns.
    pub fn start_shim(&mut self, id: &str) -> &mut Shim {
        let process = std::process::Command::new(BINARY)
            .args(["shim", "--data-dir"])
            .arg(self.layout.root())
            .args(["--id", id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start the shim");
        let started = self.handle(id, process);
        shim::until("the socket is there", || started.socket().exists());
        self.shims.push(started);
        self.shim(id)
    }

    /// A shim that the server has started, to be talked to.
    pub fn shim_of_the_server(&self, id: &str) -> Shim {
        let nobody = std::process::Command::new("true").spawn();
        self.handle(id, nobody.expect("true"))
    }

    fn handle(&self, id: &str, process: std::process::Child) -> Shim {
        Shim {
            dir: tempfile::tempdir().expect("tempdir"),
            layout: self.layout.clone(),
            id: id.to_owned(),
            process,
        }
    }

    /// A shim that was started.
    pub fn shim(&mut self, id: &str) -> &mut Shim {
        let shim = self.shims.iter_mut().find(|shim| shim.id == id);
        shim.expect("a shim of that name")
    }

    /// SIGKILL; its lock and socket stay as they are.
    pub fn kill_shim(&mut self, id: &str) {
        let shim = self.shim(id);
        shim.process.kill().expect("our child");
        shim.process.wait().expect("our child");
    }

    /// Runs a job in a new shim as a server would, which is gone when the leader is started.
    pub fn started_in(&mut self, shim: &str, line: &str) -> ClaimedJob {
        let claim = self.claimed(shim, line);
        let spec = self.spec(&claim);
        let (mut server, _) = self.start_shim(shim).hello(1);
        server.run(spec);
        server.started();
        claim
    }

    /// What a server sends for a claim.
    pub fn spec(&self, claim: &ClaimedJob) -> RunSpec {
        let mut spec = shim::spec(&[]);
        spec.job = claim.number;
        spec.job_id = claim.id;
        spec.attempt = claim.attempt;
        spec.start_offset = claim.start_offset;
        spec.argv = claim.job.command.to_argv();
        let own = claim.job.env.iter();
        let own = own.filter_map(|(name, value)| Some((name.clone(), value.text()?.to_owned())));
        spec.env.extend(own);
        let mark = (JOB_ID_VARIABLE.to_owned(), claim.id.to_string());
        spec.env.push(mark);
        let instance = (INSTANCE_VARIABLE.to_owned(), self.instance.clone());
        spec.env.push(instance);
        spec
    }

    /// Commits a wish to stop a running job, and sends it nowhere.
    pub fn wish(&self, claim: &ClaimedJob, cause: StopCause, grace_ms: u64) {
        let wish = StopRequest {
            by: "test".to_owned(),
            cause,
            asked_at_us: 3_000_000,
            grace_ms,
        };
        let wished = self.wait(
            self.store()
                .request_stop(JobRef::Number(claim.number), wish),
        );
        assert!(
            matches!(wished, Ok(StopRequested::ToShim { .. })),
            "{wished:?}"
        );
    }

    /// The old server is gone.
    pub fn close(&mut self) {
        if let Some(store) = self.store.take() {
            self.wait(store.close());
        }
    }

    /// The old server is gone, the new one is ready.
    pub fn start(&mut self) -> Client {
        if self.store.is_some() {
            let last = self.rows("SELECT CAST(coalesce(max(id), 0) AS TEXT) FROM events");
            self.last_event = last.parse().expect("a number");
        }
        self.close();
        self.server.restart();
        self.server.connect()
    }

    /// Runs a statement on the ledger's file.
    pub fn execute(&self, statement: &'static str) {
        self.wait(async {
            let mut connection = self.raw().await;
            let done = sqlx::query(statement).execute(&mut connection).await;
            assert_ne!(done.expect("executed").rows_affected(), 0, "{statement}");
            connection.close().await.expect("close");
        });
    }

    /// The machine has been started again since the claims.
    pub fn set_boot_ids(&self) {
        self.execute("UPDATE attempts SET boot_id = 'another boot'");
    }

    /// The machine has not been started again since the claims, whichever machine that was.
    pub fn set_this_boot(&self) {
        self.wait(async {
            let mut connection = self.raw().await;
            let update = sqlx::query("UPDATE attempts SET boot_id = ?1").bind(&self.boot_id);
            update.execute(&mut connection).await.expect("executed");
            connection.close().await.expect("close");
        });
    }

    /// The first column of a query, rows joined by spaces, columns by the query itself.
    pub fn rows(&self, query: &'static str) -> String {
        self.wait(async {
            let mut connection = self.raw().await;
            let rows = sqlx::query_scalar::<_, String>(query);
            let rows = rows.fetch_all(&mut connection).await.expect("rows");
            connection.close().await.expect("close");
            rows.join(" ")
        })
    }

    /// Every attempt as `JOB.ATTEMPT:STATE`.
    pub fn attempts(&self) -> String {
        self.rows(
            "SELECT job || '.' || attempt || ':' || state FROM attempts ORDER BY job, attempt",
        )
    }

    /// Waits until a shim has got a job from the server.
    pub fn assert_gets_work(&self, shim: &str) {
        shim::until("the shim has got work", || {
            let given = self.rows(
                "SELECT e.id || ':' || a.shim FROM attempts AS a
                 JOIN events AS e ON e.job = a.job AND e.attempt = a.attempt AND e.to_state = 'running'
                 WHERE a.state IN ('started', 'ended')",
            );
            given.split(' ').any(|word| {
                let (event, id) = word.split_once(':').unwrap_or_default();
                id == shim
                    && event
                        .parse::<u64>()
                        .is_ok_and(|event| event > self.last_event)
            })
        });
    }

    /// The key of a shim that a server has started.
    pub fn key_of(&self, shim: &str) -> ShimKey {
        let seed: Vec<u8> = self.wait(async {
            let mut ledger = self.raw().await;
            let seed = sqlx::query_scalar("SELECT key FROM shim_key");
            seed.fetch_one(&mut ledger).await.expect("a seed")
        });
        ShimKey::of(&seed.try_into().expect("32 bytes"), shim)
    }

    async fn raw(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.layout.database());
        SqliteConnection::connect_with(&options)
            .await
            .expect("connect")
    }

    /// The kind of the last record of job 1's newest segment.
    pub fn last_record(&self) -> Option<RecordKind> {
        let names = self.spool().into_iter();
        let newest = names
            .filter_map(|name| SegmentName::parse(&name))
            .max_by_key(|name| name.first_offset)?;
        let spool = self.layout.spool();
        let mut reader = SegmentReader::open(&spool, Position::first(newest)).ok()?;
        let mut last = None;
        while let Ok(NextRecord::Record(header, _)) = reader.next_record() {
            last = Some(header.kind);
        }
        last
    }

    /// Names of the files in the spool.
    pub fn spool(&self) -> Vec<String> {
        names(self.layout.spool())
    }

    /// Names of the shims' locks and sockets.
    pub fn traces(&self) -> Vec<String> {
        names(self.layout.shims())
    }
}

fn names(directory: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("utf-8")
        })
        .collect();
    names.sort();
    names
}

/// A claimed job as the client names it.
pub fn job(claim: &ClaimedJob) -> Value {
    json!({"id": claim.id.to_string()})
}
