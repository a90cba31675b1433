//! A shim lives and does not answer: its job is left as it is until it answers or dies.

use cc_executor::{job::Stream, spool::RecordKind};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    harness::Frozen,
    scene::{Scene, job},
    shim::{self, state_of},
};

#[test]
fn a_stopped_shim_is_let_go_on_and_keeps_its_job() {
    let mut scene = Scene::new();
    let line = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let claim = scene.started_in("s1", line);
    let shim = scene.shim("s1");
    shim::until("the job is ready", || {
        shim.output(Stream::Stdout) == b"ready\n"
    });
    shim.signal(Signal::SIGSTOP);
    shim::until("the shim has stopped", || state_of(shim.pid()) == Some('T'));
    let mut client = scene.start();
    let asked = job(&claim);
    client.control(&asked, "cancel");
    let end = client.finished(&asked);
    assert_eq!(
        (&end["state"], &end["exit_code"]),
        (&json!("cancelled"), &json!(7))
    );
}

#[test]
fn a_frozen_shim_keeps_its_job_and_is_adopted_when_it_goes_on() {
    let mut scene = Scene::new();
    let gate = scene.server.scratch("gate");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.01; done; echo behind",
        gate.display()
    );
    let claim = scene.started_in("s1", &line);
    let shim = scene.shim("s1");
    shim::until("its first words are stored", || {
        shim.output(Stream::Stdout) == b"before\n"
    });
    let Some(frozen) = Frozen::process(shim.pid()) else {
        return;
    };
    let mut client = scene.start();
    let asked = job(&claim);
    assert_eq!(client.get(&asked)["state"], "running");
    // What is stored is readable although nobody answers.
    let read = client.ok("job.read", json!({"job": asked["id"], "from": 0}));
    assert_eq!(read["next_offset"], 7);
    // Others are not held up, and while they run nothing happens to this one.
    for _ in 0..3 {
        let other = client.submit(json!({"argv": ["true"]}));
        assert_eq!(client.finished(&other)["state"], "succeeded");
    }
    assert!(scene.attempts().starts_with("1.1:claimed 2.1:ended"));
    std::fs::write(&gate, b"").expect("the gate");
    drop(frozen);
    let transcript = client.whole(&asked);
    assert_eq!(transcript.bytes, b"before\nbehind\n");
    let end = transcript.verified();
    assert_eq!(
        (&end["state"], &end["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
}

#[test]
fn a_wish_for_a_job_whose_shim_does_not_answer_waits_for_it() {
    let mut scene = Scene::new();
    let claim = scene.started_in(
        "s1",
        "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
    );
    let shim = scene.shim("s1");
    shim::until("the job is ready", || {
        shim.output(Stream::Stdout) == b"ready\n"
    });
    let Some(frozen) = Frozen::process(shim.pid()) else {
        return;
    };
    let mut client = scene.start();
    let asked = job(&claim);
    client.control(&asked, "cancel");
    assert_eq!(client.get(&asked)["state"], "running");
    drop(frozen);
    let end = client.finished(&asked);
    assert_eq!(
        (&end["state"], &end["exit_code"]),
        (&json!("cancelled"), &json!(7))
    );
}

#[test]
fn a_frozen_shim_that_is_killed_is_rescued_without_a_restart() {
    let mut scene = Scene::new();
    let claim = scene.started_in("s1", "echo before; sleep 1000");
    let shim = scene.shim("s1");
    shim::until("its first words are stored", || {
        shim.output(Stream::Stdout) == b"before\n"
    });
    let Some(frozen) = Frozen::process(shim.pid()) else {
        return;
    };
    let mut client = scene.start();
    assert_eq!(client.get(&job(&claim))["state"], "running");
    scene.kill_shim("s1");
    drop(frozen);
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"before\n");
    assert_eq!(transcript.verified()["reason"], "lost");
}

#[test]
fn an_older_server_is_not_heard_and_takes_nothing_away() {
    let mut scene = Scene::new();
    let gate = scene.server.scratch("gate");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; echo hello; exit 6",
        gate.display()
    );
    let claim = scene.started_in("s1", &line);
    // A newer server has been here, as before a backup was restored.
    let (mut newer, _) = scene.shim("s1").hello(100);
    let mut client = scene.start();
    let asked = job(&claim);
    // It hears of the end, and the older one does not.
    std::fs::write(&gate, b"").expect("the gate");
    newer.exited();
    assert_eq!(scene.last_record(), Some(RecordKind::Exit));
    assert_eq!(client.get(&asked)["state"], "running");
    assert_eq!(scene.attempts(), "1.1:claimed");
    // Once the shim is gone its record speaks.
    scene.kill_shim("s1");
    let transcript = client.whole(&asked);
    assert_eq!(transcript.bytes, b"hello\n");
    assert_eq!(transcript.verified()["exit_code"], 6);
}
