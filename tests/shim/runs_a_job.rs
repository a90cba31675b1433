//! A job runs, both streams are stored exactly, and its exit is told and recorded.

use cc_executor::{
    job::{JobState, Reason, Stream},
    spool::{Kind, ShimState, record::StartPayload},
};

use crate::harness::{Shim, code, shell};

#[test]
fn both_streams_are_stored_and_the_exit_is_told() {
    let shim = Shim::start();
    let (mut server, state) = shim.hello(1);
    assert_eq!(state, ShimState::Idle);
    server.run(shell("printf out; printf err >&2; exit 3"));
    let pid = server.started();
    let facts = server.exited();
    assert_eq!(facts.exit, code(3));
    assert_eq!(facts.outcome(), (JobState::Failed, Some(Reason::ExitCode)));
    assert_eq!(facts.end_offset, 6);
    assert_eq!((facts.leaked, facts.stop.is_none()), (0, true));
    assert_eq!(shim.output(Stream::Stdout), b"out");
    assert_eq!(shim.output(Stream::Stderr), b"err");
    assert_eq!(shim.exit_record(), Some(facts));

    let records = shim.records(1, 1);
    assert_eq!(records[0].header.kind, Kind::Intent);
    assert_eq!(records[1].header.kind, Kind::Start);
    let start = StartPayload::from_bytes(&records[1].payload).expect("start");
    assert_eq!(start.pid, pid);
    assert!(start.start_ticks > 0);
}
