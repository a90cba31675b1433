//! The core scenario with the server, and separately its shims, killed at every call that leaves
//! something behind, and the same with a start that recovers: one run each, recovered and checked.
//! By default a sample of the points.
//!
//! `CC_SWEEP=all` takes every point, `CC_SWEEP_SEED` repeats a sample, `CC_SWEEP_ONLY` names a call.

#[path = "../harness/mod.rs"]
mod harness;

mod checks;
mod plan;
mod planted;
mod point;
mod remains;
mod scene;
mod seen;
mod strike;
mod sweep;
mod trial;

use trial::Victim;

#[test]
fn a_server_killed_at_any_call_loses_nothing() {
    sweep::sweep(Victim::Server);
}

#[test]
fn a_shim_killed_at_any_call_tells_no_lie() {
    sweep::sweep(Victim::Shim);
}

#[test]
fn a_server_killed_while_it_recovers_loses_nothing() {
    sweep::sweep(Victim::Heir);
}
