//! An order that is late: it names an attempt that has ended, and must not reach the next one that the
//! same shim runs.

use std::time::Duration;

use cc_executor::{
    job::{StopCause, StopRequest},
    spool::{AttemptRef, FromShim, ShimState, ToShim},
};

use crate::harness::{Server, Shim, code, is_alive, shell, spec, state_of};

/// So long nothing is heard of a shim that ignores an order.
const STILL: Duration = Duration::from_millis(200);

/// A shim that has run attempt 1, and runs attempt 2 of the same job.
fn at_its_second(shim: &Shim, line: &str) -> (Server, i32) {
    let (mut server, _) = shim.hello(1);
    server.run(spec(&["true"]));
    assert_eq!(server.exited().exit, code(0));
    let mut second = shell(line);
    second.attempt = 2;
    server.run(second);
    let leader = server.started();
    (server, leader)
}

fn all_orders(about: AttemptRef) -> Vec<ToShim> {
    let wish = |cause| StopRequest {
        by: "test".into(),
        cause,
        asked_at_us: 1,
        grace_ms: 0,
    };
    let stop = |cause| ToShim::Stop {
        about,
        request: wish(cause),
    };
    vec![
        ToShim::Signal { about, signal: 15 },
        ToShim::Signal { about, signal: 9 },
        ToShim::Pause { about },
        stop(StopCause::Cancel),
        stop(StopCause::Kill),
        ToShim::Arm { about, offset: 0 },
    ]
}

#[test]
fn an_order_for_the_attempt_before_does_not_reach_the_next() {
    let shim = Shim::start();
    let (mut server, leader) = at_its_second(&shim, "echo up; exec sleep 600");
    for order in all_orders(AttemptRef::attempt(1, 1)) {
        server.send(&order);
    }
    // Of another job likewise.
    for order in all_orders(AttemptRef::attempt(2, 2)) {
        server.send(&order);
    }
    assert!(server.receive_within(STILL).is_err(), "nothing is answered");
    assert!(is_alive(leader) && state_of(leader) != Some('T'));
    let state = server.hello(1);
    assert!(
        matches!(
            state,
            ShimState::Running {
                attempt: 2,
                paused: false,
                stop: None,
                ..
            }
        ),
        "{state:?}"
    );
}

#[test]
fn what_is_told_names_its_attempt() {
    let shim = Shim::start();
    let (mut server, _) = at_its_second(&shim, "echo up; exec sleep 600");
    let about = AttemptRef::attempt(1, 2);
    let mut answer_to = |order: &ToShim| {
        server.send(order);
        server.wait_for("an answer", FromShim::about)
    };
    let orders = all_orders(about);
    assert_eq!(answer_to(&orders[5]), about, "grew");
    assert_eq!(answer_to(&orders[2]), about, "paused");
    assert_eq!(answer_to(&ToShim::Resume { about }), about, "resumed");
    assert_eq!(answer_to(&orders[4]), about, "stopping");
    server.exited();
}

#[test]
fn an_order_that_names_no_attempt_is_for_the_one_that_runs() {
    let shim = Shim::start();
    let (mut server, _) = at_its_second(&shim, "exec sleep 600");
    server.send(&all_orders(AttemptRef::default())[4]);
    server.exited();
}
