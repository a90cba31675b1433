//! An attempt that is proven never to have started counts nowhere, and its job runs once.

use std::{fs, path::Path};

use cc_executor::{
    job::StopCause,
    spool::{FromShim, ShimState, ToShim},
};
use serde_json::{Value, json};

use crate::{
    harness::{Client, Frozen},
    paper::Paper,
    scene::{Scene, job},
    shim,
};

/// A line of shell that leaves one line in `ledger` for every time it is run.
fn counted(ledger: &Path) -> String {
    format!("echo ran >>{}; echo hello", ledger.display())
}

/// The job has run exactly once, as attempt 2 that counts as the first.
fn assert_ran_once(scene: &Scene, client: &mut Client, job: &Value, ledger: &Path) {
    let transcript = client.whole(job);
    assert_eq!(transcript.bytes, b"hello\n");
    let end = transcript.verified();
    assert_eq!(end["state"], "succeeded");
    assert_eq!(end["attempts"], 1);
    assert_eq!(fs::read_to_string(ledger).expect("it ran"), "ran\n");
    assert_eq!(
        scene.rows(
            "SELECT coalesce(attempt, '-') || ':' || to_state FROM events WHERE job = 1 ORDER BY id"
        ),
        "-:queued 1:running 1:queued 2:running 2:succeeded"
    );
    let attempts = scene.rows("SELECT attempt || ':' || state FROM attempts WHERE job = 1");
    assert_eq!(attempts, "1:void 2:ended");
}

#[test]
fn claimed_and_not_sent_to_a_shim_that_lives() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    scene.start_shim("s1");
    let claim = scene.claimed("s1", &counted(&ledger));
    let mut client = scene.start();
    assert_ran_once(&scene, &mut client, &job(&claim), &ledger);
    // More than there can be other shims by now: new ones start while it is being rescued.
    for _ in 0..6 {
        let line = json!({"shell": "sleep 1000", "queue": "interactive"});
        client.submit(scene.server.marked(line));
    }
    scene.assert_gets_work("s1");
}

#[test]
fn claimed_and_the_shim_is_dead() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    scene.start_shim("s1");
    let claim = scene.claimed("s1", &counted(&ledger));
    scene.kill_shim("s1");
    let mut client = scene.start();
    assert_ran_once(&scene, &mut client, &job(&claim), &ledger);
    assert!(!scene.traces().iter().any(|name| name.starts_with("s1.")));
    // A shim that comes late with that attempt finds the right to start taken.
    let spec = scene.spec(&claim);
    let (mut late, state) = scene.start_shim("late").hello(9);
    assert_eq!(state, ShimState::Idle);
    late.run(spec);
    let refused = late.receive().expect("an answer");
    assert!(
        matches!(refused, FromShim::Refused { job, attempt: 1, .. } if job == claim.number),
        "{refused:?}"
    );
    late.send(&ToShim::Leave);
    scene.shim("late").wait();
    assert_eq!(fs::read_to_string(ledger).expect("it ran"), "ran\n");
}

#[test]
fn claimed_and_the_shim_never_was() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    let claim = scene.claimed("s1", &counted(&ledger));
    let mut client = scene.start();
    assert_ran_once(&scene, &mut client, &job(&claim), &ledger);
}

#[test]
fn a_rescue_that_was_killed_before_its_commit_goes_on() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    let claim = scene.claimed("s1", &counted(&ledger));
    let _ = Paper::intended(&scene, &claim, "rescue");
    let mut client = scene.start();
    assert_ran_once(&scene, &mut client, &job(&claim), &ledger);
}

#[test]
fn a_rescue_that_was_killed_over_its_draft_begins_again() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    let claim = scene.claimed("s1", &counted(&ledger));
    let draft = scene.layout.spool().join("1.1.0.seg.rescue");
    fs::write(&draft, b"half").expect("a draft");
    let mut client = scene.start();
    assert_ran_once(&scene, &mut client, &job(&claim), &ledger);
    shim::until("the draft is gone", || !draft.exists());
}

#[test]
fn a_wish_turns_an_attempt_that_never_was_into_a_cancelled_job() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    let claim = scene.claimed("s1", &counted(&ledger));
    scene.wish(&claim, StopCause::Cancel, 1000);
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["stop"]["cause"], "cancel");
    assert_eq!(end["attempts"], 0);
    assert_eq!(end["started_at"], Value::Null);
    assert_eq!(scene.attempts(), "1.1:void");
    assert!(!ledger.exists());
}

#[test]
fn an_order_of_the_dead_server_that_nobody_had_read() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    let (mut old, _) = scene.start_shim("s1").hello(1);
    let claim = scene.claimed("s1", &counted(&ledger));
    let shim = scene.shim("s1");
    let Some(frozen) = Frozen::process(shim.pid()) else {
        return;
    };
    old.run(scene.spec(&claim));
    let mut client = scene.start();
    assert_eq!(scene.attempts(), "1.1:claimed");
    drop(frozen);
    assert_ran_once(&scene, &mut client, &job(&claim), &ledger);
}
