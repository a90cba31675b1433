//! Finds shims in /proc and signals them through a pidfd. Knows of a shim what its command line
//! says; a child of a shim between fork and exec, which says the same, is a job and no shim.

use std::{collections::BTreeMap, fs, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::harness::{is_alive, parent};

/// A living shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shim {
    pub pid: i32,
    pub id: String,
    /// It has a child: a job.
    pub busy: bool,
}

/// All living shims of a data directory.
pub fn shims(data_dir: &Path) -> Vec<Shim> {
    let candidates: BTreeMap<i32, String> = pids()
        .filter_map(|pid| Some((pid, shim_id(pid, data_dir)?)))
        .collect();
    candidates
        .iter()
        .filter(|(pid, _)| is_alive(**pid))
        .filter(|(pid, _)| parent(**pid).is_some_and(|it| !candidates.contains_key(&it)))
        .map(|(pid, id)| Shim {
            pid: *pid,
            id: id.clone(),
            busy: has_children(*pid),
        })
        .collect()
}

/// Signals it, if it is still the shim that was found; returns whether it was.
pub fn signal(data_dir: &Path, shim: &Shim, signal: Signal) -> bool {
    // The descriptor first, the check second: what it names cannot change any more.
    let Some(fd) =
        Pid::from_raw(shim.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return false;
    };
    shim_id(shim.pid, data_dir).as_ref() == Some(&shim.id)
        && is_alive(shim.pid)
        && pidfd_send_signal(&fd, signal).is_ok()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// `… shim --data-dir DIR --id ID`
fn shim_id(pid: i32, data_dir: &Path) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&str> = std::str::from_utf8(&line).ok()?.split('\0').collect();
    let behind = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let ours = words.get(1) == Some(&"shim") && behind("--data-dir") == data_dir.to_str();
    ours.then(|| behind("--id"))?.map(str::to_owned)
}

fn has_children(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    tasks.flatten().any(|task| {
        fs::read_to_string(task.path().join("children")).is_ok_and(|text| !text.trim().is_empty())
    })
}
