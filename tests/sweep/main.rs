//! The core scenario with the server, and separately its shims, killed at every call that leaves
//! something behind, and the same with a start that recovers: one run each, recovered and checked.
//! Then the same with an error at every call that can fail for want of something, instead of a death.
//! By default a sample of the points.
//!
//! `CC_SWEEP=all` takes every point (`blows`, `errors`: of these only), `CC_SWEEP_SEED` repeats a
//! sample, `CC_SWEEP_POINTS` says how many it has, `CC_SWEEP_ONLY` names a call,
//! `CC_SWEEP_FROM` the call at which a whole sweep goes on.

#[path = "../harness/mod.rs"]
mod harness;

mod checks;
mod plan;
mod planted;
mod point;
mod remains;
mod scene;
mod seen;
mod shortage;
mod strike;
mod sweep;
mod trial;

use trial::{By, Victim};

#[test]
fn a_server_killed_at_any_call_loses_nothing() {
    sweep::sweep(Victim::Server, By::Blow);
}

#[test]
fn a_shim_killed_at_any_call_tells_no_lie() {
    sweep::sweep(Victim::Shim, By::Blow);
}

#[test]
fn a_server_killed_while_it_recovers_loses_nothing() {
    sweep::sweep(Victim::Heir, By::Blow);
}

#[test]
fn an_error_at_any_call_of_a_server_costs_no_job() {
    sweep::sweep(Victim::Server, By::Error);
}

#[test]
fn an_error_at_any_call_of_a_shim_costs_no_job() {
    sweep::sweep(Victim::Shim, By::Error);
}

#[test]
fn an_error_at_any_call_of_a_recovering_server_costs_no_job() {
    sweep::sweep(Victim::Heir, By::Error);
}
