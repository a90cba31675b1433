//! A program that was judged is opened before the fork and executed by its descriptor: no link that was put
//! into its path since then is followed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use cc_executor::{
    job::{Exit, SpawnError, Stream},
    spool::{PinnedRun, RunSpec},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::harness::{Shim, code, spec};

/// A run of this program, which is pinned with its directory.
fn pinned(words: &[&str], program: Option<&Path>) -> RunSpec {
    RunSpec {
        pinned: Some(PinnedRun {
            program: program.map(|program| program.display().to_string()),
            sha256: None,
            by_path: false,
            cwd: "/".into(),
        }),
        ..spec(words)
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A place for programs, without links in its path.
fn place(shim: &Shim) -> PathBuf {
    fs::canonicalize(shim.dir.path()).expect("a path")
}

fn not_started(exit: Exit) -> SpawnError {
    match exit {
        Exit::SpawnFailed(error) => error,
        other => panic!("it was started: {other:?}"),
    }
}

#[test]
fn a_pinned_program_runs_with_its_own_words() {
    let shim = Shim::start();
    let echo = fs::canonicalize("/bin/echo").expect("echo");
    let facts = shim.run_to_end(pinned(&["echo", "a", "b"], Some(&echo)));
    assert_eq!(facts.exit, code(0));
    assert_eq!(shim.output(Stream::Stdout), b"a b\n");
}

#[test]
fn a_pinned_script_is_read_through_its_descriptor() {
    let shim = Shim::start();
    let tool = place(&shim).join("tool");
    script(&tool, "#!/bin/sh\necho \"$0\" \"$1\"\n");
    let facts = shim.run_to_end(pinned(&["tool", "x"], Some(&tool)));
    assert_eq!(facts.exit, code(0));
    let out = String::from_utf8(shim.output(Stream::Stdout)).expect("text");
    assert!(
        out.starts_with("/dev/fd/") && out.ends_with(" x\n"),
        "{out}"
    );
}

#[test]
fn a_script_that_may_sees_its_path() {
    let shim = Shim::start();
    let tool = place(&shim).join("tool");
    script(&tool, "#!/bin/sh\necho \"$0\"\n");
    let mut run = pinned(&["tool"], Some(&tool));
    run.pinned.as_mut().expect("it is pinned").by_path = true;
    assert_eq!(shim.run_to_end(run).exit, code(0));
    let expected = format!("{}\n", tool.display());
    assert_eq!(
        String::from_utf8_lossy(&shim.output(Stream::Stdout)),
        expected
    );
}

#[test]
fn a_link_in_the_path_of_the_program_or_the_directory_is_not_followed() {
    let shim = Shim::start();
    let at = place(&shim);
    symlink("/bin/echo", at.join("echo")).expect("a link");
    let error = not_started(
        shim.run_to_end(pinned(&["echo"], Some(&at.join("echo"))))
            .exit,
    );
    assert_eq!(error.name, "ELOOP", "{error:?}");

    let shim = Shim::start();
    let at = place(&shim);
    symlink("/", at.join("root")).expect("a link");
    let echo = fs::canonicalize("/bin/echo").expect("echo");
    let through = at
        .join("root")
        .join(echo.strip_prefix("/").expect("absolute"));
    let error = not_started(shim.run_to_end(pinned(&["echo"], Some(&through))).exit);
    assert_eq!(error.name, "ELOOP", "{error:?}");

    let shim = Shim::start();
    let at = place(&shim);
    symlink("/", at.join("root")).expect("a link");
    let mut run = pinned(&["echo"], Some(&echo));
    run.pinned.as_mut().expect("it is pinned").cwd = at.join("root").display().to_string();
    let error = not_started(shim.run_to_end(run).exit);
    assert_eq!(error.name, "ELOOP", "{error:?}");
    assert!(error.what.starts_with("chdir "), "{error:?}");
    assert!(shim.output(Stream::Stdout).is_empty());
}

#[test]
fn a_program_without_a_file_or_with_another_digest_is_not_started() {
    let shim = Shim::start();
    let error = not_started(shim.run_to_end(pinned(&["no-such"], None)).exit);
    assert_eq!(
        (error.name.as_str(), error.what.as_str()),
        ("ENOENT", "exec no-such")
    );

    let shim = Shim::start();
    let tool = place(&shim).join("tool");
    script(&tool, "#!/bin/sh\necho yes\n");
    let with_digest = |digest: &str| {
        let mut run = pinned(&["tool"], Some(&tool));
        run.pinned.as_mut().expect("it is pinned").sha256 = Some(digest.to_owned());
        run
    };
    let error = not_started(shim.run_to_end(with_digest(&"0".repeat(64))).exit);
    assert_eq!(error.name, "EPERM", "{error:?}");
    // printf '#!/bin/sh\necho yes\n' | sha256sum
    let digest = "321185b786d58a12e303ff641645b2d809ac8c13cce6174a6ee0c60781be4342";
    let shim = Shim::start();
    assert_eq!(shim.run_to_end(with_digest(digest)).exit, code(0));
    assert_eq!(shim.output(Stream::Stdout), b"yes\n");
}

#[test]
fn a_refused_attempt_ends_before_any_process_exists() {
    let shim = Shim::start();
    let refusal = SpawnError {
        errno: 1,
        name: "EPERM".into(),
        what: "start, because the policy does not allow it".into(),
    };
    let run = RunSpec {
        refusal: Some(refusal.clone()),
        ..spec(&["/bin/echo", "a"])
    };
    let facts = shim.run_to_end(run);
    assert_eq!(not_started(facts.exit.clone()), refusal);
    assert_eq!((facts.started_at_us, facts.end_offset), (None, 0));
    assert_eq!(shim.exit_record(), Some(facts));
}

#[test]
fn a_link_that_is_swapped_in_before_the_exec_runs_nothing() {
    const RACES: i64 = 1000;
    let shim = Shim::start();
    let at = place(&shim);
    for name in ["bin", "evil"] {
        fs::create_dir(at.join(name)).expect("mkdir");
    }
    let canary = at.join("canary");
    script(&at.join("bin/tool"), "#!/bin/sh\nexit 7\n");
    script(
        &at.join("evil/tool"),
        &format!("#!/bin/sh\ntouch {}\n", canary.display()),
    );
    symlink("evil", at.join("link")).expect("a link");
    let swap = || {
        let (bin, link) = (at.join("bin"), at.join("link"));
        renameat_with(CWD, &bin, CWD, &link, RenameFlags::EXCHANGE).expect("swap");
    };
    let (mut server, _) = shim.hello(1);
    let mut ran = 0;
    for job in 1..=RACES {
        let mut run = pinned(&["tool"], Some(&at.join("bin/tool")));
        run.job = job;
        server.run(run);
        // It is anywhere between the message and its exec now.
        swap();
        match server.exited().exit {
            Exit::SpawnFailed(error) => assert_eq!(error.name, "ELOOP", "{error:?}"),
            exit => {
                assert_eq!(exit, code(7));
                ran += 1;
            }
        }
        swap();
    }
    assert!(!canary.exists(), "another program ran");
    eprintln!("{ran} of {RACES} were faster than the swap");
}
