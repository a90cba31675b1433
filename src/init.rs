//! PID 1 of a container: the small process that stands before a server there. It reaps what nobody
//! else is the parent of, hands signals on, and starts a server again that has failed, however
//! often, until somebody asks for the end: its own end would be the end of every job.
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
/// A first server that exits with a failure earlier than this has refused its settings or its data
/// directory.
const REFUSAL: Duration = Duration::from_secs(1);
/// The pause before the next start after a failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two starts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server that has lived this long was sound: the pauses begin anew.
const SOUND_LIFE: Duration = Duration::from_secs(5);
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
        .enable_time()
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
    loop {
        let (verdict, what, code) = match start(args) {
            Ok(server) => {
                let end = attend(&server, &mut signals, &mut fate).await?;
                let what = format!("the server (process {}) {end}", server.pid);
                (fate.judge(end, server.since.elapsed()), what, end.code())
            }
            Err(error) => match fate.judge_start(&error) {
                RestartDecision::End(_) => return Err(error),
                again => (
                    again,
                    format!("no server could be started: {error}"),
                    FAILURE,
                ),
            },
        };
        let pause = match verdict {
            RestartDecision::End(code) => return Ok(code),
            RestartDecision::Again(pause) => pause,
        };
        say(&format!(
            "{what}; it is started again in {} s, running jobs go on",
            pause.as_secs_f64()
        ));
        if is_asked_within(pause, &mut signals).await? {
            return Ok(code);
        }
    }
}

/// Hands signals on to the server and reaps, until the server has ended.
async fn attend(
    server: &SupervisedServer,
    signals: &mut mpsc::Receiver<Signal>,
    fate: &mut Fate,
) -> io::Result<ProcessEnd> {
    loop {
        let signal = signals.recv().await.ok_or_else(deaf)?;
        if signal != Signal::CHILD {
            fate.is_asked = true;
            // Nobody but us reaps it, so the number is still its own. It may have ended already
            // (ESRCH): then its SIGCHLD is on its way.
            let _ = kill_process(server.pid, signal);
        } else if let Some(end) = reap(Some(server.pid)) {
            return Ok(end);
        }
    }
}

/// Waits for the next start, and reaps meanwhile; whether somebody asked for the end.
async fn is_asked_within(
    pause: Duration,
    signals: &mut mpsc::Receiver<Signal>,
) -> io::Result<bool> {
    let until = tokio::time::Instant::now() + pause;
    while let Ok(signal) = tokio::time::timeout_at(until, signals.recv()).await {
        if signal.ok_or_else(deaf)? != Signal::CHILD {
            return Ok(true);
        }
        reap(None);
    }
    Ok(false)
}

fn deaf() -> io::Error {
    io::Error::other("the signals have ended")
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
struct SupervisedServer {
    pid: Pid,
    since: Instant,
}

fn start(args: &[OsString]) -> io::Result<SupervisedServer> {
    let name = std::env::args_os().next().unwrap_or_default();
    // A group of its own: Ctrl-C at a terminal then reaches it once, through us, and not twice,
    // which would end it in a hurry.
    let child = Command::new(program())
        .arg0(name)
        .args(args)
        .process_group(0)
        .spawn()?;
    Ok(SupervisedServer {
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
fn reap(server: Option<Pid>) -> Option<ProcessEnd> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == server => found = ProcessEnd::of(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // Those that are left live, or (ECHILD) nobody is left.
            Ok(None) | Err(_) => return found,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
enum ProcessEnd {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

impl ProcessEnd {
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

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// What the end of a server, or a start that failed, means.
#[derive(Debug, PartialEq, Eq)]
enum RestartDecision {
    /// Ours, with this exit code.
    End(u8),
    /// It failed, and nobody has asked us for an end: another start after this pause.
    Again(Duration),
}

/// What decides it.
#[derive(Debug, Default)]
struct Fate {
    is_asked: bool,
    /// A server has served, or may have: there can be jobs that our end would kill.
    may_have_jobs: bool,
    /// Failures since the last sound life.
    failures: u32,
}

impl Fate {
    /// Judges the end of a server that has lived for `life`.
    fn judge(&mut self, end: ProcessEnd, life: Duration) -> RestartDecision {
        let is_over = match end {
            ProcessEnd::Exited(0) => true,
            // It would refuse its settings again, and nothing runs yet.
            ProcessEnd::Exited(_) => !self.may_have_jobs && life < REFUSAL,
            ProcessEnd::Signalled(_) => false,
        };
        if self.is_asked || is_over {
            return RestartDecision::End(end.code());
        }
        self.may_have_jobs = true;
        if life >= SOUND_LIFE {
            self.failures = 0;
        }
        RestartDecision::Again(self.pause())
    }

    /// Judges a start that failed. A shortage passes; whatever else it is, jobs that run are worth
    /// more than the chance that it never does.
    fn judge_start(&mut self, error: &io::Error) -> RestartDecision {
        let short = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        let is_short = Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno));
        if self.may_have_jobs || is_short {
            RestartDecision::Again(self.pause())
        } else {
            RestartDecision::End(FAILURE)
        }
    }

    fn pause(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        PAUSE_MIN.saturating_mul(factor).min(PAUSE_MAX)
    }
}

fn say(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "cc-executor: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: ProcessEnd = ProcessEnd::Signalled(9);
    const REFUSED: ProcessEnd = ProcessEnd::Exited(1);
    const LONG: Duration = Duration::from_secs(60);

    fn error(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn a_good_end_and_a_first_refusal_are_ours_too() {
        let judge = |code, life| Fate::default().judge(ProcessEnd::Exited(code), life);
        assert_eq!(judge(0, LONG), RestartDecision::End(0));
        assert_eq!(judge(2, Duration::ZERO), RestartDecision::End(2));
        assert_eq!(
            judge(1, LONG),
            RestartDecision::Again(PAUSE_MIN),
            "its ledger failed"
        );
    }

    #[test]
    fn a_killed_server_starts_again_unless_the_end_was_asked_for() {
        let mut fate = Fate::default();
        for _ in 0..100 {
            assert_eq!(fate.judge(KILLED, LONG), RestartDecision::Again(PAUSE_MIN));
        }
        fate.is_asked = true;
        assert_eq!(fate.judge(KILLED, LONG), RestartDecision::End(137));
    }

    #[test]
    fn failures_in_a_row_only_make_the_pauses_longer() {
        let mut fate = Fate::default();
        let mut pauses = Vec::new();
        // A refusal after a life is one of them: a disk may be full, a lock may be held.
        for end in [KILLED, REFUSED].into_iter().cycle().take(100) {
            match fate.judge(end, Duration::ZERO) {
                RestartDecision::Again(pause) => pauses.push(pause),
                RestartDecision::End(code) => panic!("ended with {code} after {pauses:?}"),
            }
        }
        let doubled = |pair: &[Duration]| pair[1] == (2 * pair[0]).min(PAUSE_MAX);
        assert_eq!(pauses[0], PAUSE_MIN);
        assert!(pauses.windows(2).all(doubled), "{pauses:?}");
        assert_eq!(pauses[99], PAUSE_MAX);
        assert_eq!(
            fate.judge(KILLED, SOUND_LIFE),
            RestartDecision::Again(PAUSE_MIN)
        );
        assert_eq!(
            fate.judge(ProcessEnd::Exited(0), LONG),
            RestartDecision::End(0)
        );
    }

    #[test]
    fn a_start_that_the_kernel_refused_is_tried_again() {
        let mut fate = Fate::default();
        let first = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        for (nth, errno) in first.into_iter().enumerate() {
            let pause = PAUSE_MIN * 2_u32.pow(nth as u32);
            assert_eq!(
                fate.judge_start(&error(errno)),
                RestartDecision::Again(pause)
            );
        }
        assert_eq!(
            fate.judge_start(&error(Errno::NOENT)),
            RestartDecision::End(FAILURE)
        );
        // Where jobs may run, every error is one that can pass.
        fate.judge(KILLED, Duration::ZERO);
        let again = fate.judge_start(&error(Errno::NOENT));
        assert!(matches!(again, RestartDecision::Again(_)), "{again:?}");
    }
}
