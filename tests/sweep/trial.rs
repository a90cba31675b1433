//! One run of the core scenario: submit, run, output, finish, tidy up, with one blow in it; then
//! recovery and every check.
//! Does not know which points there are.

use serde_json::{Value, json};

use crate::{
    checks::{assert_legal, assert_tidy, noted},
    harness::Transcript,
    plan::Plan,
    point::Point,
    scene::Scene,
};

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The server, from its first start on an empty data directory to a planned stop.
    Server,
    /// Its shims, while it lives.
    Shim,
}

impl Victim {
    /// The fixture's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Shim => "shim",
        }
    }

    #[track_caller]
    fn check(self, plan: &Plan, transcript: &Transcript) {
        match self {
            Self::Server => plan.check_exact(transcript),
            Self::Shim => plan.check_exact_or_lost(transcript),
        }
    }
}

/// What a run has shown.
pub struct Told {
    /// The calls of the traced server.
    pub report: String,
    /// Whether the point was reached.
    pub struck: bool,
    /// How many jobs were lost.
    pub lost: usize,
}

/// Runs the scenario; panics where something is not as it must be.
pub fn run(victim: Victim, point: Option<&Point>) -> Told {
    let mut scene = Scene::new();
    scene.begin(victim.word(), point);
    let small = scene.submit(&Plan::SMALL);
    let small_shown = scene.follow(&small);
    let large = scene.submit(&Plan::LARGE);
    let large_shown = scene.follow(&large);
    scene.delete(&small);
    let (report, struck) = scene.recover();
    scene.assert_gone(&small);
    let large_kept = scene.follow(&large);
    assert_eq!(
        large_kept.bytes, large_shown.bytes,
        "shown once, shown for ever"
    );
    assert_eq!(
        large_kept.end, large_shown.end,
        "a final job does not change"
    );
    let next = scene.submit(&Plan::NEXT);
    let next_shown = scene.follow(&next);
    let list = scene.call("job.list", json!({})).expect("a list");
    let ids: Vec<&Value> = list["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| &job["id"])
        .collect();
    assert_eq!(ids, [&next, &large], "nobody submitted others");
    scene.stop();

    victim.check(&Plan::SMALL, &small_shown);
    victim.check(&Plan::LARGE, &large_shown);
    Plan::NEXT.check_exact(&next_shown);
    assert_tidy(&mut scene.server);
    let mut lost = 0;
    for (plan, shown) in [
        (Plan::SMALL, &small_shown),
        (Plan::LARGE, &large_shown),
        (Plan::NEXT, &next_shown),
    ] {
        let job = shown.end.as_ref().expect("final");
        assert_legal(&scene.server, job);
        let noted = noted(&scene.ledger, plan.seed);
        match job["reason"] == "lost" {
            true => assert!(noted.0 <= 1 && noted.1 <= 1, "{noted:?} of {job}"),
            false => assert_eq!(noted, (1, 1), "starts and ends of {job}"),
        }
        lost += usize::from(job["reason"] == "lost");
    }
    assert!(
        lost <= usize::from(struck),
        "{lost} jobs are lost by one blow"
    );
    Told {
        report,
        struck,
        lost,
    }
}
