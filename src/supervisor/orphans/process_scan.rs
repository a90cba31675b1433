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
    /// Shows every living process except this one, or why one could not be looked at. Blocking.
    pub fn all(&mut self, mut show: impl FnMut(Looked<SeenProcess>)) {
        let pids = match proc::ids() {
            Ok(pids) => pids,
            Err(error) => {
                let why = format!("/proc cannot be read: {error}");
                return show(Looked::Unknown(why));
            }
        };
        let own = std::process::id() as i32;
        let mut order: Vec<_> = pids.iter().copied().filter(|pid| *pid != own).collect();
        order.sort_unstable_by_key(|pid| (self.known.contains(pid), -pid));
        for pid in order {
            show(SeenProcess::look(pid));
        }
        self.known = pids.into_iter().collect();
    }
}
