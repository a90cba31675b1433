//! A backup taken at any moment is a data directory of its own, whole as of that moment, and serving it
//! beside the original does the original no harm.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::harness::{
    Client, Server, Transcript, assert_bytes, content, emit, is_alive, parent, sha256, until,
    until_true,
};

/// Small outputs become rows, those of this length are segments.
const LARGE_BYTES: u64 = 200 << 10;
const SMALL_BYTES: u64 = 3000;

/// So many jobs are submitted at a time.
const TOGETHER: usize = 9;

const SETTINGS: [&str; 4] = ["--inline-bytes-max", "16384", "--segment-bytes", "65536"];

/// What was submitted and acknowledged, and what was deleted since.
#[derive(Default)]
struct Acknowledged {
    jobs: Vec<Submitted>,
    deleted: BTreeSet<i64>,
}

#[derive(Clone)]
struct Submitted {
    id: Value,
    number: i64,
    seed: u64,
    bytes: u64,
}

/// Submits jobs of both lengths, several at a time, waits for the last of them, and deletes the first,
/// until it is told to stop.
fn traffic(server: &Server, seed: u64, known: &Mutex<Acknowledged>, over: &AtomicBool) {
    let mut client = server.connect();
    let mut seeds = seed..;
    while !over.load(Ordering::Relaxed) {
        let seeds: Vec<u64> = seeds.by_ref().take(TOGETHER).collect();
        let length = |seed: u64| {
            if seed.is_multiple_of(4) {
                LARGE_BYTES
            } else {
                SMALL_BYTES
            }
        };
        let job = |seed: &u64| {
            let line = format!("{} --seed {seed} --bytes {}", emit(), length(*seed));
            // Some are over at once, the others have begun for a while when they end.
            let pause = ["", "; sleep 0.2", "; sleep 0.5"][(seed % 3) as usize];
            server.marked(json!({"shell": line + pause}))
        };
        let jobs: Vec<Value> = seeds.iter().map(job).collect();
        let jobs = client.ok("job.submit_many", json!({ "jobs": jobs }))["jobs"].take();
        let jobs = jobs.as_array().expect("jobs").iter().zip(&seeds);
        let jobs: Vec<Submitted> = jobs
            .map(|(job, seed)| Submitted {
                id: job["id"].clone(),
                number: job["number"].as_i64().expect("a number"),
                seed: *seed,
                bytes: length(*seed),
            })
            .collect();
        let (first, last) = (jobs[0].clone(), jobs[TOGETHER - 1].clone());
        known.lock().expect("not poisoned").jobs.extend(jobs);
        client.finished(&json!({"id": first.id}));
        client.finished(&json!({"id": last.id}));
        // Before it is asked for: from here on it may be gone.
        known
            .lock()
            .expect("not poisoned")
            .deleted
            .insert(first.number);
        client.ok("job.delete", json!({"job": first.number}));
    }
}

/// Jobs of every kind that live longer than the backups.
struct Long {
    cat: Value,
    runaway: Value,
    gated: Value,
    held: Value,
    leaders: Vec<i32>,
}

impl Long {
    fn start(server: &Server, client: &mut Client) -> Self {
        let gate = server.scratch("gate");
        let gate = gate.display();
        let cat = json!({"argv": ["cat"], "interactive": true, "queue": "interactive"});
        let runaway = json!({
            "shell": "while :; do head -c 2000000 /dev/zero | tr '\\0' x; sleep 0.02; done",
            "output": {"max_bytes": 16 << 20, "when_full": "drop_oldest"},
            "queue": "interactive",
        });
        let gated = json!({
            "shell": format!("echo begun; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7"),
            "queue": "interactive",
        });
        client.ok("queue.set", json!({"queue": "held", "paused": true}));
        let held = json!({"argv": ["true"], "queue": "held"});
        let [cat, runaway, gated] = [cat, runaway, gated].map(|job| {
            let job = client.submit(server.marked(job));
            client.started(&job);
            job
        });
        client.ok("job.input", json!({"job": cat["id"], "data": "before\n"}));
        until_true("something to be dropped", || {
            client.get(&runaway)["dropped_bytes"].as_u64() > Some(0)
        });
        let held = client.submit(server.marked(held));
        let shims = server.shims();
        let mut pids = server.job_processes();
        pids.retain(|pid| parent(*pid).is_some_and(|parent| shims.contains(&parent)));
        assert_eq!(pids.len(), 3, "one leader each");
        Self {
            cat,
            runaway,
            gated,
            held,
            leaders: pids,
        }
    }

    /// In the copy nobody knows how they ended.
    fn check_copy(&self, client: &mut Client) {
        for job in [&self.cat, &self.runaway, &self.gated] {
            let end = client.finished(job);
            assert_eq!(
                (&end["state"], &end["reason"]),
                (&json!("failed"), &json!("lost"))
            );
            assert_eq!(end["survivors"], json!([]), "those are not ours");
        }
        assert!(client.whole(&self.cat).bytes.starts_with(b"before\n"));
        assert!(client.whole(&self.gated).bytes.starts_with(b"begun\n"));
        let runaway = client.whole(&self.runaway);
        assert!(runaway.bytes.iter().all(|byte| *byte == b'x'));
        assert!(
            runaway.bytes.len() > 8 << 20,
            "the ring is there: {}",
            runaway.bytes.len()
        );
        let reasons: Vec<_> = runaway
            .gaps
            .iter()
            .map(|gap| gap["reason"].clone())
            .collect();
        assert_eq!(reasons, ["drop_oldest", "power_loss"]);
        assert_eq!(client.get(&self.held)["state"], "queued");
    }

    /// In the original nothing has happened to them.
    fn check_original(&self, server: &Server, client: &mut Client) {
        for job in [&self.cat, &self.runaway, &self.gated] {
            assert_eq!(client.get(job)["state"], "running");
        }
        fs::write(server.scratch("gate"), "").expect("the gate opens");
        let params = json!({"job": self.cat["id"], "data": "behind\n", "eof": true});
        client.ok("job.input", params);
        let end = client.finished(&self.gated);
        assert_eq!(
            (&end["exit_code"], &end["attempts"]),
            (&json!(7), &json!(1))
        );
        let end = client.finished(&self.cat);
        assert_eq!(
            (&end["exit_code"], &end["attempts"]),
            (&json!(0), &json!(1))
        );
        let transcript = client.whole(&self.cat);
        assert_bytes(&transcript.bytes, b"before\nbehind\n", "cat");
        transcript.verified();
        client.control(&self.runaway, "kill");
        assert_eq!(client.finished(&self.runaway)["state"], "cancelled");
    }
}

/// The whole check of one backup: `before` are the jobs that were acknowledged before it began.
fn check(copy: &mut Server, before: &[Submitted], long: &Long, original: &mut Client) {
    assert_whole(&copy.data_dir());
    for name in [
        "token",
        "token.key",
        "lock",
        "server.sock",
        "cc-executor.ballast",
        "cc-executor.db-wal",
    ] {
        assert!(!copy.data_dir().join(name).exists(), "{name}");
    }
    copy.restart();
    let mut client = copy.connect();
    long.check_copy(&mut client);
    let (mut again, mut finals) = (0, 0);
    for job in before {
        let there = json!({"id": job.id, "number": job.number});
        let end = client.finished(&there);
        let transcript = client.whole(&there);
        let expected = content(job.seed, 0, job.bytes, false);
        if end["reason"] == "lost" {
            let bytes = &transcript.bytes;
            assert_bytes(bytes, &expected[..bytes.len()], "what a lost attempt wrote");
            continue;
        }
        assert_eq!(end["state"], "succeeded", "{end}");
        assert_bytes(&transcript.bytes, &expected, "a final job");
        transcript.verified();
        assert_bytes(
            &client.download(&there, 50_000),
            &expected,
            "the same by job.read",
        );
        assert_eq!(end["output_sha256"], sha256(&expected));
        // Ends that were known then are those that are known now.
        let now = original.call("job.get", json!({"job": job.id}));
        match now {
            Ok(now) if now["finished_at"] == end["finished_at"] => finals += 1,
            _ => again += 1,
        }
    }
    assert!(finals > 0, "some had ended before the backup");
    eprintln!(
        "{finals} had ended, {again} ended in the copy, of {}",
        before.len()
    );
}

/// What the directory says by itself, before any server has touched it: the ledger is sound, every
/// segment that it counts on is there, and none that it does not know.
fn assert_whole(data_dir: &Path) {
    assert_eq!(ask(data_dir, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(ask(data_dir, "PRAGMA foreign_key_check"), [""; 0]);
    let spool: BTreeSet<String> = names(&data_dir.join("spool")).into_iter().collect();
    // The first segment of a started attempt is there from its beginning to its end.
    let needed = "SELECT job || '.' || attempt || '.' || start_offset || '.seg' FROM attempts
                  WHERE state = 'started'
                  UNION SELECT s.job || '.' || s.attempt || '.' || s.first_offset || '.seg'
                  FROM segments AS s JOIN jobs AS j ON j.number = s.job
                  WHERE j.spec ->> '$.output.when_full' <> 'drop_oldest'";
    let missing: Vec<_> = ask(data_dir, needed)
        .into_iter()
        .filter(|name| !spool.contains(name))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    let known = "SELECT s.job || '.' || s.attempt || '.' FROM segments AS s
                 UNION SELECT job || '.' || attempt || '.' FROM attempts
                 WHERE state IN ('claimed', 'started')";
    let known = ask(data_dir, known);
    let is_known = |name: &String| known.iter().any(|begin| name.starts_with(begin));
    let unknown: Vec<_> = spool.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "nobody knows {unknown:?}");
}

fn ask(data_dir: &Path, query: &'static str) -> Vec<String> {
    let options = SqliteConnectOptions::new()
        .filename(data_dir.join("cc-executor.db"))
        .immutable(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .expect("opens");
        let rows = sqlx::query_scalar(query).fetch_all(&mut connection).await;
        rows.expect("an answer")
    })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    entries
        .map(|entry| name(entry).into_string().expect("UTF-8"))
        .collect()
}

fn instance(client: &mut Client) -> String {
    let info = client.ok("server.info", json!({}));
    info["instance"].as_str().expect("an instance").to_owned()
}

/// Makes a backup for `copy` while jobs are submitted, run, end and are deleted; which jobs must be in
/// it.
fn busy_backup(
    original: &Server,
    known: &Mutex<Acknowledged>,
    copy: &Server,
    round: u64,
) -> Vec<Submitted> {
    let over = AtomicBool::new(false);
    let known_now = || known.lock().expect("not poisoned");
    let enough = known_now().jobs.len() + 4 * TOGETHER;
    thread::scope(|scope| {
        let _over = Stop(&over);
        for seed in [round * 1_000_000, round * 1_000_000 + 500_000] {
            let over = &over;
            scope.spawn(move || traffic(original, seed, known, over));
        }
        until_true("some traffic", || known_now().jobs.len() >= enough);
        let mut before = known_now().jobs.clone();
        let mut client = original.connect();
        let made = client.ok("server.backup", json!({"to": copy.data_dir()}));
        let deleted = known_now().deleted.clone();
        before.retain(|job| !deleted.contains(&job.number));
        assert!(made["jobs"].as_u64() >= Some(before.len() as u64), "{made}");
        assert!(made["shared_bytes"].as_u64() > Some(0), "{made}");
        assert_eq!(made["missing_segments"], 0);
        before
    })
}

/// Ends the traffic, also where a check has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_at_any_moment_restores_to_a_consistent_state() {
    let original = Server::with(&SETTINGS, &[]);
    let mut client = original.connect();
    let long = Long::start(&original, &mut client);
    client.ok("queue.set", json!({"queue": "default", "concurrency": 16}));
    let known = Mutex::new(Acknowledged::default());
    let mut instances = BTreeSet::from([instance(&mut client)]);
    for round in 1..=3 {
        let mut copy = Server::stopped(&SETTINGS, &[]);
        let before = busy_backup(&original, &known, &copy, round);
        check(&mut copy, &before, &long, &mut client);
        let instance = instance(&mut copy.connect());
        assert!(instances.insert(instance), "a new one");
    }
    let alive = |pid: &&i32| is_alive(**pid);
    assert_eq!(
        long.leaders.iter().filter(alive).count(),
        long.leaders.len(),
        "nobody was signalled"
    );
    long.check_original(&original, &mut client);
    let acknowledged = known.into_inner().expect("not poisoned");
    for job in &acknowledged.jobs {
        if acknowledged.deleted.contains(&job.number) {
            continue;
        }
        let end = client.finished(&json!({"id": job.id}));
        assert_eq!(
            (&end["state"], &end["attempts"]),
            (&json!("succeeded"), &json!(1))
        );
        client.ok("job.delete", json!({"job": job.number}));
    }
    for job in [&long.cat, &long.runaway, &long.gated] {
        client.ok("job.delete", json!({"job": job["id"]}));
    }
    until("the spool to be empty", || {
        names(&original.data_dir().join("spool"))
            .is_empty()
            .then_some(())
    });
}

/// Writes its process id to a file that is named after the data directory's instance, and stays.
fn teller(server: &Server) -> Value {
    let place = server.scratch("told");
    fs::create_dir(&place).expect("a directory");
    let line = format!(
        "setsid sh -c 'echo $$ >>{0}/$CC_EXECUTOR_INSTANCE; exec sleep 1000' & \
         echo $$ >>{0}/$CC_EXECUTOR_INSTANCE; exec sleep 1000",
        place.display()
    );
    server.marked(json!({"shell": line, "on_lost": "retry", "queue": "interactive"}))
}

/// Waits until so many processes were told for an instance.
fn told(server: &Server, instance: &str, count: usize) -> Vec<i32> {
    let file = server.scratch("told").join(instance);
    until("processes to tell of themselves", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() >= count).then_some(pids)
    })
}

fn kill_shims(server: &Server) {
    for shim in server.shims() {
        let pid = nix::unistd::Pid::from_raw(shim);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn the_same_job_in_original_and_copy_is_two_process_trees() {
    let original = Server::with(&["--warm-shims", "0"], &[]);
    let mut client = original.connect();
    let job = client.submit(teller(&original));
    let ours = instance(&mut client);
    let first = told(&original, &ours, 2);
    let mut copy = Server::stopped(&["--warm-shims", "0"], &[]);
    client.ok("server.backup", json!({"to": copy.data_dir()}));
    copy.restart();
    let mut reader = copy.connect();
    let theirs = instance(&mut reader);
    // Lost there, and so it runs there, too.
    let second = told(&original, &theirs, 2);
    assert!(
        first.iter().all(|pid| is_alive(*pid)),
        "nobody ended the original's"
    );
    kill_shims(&copy);
    let third = told(&original, &theirs, 4)[2..].to_vec();
    assert!(
        second.iter().all(|pid| !is_alive(*pid)),
        "what was lost is ended"
    );
    assert!(
        first.iter().all(|pid| is_alive(*pid)),
        "nobody ended the original's"
    );
    kill_shims(&original);
    let fourth = told(&original, &ours, 4)[2..].to_vec();
    assert!(
        first.iter().all(|pid| !is_alive(*pid)),
        "what was lost is ended"
    );
    assert!(
        third.iter().all(|pid| is_alive(*pid)),
        "nobody ended the copy's"
    );
    for (client, pids) in [(&mut reader, third), (&mut client, fourth)] {
        client.control(&job, "kill");
        assert_eq!(client.finished(&job)["state"], "cancelled");
        // Those in a session of their own are the job's as well.
        assert!(pids.iter().all(|pid| !is_alive(*pid)));
    }
}

#[test]
fn an_end_that_came_before_the_backup_is_an_end_in_the_copy() {
    let mut original = Server::with(&SETTINGS, &[]);
    let mut client = original.connect();
    let gate = original.scratch("gate");
    let line = format!(
        "{} --seed 5 --bytes 300000; while [ ! -e {} ]; do sleep 0.02; done; exit 3",
        emit(),
        gate.display()
    );
    let job = client.submit(original.marked(json!({ "shell": line })));
    client.ok(
        "job.wait",
        json!({"jobs": [job["id"]], "until": {"bytes": 300_000}}),
    );
    let expected = content(5, 0, 300_000, false);
    // The shim writes its end down while nobody is there to hear it.
    original.kill_9();
    fs::write(&gate, "").expect("the gate opens");
    until_true("the job to be over", || original.job_processes().is_empty());
    original.restart();
    let mut client = original.connect();
    let mut copy = Server::stopped(&SETTINGS, &[]);
    let said = original.cli("backup").args([copy.data_dir()]).run();
    assert_eq!(said.code(), 0, "{}", said.err());
    let line = said.out();
    assert!(line.contains("1 job") && line.contains("MiB"), "{line}");
    copy.restart();
    for client in [&mut client, &mut copy.connect()] {
        let end = client.finished(&job);
        assert_eq!(
            (&end["exit_code"], &end["attempts"]),
            (&json!(3), &json!(1))
        );
        let mut transcript: Transcript = client.whole(&job);
        assert_bytes(&std::mem::take(&mut transcript.bytes), &expected, "output");
    }
    let other = original.scratch("other");
    let json = original
        .cli("backup")
        .args([Path::new("--json"), &other])
        .run();
    let made: Value = serde_json::from_str(&json.out()).expect("JSON");
    assert_eq!(made["path"], json!(other.canonicalize().expect("is there")));
    assert_eq!(made["jobs"], 1);
}
