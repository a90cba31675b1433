//! The thread that syncs is there before a job is: where it cannot be started, no job pays for it.

use std::{
    fs,
    process::{Command, Output},
};

use crate::harness::Shim;

/// The names of a process's threads.
fn threads(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks
        .flatten()
        .filter_map(name)
        .map(|name| name.trim().to_owned())
        .collect()
}

#[test]
fn before_it_listens() {
    let shim = Shim::start();
    let names = threads(shim.pid());
    assert!(names.iter().any(|name| name == "cc-shim-sync"), "{names:?}");
}

#[test]
fn without_it_a_shim_says_why_and_leaves() {
    for (calls, error) in [
        ("clone3", "EAGAIN"),
        ("clone3", "ENOMEM"),
        ("eventfd2", "EMFILE"),
    ] {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["spool", "shims"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let strace = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={calls}"),
            ])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .args([env!("CARGO_BIN_EXE_cc-executor"), "shim", "--data-dir"])
            .arg(dir.path())
            .args(["--id", "s1"])
            .output();
        let Some(output) = strace.ok().filter(|output| !cannot_trace(output)) else {
            eprintln!("SKIPPED: nobody may trace here");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("start the thread that syncs"), "{said}");
    }
}

fn cannot_trace(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("PTRACE")
}
