//! Prepares an attempt's process: pipes, arguments, environment, the paths where its program may
//! be; and reads the report of a child that failed. The code that runs in the child is in `fork`.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use super::{
    fork,
    pinned::{NotPinned, PinnedFiles},
    pipes::Pipes,
    plan::{CStrings, ChildStep, Executable, Plan, REPORT_BYTES},
};
use crate::{
    job::{Limits, ResourceBound, SpawnError},
    shim::log::AttemptLog,
    spool::{LaunchRequest, RunSpec},
    sys::cgroup::Cgroup,
};

/// The search path when the environment has no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A child between fork and exec.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: i32,
    /// Our ends of its stdout and stderr.
    pub pipes: Pipes,
    /// Our end of its stdin, non-blocking, where that is a pipe.
    pub stdin: Option<OwnedFd>,
    /// At its end (end of file) the exec has succeeded; bytes in it are a report of failure.
    pub report: OwnedFd,
}

/// Whether a start that failed may succeed later. Nothing has run in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The next try would fail as well.
    Never,
    /// It may succeed or not: tried again for 30 s.
    ForAWhile,
    /// A resource is short that other processes give back: tried without end.
    Always,
}

/// A start that failed.
#[derive(Debug)]
pub struct SpawnFailure {
    /// The step and the errno, for people.
    pub error: SpawnError,
    /// Whether to try again.
    pub retry: Retry,
}

/// The step of a start that makes the child.
const FORK: &str = "fork";

impl SpawnFailure {
    /// A failure of the child's `step`, or of what comes before it; `what` was to be done.
    pub fn of(step: Option<ChildStep>, errno: Errno, what: &str) -> Self {
        Self {
            error: failed(errno, what),
            retry: retry(step, errno),
        }
    }

    /// Whether the fork itself has failed, and would again.
    pub fn is_final_of_fork(&self) -> bool {
        self.error.what == FORK && self.retry == Retry::Never
    }

    /// The child has written bytes that are no report.
    pub fn unknown() -> Self {
        Self::of(
            Some(ChildStep::Exec),
            Errno::EBADMSG,
            "understand its child",
        )
    }

    fn invalid(what: &str) -> Self {
        Self::of(None, Errno::EINVAL, what)
    }
}

/// Whether an error is worth another try. `step` is the step of the child, `None` where there was
/// no child yet.
fn retry(step: Option<ChildStep>, errno: Errno) -> Retry {
    match (step, errno) {
        (Some(ChildStep::Exec), Errno::ENOMEM | Errno::EIO | Errno::ETXTBSY)
        | (Some(ChildStep::Chdir), Errno::EIO) => Retry::ForAWhile,
        (_, Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
        | (Some(ChildStep::Record), Errno::ENOSPC | Errno::EDQUOT | Errno::EIO) => Retry::Always,
        _ => Retry::Never,
    }
}

/// Forks the process of an attempt in its control group, with a pipe as its stdin where `has_stdin_pipe`; it and all
/// that it starts carry the `mark`. [`Spawned::report`] shows whether its exec succeeds.
pub fn spawn(
    spec: &RunSpec,
    mark: Option<u64>,
    has_stdin_pipe: bool,
    cgroup: Option<&Cgroup>,
    log: &AttemptLog,
    null: &OwnedFd,
) -> Result<Spawned, SpawnFailure> {
    if let Some(error) = &spec.refusal {
        return Err(SpawnFailure {
            error: error.clone(),
            retry: Retry::Never,
        });
    }
    let strings = ExecStrings::of(spec)?;
    let pinned = pinned_files(spec)?;
    let pairs =
        PipePairs::open(has_stdin_pipe).map_err(|e| SpawnFailure::of(None, e, "create pipes"))?;
    let (segment, start_at) = log.start_position();
    let stdin = pairs.stdin.as_ref().map_or(null, |(theirs, _)| theirs);
    let pid = fork::fork(&Plan {
        executable: match &pinned {
            Some(files) => files.executable(),
            None => Executable::Candidates(&strings.candidates),
        },
        argv: &strings.argv,
        env: &strings.env,
        cwd: &strings.cwd,
        cwd_fd: pinned.as_ref().map(PinnedFiles::cwd),
        umask: spec.umask,
        cgroup: cgroup.map(|group| group.as_fd().as_raw_fd()),
        limits: &resources(&spec.limits, mark),
        nice: spec.limits.nice,
        stdio: [stdin, &pairs.stdout.1, &pairs.stderr.1].map(AsRawFd::as_raw_fd),
        report: pairs.report.1.as_raw_fd(),
        segment,
        start_at,
        offset: log.end(),
    })
    .map_err(|e| SpawnFailure::of(None, errno_of(&e), FORK))?;
    // Dropping the child's ends here leaves the child as their only holder.
    Ok(Spawned {
        pid,
        pipes: Pipes::new(pairs.stdout.0, pairs.stderr.0),
        stdin: pairs.stdin.map(|(_, ours)| ours),
        report: pairs.report.0,
    })
}

/// Opens what a policy has judged.
fn pinned_files(spec: &RunSpec) -> Result<Option<PinnedFiles>, SpawnFailure> {
    let word = spec.argv.first().map_or("", String::as_str);
    let files = spec
        .pinned
        .as_ref()
        .map(|pinned| PinnedFiles::open(pinned, word));
    let files = files.transpose();
    files.map_err(|NotPinned { errno, what }| SpawnFailure::of(None, errno, &what))
}

/// From this number on a limit means "unlimited".
const UNBOUND: u64 = i64::MAX as u64;

/// The limits as the kernel expects them; a missing hard limit is RLIM_INFINITY. The mark sets only
/// a soft limit: the job may raise it.
fn resources(limits: &Limits, mark: Option<u64>) -> Vec<(u32, u64, u64)> {
    let mark = mark.map(|soft| ResourceBound::Each { soft, hard: None });
    let all = [
        (libc::RLIMIT_AS, limits.memory_bytes),
        (libc::RLIMIT_CPU, limits.cpu_s),
        (libc::RLIMIT_NPROC, limits.processes),
        (libc::RLIMIT_NOFILE, limits.open_files),
        (libc::RLIMIT_FSIZE, limits.file_bytes),
        (libc::RLIMIT_RTTIME, mark),
        (libc::RLIMIT_CORE, limits.core_bytes),
    ];
    let resource = |(resource, bound): (_, Option<ResourceBound>)| {
        let (soft, hard) = bound?.soft_and_hard();
        // The highest number in JSON stands for the kernel's RLIM_INFINITY.
        let none = |bound| match bound {
            UNBOUND.. => libc::RLIM_INFINITY,
            bound => bound,
        };
        let (soft, hard) = (none(soft), hard.map(none));
        #[allow(clippy::unnecessary_cast, reason = "its type depends on the C library")]
        Some((resource as u32, soft, hard.unwrap_or(libc::RLIM_INFINITY)))
    };
    all.into_iter().filter_map(resource).collect()
}

/// Starts a program as a sibling of this process, in a session of its own, with `/dev/null` as its
/// stdin and stdout, and our stderr.
pub fn launch(launch: &LaunchRequest, null: &OwnedFd) -> std::io::Result<i32> {
    let c_strings = |all: Vec<Vec<u8>>| all.into_iter().map(CString::new).collect();
    let argv: Result<Vec<_>, _> =
        c_strings([vec![launch.program.clone()], launch.args.clone()].concat());
    let env: Result<Vec<_>, _> = c_strings(launch.env.clone());
    let program = CString::new(launch.program.clone())?;
    fork::fork_sibling(
        &program,
        &CStrings::new(argv?),
        &CStrings::new(env?),
        &CString::new(launch.cwd.clone())?,
        null.as_raw_fd(),
    )
}

/// Both ends of every pipe: the reading end, then the writing end.
struct PipePairs {
    stdin: Option<(OwnedFd, OwnedFd)>,
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
    report: (OwnedFd, OwnedFd),
}

impl PipePairs {
    fn open(has_stdin_pipe: bool) -> Result<Self, Errno> {
        Ok(Self {
            stdin: has_stdin_pipe.then(input_pipe).transpose()?,
            stdout: output_pipe()?,
            stderr: output_pipe()?,
            report: output_pipe()?,
        })
    }
}

/// A pipe whose reading end does not block; the process's end is as it expects it.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

/// The same the other way round.
fn input_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((theirs, ours))
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// The strings of an exec, ending in NUL.
struct ExecStrings {
    candidates: Vec<CString>,
    argv: CStrings,
    env: CStrings,
    cwd: CString,
}

impl ExecStrings {
    fn of(spec: &RunSpec) -> Result<Self, SpawnFailure> {
        let invalid = SpawnFailure::invalid;
        let program = spec.argv.first().ok_or_else(|| invalid("exec nothing"))?;
        let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value);
        let c_strings = |all: &mut dyn Iterator<Item = String>, what| {
            all.map(CString::new)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| invalid(what))
        };
        let is_ours = |name: &String| spec.env.iter().any(|(own, _)| own == name);
        let secrets = spec.secret_env.iter().filter(|one| !is_ours(&one.name));
        let secrets = secrets.map(|one| (&one.name, one.value.expose()));
        let env = spec.env.iter().map(|(name, value)| (name, value.as_str()));
        let mut env = env
            .chain(secrets)
            .map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
            candidates: c_strings(&mut candidates(program, path).into_iter(), "exec a NUL")?,
            argv: CStrings::new(c_strings(&mut spec.argv.iter().cloned(), "pass a NUL")?),
            env: CStrings::new(c_strings(&mut env, "pass a NUL in the environment")?),
            cwd: CString::new(spec.cwd.as_str()).map_err(|_| invalid("chdir to a NUL"))?,
        })
    }
}

/// The paths to try for a program, as execvp(3) does: a name with a slash is used as it is, an
/// empty entry in PATH is the working directory.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.is_empty() || program.contains('/') {
        return vec![program.to_owned()];
    }
    path.split(':')
        .map(|directory| match directory {
            "" => program.to_owned(),
            _ => format!("{directory}/{program}"),
        })
        .collect()
}

/// Reads a child's report; `None` where the bytes are no report.
pub fn read_report(report: &[u8], spec: &RunSpec) -> Option<SpawnFailure> {
    let report: &[u8; REPORT_BYTES] = report.try_into().ok()?;
    let [step, _, _, _, errno @ ..] = *report;
    let step = ChildStep::from_code(step)?;
    let what = match step {
        ChildStep::Session => "begin a session".to_owned(),
        ChildStep::DeathSignal => "tie its life to the shim's".to_owned(),
        ChildStep::Chdir => format!("chdir {}", spec.cwd),
        ChildStep::Descriptors => "place its descriptors".to_owned(),
        ChildStep::Record => "write its start record".to_owned(),
        ChildStep::Limits => "take its limits".to_owned(),
        ChildStep::Exec => format!("exec {}", spec.argv.first()?),
    };
    let errno = Errno::from_raw(i32::from_le_bytes(errno));
    Some(SpawnFailure::of(Some(step), errno, &what))
}

/// A spawn error with the name of its errno.
pub fn failed(errno: Errno, what: &str) -> SpawnError {
    SpawnError {
        errno: errno as i32,
        name: format!("{errno:?}"),
        what: what.to_owned(),
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_tried_again_and_what_is_wrong_is_not() {
        let exec = Some(ChildStep::Exec);
        for (step, errno, expected) in [
            (None, Errno::EAGAIN, Retry::Always),
            (None, Errno::EMFILE, Retry::Always),
            (None, Errno::EINVAL, Retry::Never),
            (Some(ChildStep::Record), Errno::ENOSPC, Retry::Always),
            (Some(ChildStep::Chdir), Errno::ENOENT, Retry::Never),
            (Some(ChildStep::Chdir), Errno::ENOMEM, Retry::Always),
            (exec, Errno::EAGAIN, Retry::Always),
            (exec, Errno::ENOMEM, Retry::ForAWhile),
            (exec, Errno::ETXTBSY, Retry::ForAWhile),
            (exec, Errno::ENOENT, Retry::Never),
            (exec, Errno::E2BIG, Retry::Never),
        ] {
            assert_eq!(retry(step, errno), expected, "{step:?} {errno}");
        }
    }

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        assert_eq!(candidates("ls", "/a::/b"), ["/a/ls", "ls", "/b/ls"]);
        assert_eq!(candidates("./ls", "/a:/b"), ["./ls"]);
        assert_eq!(candidates("", "/a"), [""]);
    }
}
