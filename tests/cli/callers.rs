//! Who starts the server decides nothing for others: signals, nice, limits and secrets of one shell
//! stay in that shell, and go to the jobs that it hands in.

use std::{fs, process::Command};

use crate::harness::{BINARY, Server, with_word};

/// Runs a line of shell in which `cc` is the binary and `$D` the data directory.
#[track_caller]
fn sh(place: &Server, line: &str) -> (i32, String, String) {
    let done = Command::new("/bin/sh")
        .args([
            "-c",
            &format!("cc() {{ command {BINARY} \"$@\"; }}; {line}"),
        ])
        .env("CC_EXECUTOR_DATA_DIR", place.data_dir())
        .env(crate::harness::MARK, place.data_dir())
        .output()
        .expect("a shell");
    (
        done.status.code().expect("a code"),
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    )
}

#[test]
fn the_nice_of_the_first_shell_is_not_everybodys() {
    let place = Server::stopped(&[], &[]);
    let first = sh(&place, &format!("nice -n 10 {BINARY} run -- nice"));
    let second = sh(&place, "cc run -- nice");
    assert_eq!(
        (first.1.as_str(), second.1.as_str()),
        ("10\n", "0\n"),
        "{first:?}"
    );
    let third = sh(
        &place,
        &format!("nice -n 7 {BINARY} submit -- sh -c 'nice'; cc tail last"),
    );
    assert!(third.1.ends_with("\n7\n"), "{third:?}");
}

#[test]
fn limits_of_a_shell_are_those_of_its_jobs_and_of_nobody_elses() {
    let place = Server::stopped(&[], &[]);
    let say = "cc run -- sh -c 'ulimit -n; ulimit -Hn; ulimit -f'";
    let first = sh(&place, &format!("ulimit -S -n 64; {say}"));
    assert_eq!(first.1.lines().next(), Some("64"), "{first:?}");
    let plain = sh(&place, &say.replace("cc run", "cc run --clean-env"));
    let own = sh(&place, "ulimit -n; ulimit -Hn; ulimit -f");
    assert_eq!(plain.1, own.1, "{plain:?}");
    let both = sh(&place, &format!("ulimit -n 64; ulimit -f 100; {say}"));
    assert_eq!(both.1, "64\n64\n100\n", "{both:?}");
    assert_eq!(sh(&place, say).1, own.1);
}

#[test]
fn a_shell_whose_limits_no_server_can_work_under_is_told_so() {
    for (limit, name) in [
        ("-f 100", "ulimit -f"),
        ("-n 64", "ulimit -n"),
        ("-t 3", "ulimit -t"),
    ] {
        let place = Server::stopped(&[], &[]);
        let (code, out, err) = sh(&place, &format!("ulimit {limit}; cc run -- echo done"));
        match code {
            // Who may lift it, has.
            0 => assert_eq!(out, "done\n"),
            _ => assert!(err.contains(name), "{limit}: {err}"),
        }
        let (code, out, err) = sh(&place, "cc run -- echo done");
        assert_eq!((code, out.as_str()), (0, "done\n"), "after {limit}: {err}");
    }
}

#[test]
fn signals_that_the_first_shell_blocks_or_ignores_still_end_the_server() {
    for how in [
        "--block-signal=TERM,INT,CHLD",
        "--ignore-signal=TERM,INT,CHLD",
    ] {
        let place = Server::stopped(&[], &[]);
        let done = sh(&place, &format!("env {how} {BINARY} run -- echo done"));
        assert_eq!((done.0, done.1.as_str()), (0, "done\n"), "{done:?}");
        let stopped = sh(&place, "cc stop");
        assert_eq!(stopped.0, 0, "{stopped:?}");
    }
}

#[test]
fn a_secret_of_the_first_shell_is_in_no_server_and_no_shim() {
    let by_verb = Server::stopped(&[], &[]);
    let done = sh(
        &by_verb,
        &format!("PASSWORD=hushhush {BINARY} run -- printenv PASSWORD"),
    );
    assert_eq!(done.1, "hushhush\n", "the job has it: {done:?}");
    let by_hand = Server::with(&[], &[("PASSWORD", "hushhush")]);
    for place in [&by_verb, &by_hand] {
        let ours = with_word(&place.data_dir().display().to_string());
        assert!(!ours.is_empty());
        for pid in ours {
            let env = fs::read(format!("/proc/{pid}/environ")).expect("an environment");
            let env = String::from_utf8_lossy(&env).into_owned();
            assert!(!env.contains("hushhush"), "{pid}: {env}");
        }
    }
    assert!(by_hand.shims().len() < 10);
}

#[test]
fn server_and_shims_cannot_be_looked_into() {
    let place = Server::stopped(&[], &[]);
    assert_eq!(sh(&place, "cc run -- true").0, 0);
    for pid in with_word(&place.data_dir().display().to_string()) {
        // Of a process that is not dumpable these belong to root, whoever it is; root has them either way.
        let status = fs::read_to_string(format!("/proc/{pid}/coredump_filter"));
        let cannot = status.is_err() || nix::unistd::geteuid().is_root();
        assert!(cannot, "{pid}");
    }
}
