//! A clean start for the server: signals, limits, scheduling and environment of the shell that happens
//! to start it must not apply to all jobs. Shims are the server's children and inherit the result.
//!
//! Jobs get their own limits from their submitters.
#![allow(unsafe_code)]

use std::{ffi::OsString, fs, io, os::unix::process::CommandExt, process::Command};

use nix::sys::signal::SigSet;
use rustix::{
    process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

use crate::sys::{descriptors, proc};

/// Variables that a server and its children need. Any other one of the first shell, perhaps a password,
/// would stay in `/proc/PID/environ` for days.
const KEPT: [&str; 17] = [
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
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "SQLITE_TMPDIR",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];

/// Variables with these prefixes are kept, too.
const KEPT_PREFIXES: [&str; 2] = ["LC_", "XDG_"];

/// Kept only where a user or a service manager runs `serve` itself: what the loader and the service
/// manager need.
const KEPT_BY_HAND: [&str; 12] = [
    "CREDENTIALS_DIRECTORY",
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

/// The prefix of our own variables. A server keeps those that are settings, but no token and none that
/// a job was given.
const OWN_PREFIX: &str = "CC_EXECUTOR_";

/// With a lower hard limit of open files, a server that many clients share cannot serve all of them.
const OPEN_FILES_USUAL: u64 = 256;
/// With a lower hard limit of open files, no server can work.
const OPEN_FILES_MIN: u64 = 40;
/// The hard limit of open files that a privileged server sets if the inherited one is below
/// `OPEN_FILES_USUAL`.
const OPEN_FILES_HARD: u64 = 4096;
/// Lowest soft limit of open files of a job without a limit of its own: what select(2) can count.
const OPEN_FILES_SOFT: u64 = 1024;
/// Lowest soft limit of the stack, bytes.
const STACK_BYTES_MIN: u64 = 8 << 20;
/// How many processors the affinity mask names: all. The kernel leaves out those that are not allowed.
const PROCESSORS_MAX: usize = CpuSet::MAX_CPU;

/// The variables that a server keeps. `by_hand`: a user or a service manager ran `serve` itself.
/// `is_setting` says which of our own variables are settings.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    by_hand: bool,
    is_setting: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &str| {
        KEPT.contains(&name)
            || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (by_hand && KEPT_BY_HAND.contains(&name))
            || (name.starts_with(OWN_PREFIX) && is_setting(name))
    };
    variables
        .filter(|(name, _)| name.to_str().is_some_and(is_kept))
        .collect()
}

/// Executes this program again, in the same process, with only the variables that [`environment`]
/// keeps. Returns `Ok` if there is nothing to remove, and an error if the exec failed.
pub fn reexec_with_kept_environment(is_setting: impl Fn(&str) -> bool) -> io::Result<()> {
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

/// A hard limit under which a server cannot work.
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

/// Sets the usual signals, scheduling and limits for this process, which must not have another thread
/// yet. Returns what could not be changed, for the log.
pub fn start() -> Result<Vec<String>, TooLow> {
    let mut unchanged = Vec::new();
    // With SIGTERM blocked the server could not be stopped.
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        unchanged.push(format!("signals stay blocked: {errno}"));
    }
    default_signals(&[libc::SIGPIPE, libc::SIGXFSZ]);
    if let Err(error) = schedule() {
        unchanged.push(error);
    }
    limits(&mut unchanged)?;
    Ok(unchanged)
}

/// Gives this process what every other program expects at its start: the default action of all signals, and
/// no descriptor beside the standard streams. For a process that is about to execute another program.
pub fn for_other_program() {
    default_signals(&[]);
    descriptors::close_all_but_standard();
}

/// Sets the default action for all signals except those that are `ignored`: our programs ignore two. With
/// SIGXFSZ ignored, a write beyond a limit of file sizes fails with an error that is reported; the signal
/// would end the server without a message.
fn default_signals(ignored: &[i32]) {
    for signal in 1..libc::SIGRTMAX() {
        let disposition = match signal {
            // The handlers of Rust's standard library, which report a stack overflow.
            libc::SIGSEGV | libc::SIGBUS => continue,
            signal if ignored.contains(&signal) => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        // SAFETY: no handler is installed, only dispositions. It fails for KILL and STOP.
        unsafe { libc::signal(signal, disposition) };
    }
}

/// Sets the usual nice value, scheduling policy, I/O priority, processors and OOM score.
fn schedule() -> Result<(), String> {
    let mut unchanged = Vec::new();
    let nice = getpriority_process(None).unwrap_or(0);
    if nice != 0 && setpriority_process(None, 0).is_err() {
        unchanged.push(format!("nice {nice} stays, only root may go back to 0"));
    }
    // SAFETY: a structure on the stack, plain values.
    let usual = unsafe {
        let parameter: libc::sched_param = std::mem::zeroed();
        // ioprio_set(2): who = IOPRIO_WHO_PROCESS (1), priority 0 is the default. If the kernel
        // refuses, the priority stays.
        libc::syscall(libc::SYS_ioprio_set, 1, 0, 0);
        libc::sched_getscheduler(0) == libc::SCHED_OTHER
            || libc::sched_setscheduler(0, libc::SCHED_OTHER, &parameter) == 0
    };
    if !usual {
        unchanged.push("the scheduling policy stays".to_owned());
    }
    let mut all = CpuSet::new();
    (0..PROCESSORS_MAX).for_each(|processor| all.set(processor));
    if let Err(errno) = sched_setaffinity(None, &all) {
        unchanged.push(format!("the processors stay as they are: {errno}"));
    }
    // A negative score protects the server and stays. A positive one would make the kernel kill the
    // server first.
    let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if score.trim().parse::<i32>().is_ok_and(|score| score > 0)
        && let Err(error) = fs::write("/proc/self/oom_score_adj", "0")
    {
        unchanged.push(format!("oom_score_adj stays: {error}"));
    }
    match unchanged.is_empty() {
        true => Ok(()),
        false => Err(unchanged.join("; ")),
    }
}

fn limits(unchanged: &mut Vec<String>) -> Result<(), TooLow> {
    let fatal = [
        (Resource::Fsize, "file sizes", "ulimit -f"),
        (Resource::Cpu, "CPU time", "ulimit -t"),
    ];
    for (resource, what, name) in fatal {
        if let Some(bound) = remove_limit(resource) {
            return Err(TooLow { what, name, bound });
        }
    }
    for (resource, name) in [(Resource::As, "ulimit -v"), (Resource::Data, "ulimit -d")] {
        if let Some(bound) = remove_limit(resource) {
            unchanged.push(format!("memory stays limited: {name} is {bound} bytes"));
        }
    }
    for resource in [
        Resource::Nproc,
        Resource::Memlock,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Rss,
        // A shim marks its job's processes with this limit; a server started in a job must not keep it.
        Resource::Rttime,
    ] {
        raise(resource, None);
    }
    no_core_dumps();
    raise(Resource::Stack, Some(STACK_BYTES_MIN));
    open_files()
}

/// Turns core dumps off for this process and its children: their memory contains secrets. A job with a
/// limit of its own may raise it again.
fn no_core_dumps() {
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    // Lowering a limit is always allowed.
    let _ = setrlimit(Resource::Core, limit);
}

/// Removes a limit. If that is not allowed, raises the soft limit to the hard one and returns it.
fn remove_limit(resource: Resource) -> Option<u64> {
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

/// Raises a soft limit to the hard one, or only to `least` if given. Never lowers it.
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
        // Raising the soft limit up to the hard one is always allowed.
        let _ = setrlimit(
            resource,
            Rlimit {
                current: wanted,
                ..limit
            },
        );
    }
}

/// Sets the limit of open files that jobs without a limit of their own get. The server raises its own
/// further.
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

/// Checks that a server started automatically from here would have the usual limit of open files: all
/// clients share that server, not only the shell that needs it now.
///
/// # Errors
///
/// The hard limit is lower, and this process may not raise it.
pub fn check_open_files() -> Result<(), TooLow> {
    let hard = getrlimit(Resource::Nofile).maximum;
    match hard.filter(|hard| *hard < OPEN_FILES_USUAL) {
        Some(bound) if !may_raise() => Err(too_few_files(bound)),
        _ => Ok(()),
    }
}

/// Whether this process may raise hard limits: CAP_SYS_RESOURCE (capabilities(7)).
fn may_raise() -> bool {
    const SYS_RESOURCE: u32 = 24;
    let status = proc::own_status().unwrap_or_default();
    let effective = proc::status_field(&status, "CapEff");
    let effective = effective.and_then(|set| u64::from_str_radix(set, 16).ok());
    effective.is_some_and(|set| set >> SYS_RESOURCE & 1 == 1)
}

/// Makes this process non-dumpable (prctl(2)), so that neither core dumps nor other processes of the
/// same user see its memory, which holds a token and environments of jobs. A program that it executes
/// is dumpable again.
pub fn make_undumpable() {
    // Only a protection: the process works without it.
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
