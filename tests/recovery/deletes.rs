//! A deletion that was killed between its commit and the unlinking of the files.

use cc_executor::{
    job::{Exit, ExitFacts, JobRef, Stream, Usage},
    store::{Deleted, Fenced},
    supervisor::{AttemptEnding, AttemptWatch, finalize},
};

use crate::{
    paper::{AT_US, Paper},
    scene::{Scene, job},
    shim,
};

#[test]
fn files_of_deleted_jobs_go_with_the_next_start() {
    let mut scene = Scene::new();
    let mut claims = Vec::new();
    for shim in ["s1", "s2"] {
        let claim = scene.claimed(shim, "echo never");
        let mut paper = Paper::started(&scene, &claim);
        paper.output(Stream::Stdout, b"one ").roll();
        paper.output(Stream::Stdout, b"two");
        paper.exit(Exit::Code(0));
        let facts = Box::new(ExitFacts {
            exit: Exit::Code(0),
            started_at_us: Some(AT_US),
            ended_at_us: AT_US + 1,
            stop: None,
            leaked: 0,
            dropped: Default::default(),
            survivors: Vec::new(),
            usage: Usage::default(),
            end_offset: 7,
        });
        let (watch, synced) = (AttemptWatch::of_claim(&claim), true);
        let finalized = finalize(
            &scene.layout.spool(),
            1 << 18,
            watch,
            AttemptEnding::Known { facts, synced },
        );
        let finished = scene.wait(scene.store().finish(finalized.expect("finalized").finish));
        assert_eq!(finished, Ok(Fenced::Applied));
        claims.push(claim);
    }
    let deleted = scene.wait(scene.store().delete(JobRef::Number(1)));
    assert!(matches!(deleted, Ok(Deleted::Done(_))), "{deleted:?}");
    assert_eq!(scene.spool().len(), 4);
    let mut client = scene.start();
    shim::until("the spool is tidy", || {
        scene.spool() == ["2.1.0.seg", "2.1.4.seg"]
    });
    let gone = serde_json::json!({"job": claims[0].id.to_string()});
    client.refused(-32003, "job.get", gone);
    assert_eq!(client.whole(&job(&claims[1])).bytes, b"one two");
    let next = client.submit(serde_json::json!({"argv": ["true"]}));
    assert_eq!(next["number"], 3);
}
