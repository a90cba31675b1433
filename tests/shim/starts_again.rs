//! Where something is only short at the moment (descriptors, processes, memory, a program that is
//! being written), nothing has run and nothing has failed: the attempt waits, says why, and starts
//! once, with its whole stdin. Meanwhile it can be cancelled, and no limit counts.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use cc_executor::{
    job::{Exit, JobState, Stream},
    spool::{CgroupSpec, FromShim, RunSpec, ShimState},
};

use crate::{
    failing::Failing,
    harness::{Server, Shim, cancel, code, descriptors, kill, pause, resume, shell, spec, until},
};

/// Why it waits.
fn waiting(server: &mut Server) -> String {
    server.wait_for("waiting", |message| match message {
        FromShim::Waiting {
            waiting: true, why, ..
        } => Some(why.clone()),
        FromShim::Exited { facts, .. } => panic!("ended: {facts:?}"),
        FromShim::Refused { why, .. } => panic!("refused: {why}"),
        _ => None,
    })
}

/// A job that counts its starts and gives back its stdin.
fn counted(shim: &Shim) -> (RunSpec, PathBuf) {
    let starts = shim.dir.path().join("starts");
    let mut job = shell(&format!("echo x >> {}; cat", starts.display()));
    job.stdin = Some("all of it".repeat(1000));
    (job, starts)
}

fn assert_ran_once(shim: &Shim, server: &mut Server, starts: &Path) {
    server.started();
    let facts = server.exited();
    assert_eq!((facts.exit.clone(), facts.stop.clone()), (code(0), None));
    assert_eq!(fs::read(starts).expect("starts"), b"x\n");
    assert_eq!(
        shim.output(Stream::Stdout),
        "all of it".repeat(1000).into_bytes()
    );
    assert_eq!(shim.exit_record(), Some(facts));
}

/// A shim of which some calls fail, until that is dropped; `None` where nobody may trace.
fn fails(shim: &Shim, calls: &str, error: &str) -> Option<Failing> {
    Failing::calls(shim.pid(), calls, error)
}

#[test]
fn a_call_that_fails_before_the_exec_is_tried_again() {
    for (calls, error, what) in [
        ("clone,clone3,fork,vfork", "EAGAIN", "fork: EAGAIN"),
        ("clone,clone3,fork,vfork", "ENOMEM", "fork: ENOMEM"),
        ("pipe2", "EMFILE", "create pipes: EMFILE"),
        ("pipe2", "ENFILE", "create pipes: ENFILE"),
        // In the child, which strace follows.
        ("setsid", "EAGAIN", "begin a session: EAGAIN"),
        ("dup2", "EMFILE", "place its descriptors: EMFILE"),
        ("execve", "EAGAIN", "exec /bin/sh: EAGAIN"),
        ("execve", "ENOMEM", "exec /bin/sh: ENOMEM"),
        ("execve", "EIO", "exec /bin/sh: EIO"),
    ] {
        let shim = Shim::start();
        let (mut server, _) = shim.hello(1);
        let (job, starts) = counted(&shim);
        let Some(failing) = fails(&shim, calls, error) else {
            return;
        };
        server.run(job);
        let why = waiting(&mut server);
        assert!(why.contains(what), "{calls} {error}: {why}");
        drop(failing);
        assert_ran_once(&shim, &mut server, &starts);
    }
}

#[test]
fn what_was_asked_while_it_waited_is_done_when_it_starts() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let (job, starts) = counted(&shim);
    let Some(failing) = fails(&shim, "execve", "EAGAIN") else {
        return;
    };
    server.run(job);
    waiting(&mut server);
    // A server that comes meanwhile hears it too.
    let (mut server, state) = shim.hello(2);
    let not_yet = matches!(
        state,
        ShimState::Running {
            started_at_us: 0,
            paused: false,
            ..
        }
    );
    assert!(not_yet, "{state:?}");
    waiting(&mut server);
    server.send(&pause());
    // It has been heard once what follows it is answered.
    server.hello(2);
    drop(failing);
    server.wait_for("paused", |m| {
        matches!(m, FromShim::Paused { .. }).then_some(())
    });
    server.send(&resume());
    let facts = server.exited();
    assert_eq!(facts.exit, code(0));
    assert_eq!(fs::read(starts).expect("starts"), b"x\n");
}

/// A program that somebody still writes.
fn being_written(shim: &Shim) -> (RunSpec, File) {
    let path = shim.dir.path().join("program");
    fs::copy("/bin/true", &path).expect("copy");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let writer = File::options().append(true).open(&path).expect("open");
    (spec(&[path.to_str().expect("utf-8")]), writer)
}

#[test]
fn a_program_that_is_being_written_is_waited_for_and_no_limit_counts() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let (mut job, writer) = being_written(&shim);
    job.timeout_ms = Some(300);
    job.stall_timeout_ms = Some(300);
    server.run(job);
    let why = waiting(&mut server);
    assert!(why.contains("ETXTBSY"), "{why}");
    assert!(
        server.receive_within(Duration::from_secs(1)).is_err(),
        "it only waits"
    );
    drop(writer);
    let facts = server.exited();
    assert_eq!((facts.exit, facts.stop), (code(0), None));
}

#[test]
fn an_attempt_that_cannot_be_started_ends_at_once_when_it_is_stopped() {
    for order in [cancel(60_000), kill()] {
        let shim = Shim::start();
        let (mut server, _) = shim.hello(1);
        let (job, _writer) = being_written(&shim);
        server.run(job);
        waiting(&mut server);
        // Also in one of the later, longer pauses.
        let waits = server.receive_within(Duration::from_secs(1)).is_err();
        assert!(waits);
        server.send(&order);
        let facts = server.exited();
        assert_eq!(facts.outcome(), (JobState::Cancelled, None));
        assert_eq!((facts.started_at_us, facts.end_offset), (None, 0));
        assert_eq!(shim.exit_record(), Some(facts));
    }
}

#[test]
fn a_first_segment_that_cannot_be_created_is_waited_for() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let (job, starts) = counted(&shim);
    descriptors(shim.pid(), "3");
    server.run(job.clone());
    let why = waiting(&mut server);
    assert!(why.contains("first segment"), "{why}");
    // It has taken the work: told twice it is still one, and another is refused.
    server.run(job);
    let mut other = spec(&["true"]);
    other.job = 2;
    server.run(other);
    server.wait_for("refused", |message| match message {
        FromShim::Refused { job, .. } => (*job == 2).then_some(()),
        _ => None,
    });
    assert!(matches!(
        server.hello(1),
        ShimState::Running {
            job: 1,
            attempt: 1,
            started_at_us: 0,
            ..
        }
    ));
    descriptors(shim.pid(), "1024");
    assert_ran_once(&shim, &mut server, &starts);
}

#[test]
fn an_attempt_without_a_segment_can_be_cancelled() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    descriptors(shim.pid(), "3");
    server.run(spec(&["true"]));
    waiting(&mut server);
    server.send(&cancel(60_000));
    let facts = server.exited();
    assert_eq!(facts.outcome(), (JobState::Cancelled, None));
    assert!(matches!(facts.exit, Exit::SpawnFailed(_)));
    assert_eq!((facts.started_at_us, facts.end_offset), (None, 0));
    let segments = fs::read_dir(shim.layout.spool()).expect("spool").count();
    assert_eq!(segments, 0);
    // Told until it is acknowledged; a run does that too.
    let again = server.hello(1);
    assert!(
        matches!(
            again,
            ShimState::Exited {
                job: 1,
                reusable: Some(true),
                ..
            }
        ),
        "{again:?}"
    );
    descriptors(shim.pid(), "1024");
    let mut next = spec(&["true"]);
    next.job = 2;
    server.run(next);
    assert_eq!(server.exited().exit, code(0));
    until("the shim is as good as new", || {
        matches!(server.hello(1), ShimState::Exited { job: 2, .. })
    });
}

/// A group below ours in which the job's is to be made; `None`, told as skipped, where none may be made.
fn group_for_one(name: &str) -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = roots
        .into_iter()
        .find(|root| root.join("cgroup.procs").exists());
    let group = root.map(|root| {
        root.join(own)
            .join(format!("{name}-{}", std::process::id()))
    });
    let group = group.filter(|group| fs::create_dir(group).is_ok());
    if group.is_none() {
        eprintln!("SKIPPED: no control group may be made here");
    }
    group
}

#[test]
fn a_control_group_that_is_required_and_short_is_waited_for() {
    let Some(group) = group_for_one("cc-executor-short") else {
        return;
    };
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let (mut job, starts) = counted(&shim);
    let path = group.join("1.1");
    job.cgroup = Some(CgroupSpec {
        path: path.to_str().expect("utf-8").to_owned(),
        required: true,
    });
    let Some(failing) = fails(&shim, "mkdir", "ENOMEM") else {
        return;
    };
    server.run(job);
    let why = waiting(&mut server);
    assert!(
        why.contains("create its control group") && why.contains("ENOMEM"),
        "{why}"
    );
    drop(failing);
    assert_ran_once(&shim, &mut server, &starts);
    assert!(!group.exists(), "{} is left", group.display());
}
