//! System calls that the compiler cannot check: fork and what the child does before exec, waiting
//! with resource usage, raw signals. Every `unsafe` of the shim is here.
//!
//! Between fork and exec the child shares no memory with the shim, but a lock that the helper
//! thread held at that moment stays locked in it for ever. So everything below [`child`] is
//! async-signal-safe: system calls, stack memory, no allocation, no panic.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::RawFd,
    ptr,
};

use nix::errno::Errno;

use super::plan::{CStrings, ChildStep, Executable, Plan, REPORT_BYTES};
use crate::{
    job::Stream,
    shim::log::frame,
    spool::record::{self, HEADER_BYTES, RecordKind, StartPayload},
    sys::proc::Stat,
};

/// Length of a start record, header included, bytes.
pub const START_BYTES: usize = HEADER_BYTES + StartPayload::BYTES;

/// Signals that a shim ignores, so that only its own rules end it. A child gets the defaults back.
const IGNORED: [i32; 17] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Forks; the child continues by `plan` and never returns. Only for the main thread:
/// PR_SET_PDEATHSIG kills the child when the thread that forked it exits.
pub fn fork(plan: &Plan<'_>) -> io::Result<i32> {
    let shim = std::process::id() as i32;
    // SAFETY: the child only runs `child`, which is async-signal-safe.
    match unsafe { fork_into(plan.cgroup) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let (step, errno) = child(plan, shim);
            let mut report = [0; REPORT_BYTES];
            report[0] = step as u8;
            report[4..].copy_from_slice(&(errno as i32).to_le_bytes());
            // SAFETY: the buffer is alive and that long; _exit runs no handler.
            unsafe {
                libc::write(plan.report, report.as_ptr().cast(), REPORT_BYTES);
                libc::_exit(127)
            }
        }
        pid => Ok(pid),
    }
}

/// The flag of clone3(2) that begins the child in a control group; libc's constant has a type that cannot hold it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// fork(2); with a control group the child is in it from its first instruction on.
///
/// # Safety
/// As fork(2) in a process with threads: the child may only do what is async-signal-safe.
unsafe fn fork_into(cgroup: Option<RawFd>) -> i32 {
    let Some(cgroup) = cgroup else {
        // SAFETY: as this function's.
        return unsafe { libc::fork() };
    };
    // SAFETY: without a stack of its own the child is a fork; the structure is plain data and alive.
    unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = cgroup as u64;
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        ) as i32
    }
}

/// Forks a process that executes `program` and whose parent is our own parent: it is not below this
/// process, so it neither ends nor is counted with it. A failed exec is not reported.
pub fn fork_sibling(
    program: &CStr,
    argv: &CStrings,
    env: &CStrings,
    cwd: &CStr,
    null: RawFd,
) -> io::Result<i32> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without a stack of its own it is a fork; zeros mean the same in any order of arguments.
    // The child only makes system calls with plain values, and with pointers into the copied address
    // space.
    match unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        0 => unsafe {
            libc::setsid();
            default_signals();
            libc::umask(0o077);
            libc::chdir(cwd.as_ptr());
            libc::dup2(null, 0);
            libc::dup2(null, 1);
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            libc::execve(
                program.as_ptr(),
                argv.pointers.as_ptr(),
                env.pointers.as_ptr(),
            );
            libc::_exit(127)
        },
        pid => Ok(pid as i32),
    }
}

/// The child between fork and exec; returns only an error.
fn child(plan: &Plan<'_>, shim: i32) -> (ChildStep, Errno) {
    // SAFETY: system calls with plain values, and pointers into `plan`, which lives in the copied
    // address space.
    unsafe {
        if libc::setsid() == -1 {
            return (ChildStep::Session, Errno::last());
        }
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return (ChildStep::DeathSignal, Errno::last());
        }
        // If the shim died before that call, the kernel sends no signal.
        if libc::getppid() != shim {
            return (ChildStep::DeathSignal, Errno::ESRCH);
        }
        default_signals();
        libc::umask(plan.umask);
        let entered = match plan.cwd_fd {
            Some(fd) => libc::fchdir(fd),
            None => libc::chdir(plan.cwd.as_ptr()),
        };
        if entered == -1 {
            return (ChildStep::Chdir, Errno::last());
        }
        for (to, from) in plan.stdio.iter().enumerate() {
            if libc::dup2(*from, to as i32) == -1 {
                return (ChildStep::Descriptors, Errno::last());
            }
        }
        // All of our descriptors are close-on-exec already: this is a second safeguard, and kernels
        // before 5.11 do without it.
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if let Err(errno) = write_start(plan) {
            return (ChildStep::Record, errno);
        }
        // Last before exec, because limits on open files and file sizes are for the program.
        if let Err(errno) = take_limits(plan) {
            return (ChildStep::Limits, errno);
        }
        (ChildStep::Exec, exec(plan))
    }
}

/// Sets the limits of this process as its plan says, never above its present hard limits.
///
/// # Safety
/// In a child before exec only.
unsafe fn take_limits(plan: &Plan<'_>) -> Result<(), Errno> {
    for (resource, soft, hard) in plan.limits {
        // SAFETY: a structure on the stack, plain values.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            Errno::result(libc::getrlimit(*resource as _, &mut limit))?;
            limit.rlim_max = limit.rlim_max.min(*hard);
            limit.rlim_cur = limit.rlim_max.min(*soft);
            Errno::result(libc::setrlimit(*resource as _, &limit))?;
        }
    }
    if let Some(nice) = plan.nice {
        // SAFETY: plain values; 0 is this process.
        Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    }
    Ok(())
}

/// Restores the default of every signal that the shim ignores, and blocks none.
///
/// # Safety
/// In a child before exec only.
unsafe fn default_signals() {
    // SAFETY: plain values and a zeroed set on the stack.
    unsafe {
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Executes what the plan says; returns only an error.
///
/// # Safety
/// The arrays of `plan` end in null pointers and point to strings that are alive.
unsafe fn exec(plan: &Plan<'_>) -> Errno {
    // SAFETY: as this function's.
    match plan.executable {
        Executable::Candidates(candidates) => unsafe { exec_first(candidates, plan) },
        Executable::Path(path) => unsafe { exec_first(std::slice::from_ref(path), plan) },
        Executable::Descriptor { fd, stays_open } => unsafe {
            if stays_open && libc::fcntl(fd, libc::F_SETFD, 0) == -1 {
                return Errno::last();
            }
            libc::syscall(
                libc::SYS_execveat,
                fd,
                c"".as_ptr(),
                plan.argv.pointers.as_ptr(),
                plan.env.pointers.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            Errno::last()
        },
    }
}

/// execvp(3) without the shell: tries the next candidate where a file does not exist or must not be
/// executed, and stops at any other error. Returns EACCES where a candidate was refused, else
/// ENOENT.
///
/// # Safety
/// The arrays of `plan` end in null pointers and point to strings that are alive.
unsafe fn exec_first(candidates: &[CString], plan: &Plan<'_>) -> Errno {
    let mut worst = Errno::ENOENT;
    for candidate in candidates {
        // SAFETY: as this function's.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                plan.argv.pointers.as_ptr(),
                plan.env.pointers.as_ptr(),
            );
        }
        match Errno::last() {
            Errno::EACCES => worst = Errno::EACCES,
            Errno::ENOENT | Errno::ENOTDIR => {}
            other => return other,
        }
    }
    worst
}

/// Writes the child's own start record at the position that the shim has kept for it.
fn write_start(plan: &Plan<'_>) -> Result<(), Errno> {
    let mut stat = [0; 1024];
    // SAFETY: a constant path, a buffer on the stack, a descriptor of our own.
    let length = unsafe {
        let fd = libc::open(
            c"/proc/self/stat".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if fd == -1 {
            return Err(Errno::last());
        }
        let length = libc::read(fd, stat.as_mut_ptr().cast(), stat.len());
        libc::close(fd);
        usize::try_from(length).map_err(|_| Errno::last())?
    };
    let stat = stat.get(..length).and_then(Stat::parse);
    let start_ticks = stat.ok_or(Errno::EIO)?.start_ticks;
    // SAFETY: no arguments.
    let pid = unsafe { libc::getpid() };
    let bytes = start_record(plan.offset, StartPayload { pid, start_ticks });
    // SAFETY: the buffer is alive and that long.
    let written = unsafe {
        libc::pwrite(
            plan.segment,
            bytes.as_ptr().cast(),
            bytes.len(),
            plan.start_at as i64,
        )
    };
    match written {
        -1 => Err(Errno::last()),
        n if n as usize == bytes.len() => Ok(()),
        _ => Err(Errno::ENOSPC),
    }
}

/// A start record as bytes, made without allocating.
pub fn start_record(offset: u64, start: StartPayload) -> [u8; START_BYTES] {
    let header = frame::header(RecordKind::Start, Stream::Stdout, offset);
    let payload = start.to_bytes();
    let mut bytes = [0; START_BYTES];
    bytes[..HEADER_BYTES].copy_from_slice(&record::header_bytes(&header, &payload));
    bytes[HEADER_BYTES..].copy_from_slice(&payload);
    bytes
}

/// Closes all descriptors except 0 to 2.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: called before the shim has opened anything of its own.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ignores the signals in [`IGNORED`]; every other one gets its default back, whatever the parent
/// did.
pub fn ignore_signals() {
    for signal in 1..=64 {
        if [libc::SIGSEGV, libc::SIGBUS].contains(&signal) {
            continue; // The handler of std, which reports a stack overflow.
        }
        // The kernel's sigaction: handler, flags, restorer, mask. libc would refuse the signals
        // that it keeps for itself, and a parent may have ignored even those.
        let mut action = [0_usize; 4];
        if IGNORED.contains(&signal) {
            action[0] = libc::SIG_IGN;
        }
        let none = ptr::null_mut::<usize>();
        // SAFETY: no handler is installed, only dispositions; the set has 8 bytes and is empty.
        // It fails for KILL and STOP.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                none,
                8_usize,
            )
        };
    }
}

/// The process id of an exited child that has not been reaped: `only` that one, or any (the
/// oldest).
///
/// The error `ECHILD`: there are no children at all, or `only` is none of them.
pub fn exited_child(only: Option<i32>) -> Result<Option<i32>, Errno> {
    let (kind, id) = match only {
        Some(pid) => (libc::P_PID, pid as libc::id_t),
        None => (libc::P_ALL, 0),
    };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure is plain data; si_pid is valid after a successful waitid.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        Errno::result(libc::waitid(kind, id, &mut info, flags))?;
        info.si_pid()
    };
    Ok((pid != 0).then_some(pid))
}

/// How a child ended and what it used.
#[derive(Debug, Clone, Copy)]
pub struct Reaped {
    /// The status as wait(2) encodes it.
    pub status: i32,
    /// CPU time in user mode, µs.
    pub user_us: u64,
    /// CPU time in the kernel, µs.
    pub system_us: u64,
    /// Largest resident set of the process and the children that it waited for, KiB.
    pub max_rss_kib: u64,
}

/// Reaps this child if it has exited; `None` while it runs.
pub fn reap(pid: i32) -> Result<Option<Reaped>, Errno> {
    let mut status = 0;
    // SAFETY: plain data, filled in by the call.
    let (found, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let found = libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage);
        (Errno::result(found)?, usage)
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Ok((found == pid).then(|| Reaped {
        status,
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
    }))
}

/// Sends a signal, real-time ones too, to a process (positive `target`) or a group (negative).
pub fn kill(target: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain values.
    Errno::result(unsafe { libc::kill(target, signal) }).map(drop)
}

/// Sends a signal through a pidfd.
pub fn pidfd_kill(pidfd: RawFd, signal: i32) -> Result<(), Errno> {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: plain values; a null siginfo means what kill(2) would fill in.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, none, 0) };
    Errno::result(sent).map(drop)
}
