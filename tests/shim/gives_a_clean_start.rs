//! A job gets exactly its environment, its directory, its mask, its own session, default signals,
//! and no descriptor but 0, 1 and 2.

use cc_executor::job::Stream;

use crate::harness::{Shim, code, shell, spec};

fn stdout_of(spec: cc_executor::spool::RunSpec) -> String {
    let shim = Shim::start();
    assert_eq!(shim.run_to_end(spec).exit, code(0));
    String::from_utf8(shim.output(Stream::Stdout)).expect("text")
}

#[test]
fn the_environment_is_what_was_given() {
    let mut spec = spec(&["env"]);
    spec.env = vec![
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("B".into(), "two words".into()),
        ("A".into(), String::new()),
    ];
    assert_eq!(stdout_of(spec), "PATH=/usr/bin:/bin\nB=two words\nA=\n");
}

#[test]
fn only_three_descriptors_are_inherited() {
    // ls itself opens the directory as the fourth.
    assert_eq!(stdout_of(spec(&["ls", "/proc/self/fd"])), "0\n1\n2\n3\n");
}

#[test]
fn directory_and_mask_are_its_own() {
    let mut spec = shell("pwd; umask");
    spec.cwd = "/usr".into();
    spec.umask = 0o027;
    assert_eq!(stdout_of(spec), "/usr\n0027\n");
}

#[test]
fn it_leads_a_session_of_its_own() {
    let line = "read pid comm state parent group session rest < /proc/self/stat; \
                [ $pid = $group ] && [ $pid = $session ] && echo leader";
    assert_eq!(stdout_of(shell(line)), "leader\n");
}

#[test]
fn signals_are_as_after_boot() {
    let text = stdout_of(spec(&["grep", "Sig[BI]", "/proc/self/status"]));
    assert_eq!(
        text,
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[test]
fn a_program_is_looked_up_in_the_jobs_own_path() {
    let dir = tempfile::tempdir().expect("tempdir");
    let program = dir.path().join("hello");
    std::fs::write(&program, "#!/bin/sh\necho hello from here\n").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("chmod");
    let mut spec = spec(&["hello"]);
    spec.env = vec![("PATH".into(), format!("/nowhere:{}", dir.path().display()))];
    assert_eq!(stdout_of(spec), "hello from here\n");
}
