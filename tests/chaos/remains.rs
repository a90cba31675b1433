//! Looks for what is left of a run: processes, sockets, files of the spool, descriptors.
//! Judges nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    checks::leftovers::Remains,
    harness::{self, Server, state, with_mark, with_word},
};

/// How long idle shims, and the kernel, may take to leave. A shim without a server goes after 10 s.
const LEAVES_WITHIN: Duration = Duration::from_secs(40);

/// Shims that an idle server keeps.
const WARM_SHIMS: usize = 2;

/// What an idle server holds at most: standard streams, lock, runtime, listeners, one writing and a
/// few reading connections to the database with their logs, and one connection for each warm shim.
const IDLE_DESCRIPTORS: usize = 36;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Remains {
    /// Looks at a server that has nothing to do and no client, once it has sent away the shims that
    /// it does not keep warm.
    pub fn of_idle(server: &Server) -> Self {
        let pid = server.pid();
        let spool = server.data_dir().join("spool");
        let about_jobs = |links: &[String]| -> Vec<String> {
            let spool = spool.display().to_string();
            let is_one = |link: &&String| {
                link.starts_with(&format!("{spool}/")) || link.ends_with(" (deleted)")
            };
            links.iter().filter(is_one).cloned().collect()
        };
        settle(|| {
            let links = links(pid);
            server.shims().len() <= WARM_SHIMS
                // A shim that has just left may not have been waited for yet.
                && zombies(pid) == 0
                && links.len() <= IDLE_DESCRIPTORS
                && about_jobs(&links).is_empty()
        });
        let mut descriptors = about_jobs(&links(pid));
        for shim in server.shims() {
            descriptors.extend(about_jobs(&links(shim)));
        }
        Self {
            descriptors,
            descriptor_count: (links(pid).len(), IDLE_DESCRIPTORS),
            idle_shims: server.shims().len().saturating_sub(WARM_SHIMS),
            zombies: zombies(pid),
            ..Self::default()
        }
    }

    /// Looks at what is there when the server has been stopped.
    pub fn add_stopped(&mut self, data_dir: &Path) {
        let word = data_dir.display().to_string();
        let all = || -> Vec<i32> { [with_word(&word), with_mark(data_dir)].concat() };
        settle(|| all().is_empty());
        self.processes = all().into_iter().map(harness::describe).collect();
        self.sockets = names(&data_dir.join("shims")).into_keys().collect();
        if data_dir.join("server.sock").exists() {
            self.sockets.push("server.sock".to_owned());
        }
        self.spool = names(&data_dir.join("spool"));
    }
}

fn settle(is_settled: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_settled() && began.elapsed() < LEAVES_WITHIN {
        thread::sleep(LOOK_EVERY);
    }
}

/// What the descriptors of a process name.
fn links(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// Files of a directory and their sizes.
fn names(directory: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        Some((
            entry.file_name().into_string().ok()?,
            entry.metadata().ok()?.len(),
        ))
    });
    named.collect()
}

fn zombies(parent: i32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{parent}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<i32> = children
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    children
        .into_iter()
        .filter(|pid| state(*pid) == Some('Z'))
        .count()
}
