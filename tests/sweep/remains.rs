//! What a killed server leaves: a job that runs, one that has ended since, and one whose shim is
//! dead. Then a server that finds them, and the ends that they come to.
//! Does not know which blow falls on it.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    checks::{noted, noted_pid},
    harness::{is_alive, parent, until, until_true},
    plan::Plan,
    scene::Scene,
    seen::{Fate, Seen},
    strike::Aim,
};

/// Leaves them, starts the server that is to be struck, and follows all to their ends.
pub fn inherit(scene: &mut Scene, aim: Aim<'_>) -> Vec<Seen> {
    let [meanwhile, later] = ["meanwhile", "later"].map(|name| scene.server.scratch(name));
    scene.begin_unstruck();
    let ends = scene.submit_job(Plan::SMALL.gated_job(&scene.ledger, &meanwhile));
    let runs = scene.submit_job(Plan::LARGE.gated_job(&scene.ledger, &later));
    let lost = scene.submit_job(Plan::LOST.endless_job(&scene.ledger));
    scene.await_met(&ends, json!("running"));
    scene.await_met(&runs, json!("running"));
    scene.await_met(&lost, json!({"bytes": Plan::LOST.bytes()}));
    scene.kill_9();
    open(&meanwhile);
    until_true("a job without server to end", || {
        noted(&scene.ledger, Plan::SMALL.seed).1 == 1
    });
    kill_shim_of(scene, &Plan::LOST);
    scene.begin(aim);
    open(&later);
    [
        (Plan::SMALL, ends, Fate::Exact),
        (Plan::LARGE, runs, Fate::Exact),
        (Plan::LOST, lost, Fate::Lost),
    ]
    .map(|(plan, id, fate)| Seen::to_the_end(scene, plan, id, fate))
    .into()
}

fn open(gate: &std::path::Path) {
    std::fs::write(gate, "").expect("a gate");
}

#[track_caller]
fn kill_shim_of(scene: &Scene, plan: &Plan) {
    let leader = until("the job's note", || noted_pid(&scene.ledger, plan.seed));
    let shim = parent(leader).expect("it runs");
    kill(Pid::from_raw(shim), Signal::SIGKILL).expect("ours");
    until_true("the shim to be gone", || !is_alive(shim));
}
