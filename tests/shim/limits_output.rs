//! `output.max_bytes`: exactly that many bytes are stored, then the job is stopped.

use cc_executor::{
    job::{JobState, Reason, StopCause, Stream},
    spool::SegmentName,
};

use nix::sys::signal::Signal;

use crate::harness::{Shim, code, is_alive, shell, state_of, until};

#[test]
fn exactly_the_bound_is_stored() {
    let shim = Shim::start();
    let mut spec = shell("yes 0123456789");
    spec.output_bytes_max = Some(1_000_003);
    let facts = shim.run_to_end(spec);
    assert_eq!(
        facts.outcome(),
        (JobState::Failed, Some(Reason::OutputLimit))
    );
    let stop = facts.stop.expect("a stop");
    assert_eq!(
        (stop.by.as_str(), stop.cause),
        ("shim", StopCause::OutputLimit)
    );
    let stored = shim.output(Stream::Stdout);
    let mut expected = b"0123456789\n".repeat(1_000_003usize.div_ceil(11));
    expected.truncate(1_000_003);
    assert!(stored == expected, "{} bytes", stored.len());
    assert_eq!(facts.end_offset, 1_000_003);
}

#[test]
fn a_job_that_ends_with_more_in_the_pipe_has_failed_too() {
    let shim = Shim::start();
    let go = shim.dir.path().join("go");
    let mut spec = shell(&format!(
        "while [ ! -e {} ]; do sleep 0.01; done; printf 0123456789",
        go.display()
    ));
    spec.output_bytes_max = Some(9);
    let (mut server, _) = shim.hello(1);
    server.run(spec);
    let leader = server.started();
    // The shim sees the bytes only when the leader has exited.
    shim.signal(Signal::SIGSTOP);
    until("the shim has stopped", || state_of(shim.pid()) == Some('T'));
    std::fs::write(&go, "").expect("go");
    until("the leader has exited", || !is_alive(leader));
    shim.signal(Signal::SIGCONT);
    let facts = server.exited();
    assert_eq!(facts.exit, code(0));
    assert_eq!(
        facts.outcome(),
        (JobState::Failed, Some(Reason::OutputLimit))
    );
    assert_eq!(shim.output(Stream::Stdout), b"012345678");
}

#[test]
fn a_job_may_write_up_to_the_bound() {
    let shim = Shim::start();
    let mut spec = shell("printf 0123456789");
    spec.output_bytes_max = Some(10);
    let facts = shim.run_to_end(spec);
    assert_eq!(facts.outcome(), (JobState::Succeeded, None));
    assert_eq!(shim.output(Stream::Stdout), b"0123456789");
}

#[test]
fn earlier_attempts_count() {
    let shim = Shim::start();
    let mut spec = shell("printf 0123456789; exec sleep 600");
    spec.start_offset = 95;
    spec.attempt = 2;
    spec.output_bytes_max = Some(100);
    let facts = shim.run_to_end(spec);
    assert_eq!(facts.end_offset, 100);
    let first = SegmentName {
        job: 1,
        attempt: 2,
        first_offset: 95,
    };
    let records = shim.records_from(first);
    assert_eq!(records[2].payload, b"01234");
}
