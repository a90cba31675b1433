//! PID 1 of a container: the small process that stands before a server there. It reaps what nobody
//! else is the parent of, hands signals on, and starts a server again that has failed.
//!
//! It deliberately knows nothing of jobs, shims and the data directory: whatever it forgot would
//! be lost with the whole container.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What is handed on to the server; SIGCHLD is for us.
const HANDED_ON: [Signal; 6] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
];
/// Signals that wait to be looked at; each kind is told once until it was.
const SIGNALS_QUEUED_MAX: usize = 16;
/// A server that is killed earlier than this after its start has had a short life.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// So many short lives in a row end the container: whoever restarts that can wait in between.
const SHORT_LIVES_MAX: u32 = 5;
/// Added to a signal's number, as shells do.
const SIGNALLED: i32 = 128;
/// Exit code where no server can be started.
const FAILURE: u8 = 1;

/// Whether this process is the first one of its PID namespace.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs `cc-executor ARGS` as a child until it ends, and ends as it did.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(watch(&args))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("no server could be started as PID 1: {error}"));
            ExitCode::from(FAILURE)
        }
    }
}

async fn watch(args: &[OsString]) -> io::Result<u8> {
    // Before the server starts: a signal that comes meanwhile is kept. Handlers are not inherited
    // through an exec, as a blocked signal would be.
    let mut signals = listen()?;
    let mut fate = Fate::default();
    let mut server = start(args)?;
    while let Some(signal) = signals.recv().await {
        if signal != Signal::CHILD {
            fate.is_asked = true;
            // Nobody but us reaps it, so the number is still its own.
            let _ = kill_process(server.pid, signal);
            continue;
        }
        let Some(end) = reap(server.pid) else {
            continue;
        };
        match fate.judge(end, server.since.elapsed()) {
            Verdict::End(code) => return Ok(code),
            Verdict::Again => {
                say(&format!(
                    "the server (process {}) {end}; it is started again, running jobs go on",
                    server.pid
                ));
                server = start(args)?;
            }
        }
    }
    Err(io::Error::other("the signals have ended"))
}

/// Every signal that concerns us, as it comes.
fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_QUEUED_MAX);
    for kind in HANDED_ON.into_iter().chain([Signal::CHILD]) {
        let mut source = signal(SignalKind::from_raw(kind.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while source.recv().await.is_some() && sender.send(kind).await.is_ok() {}
        });
    }
    Ok(receiver)
}

/// The running server.
struct Server {
    pid: Pid,
    since: Instant,
}

fn start(args: &[OsString]) -> io::Result<Server> {
    let name = std::env::args_os().next().unwrap_or_default();
    // A group of its own: Ctrl-C at a terminal then reaches it once, through us, and not twice,
    // which would end it in a hurry.
    let child = Command::new(program())
        .arg0(name)
        .args(args)
        .process_group(0)
        .spawn()?;
    Ok(Server {
        pid: Pid::from_child(&child),
        since: Instant::now(),
    })
}

/// Our own program file. Its name, where it still has one, so that `ps` shows more than `exe`.
fn program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Takes the exit status of everything that has ended; returns the server's, if it is among them.
/// One SIGCHLD can stand for many.
fn reap(server: Pid) -> Option<End> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == server => found = End::of(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // Those that are left live, or (ECHILD) nobody is left.
            Ok(None) | Err(_) => return found,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

impl End {
    /// `None` for a stop or a continuation, which nobody asks the kernel to tell.
    fn of(status: WaitStatus) -> Option<Self> {
        let exited = status.exit_status().map(Self::Exited);
        exited.or_else(|| status.terminating_signal().map(Self::Signalled))
    }

    fn code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => SIGNALLED + signal,
        };
        u8::try_from(code).unwrap_or(FAILURE)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// What the end of a server means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Ours, with this exit code.
    End(u8),
    /// It failed, and nobody has asked us for an end.
    Again,
}

/// What decides it.
#[derive(Debug, Default)]
struct Fate {
    is_asked: bool,
    short_lives: u32,
}

impl Fate {
    /// Judges the end of a server that has lived for `life`.
    fn judge(&mut self, end: End, life: Duration) -> Verdict {
        let is_short = life < SHORT_LIFE;
        self.short_lives = if is_short { self.short_lives + 1 } else { 0 };
        let is_over = match end {
            End::Exited(0) => true,
            // Settings or a data directory that it refuses: it would do so again.
            End::Exited(_) => is_short,
            End::Signalled(_) => self.short_lives >= SHORT_LIVES_MAX,
        };
        match self.is_asked || is_over {
            true => Verdict::End(end.code()),
            false => Verdict::Again,
        }
    }
}

fn say(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "cc-executor: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: End = End::Signalled(9);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_good_end_and_a_refusal_are_ours_too() {
        let judge = |code, life| Fate::default().judge(End::Exited(code), life);
        assert_eq!(judge(0, LONG), Verdict::End(0));
        assert_eq!(judge(2, Duration::ZERO), Verdict::End(2));
        assert_eq!(judge(1, LONG), Verdict::Again, "its ledger failed");
    }

    #[test]
    fn a_killed_server_starts_again_unless_the_end_was_asked_for() {
        let mut fate = Fate::default();
        for _ in 0..100 {
            assert_eq!(fate.judge(KILLED, LONG), Verdict::Again);
        }
        fate.is_asked = true;
        assert_eq!(fate.judge(KILLED, LONG), Verdict::End(137));
    }

    #[test]
    fn short_lives_in_a_row_end_it() {
        let mut fate = Fate::default();
        for _ in 0..2 {
            for _ in 1..SHORT_LIVES_MAX {
                let verdict = fate.judge(KILLED, Duration::ZERO);
                assert_eq!(verdict, Verdict::Again);
            }
            // A longer one in between, and the count begins anew.
            assert_eq!(fate.judge(KILLED, LONG), Verdict::Again);
        }
        for _ in 1..SHORT_LIVES_MAX {
            fate.judge(KILLED, Duration::ZERO);
        }
        assert_eq!(fate.judge(KILLED, Duration::ZERO), Verdict::End(137));
    }
}
