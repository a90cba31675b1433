//! A shim is used again and again, and nothing of one job is left for the next.

use std::time::Instant;

use cc_executor::{
    job::Stream,
    spool::{Layout, RecordKind, SegmentName},
};

use crate::harness::{Shim, code, shell, spec};

const JOBS: i64 = 300;

fn descriptors(shim: &Shim) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", shim.pid()))
        .expect("fds")
        .count()
}

/// Memory of its own; the program's pages are shared by all shims.
fn own_kib(shim: &Shim) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", shim.pid())).expect("status");
    let line = status
        .lines()
        .find(|l| l.starts_with("RssAnon"))
        .expect("rss");
    line.split_whitespace()
        .nth(1)
        .expect("kib")
        .parse()
        .expect("number")
}

#[test]
fn nothing_is_left_between_jobs() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let mut after_first = 0;
    let begun = Instant::now();
    for job in 1..=JOBS {
        let mut spec = spec(&["echo", &job.to_string()]);
        spec.job = job;
        server.run(spec);
        let facts = server.exited();
        assert_eq!(facts.exit, code(0));
        assert_eq!(facts.end_offset, job.to_string().len() as u64 + 1);
        if job == 1 {
            after_first = descriptors(&shim);
        }
    }
    let rate = JOBS as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} jobs a second");
    assert_eq!(descriptors(&shim), after_first);
    assert!(own_kib(&shim) < 4 << 10, "{} KiB", own_kib(&shim));
    for job in 1..=JOBS {
        let name = SegmentName {
            job,
            attempt: 1,
            first_offset: 0,
        };
        let records = shim.records_from(name);
        let kinds: Vec<RecordKind> = records.iter().map(|r| r.header.kind).collect();
        assert_eq!(
            kinds,
            [
                RecordKind::Intent,
                RecordKind::Start,
                RecordKind::Output,
                RecordKind::Exit
            ]
        );
        assert_eq!(records[2].payload, format!("{job}\n").as_bytes());
    }
}

#[test]
fn a_data_directory_may_have_a_path_of_any_length() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut deep = dir.path().to_owned();
    for _ in 0..10 {
        deep.push("a-name-that-makes-paths-longer-than-a-socket-takes");
    }
    std::fs::create_dir_all(&deep).expect("mkdir");
    let inner = tempfile::tempdir_in(&deep).expect("tempdir");
    std::fs::create_dir(Layout::new(inner.path()).spool()).expect("spool");
    let shim = Shim::start_in(inner);
    assert_eq!(shim.run_to_end(shell("echo deep")).exit, code(0));
    assert_eq!(shim.output(Stream::Stdout), b"deep\n");
}
