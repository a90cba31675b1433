//! What a kill leaves lying about is taken away, and nothing else: segments whose bytes are rows,
//! marks and drafts of rescues, locks and sockets of dead shims, the data directory's lock.

use std::{fs, thread};

use cc_executor::{
    job::{Exit, Stream},
    store::Fenced,
    supervisor::{AttemptEnding, AttemptWatch, finalize},
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    harness::{Server, with_word},
    paper::{AT_US, Paper},
    scene::{Scene, job},
    shim,
};

#[test]
fn segments_whose_bytes_are_rows_go_and_others_stay() {
    let mut scene = Scene::new();
    // Committed as rows, not unlinked.
    let rows = scene.claimed("s1", "echo never");
    let mut paper = Paper::started(&scene, &rows);
    paper.output(Stream::Stdout, b"rows");
    paper.exit(Exit::Code(0));
    // Committed as segments.
    let segments = scene.claimed("s2", "echo never");
    let mut paper = Paper::started(&scene, &segments);
    paper.output(Stream::Stdout, b"one ").roll();
    paper.output(Stream::Stdout, b"two");
    paper.exit(Exit::Code(0));
    for claim in [&rows, &segments] {
        let watch = AttemptWatch::of_claim(claim);
        let facts = shim_facts(claim.number);
        let ending = AttemptEnding::Known {
            facts: Box::new(facts),
            synced: true,
        };
        let finalized = finalize(&scene.layout.spool(), 1 << 18, watch, ending).expect("finalized");
        let finished = scene.wait(scene.store().finish(finalized.finish));
        assert_eq!(finished, Ok(Fenced::Applied));
    }
    // A rescue's mark of an attempt that is void, and a draft.
    let void = scene.claimed("s3", "true");
    let _ = Paper::intended(&scene, &void, "rescue");
    let voided = scene.wait(scene.store().void(3, 1, void_at()));
    assert_eq!(voided, Ok(Fenced::Applied));
    fs::write(scene.layout.spool().join("3.1.0.seg.rescue"), b"half").expect("a draft");
    let mut client = scene.start();
    shim::until("the spool is tidy", || {
        scene.spool() == ["2.1.0.seg", "2.1.4.seg"]
    });
    assert_eq!(client.whole(&job(&rows)).bytes, b"rows");
    assert_eq!(client.whole(&job(&segments)).bytes, b"one two");
    assert_eq!(client.finished(&job(&void))["state"], "succeeded");
}

/// Its row would promise a file that the next start takes for a leftover.
#[test]
fn a_last_segment_without_bytes_leaves_neither_row_nor_file() {
    let mut scene = Scene::new();
    let ended = scene.claimed("s1", "echo never");
    let mut paper = Paper::started(&scene, &ended);
    paper.output(Stream::Stdout, b"all").roll();
    paper.exit(Exit::Code(0));
    let lost = scene.claimed("s2", "echo never");
    let mut paper = Paper::started(&scene, &lost);
    paper.output(Stream::Stdout, b"all").roll();
    let mut client = scene.start();
    for claim in [&ended, &lost] {
        client.finished(&job(claim));
        assert_eq!(client.whole(&job(claim)).bytes, b"all");
    }
    shim::until("the spool is tidy", || {
        scene.spool() == ["1.1.0.seg", "2.1.0.seg"]
    });
    let rows = "SELECT job || '.' || attempt || '.' || first_offset || '.seg' FROM segments";
    assert_eq!(scene.rows(rows), "1.1.0.seg 2.1.0.seg");
}

fn void_at() -> cc_executor::job::Micros {
    cc_executor::job::Micros(AT_US)
}

/// The facts that stand in the exit records above.
fn shim_facts(job: i64) -> cc_executor::job::ExitFacts {
    cc_executor::job::ExitFacts {
        exit: Exit::Code(0),
        started_at_us: Some(AT_US),
        ended_at_us: AT_US + 1,
        stop: None,
        leaked: 0,
        survivors: Vec::new(),
        usage: cc_executor::job::Usage::default(),
        end_offset: if job == 1 { 4 } else { 7 },
        dropped: cc_executor::job::Dropped::default(),
    }
}

#[test]
fn shims_that_are_killed_while_they_start_leave_nothing_and_are_replaced() {
    let server = Server::start();
    let shims = server.data_dir().join("shims");
    let ids = || -> Vec<String> {
        let entries = fs::read_dir(&shims).expect("shims");
        let names = entries.map(|e| e.expect("entry").file_name().into_string());
        let mut ids: Vec<String> = names
            .filter_map(|name| Some(name.ok()?.split_once('.')?.0.to_owned()))
            .collect();
        ids.sort();
        ids.dedup();
        ids
    };
    // Whoever shows up is killed at once, at whatever point of its start it is.
    let mut killed: Vec<String> = Vec::new();
    shim::until("many have been killed", || {
        for id in ids() {
            for pid in with_word(&id) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if !killed.contains(&id) {
                killed.push(id);
            }
        }
        killed.len() >= 20
    });
    shim::until("no trace of them is left", || {
        ids().iter().all(|id| !killed.contains(id))
    });
    let mut client = server.connect();
    let next = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&next)["state"], "succeeded");
}

#[test]
fn a_lock_that_a_dying_server_still_holds_is_waited_for() {
    let mut scene = Scene::new();
    let path = scene.layout.lock();
    let file = fs::File::create(&path).expect("the lock");
    let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("taken");
    let data_dir = scene.layout.root().display().to_string();
    // Given back once the new server has opened it, and so has found it taken.
    let holder = thread::spawn(move || {
        shim::until("the server wants the lock", || {
            let pids = with_word(&data_dir).into_iter();
            pids.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
                .flatten()
                .any(|fd| fd.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|l| l == path)))
        });
        drop(held);
    });
    let mut client = scene.start();
    holder.join().expect("the lock was wanted");
    client.still_works();
}
