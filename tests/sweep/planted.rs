//! The sweep's own instruments are tested: a blow falls exactly where it is aimed, and every check
//! fails where what it looks for is planted.
//! Does not strike servers.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
};

use nix::errno::Errno;

use serde_json::{Value, json};

use crate::{
    checks::{assert_legal, assert_tidy},
    harness::Transcript,
    plan::Plan,
    scene::Scene,
    seen::{Fate, Seen},
    strike::fixture,
    sweep::can_trace,
};

/// Copies sixteen bytes by two writes under the tracer; returns what is there afterwards.
fn copied(place: &Path, aim: &[&str]) -> Vec<u8> {
    let struck = !aim.is_empty();
    let (code, copy, report) = copied_with(place, aim, &["if=from"]);
    assert_eq!(report.contains("\nstruck "), struck, "{report}");
    assert_eq!(code, Some(if struck { 137 } else { 0 }));
    copy
}

/// The same, told how `dd` ended, what is there, and the report.
fn copied_with(place: &Path, aim: &[&str], words: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let [from, to, report] = ["from", "to", "report"].map(|name| place.join(name));
    fs::write(&from, "0123456789abcdef").expect("a file");
    fs::write(&to, "").expect("a file");
    let mut command = Command::new(fixture());
    command.args(["--of", "server", "--root"]).arg(place);
    command.arg("--report").arg(&report).args(aim);
    command.args(["--", "/bin/dd", "bs=8", "conv=notrunc", "status=none"]);
    command.args(words).arg("of=to").current_dir(place);
    command.stderr(Stdio::null());
    let status = command.status().expect("the fixture starts");
    let report = fs::read_to_string(report).expect("a report");
    (status.code(), fs::read(to).expect("a file"), report)
}

#[test]
fn a_blow_falls_exactly_where_it_is_aimed() {
    if !can_trace() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let at = |nth, how| {
        let aim = ["--at", "write to", "--nth", nth, "--how", how];
        copied(place.path(), &aim)
    };
    assert_eq!(copied(place.path(), &[]), b"0123456789abcdef");
    assert_eq!(at("1", "before"), b"");
    assert_eq!(at("1", "torn"), b"0123");
    assert_eq!(at("1", "after"), b"01234567");
    assert_eq!(at("2", "before"), b"01234567");
    assert_eq!(at("2", "torn"), b"0123456789ab");
    assert_eq!(at("2", "after"), b"0123456789abcdef");
}

#[test]
fn an_error_arrives_exactly_where_it_is_aimed() {
    if !can_trace() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let with = |call, nth, errno: Errno, times, words: &[&str]| {
        let errno = (errno as i32).to_string();
        let mut aim = vec!["--calls", "fallible", "--at", call, "--nth", nth];
        aim.extend(["--how", &errno, "--times", times]);
        let (code, copy, report) = copied_with(place.path(), &aim, words);
        let struck = report.lines().filter(|line| line.starts_with("struck "));
        (code, copy, struck.count())
    };
    let whole = b"0123456789abcdef".to_vec();
    // `dd` ends at the first error of a write, so that its place shows; nothing is written by it.
    let failed = |copy: &[u8]| (Some(1), copy.to_vec(), 1);
    assert_eq!(
        with("write to", "1", Errno::ENOSPC, "1", &["if=from"]),
        failed(b"")
    );
    assert_eq!(
        with("write to", "2", Errno::EIO, "1", &["if=from"]),
        failed(b"01234567")
    );
    assert_eq!(
        with("openat from", "1", Errno::EMFILE, "1", &["if=from"]),
        failed(b"")
    );
    // An error that the program does not mind: the call after it works.
    let flushed = ["if=from", "conv=notrunc,fsync"];
    let (code, copy, struck) = with("fsync to", "1", Errno::EIO, "1", &flushed);
    assert_eq!((code, copy, struck), (Some(1), whole.clone(), 1));
    // One that never comes leaves everything as it is.
    let (code, copy, struck) = with("write to", "3", Errno::EIO, "1", &["if=from"]);
    assert_eq!((code, copy, struck), (Some(0), whole, 0));
}

/// A shell that tries again until it works: it meets as many errors as it is told, and none of the
/// calls of another name.
#[test]
fn an_error_that_lasts_for_a_while_is_over_after_that() {
    if !can_trace() {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let script = "n=1; until { : >>\"$0\"; } 2>/dev/null; do n=$((n + 1)); done; exit $n";
    let tried = |times: &str| {
        let report = place.path().join("report");
        let mut command = Command::new(fixture());
        command.args(["--of", "server", "--calls", "fallible", "--root"]);
        command.arg(place.path()).arg("--report").arg(&report);
        command.args(["--at", "openat O_CREAT tried", "--nth", "1"]);
        let errno = (Errno::EMFILE as i32).to_string();
        command.args(["--how", &errno, "--times", times]);
        command.args(["--", "/bin/bash", "-c", script]);
        command.arg(place.path().join("tried"));
        command.status().expect("the fixture starts").code()
    };
    assert_eq!(tried("1"), Some(2));
    assert_eq!(tried("20"), Some(21));
}

#[track_caller]
fn assert_fails(what: &str, check: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(check)).is_err(), "{what}");
}

#[test]
fn every_check_finds_what_is_planted() {
    let mut scene = Scene::new();
    scene.begin_unstruck();
    let [small, large] = [Plan::SMALL, Plan::LARGE].map(|plan| {
        let id = scene.submit(&plan);
        Seen::to_the_end(&mut scene, plan, id, Fate::Exact)
    });
    scene.stop();
    assert_tidy(&mut scene.server);
    for seen in [&small, &large] {
        seen.check(&scene);
    }
    plant_in_transcripts(&small.shown);
    plant_in_the_ledger(&scene, &large);
    plant_files(&mut scene);
}

fn plant_in_transcripts(shown: &Transcript) {
    let set = |shown: &mut Transcript, key: &str, value: Value| {
        shown.end.as_mut().expect("an end")[key] = value;
    };
    let mut lost = shown.clone();
    set(&mut lost, "reason", json!("lost"));
    set(&mut lost, "exit_code", Value::Null);
    Plan::SMALL.check_lost(&lost);
    let assert_wrong = |what: &str, change: &dyn Fn(&mut Transcript)| {
        let (mut exact, mut lost) = (shown.clone(), lost.clone());
        change(&mut exact);
        change(&mut lost);
        assert_fails(what, || Plan::SMALL.check_exact(&exact));
        assert_fails(what, || Plan::SMALL.check_lost(&lost));
    };
    assert_wrong("a byte in one stream", &|shown| shown.streams[0][9] ^= 1);
    assert_wrong("a byte less in all", &|shown| shown.bytes.truncate(9));
    assert_wrong("a code", &|shown| set(shown, "exit_code", json!(0)));
    assert_wrong("success", &|shown| set(shown, "state", json!("succeeded")));
    assert_wrong("a signal", &|shown| set(shown, "signal", json!("SIGKILL")));
}

fn plant_in_the_ledger(scene: &Scene, seen: &Seen) {
    let noted = fs::read_to_string(&scene.ledger).expect("a ledger");
    let line = format!("start {} 1\n", Plan::LARGE.seed);
    fs::write(&scene.ledger, noted.clone() + &line).expect("a ledger");
    assert_fails("a second start", || seen.check(scene));
    fs::write(&scene.ledger, noted).expect("a ledger");
    seen.check(scene);
    let mut job = seen.shown.verified().clone();
    job["state"] = "cancelled".into();
    assert_fails("another end", || assert_legal(&scene.server, &job));
}

fn plant_files(scene: &mut Scene) {
    let data = scene.server.data_dir();
    for stray in ["spool/9.1.0.seg", "shims/stray.lock", "stray"] {
        fs::write(data.join(stray), "").expect("a file");
        assert_fails(stray, || assert_tidy(&mut scene.server));
        fs::remove_file(data.join(stray)).expect("it is there");
    }
    let segment = data.join("spool/2.1.0.seg");
    let kept = fs::read(&segment).expect("a segment");
    fs::remove_file(&segment).expect("it is there");
    assert_fails("a segment that is gone", || assert_tidy(&mut scene.server));
    fs::write(&segment, kept).expect("a segment");
    assert_tidy(&mut scene.server);
}
