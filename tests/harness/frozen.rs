//! Lets a process stand still as one does that the kernel has no time for: it lives, and does nothing.
//! A stop by a signal would be another thing; the server ends that for its shims.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

/// A process whose first thread stands still for as long as this lives.
pub struct Frozen {
    thaw: Option<mpsc::Sender<()>>,
    /// The kernel lets a process be held by one thread only.
    holder: Option<JoinHandle<()>>,
}

impl Frozen {
    /// Holds it; `None`, and a word why, where nobody may.
    pub fn process(pid: i32) -> Option<Self> {
        let (held, is_held) = mpsc::channel();
        let (thaw, until) = mpsc::channel();
        let holder = thread::spawn(move || hold(Pid::from_raw(pid), &held, &until));
        let error = is_held.recv().expect("the holder");
        if let Some(error) = error {
            eprintln!("SKIPPED: nobody may hold a process here: {error}");
            return None;
        }
        Some(Self {
            thaw: Some(thaw),
            holder: Some(holder),
        })
    }
}

fn hold(pid: Pid, held: &mpsc::Sender<Option<nix::Error>>, until: &mpsc::Receiver<()>) {
    if let Err(error) = ptrace::attach(pid) {
        let _ = held.send(Some(error));
        return;
    }
    waitpid(pid, Some(WaitPidFlag::__WALL)).expect("it stands still");
    let _ = held.send(None);
    // Ends with the other side.
    let _ = until.recv();
    // ESRCH: it was killed meanwhile. Whoever is its parent reaps it.
    let _ = ptrace::detach(pid, None);
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.thaw.take());
        if let Some(holder) = self.holder.take() {
            holder.join().expect("the holder");
        }
    }
}
