//! `output.when_full` of jobs that may go on: what is stored is in its place, what is missing is
//! counted to the byte and to the line, and the disk holds no more than was allowed.

use std::{fs, path::Path};

use cc_executor::{
    job::{Dropped, ExitFacts, Gap, GapReason, JobState, Stream, WhenFull},
    spool::{DroppedRange, RecordKind, RunSpec},
};
use nix::sys::signal::Signal;

use crate::harness::{Shim, cancel, code, shell, until};

const MIB: u64 = 1 << 20;

/// A job whose output the test can compute: numbered lines of eight bytes.
fn numbered(lines: u64, block: u64) -> String {
    format!("seq -f %07.0f 0 {} | dd bs={block} status=none", lines - 1)
}

fn expected(lines: u64) -> Vec<u8> {
    (0..lines)
        .flat_map(|i| format!("{i:07}\n").into_bytes())
        .collect()
}

fn dropping(line: &str, when_full: WhenFull, max: u64) -> RunSpec {
    let mut spec = shell(line);
    spec.when_full = when_full;
    spec.output_bytes_max = Some(max);
    spec
}

/// What a reader of the paper finds: bytes and holes, dense from 0 on.
struct Found {
    holes: Vec<DroppedRange>,
    /// Of all streams, each with its offset.
    pieces: Vec<(u64, Stream, Vec<u8>)>,
    end: u64,
}

fn found(shim: &Shim) -> Found {
    let hole = shim.hole(1, 1);
    let mut found = Found {
        holes: hole.into_iter().collect(),
        pieces: Vec::new(),
        end: 0,
    };
    for record in shim.records(1, 1) {
        let offset = match hole {
            // The seal of the first segment stands before the hole.
            Some(hole) if record.header.kind != RecordKind::Seal => hole.skip_past(found.end),
            _ => found.end,
        };
        assert_eq!(record.header.offset, offset, "{:?}", record.header);
        found.end = offset;
        match record.header.kind {
            RecordKind::Output => {
                found.end += record.payload.len() as u64;
                let stream = record.header.stream;
                found.pieces.push((offset, stream, record.payload));
            }
            RecordKind::Gap => {
                let hole: DroppedRange = serde_json::from_slice(&record.payload).expect("a hole");
                assert_eq!(hole.gap.from, found.end);
                found.end = hole.gap.to;
                found.holes.push(hole);
            }
            _ => {}
        }
    }
    found
}

impl Found {
    fn stored(&self) -> u64 {
        self.pieces
            .iter()
            .map(|(_, _, data)| data.len() as u64)
            .sum()
    }

    fn stored_lines(&self) -> u64 {
        let lines = |data: &[u8]| memchr::memchr_iter(b'\n', data).count() as u64;
        self.pieces.iter().map(|(_, _, data)| lines(data)).sum()
    }

    fn dropped(&self) -> Dropped {
        let mut all = Dropped::default();
        for hole in &self.holes {
            all.bytes += hole.dropped().bytes;
            all.lines += hole.lines;
        }
        all
    }
}

/// Runs it and holds what holds for every policy.
fn run(shim: &Shim, spec: RunSpec, written: &[u8]) -> (ExitFacts, Found) {
    let facts = shim.run_to_end(spec);
    assert_eq!((facts.exit.clone(), facts.stop.clone()), (code(0), None));
    let found = found(shim);
    assert_eq!(facts.end_offset, written.len() as u64);
    assert_eq!(found.end, facts.end_offset);
    assert_eq!(found.stored() + found.dropped().bytes, written.len() as u64);
    let lines = written.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(found.stored_lines() + found.dropped().lines, lines);
    assert_eq!(facts.dropped, found.dropped());
    for (offset, _, data) in &found.pieces {
        let at = *offset as usize;
        assert!(data[..] == written[at..at + data.len()], "at {offset}");
    }
    (facts, found)
}

fn spool_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("spool");
    let sizes = entries.map(|entry| entry.ok()?.metadata().ok().map(|data| data.len()));
    sizes.map(Option::unwrap_or_default).sum()
}

#[test]
fn the_newest_are_counted_and_forgotten() {
    for (max, block) in [(1, 512), (1_000_003, 512), (4096, 65536), (5 * MIB, 4096)] {
        let shim = Shim::start();
        let written = expected(1_000_000);
        let line = numbered(1_000_000, block);
        let (_, found) = run(&shim, dropping(&line, WhenFull::DropNewest, max), &written);
        assert_eq!(found.stored(), max);
        let gap = Gap {
            from: max,
            to: written.len() as u64,
            reason: GapReason::DropNewest,
        };
        let gaps: Vec<_> = found.holes.iter().map(|hole| hole.gap).collect();
        assert_eq!(gaps, [gap]);
    }
}

#[test]
fn the_oldest_behind_the_first_segment_go() {
    for (max, segment, block) in [
        (16 * MIB, 2 * MIB, 65536),
        (MIB, 128 << 10, 512),
        (3_000_000, 64 << 10, 4096),
    ] {
        let shim = Shim::start();
        let written = expected(5_000_000);
        let mut spec = dropping(&numbered(5_000_000, block), WhenFull::DropOldest, max);
        spec.segment_bytes = segment;
        let (_, found) = run(&shim, spec, &written);
        // Whole segments go, so a little less than allowed is there.
        assert!(found.stored() <= max, "{} of {max}", found.stored());
        assert!(found.stored() > max - 2 * segment, "{}", found.stored());
        let [hole] = found.holes[..] else {
            panic!("{:?}", found.holes)
        };
        assert_eq!(hole.gap.reason, GapReason::DropOldest);
        // A segment's size is that of its file, headers included.
        let first = segment / 4 * 3..=segment + (64 << 10);
        assert!(first.contains(&hole.gap.from), "{hole:?}");
    }
}

#[test]
fn up_to_the_bound_nothing_is_dropped() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let shim = Shim::start();
        let written = expected(MIB / 8);
        let mut spec = dropping(&numbered(MIB / 8, 4096), when_full, MIB);
        spec.segment_bytes = 128 << 10;
        let (facts, found) = run(&shim, spec, &written);
        assert_eq!(facts.dropped, Dropped::default());
        assert_eq!((found.stored(), found.holes.len()), (MIB, 0));
    }
}

#[test]
fn both_streams_count() {
    let both = "i=0; while [ $i -lt 40000 ]; do echo 0123456; echo abcdefgh >&2; i=$((i+1)); done";
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let shim = Shim::start();
        let mut spec = dropping(both, when_full, 200_000);
        spec.segment_bytes = 16 << 10;
        let facts = shim.run_to_end(spec);
        let found = found(&shim);
        assert_eq!(facts.end_offset, 40_000 * 17);
        assert_eq!(found.end, facts.end_offset);
        assert_eq!(facts.dropped, found.dropped());
        assert_eq!(found.stored() + facts.dropped.bytes, 40_000 * 17);
        assert_eq!(found.stored_lines() + facts.dropped.lines, 80_000);
        for stream in [Stream::Stdout, Stream::Stderr] {
            assert!(found.pieces.iter().any(|(_, of, _)| *of == stream));
        }
    }
}

#[test]
fn a_cut_inside_a_line_drops_the_line_whose_end_went() {
    let shim = Shim::start();
    let spec = dropping("printf 'one\\ntwo\\nthree'", WhenFull::DropNewest, 6);
    let (facts, _) = run(&shim, spec, b"one\ntwo\nthree");
    // "o\nthree": one line end.
    assert_eq!(facts.dropped, Dropped { bytes: 7, lines: 1 });
}

#[test]
fn what_is_dropped_is_output_for_the_stall_clock() {
    let shim = Shim::start();
    let line = "i=0; while [ $i -lt 20 ]; do echo x; sleep 0.1; i=$((i+1)); done";
    let mut spec = dropping(line, WhenFull::DropNewest, 2);
    spec.stall_timeout_ms = Some(1000);
    let written = b"x\n".repeat(20);
    let (facts, _) = run(&shim, spec, &written);
    assert_eq!(facts.dropped.lines, 19);
}

#[test]
fn a_runaway_job_stays_within_its_bound_on_the_disk() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let (max, segment) = (16 * MIB, 2 * MIB);
    let mut spec = dropping("exec yes", WhenFull::DropOldest, max);
    spec.segment_bytes = segment;
    server.run(spec);
    let spool = shim.layout.spool();
    let mut most = 0;
    until("a gigabyte is gone", || {
        most = most.max(spool_bytes(&spool));
        let hole = shim.hole(1, 1);
        hole.is_some_and(|hole| hole.dropped().bytes > 1 << 30)
    });
    assert!(most <= max + 2 * segment, "{most} bytes on the disk");
    server.send(&cancel(1000));
    let facts = server.exited();
    assert_eq!(facts.outcome().0, JobState::Cancelled);
    let found = found(&shim);
    assert_eq!(
        (found.end, found.dropped()),
        (facts.end_offset, facts.dropped)
    );
    assert_eq!(
        found.stored_lines() + facts.dropped.lines,
        facts.end_offset / 2
    );
}

#[test]
fn bytes_one_by_one_stay_bounded_on_the_disk_too() {
    let shim = Shim::start();
    let (max, segment) = (MIB, 64 << 10);
    // Slow enough that each byte becomes a record of its own, most of the time.
    let line = "i=0; while [ $i -lt 100000 ]; do echo; i=$((i+1)); done";
    let mut spec = dropping(line, WhenFull::DropOldest, max);
    spec.segment_bytes = segment;
    let written = b"\n".repeat(100_000);
    run(&shim, spec, &written);
    let stored = spool_bytes(&shim.layout.spool());
    assert!(stored <= 2 * max + segment, "{stored} bytes");
}

#[test]
fn an_end_is_not_told_before_what_was_dropped_is_gone() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let line = numbered(1 << 20, 64 << 10);
    let mut spec = dropping(&line, WhenFull::DropOldest, MIB);
    spec.segment_bytes = 64 << 10;
    // It would be little enough for the ledger.
    spec.inline_bytes_max = 16 * MIB;
    server.run(spec);
    let (facts, synced) = server.exited_synced();
    assert!(synced, "{facts:?}");
    let hole = shim.hole(1, 1).expect("a hole");
    assert_eq!(hole.dropped(), facts.dropped);
    assert_eq!(
        found(&shim).stored() + facts.dropped.bytes,
        facts.end_offset
    );
}

#[test]
fn a_kill_of_the_shim_leaves_a_hole_that_everybody_agrees_on() {
    for bytes in [40 * MIB, 90 * MIB, 200 * MIB] {
        let shim = Shim::start();
        let (mut server, _) = shim.hello(1);
        let mut spec = dropping("exec yes 0123456", WhenFull::DropOldest, 16 * MIB);
        spec.segment_bytes = MIB;
        server.run(spec);
        until("enough is gone", || {
            let hole = shim.hole(1, 1);
            hole.is_some_and(|hole| hole.dropped().bytes > bytes)
        });
        shim.signal(Signal::SIGKILL);
        let leader_is_gone = || shim.socket().exists() && server.receive().is_none();
        until("the shim is gone", leader_is_gone);
        let found = found(&shim);
        let hole = shim.hole(1, 1).expect("a hole");
        assert_eq!(found.stored() + hole.dropped().bytes, found.end);
        assert_eq!(hole.lines, hole.dropped().bytes.div_ceil(8));
        for (offset, _, data) in &found.pieces {
            let at = (*offset % 8) as usize;
            let line = b"0123456\n".iter().cycle().skip(at);
            assert!(data.iter().eq(line.take(data.len())), "at {offset}");
        }
    }
}
