//! The chaos harness: seeded load over the public doors while the server, shims and both together
//! are killed and stopped at random; then pure checkers over what everybody saw, the database and
//! the jobs' own ledger. See docs/chaos.md.
//!
//! `CC_CHAOS_SEED` repeats a run's decisions, `CC_CHAOS_SECONDS` makes it longer, `CC_CHAOS_BINARY` is the
//! server instead of the one that was built with the tests.

#![allow(
    clippy::disallowed_methods,
    reason = "a load in time is what this makes"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod checks;
mod course;
mod evidence;
mod facts;
mod history;
mod judge;
mod killer;
mod kills;
mod link;
mod lives;
mod meddlers;
mod oracle;
mod plan;
mod random;
mod reader;
mod reading;
mod receiver;
mod remains;
mod report;
mod rows;
mod schedules;
mod settings;
mod submitter;
mod talker;
mod truth;
mod victims;
mod waiter;
mod waiting;
mod world;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use harness::Server;
use kills::Tally;
use settings::Settings;
use world::World;

/// What one of them does, given its number.
type Part = fn(&World, u64);

/// Who is at work, and how many of them.
const CAST: [(Part, u64); 7] = [
    (submitter::work, 3),
    (submitter::watch, 1),
    (reader::work, 5),
    (meddlers::control, 2),
    (waiter::work, 2),
    (talker::work, 3),
    (meddlers::sweep, 1),
];

/// How many plan schedules.
const PLANNERS: u64 = 2;

/// How long the last jobs may take once the load is over.
const DRAINS_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn nothing_is_lost_or_done_twice_whoever_is_killed() {
    let settings = Settings::read();
    // Seen when the test fails, or with --nocapture.
    eprintln!("{}", settings.again());
    let mut random = random::Random::new(settings.seed, 0x5e77);
    let segment_bytes = *random
        .one_of(&["65536", "262144", "4194304"])
        .expect("some");
    let inline_bytes = *random.one_of(&["0", "4096", "262144"]).expect("some");
    let mut server = Server::stopped(
        &[
            "--segment-bytes",
            segment_bytes,
            "--inline-bytes-max",
            inline_bytes,
        ],
        &[],
    );
    if let Some(binary) = &settings.binary {
        server.runs(binary);
    }
    server.restart();
    for queue in [plan::QUEUE, schedules::QUEUE] {
        let params = json!({"queue": queue, "concurrency": 16});
        server.connect().ok("queue.set", params);
    }
    let world = World::new(settings.clone(), &server);
    let tally = run(&world, &mut server);
    let (evidence, figures, violations) = judge::judge(world, &mut server, tally);
    eprintln!("{}", report::table(&settings, &evidence, &figures));
    if violations.is_empty() {
        assert!(
            figures.tally.servers > 0 && !evidence.plans.is_empty(),
            "nothing was tried"
        );
        return;
    }
    let failure = report::failure(&settings, &evidence, &violations, &server);
    keep(&server, settings.seed, &failure);
    panic!("{failure}");
}

/// The load, the kills, and the quiet afterwards.
fn run(world: &World, server: &mut Server) -> Tally {
    thread::scope(|scope| {
        for (number, (work, count)) in (0..).zip(CAST) {
            for instance in 0..count {
                scope.spawn(move || work(world, number << 8 | instance));
            }
        }
        let planner = |instance| scope.spawn(move || schedules::work(world, 0x5c00 | instance));
        let planners: Vec<_> = (0..PLANNERS).map(planner).collect();
        let tally = killer::Killer::new(world, server).work(world.settings.length);
        world.close();
        let began = Instant::now();
        for planner in planners {
            planner.join().expect("a planner");
        }
        drain(world);
        meddlers::await_notices(world, DRAINS_WITHIN);
        eprintln!("drained after {:?}", began.elapsed());
        world.end();
        tally
    })
}

/// Waits until every job is final.
fn drain(world: &World) {
    let began = Instant::now();
    while !world.is_over() && began.elapsed() < DRAINS_WITHIN {
        meddlers::wind_down(world, began.elapsed().as_millis() as u64);
        if world.live().is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(300));
    }
    for job in world.live() {
        world
            .history
            .wrong(Some(job.plan.key), "not final long after the load");
    }
}

/// Keeps what a failed run has left, below `target`, so that it can be looked at.
fn keep(server: &Server, seed: u64, failure: &str) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    let _ = fs::remove_dir_all(&place);
    let _ = fs::create_dir_all(&place);
    let _ = fs::write(place.join("failure"), failure);
    let _ = fs::write(place.join("said"), server.said());
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(server.data_dir())
        .arg(&place)
        .status();
    eprintln!("kept in {} ({copied:?})", place.display());
}
