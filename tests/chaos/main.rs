//! A short seeded run: submitters with keys, readers that reconnect, and a killer of the server.
//! Afterwards: what was acknowledged is there, every byte is right, every job ran exactly once.
//!
//! `CC_CHAOS_SEED` repeats a run's decisions, `CC_CHAOS_SECONDS` makes it longer.

#![allow(
    clippy::disallowed_methods,
    reason = "a load in time is what this makes"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod plan;
mod reader;
mod submitter;

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use harness::{Client, Server, mix};
use plan::Plan;

/// How long submitters and killer are at work, unless the variable says otherwise.
const SECONDS: u64 = 20;
const SUBMITTERS: u64 = 3;
const READERS: usize = 3;
/// Jobs that were acknowledged and wait for a reader.
const UNREAD_MAX: usize = 6;

/// Where the server of the moment listens.
struct Door {
    place: Mutex<(String, String)>,
    /// When set, no new jobs are made.
    closing: AtomicBool,
}

impl Door {
    /// A session with whatever server lives; tries until there is one.
    fn connect(&self) -> Client {
        harness::until("a server to connect to", || {
            let (listen, token) = self.place.lock().expect("the door").clone();
            Client::try_tcp(&listen, Some(&token)).ok()
        })
    }

    fn moved(&self, server: &Server) {
        let place = (server.listen().to_owned(), server.token());
        *self.place.lock().expect("the door") = place;
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// A job that the server has acknowledged.
struct Acknowledged {
    id: Value,
    plan: Plan,
}

#[test]
fn acknowledged_work_survives_a_server_that_is_killed_at_random() {
    let seed = setting("CC_CHAOS_SEED").unwrap_or_else(random_seed);
    let seconds = setting("CC_CHAOS_SECONDS").unwrap_or(SECONDS);
    // Seen when the test fails, or with --nocapture.
    eprintln!("CC_CHAOS_SEED={seed} CC_CHAOS_SECONDS={seconds}");
    let mut server = Server::start();
    let ledger = server.scratch("ledger");
    let door = Door {
        place: Mutex::new((server.listen().to_owned(), server.token())),
        closing: AtomicBool::new(false),
    };
    let (sender, receiver) = mpsc::sync_channel(UNREAD_MAX);
    let receiver = Mutex::new(receiver);
    let read: Vec<Acknowledged> = thread::scope(|scope| {
        for number in 0..SUBMITTERS {
            let (sender, door, ledger) = (sender.clone(), &door, &ledger);
            let env = server.marked(json!({}))["env"].clone();
            scope.spawn(move || submitter::work(door, seed, number, ledger, &env, &sender));
        }
        drop(sender);
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| reader::work(&door, &receiver)))
            .collect();
        let kills = kill_at_random(&mut server, &door, seed, Duration::from_secs(seconds));
        door.closing.store(true, Ordering::Relaxed);
        let read: Vec<_> = readers
            .into_iter()
            .flat_map(|reader| reader.join().expect("a reader"))
            .collect();
        eprintln!("{} jobs read over {kills} kills", read.len());
        assert!(kills > 0 && !read.is_empty(), "nothing was tried");
        read
    });
    check_list(&server, &read);
    check_ledger(&fs::read_to_string(&ledger).unwrap_or_default(), &read);
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn random_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    mix(since.expect("after 1970").as_nanos() as u64) % 1_000_000
}

/// SIGKILL at moments that follow from the seed; returns how often.
fn kill_at_random(server: &mut Server, door: &Door, seed: u64, length: Duration) -> u32 {
    let began = Instant::now();
    let mut random = mix(seed ^ 0xdead);
    let mut kills = 0;
    while began.elapsed() < length {
        random = mix(random);
        // The one place where time itself is the test: work goes on until the blow falls.
        thread::sleep(Duration::from_millis(50 + random % 1500));
        server.kill_9();
        if random & (1 << 40) != 0 {
            thread::sleep(Duration::from_millis((random >> 41) % 700));
        }
        server.restart();
        door.moved(server);
        kills += 1;
    }
    kills
}

/// The ledger of the server has exactly the acknowledged jobs, all final.
fn check_list(server: &Server, read: &[Acknowledged]) {
    let mut client = server.connect();
    let mut listed = BTreeMap::new();
    let mut params = json!({"limit": 1000});
    loop {
        let page = client.ok("job.list", params.clone());
        for job in page["jobs"].as_array().expect("jobs") {
            listed.insert(job["id"].to_string(), job.clone());
        }
        match page.get("next_cursor").filter(|cursor| !cursor.is_null()) {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(listed.len(), read.len(), "jobs that nobody submitted");
    for job in read {
        let listed = listed
            .get(&job.id.to_string())
            .unwrap_or_else(|| panic!("{} is gone", job.id));
        job.plan.check_end(listed);
    }
}

/// The jobs' own ledger: each started exactly once.
fn check_ledger(ledger: &str, read: &[Acknowledged]) {
    let mut starts: BTreeMap<u64, u32> = BTreeMap::new();
    let mut ends: BTreeMap<u64, u32> = BTreeMap::new();
    for line in ledger.lines() {
        let mut words = line.split(' ');
        let counts = match words.next() {
            Some("start") => &mut starts,
            Some("end") => &mut ends,
            _ => panic!("a line {line:?}"),
        };
        let seed = words.next().and_then(|word| word.parse().ok());
        *counts.entry(seed.expect("a seed")).or_default() += 1;
    }
    for job in read {
        let seed = job.plan.seed;
        assert_eq!(starts.get(&seed), Some(&1), "starts of {}", job.id);
        assert_eq!(ends.get(&seed), Some(&1), "ends of {}", job.id);
    }
    assert_eq!(starts.len(), read.len(), "a process that belongs to no job");
}
