//! The two timeouts: run time, and time without output.

use std::time::{Duration, Instant};

use cc_executor::job::{JobState, Reason, StopCause, Stream};

use crate::harness::{Shim, code, shell};

#[test]
fn a_job_that_runs_too_long_is_stopped() {
    let shim = Shim::start();
    let mut spec = shell("trap 'echo asked; exit 7' TERM; while :; do echo on; sleep 0.05; done");
    spec.timeout_ms = Some(300);
    let begun = Instant::now();
    let facts = shim.run_to_end(spec);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(facts.exit, code(7));
    assert_eq!(facts.outcome(), (JobState::Failed, Some(Reason::Timeout)));
    let stop = facts.stop.expect("a stop");
    assert_eq!((stop.by.as_str(), stop.cause), ("shim", StopCause::Timeout));
    assert_eq!(
        (stop.signals, stop.killed),
        (vec!["SIGTERM".to_owned()], false)
    );
    assert!(shim.output(Stream::Stdout).ends_with(b"asked\n"));
}

#[test]
fn a_job_that_is_silent_too_long_is_stopped() {
    let shim = Shim::start();
    let mut spec = shell("for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done; exec sleep 600");
    spec.stall_timeout_ms = Some(800);
    let begun = Instant::now();
    let facts = shim.run_to_end(spec);
    // It spoke for longer than the bound, so the silence behind that was what counted.
    assert!(begun.elapsed() >= Duration::from_millis(1800));
    assert_eq!(facts.outcome(), (JobState::Failed, Some(Reason::Stalled)));
    assert_eq!(shim.output(Stream::Stdout), b"1\n2\n3\n4\n5\n6\n");
}
