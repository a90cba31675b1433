//! Nobody can know how an attempt ended: it is lost, never a success, and what is left of it is
//! ended and kept.

use std::fs;

use cc_executor::{
    job::{Exit, Stream},
    spool::RecordKind,
};
use serde_json::{Value, json};

use crate::{
    harness::{Client, is_alive},
    paper::{Paper, enter_segments, frame, tear},
    scene::{Scene, job},
    shim::{self, pid_in},
};

/// What may have been shown and was not on disk when the power went: three segments of the default
/// size and one record, bytes.
const UNSYNCED_BYTES: u64 = 3 * (4 << 20) + (4 << 20);

fn assert_lost(client: &mut Client, job: &Value) -> Value {
    let end = client.finished(job);
    let shown = json!([end["state"], end["reason"], end["exit_code"], end["signal"]]);
    assert_eq!(shown, json!(["failed", "lost", null, null]), "{end}");
    end
}

#[test]
fn a_tree_without_its_shim_is_ended_and_its_output_kept() {
    let mut scene = Scene::new();
    let file = scene.server.scratch("grandchild");
    let line = format!(
        "echo before; setsid sh -c 'echo $$ >{}; exec sleep 1000' & \
         while [ ! -s {} ]; do sleep 0.01; done; echo behind; sleep 1000",
        file.display(),
        file.display()
    );
    let claim = scene.started_in("s1", &line);
    let grandchild = pid_in(&file);
    shim::until("all output is stored", || {
        scene.shim("s1").output(Stream::Stdout) == b"before\nbehind\n"
    });
    scene.kill_shim("s1");
    assert!(is_alive(grandchild), "it is in a session of its own");
    let torn = frame(RecordKind::Output, Stream::Stdout, 14, b"never whole");
    let segment = scene.layout.spool().join("1.1.0.seg");
    tear(&segment, &torn[..torn.len() - 1]);
    let mut client = scene.start();
    assert!(
        !is_alive(grandchild),
        "it is gone before anybody is answered"
    );
    let end = assert_lost(&mut client, &job(&claim));
    assert_eq!(end["survivors"], json!([]));
    assert_eq!(end["attempts"], 1);
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"before\nbehind\n");
    transcript.verified();
    assert_eq!(scene.attempts(), "1.1:lost");
}

#[test]
fn a_right_that_was_taken_and_not_used_is_lost() {
    let mut scene = Scene::new();
    let empty = scene.claimed("s1", "echo never");
    let _ = Paper::create(&scene, &empty);
    let intended = scene.claimed("s2", "echo never");
    let _ = Paper::intended(&scene, &intended, "s2");
    let mut client = scene.start();
    for claim in [&empty, &intended] {
        let end = assert_lost(&mut client, &job(claim));
        assert_eq!(end["output_bytes"], 0);
        assert_eq!(client.whole(&job(claim)).bytes, b"");
    }
    shim::until("the spool is empty", || scene.spool().is_empty());
}

#[test]
fn large_output_of_a_lost_attempt_ends_at_its_last_whole_frame() {
    for rows in 0..=1 {
        let mut scene = Scene::new();
        let claim = scene.claimed("s1", "echo never");
        let mut paper = Paper::started(&scene, &claim);
        paper.output(Stream::Stdout, b"first ").roll();
        paper.output(Stream::Stderr, b"second");
        let torn = frame(RecordKind::Output, Stream::Stdout, 12, b"third");
        tear(&paper.path(), &torn[..10]);
        enter_segments(&scene, &claim, rows);
        let mut client = scene.start();
        assert_lost(&mut client, &job(&claim));
        let transcript = client.whole(&job(&claim));
        assert_eq!(transcript.bytes, b"first second");
        transcript.verified();
    }
}

#[test]
fn nothing_in_a_restored_directory_proves_nothing() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo never");
    scene.execute("UPDATE attempts SET instance = 'before the backup'");
    let mut client = scene.start();
    let end = assert_lost(&mut client, &job(&claim));
    assert_eq!(end["attempts"], 1);
}

#[test]
fn a_restored_directory_signals_nothing_of_the_one_it_was_copied_from() {
    let mut scene = Scene::new();
    let file = scene.server.scratch("grandchild");
    let line = format!(
        "setsid sh -c 'echo $$ >{}; exec sleep 1000' & wait",
        file.display()
    );
    let claim = scene.started_in("s1", &line);
    let grandchild = pid_in(&file);
    scene.kill_shim("s1");
    scene.execute("UPDATE attempts SET instance = 'before the backup'");
    let mut client = scene.start();
    let end = assert_lost(&mut client, &job(&claim));
    assert_eq!(end["survivors"], json!([]));
    assert!(is_alive(grandchild), "it belongs to somebody else");
    let pid = nix::unistd::Pid::from_raw(grandchild);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("ours");
}

/// Reads all that is left of a job that was cut off by a power loss at `offset`.
fn assert_gap(client: &mut Client, job: &Value, bytes: &[u8], offset: u64) {
    let end = assert_lost(client, job);
    assert_eq!(end["output_bytes"], offset + UNSYNCED_BYTES);
    assert_eq!(end["output_sha256"], Value::Null);
    let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
    let items = read["chunks"].as_array().expect("chunks").clone();
    let (gap, chunks) = items.split_last().expect("a gap");
    let text: String = chunks.iter().filter_map(|c| c["data"].as_str()).collect();
    assert_eq!(text.as_bytes(), bytes);
    let expected = json!({"from": offset, "to": offset + UNSYNCED_BYTES, "reason": "power_loss"});
    assert_eq!(gap["gap"], expected, "{gap}");
    assert_eq!(read["next_offset"], offset + UNSYNCED_BYTES);
    // An offset that may have been shown is still one of this job's.
    let inside = json!({"job": job["id"], "from": offset + 1});
    client.ok("job.read", inside);
}

#[test]
fn behind_a_power_loss_no_offset_is_used_again() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo never");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"on disk");
    let nothing = scene.claimed("s2", "echo never");
    scene.set_boot_ids();
    let mut client = scene.start();
    assert_gap(&mut client, &job(&claim), b"on disk", 7);
    assert_gap(&mut client, &job(&nothing), b"", 0);
}

#[test]
fn a_power_loss_takes_the_successor_of_a_sealed_segment() {
    let mut scene = Scene::new();
    let mut claims = Vec::new();
    for (shim, rows) in [("s1", 0), ("s2", 1)] {
        let claim = scene.claimed(shim, "echo never");
        let mut paper = Paper::started(&scene, &claim);
        paper.output(Stream::Stdout, b"sealed").roll();
        enter_segments(&scene, &claim, rows);
        fs::remove_file(paper.path()).expect("the successor");
        claims.push(claim);
    }
    scene.set_boot_ids();
    let mut client = scene.start();
    for claim in &claims {
        assert_gap(&mut client, &job(claim), b"sealed", 6);
    }
}

#[test]
fn a_power_loss_leaves_zeros_where_segments_were() {
    let mut scene = Scene::new();
    let first = scene.claimed("s1", "echo never");
    let paper = Paper::started(&scene, &first);
    fs::write(paper.path(), [0; 4096]).expect("the first segment");
    let second = scene.claimed("s2", "echo never");
    let mut paper = Paper::started(&scene, &second);
    paper.output(Stream::Stdout, b"sealed").roll();
    fs::write(paper.path(), [0; 4096]).expect("the second segment");
    let third = scene.claimed("s3", "echo never");
    let mut paper = Paper::started(&scene, &third);
    paper.output(Stream::Stdout, b"whole");
    tear(&paper.path(), &[0; 4096]);
    scene.set_boot_ids();
    let mut client = scene.start();
    assert_gap(&mut client, &job(&first), b"", 0);
    assert_gap(&mut client, &job(&second), b"sealed", 6);
    assert_gap(&mut client, &job(&third), b"whole", 5);
}

#[test]
fn an_exit_record_is_believed_after_a_power_loss() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo never");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"all").exit(Exit::Code(0));
    scene.set_boot_ids();
    let mut client = scene.start();
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"all");
    assert_eq!(transcript.verified()["state"], "succeeded");
}
