//! Where the disk or the spool is full the process waits, loses nothing, and goes on by itself;
//! meanwhile it can be cancelled.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cc_executor::{
    job::{GapReason, JobState, Stream, WhenFull},
    spool::{DroppedRange, FromShim, RecordKind, SegmentName},
};

use crate::harness::{Server, Shim, cancel, code, kill, shell, until};

/// A small file system of its own, unmounted when dropped.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// `None` where this process may not mount.
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(at)
            .status();
        status
            .is_ok_and(|s| s.success())
            .then(|| Self { at: at.to_owned() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A shim whose spool is a disk of 2 MiB, or a note that this cannot be tested here.
pub fn on_a_small_disk() -> Option<(Shim, Disk)> {
    let dir = tempfile::tempdir().expect("tempdir");
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).expect("spool");
    let Some(disk) = Disk::mount(&spool, 2 << 20) else {
        eprintln!("SKIPPED: no permission to mount a tmpfs");
        return None;
    };
    Some((Shim::start_in(dir), disk))
}

fn waiting(server: &mut Server) -> bool {
    server.wait_for("waiting", |message| match message {
        FromShim::Waiting { waiting, .. } => Some(*waiting),
        _ => None,
    })
}

fn lines(count: u32) -> Vec<u8> {
    (1..=count)
        .flat_map(|i| format!("{i}\n").into_bytes())
        .collect()
}

#[test]
fn a_full_disk_is_waited_for() {
    let Some((shim, _disk)) = on_a_small_disk() else {
        return;
    };
    let ballast = shim.layout.spool().join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).expect("ballast");
    let (mut server, _) = shim.hello(1);
    // 1.4 MB into 1 MiB.
    let mut spec = shell("seq 1 220000; echo end >&2");
    spec.stall_timeout_ms = Some(1000);
    server.run(spec);
    assert!(waiting(&mut server));
    // The stall clock stands still, and nothing but a wish could end the job.
    assert!(server.receive_within(Duration::from_millis(1500)).is_err());
    fs::remove_file(&ballast).expect("remove");
    assert!(!waiting(&mut server));
    let (facts, synced) = server.exited_synced();
    assert_eq!((facts.exit, facts.stop, synced), (code(0), None, true));
    assert!(shim.output(Stream::Stdout) == lines(220_000));
    assert_eq!(shim.output(Stream::Stderr), b"end\n");
}

#[test]
fn on_a_full_disk_a_job_can_be_cancelled() {
    let Some((shim, _disk)) = on_a_small_disk() else {
        return;
    };
    let (mut server, _) = shim.hello(1);
    server.run(shell("yes"));
    let leader = server.started();
    assert!(waiting(&mut server));
    server.send(&cancel(1000));
    until("the job is gone", || !crate::harness::is_alive(leader));
    // How it ended takes a record; what was in its pipes is not waited for.
    let status = Command::new("mount")
        .args(["-o", "remount,size=8388608"])
        .arg(shim.layout.spool())
        .status()
        .expect("remount");
    assert!(status.success());
    let (facts, synced) = server.exited_synced();
    assert!(synced);
    assert_eq!(facts.outcome().0, JobState::Cancelled);
    let stored = shim.output(Stream::Stdout);
    assert_eq!(stored.len() as u64 + facts.dropped.bytes, facts.end_offset);
    let gap = shim
        .records(1, 1)
        .into_iter()
        .find(|r| r.header.kind == RecordKind::Gap);
    // The room may have come before the pipes were looked at: then nothing is missing.
    let hole = gap.map(|gap| serde_json::from_slice::<DroppedRange>(&gap.payload).expect("a hole"));
    let told = hole.map(|hole| (hole.gap.reason, hole.dropped()));
    let missing = facts.dropped.bytes > 0;
    assert_eq!(
        told,
        missing.then_some((GapReason::DiskFull, facts.dropped))
    );
    assert!(stored.chunks(2).all(|line| line == b"y\n" || line == b"y"));
}

/// Takes all room that is left.
fn fill(shim: &Shim) -> PathBuf {
    let ballast = shim.layout.spool().join("ballast");
    let mut options = fs::File::options();
    let file = options.append(true).create(true).open(&ballast);
    let mut file = file.expect("ballast");
    while file.write_all(&[1; 4096]).is_ok() {}
    ballast
}

#[test]
fn behind_its_bound_the_newest_is_dropped_without_room() {
    let Some((shim, _disk)) = on_a_small_disk() else {
        return;
    };
    let go = shim.dir.path().join("go");
    let (mut server, _) = shim.hello(1);
    let mut spec = shell(&format!(
        "seq 1 50000; while [ ! -e {} ]; do sleep 0.01; done; seq 50001 2000000",
        go.display()
    ));
    spec.when_full = WhenFull::DropNewest;
    spec.output_bytes_max = Some(100_000);
    server.run(spec);
    let leader = server.started();
    until("the bound is reached", || {
        shim.output(Stream::Stdout).len() == 100_000
    });
    let ballast = fill(&shim);
    fs::write(&go, "").expect("go");
    until("the job is done", || !crate::harness::is_alive(leader));
    // How it ended takes a record.
    fs::remove_file(&ballast).expect("remove");
    let facts = server.exited();
    let all = lines(2_000_000);
    let dropped = &all[100_000..];
    assert_eq!((facts.exit, facts.stop), (code(0), None));
    assert_eq!(facts.end_offset, all.len() as u64);
    assert_eq!(facts.dropped.bytes, dropped.len() as u64);
    let ends = dropped.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(facts.dropped.lines, ends as u64);
    assert!(shim.output(Stream::Stdout) == all[..100_000]);
}

#[test]
fn after_a_full_disk_the_oldest_go_on_making_way() {
    let Some((shim, _disk)) = on_a_small_disk() else {
        return;
    };
    let (mut server, _) = shim.hello(1);
    let mut spec = shell("yes 0123456");
    spec.when_full = WhenFull::DropOldest;
    spec.output_bytes_max = Some(1 << 20);
    spec.segment_bytes = 64 << 10;
    server.run(spec);
    let dropped = || shim.hole(1, 1).map_or(0, |hole| hole.dropped().bytes);
    until("much is gone", || dropped() > 10 << 20);
    let filled = fill(&shim);
    let before = dropped();
    // What goes leaves the room for what comes, unless the filling has taken that as well: then the job
    // waits, for no more is dropped than the bound says.
    fs::remove_file(&filled).expect("remove");
    until("it goes on", || dropped() > before + (1 << 20));
    server.send(&cancel(1000));
    let facts = server.exited();
    let hole = shim.hole(1, 1).expect("a hole");
    let stored = shim.output(Stream::Stdout).len() as u64;
    assert_eq!(stored + facts.dropped.bytes, facts.end_offset);
    assert!(facts.dropped.bytes >= hole.dropped().bytes);
}

#[test]
fn a_full_spool_is_waited_for() {
    let shim = Shim::start();
    let other = SegmentName {
        job: 99,
        attempt: 1,
        first_offset: 0,
    };
    let other = shim.layout.spool().join(other.to_string());
    fs::write(&other, vec![0; 3 << 20]).expect("write");
    let (mut server, _) = shim.hello(1);
    let mut spec = shell("seq 1 500000");
    spec.segment_bytes = 64 << 10;
    spec.spool_bytes_max = Some(4 << 20);
    server.run(spec);
    server.started();
    assert!(waiting(&mut server));
    fs::remove_file(&other).expect("remove");
    assert!(!waiting(&mut server));
    assert_eq!(server.exited().exit, code(0));
    assert!(shim.output(Stream::Stdout) == lines(500_000));
}

#[test]
fn without_room_nothing_is_started_and_a_wish_is_heard() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let mut spec = shell("echo started");
    spec.free_bytes_min = u64::MAX;
    server.run(spec);
    assert!(waiting(&mut server));
    server.send(&kill());
    let facts = server.exited();
    assert_eq!(facts.outcome().0, JobState::Cancelled);
    assert_eq!((facts.started_at_us, facts.end_offset), (None, 0));
    assert_eq!(shim.exit_record(), Some(facts));
}
