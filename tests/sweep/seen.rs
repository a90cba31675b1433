//! A job that has ended, as a client has seen it, and what it may have become.
//! Does not know which blow fell.

use serde_json::Value;

use crate::{
    checks::{assert_legal, noted},
    harness::Transcript,
    plan::Plan,
    scene::Scene,
};

/// What may become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its plan, and nothing else.
    Exact,
    /// That, or lost: its shim may be struck.
    ExactOrLost,
    /// Its shim was killed before: it is lost.
    Lost,
    /// It was killed, as its client wished.
    Killed,
}

/// What is known of it.
pub struct Seen {
    /// What it was to do.
    plan: Plan,
    /// Its id.
    pub id: Value,
    /// What a tail has told.
    pub shown: Transcript,
    fate: Fate,
}

impl Seen {
    /// Follows an acknowledged job to its end.
    #[track_caller]
    pub fn to_the_end(scene: &mut Scene, plan: Plan, id: Value, fate: Fate) -> Self {
        let shown = scene.follow(&id);
        Self {
            plan,
            id,
            shown,
            fate,
        }
    }

    /// Whether the blow has cost it.
    pub fn is_struck(&self) -> bool {
        self.fate != Fate::Lost && self.is_lost()
    }

    fn is_lost(&self) -> bool {
        self.shown.verified()["reason"] == "lost"
    }

    /// Holds the end, the bytes, the steps to it and the job's own ledger to the fate.
    #[track_caller]
    pub fn check(&self, scene: &Scene) {
        let job = self.shown.verified();
        match (self.fate, self.is_lost()) {
            (Fate::Exact, _) | (Fate::ExactOrLost, false) => self.plan.check_exact(&self.shown),
            (Fate::Killed, _) => self.plan.check_killed(&self.shown),
            (Fate::Lost, _) | (Fate::ExactOrLost, true) => self.plan.check_lost(&self.shown),
        }
        assert_legal(&scene.server, job);
        let noted = noted(&scene.ledger, self.plan.seed);
        match (self.fate, self.is_lost()) {
            (Fate::Killed, _) => assert_eq!(noted, (1, 0), "starts and ends of {job}"),
            (_, true) => assert!(noted.0 <= 1 && noted.1 <= 1, "{noted:?} of {job}"),
            (_, false) => assert_eq!(noted, (1, 1), "starts and ends of {job}"),
        }
    }
}
