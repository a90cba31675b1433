//! Lets a stopped shim go on. Its own job may send it SIGSTOP, which no process can ignore; then
//! the job could no longer be stopped or paused, and its output would not be read.
//!
//! If a job does that again and again, it is stopped itself for a moment each time, so that its
//! shim can do what is due.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::{net::UnixStream, time::Instant};

use super::{looked::Looked, process};
use crate::sys::proc::{Identity, Stat};

/// The interval between two looks at a shim that runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The interval between two looks at a shim that was found stopped, and how long its job is held.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// How many looks in a row find the shim stopped before its job is held.
const STOPPED_MAX: u32 = 3;

/// Most processes of a job that are looked at and held at once: other tasks wait meanwhile.
const HELD_MAX: usize = 1000;

/// Most walks over the processes of a job.
const ROUNDS_MAX: u32 = 5;

/// Watches over the shim at the other end of a connection.
#[derive(Debug)]
pub struct Waker {
    /// Its process id; 0 if it is not in our PID namespace, and then nothing is done.
    shim: i32,
    next_at: Instant,
    /// How many looks in a row have found it stopped.
    stopped: u32,
    /// The processes of its job that are stopped until the next look.
    held: Vec<Identity>,
}

impl Waker {
    /// For the process that listens at the other end. The kernel knows it even if it is stopped
    /// (SO_PEERCRED, unix(7)).
    pub fn of(stream: &UnixStream) -> Self {
        let peer = getsockopt(stream, PeerCredentials);
        Self {
            shim: peer.map_or(0, |peer| peer.pid()),
            next_at: Instant::now() + LOOK_SOON,
            stopped: 0,
            held: Vec::new(),
        }
    }

    /// When `look` is to be called again.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Lets the shim go on if it is stopped. `stream` is the connection that it listens on.
    pub fn look(&mut self, stream: &UnixStream) {
        self.resume_held();
        self.stopped = match seen(self.shim) {
            Some(seen) if seen.is_stopped() => self.stopped + 1,
            _ => 0,
        };
        if self.stopped > 0
            && let Some(shim) = there(process::open(self.shim))
            && is_connected(stream)
        {
            // The connection stands, so the shim lived when the pidfd was opened: it names the
            // shim.
            self.wake(&shim);
        }
        self.next_at = Instant::now()
            + match self.stopped {
                0 => LOOK_EVERY,
                _ => LOOK_SOON,
            };
    }

    fn wake(&mut self, shim: &OwnedFd) {
        match self.stopped {
            1 => tracing::warn!(pid = self.shim, "a shim was stopped; it is let go on"),
            n if n < STOPPED_MAX => {}
            n => {
                if n == STOPPED_MAX {
                    tracing::warn!(
                        pid = self.shim,
                        "a shim is stopped again and again; its job is held meanwhile"
                    );
                }
                self.held = hold(self.shim);
            }
        }
        // ESRCH: it is dead, and the connection will end.
        let _ = pidfd_send_signal(shim, Signal::CONT);
    }

    /// Lets the held processes of the job go on, the last stopped first.
    fn resume_held(&mut self) {
        for (pid, start_ticks) in self.held.drain(..).rev() {
            if let Some(process) = there(process::open(pid))
                && seen(pid).is_some_and(|seen| seen.start_ticks == start_ticks)
            {
                let _ = pidfd_send_signal(&process, Signal::CONT);
            }
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.resume_held();
    }
}

/// Stops all processes below a shim, until a walk finds none that runs. Returns those that it
/// stopped; processes that were stopped before are not among them.
fn hold(shim: i32) -> Vec<Identity> {
    let mut held = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let before = held.len();
        hold_once(shim, &mut held);
        if held.len() == before {
            break;
        }
    }
    held
}

/// One walk, from the parents to the children. A process is stopped through a pidfd that was opened
/// before its parent was read, and only if that parent is one that this walk has met and still
/// lives. So no process that got a recycled id is stopped.
fn hold_once(shim: i32, held: &mut Vec<Identity>) {
    let mut known = HashMap::new();
    if let Some(seen) = seen(shim) {
        known.insert(shim, seen.start_ticks);
    }
    let mut unmet = process::children(shim);
    while let Some(pid) = unmet.pop().filter(|_| known.len() <= HELD_MAX) {
        let (Some(process), Some(found)) = (there(process::open(pid)), seen(pid)) else {
            continue;
        };
        let is_below = known.get(&found.parent).is_some_and(|start_ticks| {
            seen(found.parent).is_some_and(|now| now.start_ticks == *start_ticks)
        });
        if !is_below || known.insert(pid, found.start_ticks).is_some() {
            continue;
        }
        unmet.extend(process::children(pid));
        let is_new = !found.is_stopped() && !held.contains(&(pid, found.start_ticks));
        if is_new && pidfd_send_signal(&process, Signal::STOP).is_ok() {
            held.push((pid, found.start_ticks));
        }
    }
}

/// The state of a process. One that cannot be looked at is left as it is until the next look.
fn seen(pid: i32) -> Option<Stat> {
    there(process::stat(pid))
}

fn there<T>(looked: Looked<T>) -> Option<T> {
    match looked {
        Looked::There(found) => Some(found),
        Looked::Gone | Looked::Unknown(_) => None,
    }
}

/// Whether the other side has not closed the connection.
fn is_connected(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0].revents().is_some_and(|seen| !seen.intersects(gone)),
        Err(_) => false,
    }
}
