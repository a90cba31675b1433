//! Kills around the dropping of output: the hole that is written down is the truth, whatever lies
//! about beside it, for readers, for the end and for the next look.

use std::fs;

use cc_executor::{
    job::{Dropped, Exit, Gap, GapReason, Stream, WhenFull},
    spool::dropped_range,
    store::ClaimedJob,
};
use serde_json::{Value, json};

use crate::{
    harness::Client,
    paper::{Paper, enter_segments},
    scene::{Scene, job},
    shim,
};

/// Six bytes in each of five segments: `first\n`, `aaaaa\n` … `ddddd\n`.
fn five_segments(scene: &Scene, claim: &ClaimedJob) -> Paper {
    let mut paper = Paper::started(scene, claim);
    for line in ["first\n", "aaaaa\n", "bbbbb\n", "ccccc\n"] {
        paper.output(Stream::Stdout, line.as_bytes()).roll();
    }
    paper.output(Stream::Stdout, b"ddddd\n");
    paper
}

/// Writes down that everything from 6 to `to` is gone.
fn dig(scene: &Scene, claim: &ClaimedJob, to: u64) -> Dropped {
    let hole = dropped_range::DroppedRange {
        gap: Gap {
            from: 6,
            to,
            reason: GapReason::DropOldest,
        },
        lines: (to - 6) / 6,
    };
    let spool = fs::File::open(scene.layout.spool()).expect("the spool");
    dropped_range::write(&spool, claim.number, claim.attempt, &hole).expect("a hole");
    hole.dropped()
}

fn unlink(scene: &Scene, claim: &ClaimedJob, first_offset: u64) {
    let name = format!("{}.{}.{first_offset}.seg", claim.number, claim.attempt);
    fs::remove_file(scene.layout.spool().join(name)).expect("a segment");
}

/// Reads all of a final job: text, and gaps as `FROM-TO`.
fn read(client: &mut Client, job: &Value) -> (String, Vec<String>) {
    let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
    let (mut text, mut gaps) = (String::new(), Vec::new());
    for item in read["chunks"].as_array().expect("chunks") {
        match &item["gap"] {
            Value::Null => text += item["data"].as_str().expect("text"),
            gap => gaps.push(format!("{}-{} {}", gap["from"], gap["to"], gap["reason"])),
        }
    }
    assert!(read["end"].is_object(), "{read}");
    (text, gaps)
}

/// What holds for five segments of which all from 6 to `to` was dropped.
fn assert_dropped(scene: &Scene, client: &mut Client, claim: &ClaimedJob, to: u64) -> Value {
    let end = client.finished(&job(claim));
    let (text, gaps) = read(client, &job(claim));
    let whole = "first\naaaaa\nbbbbb\nccccc\nddddd\n";
    assert_eq!(text, whole[..6].to_owned() + &whole[to as usize..]);
    assert_eq!(gaps, [format!("6-{to} \"drop_oldest\"")]);
    let counts = json!([
        end["output_bytes"],
        end["dropped_bytes"],
        end["dropped_lines"],
        end["output_sha256"]
    ]);
    assert_eq!(counts, json!([30, to - 6, (to - 6) / 6, null]), "{end}");
    let kept: Vec<String> = [0, 6, 12, 18, 24]
        .iter()
        .filter(|first| **first == 0 || **first >= to)
        .map(|first| format!("{}.1.{first}.seg", claim.number))
        .collect();
    let kept_in_order = || {
        let mut names = scene.spool();
        names.retain(|name| name.starts_with(&format!("{}.", claim.number)));
        names.sort_by_key(|name| name.split('.').nth(2).and_then(|n| n.parse::<u64>().ok()));
        names == kept
    };
    shim::until("only what is kept is there", kept_in_order);
    end
}

#[test]
fn what_is_written_down_as_gone_is_gone_whatever_still_lies_there() {
    // By how many rows the old server's hasher was ahead, and which segments were unlinked.
    for (rows, unlinked) in [
        (0, &[6, 12][..]),
        (0, &[6]),
        (0, &[]),
        (1, &[6, 12]),
        (2, &[6, 12]),
        (3, &[6]),
        (4, &[]),
        (4, &[6, 12]),
    ] {
        let mut scene = Scene::new();
        let lost = scene.claimed("s1", "echo never");
        five_segments(&scene, &lost);
        let ended = scene.claimed("s2", "echo never");
        let mut paper = five_segments(&scene, &ended);
        for claim in [&lost, &ended] {
            enter_segments(&scene, claim, rows);
            paper.dropped = dig(&scene, claim, 18);
            for first_offset in unlinked {
                unlink(&scene, claim, *first_offset);
            }
        }
        paper.exit(Exit::Code(0));
        // A kill came while a wider hole was being written.
        let draft = scene.layout.spool().join("1.1.hole.draft");
        fs::write(draft, b"half").expect("a draft");
        let mut client = scene.start();
        let end = assert_dropped(&scene, &mut client, &lost, 18);
        assert_eq!(end["reason"], "lost", "{rows} rows, {unlinked:?}");
        let end = assert_dropped(&scene, &mut client, &ended, 18);
        assert_eq!(end["state"], "succeeded", "{rows} rows, {unlinked:?}");
        // And again after another start.
        scene.server.kill_9();
        let mut client = scene.start();
        assert_dropped(&scene, &mut client, &ended, 18);
    }
}

#[test]
fn a_hole_that_is_committed_leaves_no_file_after_a_kill() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo never");
    let mut paper = five_segments(&scene, &claim);
    paper.dropped = dig(&scene, &claim, 12);
    unlink(&scene, &claim, 6);
    paper.exit(Exit::Code(0));
    let mut client = scene.start();
    assert_dropped(&scene, &mut client, &claim, 12);
    scene.server.kill_9();
    // As if the kill had come between the commit and the unlinking.
    dig(&scene, &claim, 12);
    let mut client = scene.start();
    assert_dropped(&scene, &mut client, &claim, 12);
}

#[test]
fn a_hole_that_a_living_shim_is_digging_is_not_taken_from_it() {
    let mut scene = Scene::new();
    scene.started_in("s1", "exec sleep 300");
    let spool = scene.layout.spool();
    let leftovers = 2..60;
    for attempt in leftovers {
        fs::write(spool.join(format!("1.{attempt}.hole.draft")), b"half").expect("a draft");
    }
    fs::write(spool.join("1.1.hole.draft"), b"half").expect("a draft");
    let mut client = scene.start();
    shim::until("what nobody writes is gone", || scene.spool().len() <= 2);
    assert_eq!(scene.spool(), ["1.1.0.seg", "1.1.hole.draft"]);
    client.ok("job.control", json!({"job": 1, "action": "kill"}));
}

#[test]
fn a_kill_before_the_exit_record_loses_no_count_of_what_was_forgotten() {
    for segments in [1, 2] {
        let mut scene = Scene::new();
        let claim = scene.claimed("s1", "echo never");
        let mut paper = Paper::started(&scene, &claim);
        for _ in 0..segments {
            paper.output(Stream::Stdout, b"kept\n");
            if segments > 1 {
                paper.roll();
            }
        }
        paper.forgotten(1000, 70);
        let mut client = scene.start();
        let end = client.finished(&job(&claim));
        assert_eq!(end["reason"], "lost");
        let counts = (&end["dropped_bytes"], &end["dropped_lines"]);
        assert_eq!(counts, (&json!(1000), &json!(70)), "{segments} segments");
        let (text, gaps) = read(&mut client, &job(&claim));
        assert_eq!(text, "kept\n".repeat(segments));
        assert_eq!(gaps.len(), 1, "{gaps:?}");
    }
}

#[test]
fn a_power_loss_behind_a_hole_is_a_gap_of_its_own() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo never");
    five_segments(&scene, &claim);
    dig(&scene, &claim, 24);
    for first_offset in [6, 12, 18] {
        unlink(&scene, &claim, first_offset);
    }
    scene.set_boot_ids();
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    let (text, gaps) = read(&mut client, &job(&claim));
    assert_eq!(text, "first\nddddd\n");
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert_eq!(gaps[0], "6-24 \"drop_oldest\"");
    assert!(gaps[1].starts_with("30-") && gaps[1].contains("power_loss"));
    assert_eq!(
        (&end["dropped_bytes"], &end["dropped_lines"]),
        (&json!(18), &json!(3))
    );
}

#[test]
fn a_shim_that_is_killed_while_it_drops_leaves_what_it_kept() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let mut scene = Scene::new();
        let claim = scene.claimed("s1", "exec yes 0123456");
        let mut spec = scene.spec(&claim);
        spec.output_bytes_max = Some(4 << 20);
        spec.segment_bytes = 512 << 10;
        spec.when_full = when_full;
        let (mut server, _) = scene.start_shim("s1").hello(1);
        server.run(spec);
        server.started();
        let shim = scene.shim("s1");
        shim::until("there is more than is kept", || match when_full {
            WhenFull::DropOldest => shim
                .hole(1, 1)
                .is_some_and(|hole| hole.dropped().bytes > 30 << 20),
            _ => shim.output(Stream::Stdout).len() == 4 << 20,
        });
        scene.kill_shim("s1");
        let hole = scene.shim("s1").hole(1, 1);
        let mut client = scene.start();
        let end = client.finished(&job(&claim));
        assert_eq!(end["reason"], "lost");
        let dropped = hole.map(|hole| hole.dropped()).unwrap_or_default();
        assert_eq!(end["dropped_bytes"], dropped.bytes);
        assert_eq!(end["dropped_lines"], dropped.lines);
        let (mut offset, mut kept) = (0, 0);
        while offset < end["output_bytes"].as_u64().expect("bytes") {
            let params = json!({"job": claim.number, "from": offset, "max_bytes": 512 << 10});
            let read = client.ok("job.read", params);
            for item in read["chunks"].as_array().expect("chunks") {
                match item["data"].as_str() {
                    Some(data) => {
                        assert_eq!(item["offset"], offset);
                        let at = (offset % 8) as usize;
                        let line = b"0123456\n".iter().cycle().skip(at);
                        assert!(data.bytes().eq(line.take(data.len()).copied()));
                        offset += data.len() as u64;
                        kept += data.len() as u64;
                    }
                    None => {
                        assert_eq!(item["gap"]["from"], offset);
                        assert_eq!(
                            Some(item["gap"]["to"].as_u64()),
                            hole.map(|hole| Some(hole.gap.to))
                        );
                        offset = item["gap"]["to"].as_u64().expect("to");
                    }
                }
            }
        }
        assert_eq!(kept + dropped.bytes, end["output_bytes"]);
        // The shim writes on while segments are being dropped: up to a segment, and it was killed anywhere.
        let about_to_go = match when_full {
            WhenFull::DropOldest => 512 << 10,
            _ => 0,
        };
        assert!(kept <= (4 << 20) + about_to_go, "{kept}");
    }
}
