//! The fixture and the oracle agree with each other; without that no other test means anything.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use crate::harness::{assert_bytes, content, emit, is_alive, until_true, with_word};

#[test]
fn the_fixture_writes_what_the_oracle_computes() {
    for raw in [false, true] {
        let mut command = Command::new(emit());
        command.args(["--seed", "77", "--bytes", "100001", "--err-bytes", "3001"]);
        command.args(["--chunk", "1:5000", "--exit", "9"]);
        if raw {
            command.arg("--raw");
        }
        let done = command.output().expect("the fixture");
        assert_eq!(done.status.code(), Some(9));
        assert_bytes(&done.stdout, &content(77, 0, 100_001, raw), "stdout");
        assert_bytes(&done.stderr, &content(77, 1, 3001, raw), "stderr");
    }
    let other = content(78, 0, 1000, true);
    assert_ne!(other, content(77, 0, 1000, true), "seeds differ");
    assert_ne!(other, content(78, 1, 1000, true), "streams differ");
}

#[test]
fn the_fixture_dies_by_signal_and_keeps_its_ledger() {
    let place = tempfile::tempdir().expect("a directory");
    let ledger = place.path().join("ledger");
    let done = Command::new(emit())
        .args(["--seed", "5", "--signal", "KILL", "--ledger"])
        .arg(&ledger)
        .output()
        .expect("the fixture");
    assert_eq!(done.status.signal(), Some(9));
    let text = std::fs::read_to_string(&ledger).expect("the ledger");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        (words[0], words[1], words[3], words[4]),
        ("start", "5", "end", "5")
    );
}

#[test]
fn the_fixture_ignores_term_and_leaves_a_grandchild() {
    let mut child = Command::new(emit())
        .args([
            "--ignore-term",
            "--grandchild",
            "987654",
            "--bytes",
            "1",
            "--hold",
            "876543",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the fixture");
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().expect("piped");
    std::io::Read::read_exact(&mut stdout, &mut first).expect("its first byte");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("our child");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"));
    let ignored = u64::from_str_radix(ignored.expect("SigIgn"), 16).expect("a mask");
    assert_ne!(ignored & (1 << 14), 0, "TERM is ignored");
    // Until its exec it has the command line of its parent.
    let orphans = || with_word("--hold\u{0}987654");
    until_true("the grandchild", || orphans().len() == 1);
    let orphans = orphans();
    child.kill().expect("our child");
    child.wait().expect("our child");
    assert!(is_alive(orphans[0]), "it is in another session");
    let orphan = nix::unistd::Pid::from_raw(orphans[0]);
    nix::sys::signal::kill(orphan, nix::sys::signal::Signal::SIGKILL).expect("the orphan");
    until_true("the orphan's end", || !is_alive(orphans[0]));
}
