//! A job runs, both streams are stored exactly, and its exit is told and recorded.

use cc_executor::{
    job::{JobState, Reason, Stream},
    spool::{RecordKind, ShimState, record::StartPayload},
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
    assert_eq!(records[0].header.kind, RecordKind::Intent);
    assert_eq!(records[1].header.kind, RecordKind::Start);
    let start = StartPayload::from_bytes(&records[1].payload).expect("start");
    assert_eq!(start.pid, pid);
    assert!(start.start_ticks > 0);
}

#[test]
fn all_bytes_arrive_as_they_were_written() {
    let shim = Shim::start();
    let file = shim.dir.path().join("random");
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(&file, &bytes).expect("write");
    let facts = shim.run_to_end(shell(&format!("cat {0}; cat {0} >&2", file.display())));
    assert_eq!(facts.exit, code(0));
    assert_eq!(facts.end_offset, 6_000_000);
    assert!(shim.output(Stream::Stdout) == bytes, "stdout differs");
    assert!(shim.output(Stream::Stderr) == bytes, "stderr differs");
}

#[test]
fn offsets_are_dense_and_begin_where_the_attempt_begins() {
    let shim = Shim::start();
    let mut second = shell("for i in 1 2 3 4 5; do echo $i; echo $i >&2; done");
    second.start_offset = 1000;
    second.attempt = 2;
    let (mut server, _) = shim.hello(1);
    server.run(second);
    assert_eq!(server.exited().end_offset, 1020);
    let mut offset = 1000;
    let first = cc_executor::spool::SegmentName {
        job: 1,
        attempt: 2,
        first_offset: 1000,
    };
    for record in shim.records_from(first) {
        assert_eq!(record.header.offset, offset);
        if record.header.kind == RecordKind::Output {
            offset += record.payload.len() as u64;
        }
    }
    assert_eq!(offset, 1020);
}

#[test]
fn a_signal_is_told_as_a_signal() {
    let shim = Shim::start();
    let facts = shim.run_to_end(shell("kill -KILL $$"));
    assert_eq!(facts.exit, cc_executor::job::Exit::Signal(9));
    assert_eq!(facts.outcome(), (JobState::Failed, Some(Reason::Signal)));
}

#[test]
fn a_real_time_signal_is_told_too() {
    let shim = Shim::start();
    let facts = shim.run_to_end(shell("kill -40 $$; sleep 60"));
    assert_eq!(facts.exit, cc_executor::job::Exit::Signal(40));
}

#[test]
fn the_kernels_count_is_told() {
    let shim = Shim::start();
    let facts = shim.run_to_end(shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"));
    assert!(facts.usage.user_s > 0.0, "{:?}", facts.usage);
    assert!(facts.usage.max_rss_bytes > 100_000, "{:?}", facts.usage);
}
