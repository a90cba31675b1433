//! One run with one blow or error in it, then recovery and every check: the core scenario, or a start that
//! finds what a killed server has left.
//! Does not know which points there are.

use serde_json::{Value, json};

use crate::{
    checks::assert_tidy,
    plan::Plan,
    point::Point,
    remains,
    scene::Scene,
    seen::{Fate, Seen},
    strike::Aim,
};

/// Who is struck, and in which scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The server, from its first start on an empty data directory to a planned stop.
    Server,
    /// Its shims, while it lives.
    Shim,
    /// A server that finds jobs that run, have ended, and have lost their shim.
    Heir,
}

impl Victim {
    /// The fixture's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Server | Self::Heir => "server",
            Self::Shim => "shim",
        }
    }
}

/// What is done to the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// It is killed.
    Blow,
    /// One of its calls returns an error, once or for a while, and it goes on.
    Error,
}

impl By {
    /// The fixture's word for the calls that are its points.
    fn word(self) -> &'static str {
        match self {
            Self::Blow => "lasting",
            Self::Error => "fallible",
        }
    }

    /// Whether the value of `CC_SWEEP` asks for the others only.
    pub fn is_left_out_of(self, which: &str) -> bool {
        match self {
            Self::Blow => which == "errors",
            Self::Error => which == "blows",
        }
    }

    /// Whether the value of `CC_SWEEP` asks for all of its points.
    pub fn is_all_of(self, which: &str) -> bool {
        match self {
            Self::Blow => which == "all" || which == "blows",
            Self::Error => which == "all" || which == "errors",
        }
    }
}

/// What may become of a job whose shim is struck. Rust aborts a process that has no memory for the
/// signal stack of a new thread: that is a kill.
fn fate_of_a_shim(by: By, point: Option<&Point>) -> Fate {
    match by {
        By::Error if !point.is_some_and(Point::takes_memory) => Fate::Exact,
        By::Error | By::Blow => Fate::ExactOrLost,
    }
}

/// What a run has shown.
pub struct Told {
    /// The calls of the traced server.
    pub report: String,
    /// Whether the point was reached.
    pub struck: bool,
    /// How many jobs the blow has cost.
    pub lost: usize,
}

/// Runs a scenario; panics where something is not as it must be.
pub fn run(victim: Victim, by: By, point: Option<&Point>) -> Told {
    let aim = Aim {
        target: victim.word(),
        calls: by.word(),
        point,
    };
    let mut scene = Scene::new();
    let mut seen = match victim {
        Victim::Server => core(&mut scene, Fate::Exact, aim),
        Victim::Shim => core(&mut scene, fate_of_a_shim(by, point), aim),
        Victim::Heir => remains::inherit(&mut scene, aim),
    };
    if by == By::Error {
        let killed = scene.submit_and_kill(&Plan::KILLED);
        seen.push(Seen::to_the_end(
            &mut scene,
            Plan::KILLED,
            killed,
            Fate::Killed,
        ));
    }
    let deleted = seen[0].id.clone();
    scene.delete(&deleted);
    let (report, struck) = scene.recover();
    scene.assert_gone(&deleted);
    for kept in &seen[1..] {
        let again = scene.follow(&kept.id);
        assert_eq!(again.bytes, kept.shown.bytes, "shown once, shown for ever");
        assert_eq!(again.end, kept.shown.end, "a final job does not change");
    }
    let next = scene.submit(&Plan::NEXT);
    seen.push(Seen::to_the_end(&mut scene, Plan::NEXT, next, Fate::Exact));
    assert_listed(&mut scene, &seen[1..]);
    for kept in &seen[1..] {
        scene.assert_intact(&kept.id);
    }
    scene.stop();
    if !point.is_some_and(Point::takes_memory) {
        scene.assert_no_panic();
    }
    assert_tidy(&mut scene.server);
    seen.iter().for_each(|seen| seen.check(&scene));
    let lost = seen.iter().filter(|seen| seen.is_struck()).count();
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

/// Submit, run, output, finish: a job whose output goes into rows, and one of two segments.
fn core(scene: &mut Scene, fate: Fate, aim: Aim<'_>) -> Vec<Seen> {
    scene.begin(aim);
    [Plan::SMALL, Plan::LARGE]
        .map(|plan| {
            let id = scene.submit(&plan);
            Seen::to_the_end(scene, plan, id, fate)
        })
        .into()
}

/// The server knows these jobs, and no others.
#[track_caller]
fn assert_listed(scene: &mut Scene, seen: &[Seen]) {
    let list = scene.call("job.list", json!({})).expect("a list");
    let jobs = list["jobs"].as_array().expect("jobs").iter();
    let ids: Vec<&Value> = jobs.map(|job| &job["id"]).rev().collect();
    let known: Vec<&Value> = seen.iter().map(|seen| &seen.id).collect();
    assert_eq!(ids, known);
}
