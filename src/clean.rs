//! A clean start for the server, whoever starts it: signals, limits, scheduling and environment of
//! one shell must not become everybody's. Shims are the server's children and inherit the result.
//!
//! It does not know what a server is for. Jobs get their own limits from their submitters.
#![allow(unsafe_code)]

use std::{ffi::OsString, fs, io, os::unix::process::CommandExt, process::Command};

use nix::sys::signal::SigSet;
use rustix::{
    process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

use crate::sys::{descriptors, proc};

/// Variables that a server and its children have use for. Whatever else the first shell had, a
/// password perhaps, would stand in `/proc/PID/environ` for days.
const KEPT: [&str; 15] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "RUST_LOG",
    "SHELL",
    "SQLITE_TMPDIR",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];

/// Beginnings of names that are kept, too.
const KEPT_BEGINNINGS: [&str; 2] = ["LC_", "XDG_"];

/// Kept only where a person or a service manager names the server itself: what the loader and the
/// service manager need.
const KEPT_BY_HAND: [&str; 11] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Where our settings begin; of these a server keeps what is a setting, and never a token or what a
/// job was given.
const OURS: &str = "CC_EXECUTOR_";

/// Fewer files than this, and a server that many use cannot work for all of them.
const OPEN_FILES_USUAL: u64 = 256;
/// Fewer files than this, and no server can work.
const OPEN_FILES_MIN: u64 = 40;
/// The limit of open files that a privileged server gives itself instead.
const OPEN_FILES_HARD: u64 = 4096;
/// Least soft limit of open files of a job that brings none: what select(2) can count.
const OPEN_FILES_SOFT: u64 = 1024;
/// Least stack, bytes.
const STACK_BYTES_MIN: u64 = 8 << 20;
/// How many processors are allowed: any number. The kernel leaves out what is not ours.
const PROCESSORS_MAX: usize = CpuSet::MAX_CPU;

/// What is kept of these variables: `by_hand` where the server itself was named, `is_setting` says
/// which of our own are settings.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    by_hand: bool,
    is_setting: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &str| {
        KEPT.contains(&name)
            || KEPT_BEGINNINGS.iter().any(|begin| name.starts_with(begin))
            || (by_hand && KEPT_BY_HAND.contains(&name))
            || (name.starts_with(OURS) && is_setting(name))
    };
    variables
        .filter(|(name, _)| name.to_str().is_some_and(is_kept))
        .collect()
}

/// Executes this program again with nothing but what is kept of its environment, unless that is all
/// there is. The process stays the same. Returns only where there is nothing to do or it failed.
pub fn environment_of_this_process(is_setting: impl Fn(&str) -> bool) -> io::Result<()> {
    let kept = environment(std::env::vars_os(), true, is_setting);
    if kept.len() == std::env::vars_os().count() {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    Err(Command::new(crate::launch::program())
        .arg0(name)
        .args(words)
        .env_clear()
        .envs(kept)
        .exec())
}

/// Why a server must not be started under these limits.
#[derive(Debug, thiserror::Error)]
#[error(
    "a server cannot work under the limit of {what} that was set here ({name} is {bound}); start it \
     from a shell without that limit"
)]
pub struct TooLow {
    what: &'static str,
    name: &'static str,
    bound: u64,
}

/// Gives this process, which must have no other thread yet, signals, scheduling and limits as they
/// usually are. Returns what could not be put right, for the log.
pub fn start() -> Result<Vec<String>, TooLow> {
    let mut left = Vec::new();
    // A blocked SIGTERM would make a server that cannot be stopped.
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        left.push(format!("signals stay blocked: {errno}"));
    }
    default_signals();
    if let Err(error) = schedule() {
        left.push(error);
    }
    limits(&mut left)?;
    Ok(left)
}

/// Defaults for all signals but those that a program of ours always ignores. Beyond a limit of file
/// sizes a write then fails, which is told, where a signal would end the server without a word.
fn default_signals() {
    for signal in 1..libc::SIGRTMAX() {
        let disposition = match signal {
            // std's own: it tells of a stack overflow.
            libc::SIGSEGV | libc::SIGBUS => continue,
            libc::SIGPIPE | libc::SIGXFSZ => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        // SAFETY: no handler is installed, only dispositions. It fails for KILL and STOP.
        unsafe { libc::signal(signal, disposition) };
    }
}

/// The usual nice, policy, I/O priority and processors.
fn schedule() -> Result<(), String> {
    let mut left = Vec::new();
    let nice = getpriority_process(None).unwrap_or(0);
    if nice != 0 && setpriority_process(None, 0).is_err() {
        left.push(format!("nice {nice} stays, only root may go back to 0"));
    }
    // SAFETY: a structure on the stack, plain values.
    let usual = unsafe {
        let parameter: libc::sched_param = std::mem::zeroed();
        // 1 is this process, 0 its usual priority; a refusal means that it is the usual one or ours
        // to keep.
        libc::syscall(libc::SYS_ioprio_set, 1, 0, 0);
        libc::sched_getscheduler(0) == libc::SCHED_OTHER
            || libc::sched_setscheduler(0, libc::SCHED_OTHER, &parameter) == 0
    };
    if !usual {
        left.push("the scheduling policy stays".to_owned());
    }
    let mut all = CpuSet::new();
    (0..PROCESSORS_MAX).for_each(|processor| all.set(processor));
    if let Err(errno) = sched_setaffinity(None, &all) {
        left.push(format!("the processors stay as they are: {errno}"));
    }
    // A server that somebody protects keeps that; one that was to be killed first does not.
    let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if score.trim().parse::<i32>().is_ok_and(|score| score > 0)
        && let Err(error) = fs::write("/proc/self/oom_score_adj", "0")
    {
        left.push(format!("oom_score_adj stays: {error}"));
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(left.join("; ")),
    }
}

fn limits(left: &mut Vec<String>) -> Result<(), TooLow> {
    let fatal = [
        (Resource::Fsize, "file sizes", "ulimit -f"),
        (Resource::Cpu, "CPU time", "ulimit -t"),
    ];
    for (resource, what, name) in fatal {
        if let Some(bound) = unbound(resource) {
            return Err(TooLow { what, name, bound });
        }
    }
    for (resource, name) in [(Resource::As, "ulimit -v"), (Resource::Data, "ulimit -d")] {
        if let Some(bound) = unbound(resource) {
            left.push(format!("memory stays bound: {name} is {bound} bytes"));
        }
    }
    for resource in [
        Resource::Nproc,
        Resource::Memlock,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Rss,
        // A job's mark, which is not for its server.
        Resource::Rttime,
    ] {
        raise(resource, None);
    }
    no_core_dumps();
    raise(Resource::Stack, Some(STACK_BYTES_MIN));
    open_files()
}

/// Neither this process nor those that it starts write their memory into a file; a job that brings a
/// limit of its own may raise it again.
fn no_core_dumps() {
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    // Down is always allowed.
    let _ = setrlimit(Resource::Core, limit);
}

/// Takes a limit away; the hard one where it cannot be.
fn unbound(resource: Resource) -> Option<u64> {
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    let hard = getrlimit(resource).maximum?;
    if setrlimit(resource, none).is_ok() {
        return None;
    }
    raise(resource, None);
    Some(hard)
}

/// Raises a soft limit to the hard one, or only to `least`.
fn raise(resource: Resource, least: Option<u64>) {
    let limit = getrlimit(resource);
    let wanted = match (least, limit.maximum) {
        (Some(least), Some(hard)) => Some(least.min(hard)),
        (least, hard) => least.or(hard),
    };
    let is_lower = limit
        .current
        .is_some_and(|soft| wanted.is_none_or(|wanted| soft < wanted));
    if is_lower {
        // Up to the hard limit nobody is refused.
        let _ = setrlimit(
            resource,
            Rlimit {
                current: wanted,
                ..limit
            },
        );
    }
}

/// As many open files as jobs that bring no limit shall have. The server itself raises it further.
fn open_files() -> Result<(), TooLow> {
    let hard = getrlimit(Resource::Nofile).maximum;
    if let Some(bound) = hard.filter(|hard| *hard < OPEN_FILES_USUAL) {
        let raised = Rlimit {
            current: Some(OPEN_FILES_SOFT),
            maximum: Some(OPEN_FILES_HARD),
        };
        if setrlimit(Resource::Nofile, raised).is_err() && bound < OPEN_FILES_MIN {
            return Err(too_few_files(bound));
        }
    }
    raise(Resource::Nofile, Some(OPEN_FILES_SOFT));
    descriptors::remember();
    Ok(())
}

fn too_few_files(bound: u64) -> TooLow {
    TooLow {
        what: "open files",
        name: "ulimit -n",
        bound,
    }
}

/// Whether a server that starts by itself would have as many open files as is usual: it is everybody's,
/// and not only that of the shell that needs one just now.
///
/// # Errors
///
/// It would have fewer, and may not raise its limit.
pub fn suits_everybody() -> Result<(), TooLow> {
    let hard = getrlimit(Resource::Nofile).maximum;
    match hard.filter(|hard| *hard < OPEN_FILES_USUAL) {
        Some(bound) if !may_raise() => Err(too_few_files(bound)),
        _ => Ok(()),
    }
}

/// CAP_SYS_RESOURCE (capabilities(7)).
fn may_raise() -> bool {
    const SYS_RESOURCE: u32 = 24;
    let status = proc::own_status().unwrap_or_default();
    let effective = proc::status_field(&status, "CapEff");
    let effective = effective.and_then(|set| u64::from_str_radix(set, 16).ok());
    effective.is_some_and(|set| set >> SYS_RESOURCE & 1 == 1)
}

/// Keeps this process's memory from core dumps and from other processes of the same user: it holds
/// a token, and environments of jobs. What it executes is dumpable again.
pub fn seal() {
    // Without it everything works as well.
    let _ = nix::sys::prctl::set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_marks_of_a_job_are_not_kept() {
        let names = [
            "PATH",
            "LC_TIME",
            "XDG_STATE_HOME",
            "PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "LD_PRELOAD",
            "CC_EXECUTOR_DRAIN",
            "CC_EXECUTOR_TOKEN",
            "CC_EXECUTOR_JOB_ID",
            "CC_EXECUTOR_INSTANCE",
        ];
        let variables = || names.iter().map(|name| (name.into(), "x".into()));
        let is_setting = |name: &str| name == "CC_EXECUTOR_DRAIN";
        let kept = |by_hand| -> Vec<_> {
            let kept = environment(variables(), by_hand, is_setting);
            kept.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(
            kept(false),
            ["PATH", "LC_TIME", "XDG_STATE_HOME", "CC_EXECUTOR_DRAIN"]
        );
        assert!(kept(true).contains(&"LD_PRELOAD".into()));
    }
}
