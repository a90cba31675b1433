//! Lets system calls of a running process fail, by strace's fault injection. What the process makes
//! of it is not known.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::until;

/// How long strace may take to let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process of which some calls fail, for as long as this lives.
pub struct Failing {
    strace: Child,
}

impl Failing {
    /// Lets these calls (`fsync,fdatasync`) fail with this error (`EIO`); `None`, and a word why,
    /// where nobody may trace.
    pub fn calls(pid: i32, calls: &str, error: &str) -> Option<Self> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}"), "-p"])
            .arg(pid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut strace) = strace else {
            eprintln!("SKIPPED: there is no strace");
            return None;
        };
        let attached = until("strace", || {
            let ended = strace.try_wait().expect("our child").is_some();
            (ended || is_traced(pid)).then_some(!ended)
        });
        if !attached {
            eprintln!("SKIPPED: strace may not attach to a process here");
            return None;
        }
        Some(Self { strace })
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // It lets go of the process, or has ended with it.
        let pid = nix::unistd::Pid::from_raw(self.strace.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let began = Instant::now();
        // A thread that ends in the same moment is sometimes waited for in vain.
        while began.elapsed() < PATIENCE && !matches!(self.strace.try_wait(), Ok(Some(_))) {
            thread::yield_now();
        }
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Whether every thread of a process has a tracer.
fn is_traced(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}
