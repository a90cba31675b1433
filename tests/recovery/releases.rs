//! The end is committed and the shim does not know it: the next server says so, and the shim
//! takes work again.

use cc_executor::{
    job::{ExitFacts, JobRef},
    store::{ClaimedJob, Deleted, Fenced},
    supervisor::{AttemptEnding, AttemptWatch, Finalized, finalize},
};

use serde_json::json;

use crate::scene::{Scene, job};

/// Runs a job to its end in `s1` with a server that dies before it can acknowledge it.
fn ended(scene: &mut Scene) -> (ClaimedJob, ExitFacts) {
    let claim = scene.claimed("s1", "echo hello");
    let spec = scene.spec(&claim);
    let (mut old, _) = scene.start_shim("s1").hello(1);
    old.run(spec);
    (claim, old.exited())
}

/// Commits the end as the old server did; nothing is unlinked.
fn commit(scene: &Scene, claim: &ClaimedJob, facts: ExitFacts) -> Finalized {
    let watch = AttemptWatch::of_claim(claim);
    let ending = AttemptEnding::Known {
        facts: Box::new(facts),
        synced: false,
    };
    let finalized = finalize(&scene.layout.spool(), 1 << 18, watch, ending).expect("finalized");
    let finished = scene.wait(scene.store().finish(finalized.finish.clone()));
    assert_eq!(finished, Ok(Fenced::Applied));
    finalized
}

#[test]
fn a_committed_end_is_acknowledged_by_the_next_server() {
    let mut scene = Scene::new();
    let (claim, facts) = ended(&mut scene);
    commit(&scene, &claim, facts);
    scene.submit_crowd();
    let mut client = scene.start();
    scene.assert_gets_work("s1");
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"hello\n");
    assert_eq!(transcript.verified()["attempts"], 1);
}

#[test]
fn a_shim_may_still_hold_the_end_of_a_job_that_was_deleted() {
    let mut scene = Scene::new();
    let (claim, facts) = ended(&mut scene);
    commit(&scene, &claim, facts);
    let deleted = scene.wait(scene.store().delete(JobRef::Number(claim.number)));
    assert!(matches!(deleted, Ok(Deleted::Done(_))), "{deleted:?}");
    scene.submit_crowd();
    let mut client = scene.start();
    scene.assert_gets_work("s1");
    client.refused(-32003, "job.get", json!({"job": claim.number}));
    assert_eq!(
        scene.rows("SELECT number || '' FROM jobs WHERE number = 1"),
        ""
    );
}

#[test]
fn a_shim_with_an_old_end_was_claimed_for_the_next_job() {
    let mut scene = Scene::new();
    let ledger = scene.server.scratch("ledger");
    let (first, facts) = ended(&mut scene);
    commit(&scene, &first, facts);
    // Claimed with the end's commit; the server was killed before it could send the run.
    let next = scene.claimed("s1", &format!("echo ran >>{}", ledger.display()));
    scene.submit_crowd();
    let mut client = scene.start();
    assert_eq!(client.finished(&job(&next))["attempts"], 1);
    let ran = std::fs::read_to_string(&ledger).expect("it ran");
    assert_eq!(ran, "ran\n");
    let attempts = scene.rows("SELECT attempt || ':' || state FROM attempts WHERE job = 2");
    assert_eq!(attempts, "1:void 2:ended");
    assert_eq!(client.whole(&job(&first)).verified()["state"], "succeeded");
    scene.assert_gets_work("s1");
}

#[test]
fn a_shim_had_the_next_job_already() {
    let mut scene = Scene::new();
    let (first, facts) = ended(&mut scene);
    commit(&scene, &first, facts);
    let next = scene.claimed("s1", "echo next; sleep 1000");
    let spec = scene.spec(&next);
    let (mut old, _) = scene.shim("s1").hello(1);
    old.run(spec);
    old.started();
    drop(old);
    let mut client = scene.start();
    assert_eq!(client.started(&job(&next))["state"], "running");
    client.control(&job(&next), "kill");
    let transcript = client.whole(&job(&next));
    assert_eq!(transcript.verified()["state"], "cancelled");
    assert_eq!(scene.attempts(), "1.1:ended 2.1:ended");
}
