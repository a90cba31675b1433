//! A shim that answers is believed, and what was wished before is wished again.

use cc_executor::{
    job::{JobRef, Micros, StopCause, Stream},
    spool::{AttemptRef, FromShim, ToShim},
    store::PauseRequested,
};
use serde_json::{Value, json};

use crate::{
    paper::Paper,
    scene::{Scene, job},
    shim,
};

/// A line of shell that ends at TERM with exit code 7, once it has said that it is ready.
const ENDS_AT_TERM: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";

/// The same for one that does not.
const IGNORES_TERM: &str = "trap '' TERM; echo ready; while :; do sleep 0.01; done";

/// Waits until the job in `s1` has said that it is ready.
fn ready(scene: &mut Scene) {
    let shim = scene.shim("s1");
    shim::until("the job is ready", || {
        shim.output(Stream::Stdout).starts_with(b"ready\n")
    });
}

#[test]
fn a_start_that_no_server_had_entered_is_entered_as_it_was() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo $$; sleep 1000");
    let spec = scene.spec(&claim);
    let (mut old, _) = scene.start_shim("s1").hello(1);
    old.run(spec);
    let told = old.wait_for("the start", |message| match message {
        FromShim::Started {
            pid,
            start_ticks,
            started_at_us,
            ..
        } => Some(format!("{pid} {start_ticks} {started_at_us}")),
        _ => None,
    });
    drop(old);
    let mut client = scene.start();
    assert!(client.started(&job(&claim))["started_at"].is_string());
    let entered = scene.rows(
        "SELECT pid || ' ' || start_ticks || ' ' || started_at FROM attempts WHERE state = 'started'",
    );
    assert_eq!(entered, told);
}

#[test]
fn an_attempt_that_waits_for_room_has_not_started() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo hello");
    // Of an attempt that there never was: the server tidies it away, and with it goes what is waited for.
    let hog = scene.layout.spool().join("1.9.0.seg");
    std::fs::write(&hog, [0; 1 << 17]).expect("a file");
    let mut spec = scene.spec(&claim);
    spec.spool_bytes_max = Some(1 << 16);
    let (mut old, _) = scene.start_shim("s1").hello(1);
    old.run(spec);
    old.wait_for("that it waits", |message| match message {
        FromShim::Waiting { waiting: true, .. } => Some(()),
        _ => None,
    });
    drop(old);
    let mut client = scene.start();
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"hello\n");
    let end = transcript.verified();
    assert_eq!(end["state"], "succeeded");
    assert!(!hog.exists());
    let at = |key: &str| end[key].as_str().map(str::to_owned);
    assert!(at("started_at") > at("submitted_at"), "{end}");
    let sane = scene.rows("SELECT (pid > 0 AND start_ticks > 0) || '' FROM attempts");
    assert_eq!(sane, "1");
}

#[test]
fn a_cancel_that_was_not_sent_is_sent() {
    let mut scene = Scene::new();
    let claim = scene.started_in("s1", ENDS_AT_TERM);
    ready(&mut scene);
    scene.wish(&claim, StopCause::Cancel, 60_000);
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["exit_code"], 7);
    assert_eq!(end["stop"]["by"], "test");
    assert_eq!(end["stop"]["signals"], json!(["SIGTERM"]));
    assert_eq!(end["attempts"], 1);
}

#[test]
fn a_kill_that_was_not_sent_is_not_weakened_by_a_cancel() {
    let mut scene = Scene::new();
    let claim = scene.started_in("s1", IGNORES_TERM);
    ready(&mut scene);
    scene.wish(&claim, StopCause::Kill, 0);
    scene.wish(&claim, StopCause::Cancel, 1_000_000);
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["signal"], "SIGKILL");
    assert_eq!(end["stop"]["cause"], "kill");
}

#[test]
fn a_pause_that_was_not_sent_is_sent_and_can_be_taken_back() {
    let mut scene = Scene::new();
    let line = "echo ready; while :; do echo tick; sleep 0.01; done";
    let claim = scene.started_in("s1", line);
    ready(&mut scene);
    let asked = JobRef::Number(claim.number);
    let at = Micros(3_000_000);
    let wished = scene.wait(
        scene
            .store()
            .request_pause(asked, true, "test".to_owned(), at),
    );
    assert!(
        matches!(wished, Ok(PauseRequested::ToShim { .. })),
        "{wished:?}"
    );
    let mut client = scene.start();
    let asked = job(&claim);
    shim::until("the job is paused", || {
        client.get(&asked)["state"] == "paused"
    });
    let before = client.get(&asked)["output_bytes"].clone();
    client.control(&asked, "resume");
    shim::until("the job goes on", || {
        let now = client.get(&asked);
        now["state"] == "running" && now["output_bytes"].as_u64() > before.as_u64()
    });
}

#[test]
fn a_pause_that_was_taken_back_unheard_ends() {
    let mut scene = Scene::new();
    let line = "echo ready; while :; do echo tick; sleep 0.01; done";
    let claim = scene.claimed("s1", line);
    let spec = scene.spec(&claim);
    let (mut old, _) = scene.start_shim("s1").hello(1);
    old.run(spec);
    old.started();
    ready(&mut scene);
    old.send(&ToShim::Pause {
        about: AttemptRef::default(),
    });
    old.wait_for("the pause", |message| {
        matches!(message, FromShim::Paused { .. }).then_some(())
    });
    // The tree has been stopped, nobody entered it, and nobody wishes it any more.
    drop(old);
    let mut client = scene.start();
    let asked = job(&claim);
    let before = client.get(&asked)["output_bytes"].as_u64();
    shim::until("the job goes on", || {
        client.get(&asked)["output_bytes"].as_u64() > before
    });
    assert_eq!(client.get(&asked)["state"], "running");
}

#[test]
fn a_wish_that_comes_behind_the_exit_changes_nothing() {
    let mut scene = Scene::new();
    let living = scene.claimed("s1", "echo done");
    let spec = scene.spec(&living);
    let (mut old, _) = scene.start_shim("s1").hello(1);
    old.run(spec);
    old.exited();
    drop(old);
    let dead = scene.claimed("s2", "echo never");
    let mut paper = Paper::started(&scene, &dead);
    paper.output(Stream::Stdout, b"done\n");
    paper.exit(cc_executor::job::Exit::Code(0));
    for claim in [&living, &dead] {
        scene.wish(claim, StopCause::Cancel, 1000);
    }
    let mut client = scene.start();
    for claim in [&living, &dead] {
        let end = client.finished(&job(claim));
        assert_eq!(end["state"], "succeeded");
        assert_eq!(end["exit_code"], 0);
        assert_eq!(end["stop"], Value::Null);
        assert_eq!(client.whole(&job(claim)).bytes, b"done\n");
    }
}
