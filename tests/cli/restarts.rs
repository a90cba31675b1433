//! `restart` where the directory is gone in which the server was started; and which servers a verb starts
//! again that was waiting for one.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::harness::{BINARY, Finished, MARK, Running, Server, until};

/// `serve` in a directory, which it finds removed if `is_gone`.
fn serve(place: &Server, cwd: &Path, is_gone: bool, words: &[&str]) -> Child {
    fs::create_dir(cwd).expect("made");
    let line = match is_gone {
        true => "cd \"$0\" && rmdir \"$0\" && exec \"$@\"",
        false => "cd \"$0\" && exec \"$@\"",
    };
    let server = Command::new("/bin/sh")
        .args(["-c", line])
        .arg(cwd)
        .args([BINARY, "serve", "--listen", "127.0.0.1:0"])
        .args(words)
        .env(MARK, place.data_dir())
        .env("CC_EXECUTOR_SESSIONS_MAX", "7")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    until("the server", || status(place));
    server
}

/// What the server says of itself, if one answers.
fn status(place: &Server) -> Option<Value> {
    let status = place.cli("status").args(["--json"]).run();
    let status: Value = serde_json::from_slice(&status.stdout).ok()?;
    (status["running"] == true && status["version"].is_string()).then_some(status)
}

fn restart(place: &Server) -> Finished {
    place.cli("restart").run()
}

#[test]
fn a_server_whose_directory_is_gone_is_started_again() {
    for is_gone in [false, true] {
        for relative in [false, true] {
            if is_gone && relative {
                // There it finds no data directory either.
                continue;
            }
            let place = Server::stopped(&[], &[]);
            let cwd = place.scratch("cwd");
            let data_dir = place.data_dir().display().to_string();
            let data_dir = if relative { "../data" } else { &data_dir };
            let mut server = serve(&place, &cwd, is_gone, &["--data-dir", data_dir]);
            if !is_gone {
                fs::remove_dir(&cwd).expect("removed");
            }
            let done = restart(&place);
            assert_eq!(done.code(), 0, "{}", done.err());
            assert!(server.wait().expect("our child").success());
            let status = status(&place).expect("another server");
            assert_eq!(
                status["limits"]["sessions_max"], 7,
                "its variables are kept"
            );
            assert!(status["listen"].is_string(), "{status}");
            // And once more, from where it is now.
            assert_eq!(restart(&place).code(), 0);
        }
    }
}

#[test]
fn a_server_that_depends_on_the_directory_that_is_gone_goes_on() {
    let place = Server::stopped(&[], &[]);
    let cwd = place.scratch("cwd");
    let data_dir = place.data_dir().display().to_string();
    fs::write(place.scratch("settings"), "").expect("written");
    fs::create_dir(place.scratch("secrets")).expect("made");
    let only_ours = fs::Permissions::from_mode(0o700);
    fs::set_permissions(place.scratch("secrets"), only_ours).expect("a mode");
    for words in [
        &["--log-file", "../log"][..],
        &["--config", "../settings"],
        &["--secrets-dir", "../secrets"],
    ] {
        let words = [&["--data-dir", &data_dir], words].concat();
        let mut server = serve(&place, &cwd, false, &words);
        fs::remove_dir(&cwd).expect("removed");
        let done = restart(&place);
        assert_eq!(done.code(), 1, "{words:?}");
        assert!(done.err().contains("goes on"), "{words:?}: {}", done.err());
        assert!(server.try_wait().expect("our child").is_none(), "{words:?}");
        // As the message says.
        fs::create_dir(&cwd).expect("made");
        let done = restart(&place);
        assert_eq!(done.code(), 0, "{words:?}: {}", done.err());
        assert!(server.wait().expect("our child").success());
        assert_eq!(place.cli("stop").run().code(), 0);
        fs::remove_dir(&cwd).expect("removed");
    }
}

/// A `run` whose job runs until its gate is there.
fn gated_run(place: &Server) -> (PathBuf, Running) {
    let gate = place.scratch("gate");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo done",
        gate.display()
    );
    let run = place.cli("run").args(["--shell", &line]).spawn();
    until("the job", || {
        let jobs = place.cli("ls").args(["--json"]).run().json();
        (jobs[0]["state"] == "running").then_some(())
    });
    (gate, run)
}

#[track_caller]
fn is_done_at_its_gate(gate: &Path, run: Running) {
    fs::write(gate, "").expect("a gate");
    let done = run.finish();
    let told = (done.code(), done.out());
    assert_eq!(told, (0, "done\n".to_owned()), "{}", done.err());
}

/// It was taken for one that a command line had started, by that option alone; its successor had no TCP.
#[test]
fn a_server_with_an_idle_time_of_its_own_is_waited_for() {
    for words in [&["--idle-exit-s", "600"][..], &["--idle-exit-s=600"]] {
        let mut server = Server::with(words, &[]);
        let (gate, run) = gated_run(&server);
        server.kill_9();
        // Long enough for a successor, which would hold the data directory.
        #[expect(clippy::disallowed_methods, reason = "nothing is to happen")]
        thread::sleep(Duration::from_millis(1500));
        server.restart();
        is_done_at_its_gate(&gate, run);
        server.connect().still_works();
    }
}

#[test]
fn a_server_that_a_command_line_has_started_is_started_again() {
    let place = Server::stopped(&[], &[]);
    let (gate, run) = gated_run(&place);
    let before = status(&place).expect("the server")["pid"].clone();
    let pid = before.as_i64().expect("a pid") as i32;
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("the server");
    let after = until("another one", || {
        status(&place)
            .map(|status| status["pid"].clone())
            .filter(|pid| *pid != before)
    });
    assert_ne!(before, after);
    is_done_at_its_gate(&gate, run);
}
