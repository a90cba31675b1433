//! One look at all processes, for all searches. Processes that have appeared since the look before
//! come first: those of a chain that forks and exits are soon gone.

use std::collections::HashSet;

use super::mark::SeenProcess;
use crate::{supervisor::looked::Looked, sys::proc};

/// Looks at all processes, again and again.
#[derive(Debug, Default)]
pub(super) struct ProcessScan {
    known: HashSet<i32>,
}

impl ProcessScan {
    /// Shows every living process except this one, or why one could not be looked at. True where a
    /// process has appeared since the last look and was gone before it could be looked at: it may
    /// have been one of a chain. Blocking.
    pub fn all(&mut self, mut show: impl FnMut(Looked<SeenProcess>)) -> bool {
        let pids = match proc::ids() {
            Ok(pids) => pids,
            Err(error) => {
                let why = format!("/proc cannot be read: {error}");
                show(Looked::Unknown(why));
                return false;
            }
        };
        let own = std::process::id() as i32;
        let mut order: Vec<_> = pids.iter().copied().filter(|pid| *pid != own).collect();
        order.sort_unstable_by_key(|pid| (self.known.contains(pid), -pid));
        let mut has_missed = false;
        for pid in order {
            let seen = SeenProcess::look(pid);
            has_missed |= matches!(seen, Looked::Gone) && !self.known.contains(&pid);
            show(seen);
        }
        self.known = pids.into_iter().collect();
        has_missed
    }
}
