//! PID 1 of a container: the small process that is the server's parent there. It reaps orphans, passes
//! signals on, and starts a failed server again, however often, until a signal asks it to stop: when
//! PID 1 ends, every job ends.
//!
//! It deliberately holds no state of jobs, shims or the data directory: such state would be lost with
//! the container.

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

/// Signals that are passed on to the server. SIGCHLD is handled here.
const FORWARDED: [Signal; 6] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
];
/// Most signals that wait in the channel. Signals of one kind are merged before they enter it.
const SIGNALS_QUEUED_MAX: usize = 16;
/// If the first server exits with a failure earlier than this, it has refused its settings or its data
/// directory.
const REFUSAL: Duration = Duration::from_secs(1);
/// The pause before the next start after a failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two starts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// After a server has run this long, the pauses begin again at `PAUSE_MIN`.
const SOUND_LIFE: Duration = Duration::from_secs(5);
/// Added to a signal's number to make an exit code, as shells do.
const SIGNALLED: i32 = 128;
/// Exit code if no server can be started.
const FAILURE: u8 = 1;

/// Whether this process is the first one of its PID namespace.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs `cc-executor ARGS` as a child, again after failures, and returns its last exit code.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(watch(&args))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log(&format!("no server could be started as PID 1: {error}"));
            ExitCode::from(FAILURE)
        }
    }
}

async fn watch(args: &[OsString]) -> io::Result<u8> {
    // Install the handlers before the server starts, so that no signal is lost meanwhile. Handlers are
    // not inherited through an exec, as a blocked signal would be.
    let mut signals = listen()?;
    let mut policy = RestartPolicy::default();
    loop {
        let (verdict, what, code) = match start(args) {
            Ok(server) => {
                let end = wait_for_end(&server, &mut signals, &mut policy).await?;
                let what = format!("the server (process {}) {end}", server.pid);
                (policy.judge(end, server.since.elapsed()), what, end.code())
            }
            Err(error) => match policy.judge_start(&error) {
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
        log(&format!(
            "{what}; it is started again in {} s, running jobs go on",
            pause.as_secs_f64()
        ));
        if is_stopped_within(pause, &mut signals).await? {
            return Ok(code);
        }
    }
}

/// Passes signals on to the server and reaps orphans, until the server has ended.
async fn wait_for_end(
    server: &SupervisedServer,
    signals: &mut mpsc::Receiver<Signal>,
    policy: &mut RestartPolicy,
) -> io::Result<ProcessEnd> {
    loop {
        let signal = signals.recv().await.ok_or_else(no_more_signals)?;
        if signal != Signal::CHILD {
            policy.is_stopping = true;
            // Only this process reaps the server, so the process id is still the server's. If the
            // server has just ended (ESRCH), its SIGCHLD follows.
            let _ = kill_process(server.pid, signal);
        } else if let Some(end) = reap(Some(server.pid)) {
            return Ok(end);
        }
    }
}

/// Waits before the next start, and reaps meanwhile; whether a signal asked to stop.
async fn is_stopped_within(
    pause: Duration,
    signals: &mut mpsc::Receiver<Signal>,
) -> io::Result<bool> {
    let until = tokio::time::Instant::now() + pause;
    while let Ok(signal) = tokio::time::timeout_at(until, signals.recv()).await {
        if signal.ok_or_else(no_more_signals)? != Signal::CHILD {
            return Ok(true);
        }
        reap(None);
    }
    Ok(false)
}

fn no_more_signals() -> io::Error {
    io::Error::other("the signals have ended")
}

/// A channel of all forwarded signals and SIGCHLD.
fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_QUEUED_MAX);
    for kind in FORWARDED.into_iter().chain([Signal::CHILD]) {
        let mut source = signal(SignalKind::from_raw(kind.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while source.recv().await.is_some() && sender.send(kind).await.is_ok() {}
        });
    }
    Ok(receiver)
}

/// A server that was started, and when.
struct SupervisedServer {
    pid: Pid,
    since: Instant,
}

fn start(args: &[OsString]) -> io::Result<SupervisedServer> {
    let name = std::env::args_os().next().unwrap_or_default();
    // A process group of its own: Ctrl-C at a terminal then reaches the server once, through this
    // process. A second one would make it stop at once.
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

/// The path of our own program file; by its name, if it still has one, so that `ps` shows more than
/// `exe`.
fn program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Reaps all children that have ended (one SIGCHLD can stand for many); returns the end of the server
/// if it is among them.
fn reap(server: Option<Pid>) -> Option<ProcessEnd> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == server => found = ProcessEnd::of(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // All other children run, or (ECHILD) there are none.
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
    /// `None` for a stop or a continuation, which `reap` does not ask for.
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

/// What to do after the end of a server or a failed start.
#[derive(Debug, PartialEq, Eq)]
enum RestartDecision {
    /// Exit with this code.
    End(u8),
    /// Start a server again after this pause.
    Again(Duration),
}

/// What a decision depends on.
#[derive(Debug, Default)]
struct RestartPolicy {
    /// A signal has asked to stop.
    is_stopping: bool,
    /// A server has served, or may have: there may be jobs that the end of PID 1 would kill.
    may_have_jobs: bool,
    /// Failures since a server last ran for `SOUND_LIFE`.
    failures: u32,
}

impl RestartPolicy {
    /// Decides after the end of a server that has run for `life`.
    fn judge(&mut self, end: ProcessEnd, life: Duration) -> RestartDecision {
        let is_over = match end {
            ProcessEnd::Exited(0) => true,
            // The next server would refuse the same settings, and no job runs yet.
            ProcessEnd::Exited(_) => !self.may_have_jobs && life < REFUSAL,
            ProcessEnd::Signalled(_) => false,
        };
        if self.is_stopping || is_over {
            return RestartDecision::End(end.code());
        }
        self.may_have_jobs = true;
        if life >= SOUND_LIFE {
            self.failures = 0;
        }
        RestartDecision::Again(self.pause())
    }

    /// Decides after a failed start. A shortage passes, so the start is tried again. So it is after any
    /// other error if jobs may run: to end would kill them.
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

fn log(text: &str) {
    // If stderr is closed, there is no place to report an error to.
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
        let judge = |code, life| RestartPolicy::default().judge(ProcessEnd::Exited(code), life);
        assert_eq!(judge(0, LONG), RestartDecision::End(0));
        assert_eq!(judge(2, Duration::ZERO), RestartDecision::End(2));
        assert_eq!(
            judge(1, LONG),
            RestartDecision::Again(PAUSE_MIN),
            "its database failed"
        );
    }

    #[test]
    fn a_killed_server_starts_again_unless_the_end_was_asked_for() {
        let mut policy = RestartPolicy::default();
        for _ in 0..100 {
            assert_eq!(
                policy.judge(KILLED, LONG),
                RestartDecision::Again(PAUSE_MIN)
            );
        }
        policy.is_stopping = true;
        assert_eq!(policy.judge(KILLED, LONG), RestartDecision::End(137));
    }

    #[test]
    fn failures_in_a_row_only_make_the_pauses_longer() {
        let mut policy = RestartPolicy::default();
        let mut pauses = Vec::new();
        // A refusal after a server has run counts as a failure: a disk may be full, a lock may be held.
        for end in [KILLED, REFUSED].into_iter().cycle().take(100) {
            match policy.judge(end, Duration::ZERO) {
                RestartDecision::Again(pause) => pauses.push(pause),
                RestartDecision::End(code) => panic!("ended with {code} after {pauses:?}"),
            }
        }
        let doubled = |pair: &[Duration]| pair[1] == (2 * pair[0]).min(PAUSE_MAX);
        assert_eq!(pauses[0], PAUSE_MIN);
        assert!(pauses.windows(2).all(doubled), "{pauses:?}");
        assert_eq!(pauses[99], PAUSE_MAX);
        assert_eq!(
            policy.judge(KILLED, SOUND_LIFE),
            RestartDecision::Again(PAUSE_MIN)
        );
        assert_eq!(
            policy.judge(ProcessEnd::Exited(0), LONG),
            RestartDecision::End(0)
        );
    }

    #[test]
    fn a_start_that_the_kernel_refused_is_tried_again() {
        let mut policy = RestartPolicy::default();
        let first = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        for (nth, errno) in first.into_iter().enumerate() {
            let pause = PAUSE_MIN * 2_u32.pow(nth as u32);
            assert_eq!(
                policy.judge_start(&error(errno)),
                RestartDecision::Again(pause)
            );
        }
        assert_eq!(
            policy.judge_start(&error(Errno::NOENT)),
            RestartDecision::End(FAILURE)
        );
        // If jobs may run, the start is tried again after every error.
        policy.judge(KILLED, Duration::ZERO);
        let again = policy.judge_start(&error(Errno::NOENT));
        assert!(matches!(again, RestartDecision::Again(_)), "{again:?}");
    }
}
