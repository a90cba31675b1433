//! Where no process can be started, the errno says why: nothing is guessed from an exit code.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use cc_executor::{
    job::{Exit, JobState, Reason, SpawnError},
    spool::{CgroupSpec, RunSpec},
};

use crate::harness::{Shim, spec};

fn error_of(shim: &Shim, spec: RunSpec) -> SpawnError {
    let facts = shim.run_to_end(spec);
    assert_eq!(facts.outcome(), (JobState::Failed, Some(Reason::Spawn)));
    assert_eq!((facts.started_at_us, facts.end_offset), (None, 0));
    assert_eq!(shim.exit_record().as_ref(), Some(&facts));
    match facts.exit {
        Exit::SpawnFailed(error) => error,
        other => panic!("{other:?}"),
    }
}

fn assert_error(error: SpawnError, name: &str, what: &str) {
    assert_eq!((error.name.as_str(), error.what.as_str()), (name, what));
}

fn program(shim: &Shim, text: &str, mode: u32) -> String {
    let path = shim.dir.path().join("program");
    fs::write(&path, text).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    path.to_str().expect("utf-8").to_owned()
}

#[test]
fn a_missing_program() {
    let shim = Shim::start();
    let error = error_of(&shim, spec(&["no-such-program", "x"]));
    assert_eq!(error.errno, 2);
    assert_error(error, "ENOENT", "exec no-such-program");
}

#[test]
fn a_program_that_may_not_be_executed() {
    let shim = Shim::start();
    let path = program(&shim, "#!/bin/sh\n", 0o644);
    assert_error(
        error_of(&shim, spec(&[&path])),
        "EACCES",
        &format!("exec {path}"),
    );
}

#[test]
fn in_path_too_it_is_the_permission_that_is_told() {
    let shim = Shim::start();
    program(&shim, "#!/bin/sh\n", 0o644);
    let mut spec = spec(&["program"]);
    spec.env = vec![(
        "PATH".into(),
        format!("{}:/nowhere", shim.dir.path().display()),
    )];
    assert_error(error_of(&shim, spec), "EACCES", "exec program");
}

#[test]
fn a_shebang_that_leads_nowhere() {
    let shim = Shim::start();
    let path = program(&shim, "#!/no/such/interpreter\n", 0o755);
    assert_error(
        error_of(&shim, spec(&[&path])),
        "ENOENT",
        &format!("exec {path}"),
    );
}

#[test]
fn a_file_that_is_no_program() {
    let shim = Shim::start();
    let path = program(&shim, "hello\n", 0o755);
    assert_error(
        error_of(&shim, spec(&[&path])),
        "ENOEXEC",
        &format!("exec {path}"),
    );
}

#[test]
fn a_working_directory_that_is_gone() {
    let shim = Shim::start();
    let mut spec = spec(&["true"]);
    spec.cwd = "/no/such/directory".into();
    assert_error(error_of(&shim, spec), "ENOENT", "chdir /no/such/directory");
}

#[test]
fn words_that_are_too_long() {
    let shim = Shim::start();
    let error = error_of(&shim, spec(&["true", &"x".repeat(200 << 10)]));
    assert_error(error, "E2BIG", "exec true");
}

#[test]
fn the_shim_goes_on_afterwards() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    for job in 1..=20 {
        let mut spec = spec(&[if job % 2 == 0 {
            "true"
        } else {
            "no-such-program"
        }]);
        spec.job = job;
        server.run(spec);
        let failed = matches!(server.exited().exit, Exit::SpawnFailed(_));
        assert_eq!(failed, job % 2 == 1, "job {job}");
    }
}

fn in_group(mut job: RunSpec, path: &Path, required: bool) -> RunSpec {
    let path = path.to_str().expect("utf-8").to_owned();
    job.cgroup = Some(CgroupSpec { path, required });
    job
}

#[test]
fn a_control_group_that_is_required_and_cannot_be_had() {
    let shim = Shim::start();
    let nowhere = Path::new("/dev/null/1.1");
    let error = error_of(&shim, in_group(spec(&["true"]), nowhere, true));
    assert_error(error, "ENOTDIR", "create its control group /dev/null/1.1");
    // A directory that is no group.
    let shim = Shim::start();
    let directory = shim.dir.path().join("no-group");
    let error = error_of(&shim, in_group(spec(&["true"]), &directory, true));
    assert_error(error, "EBADF", "fork");
}

#[test]
fn without_a_control_group_that_is_not_required_it_runs_and_the_log_says_so() {
    for place in ["/dev/null/1.1", "no-group"] {
        let shim = Shim::start();
        let path = shim.dir.path().join(place);
        let facts = shim.run_to_end(in_group(spec(&["true"]), &path, false));
        assert_eq!(facts.outcome(), (JobState::Succeeded, None), "{place}");
    }
}

/// Why a process does not start has nothing to do with the group that it was to be in.
#[test]
fn a_program_that_is_missing_is_told_alike_with_a_control_group() {
    let shim = Shim::start();
    let mut refused = in_group(spec(&["true"]), Path::new("/dev/null/1.1"), true);
    let why = SpawnError {
        errno: 1,
        name: "EPERM".to_owned(),
        what: "start, because of a rule".to_owned(),
    };
    refused.refusal = Some(why.clone());
    assert_eq!(error_of(&shim, refused), why);
}
