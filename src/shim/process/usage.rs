//! Adds up what the kernel counted for the processes of an attempt.

use super::fork::Reaped;
use crate::job::Usage;

/// The sum so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsageSum {
    user_us: u64,
    system_us: u64,
    max_rss_kib: u64,
}

impl UsageSum {
    /// Adds a process, with the children that it had waited for.
    pub fn add(&mut self, reaped: &Reaped) {
        self.user_us += reaped.user_us;
        self.system_us += reaped.system_us;
        self.max_rss_kib = self.max_rss_kib.max(reaped.max_rss_kib);
    }

    /// Takes the CPU time of a control group, µs, if that is more: it has also what was reaped by a parent that did not
    /// count it.
    pub fn take_group(&mut self, (user_us, system_us): (u64, u64)) {
        if user_us + system_us > self.user_us + self.system_us {
            (self.user_us, self.system_us) = (user_us, system_us);
        }
    }

    /// The sum in seconds and bytes, as `ExitFacts` has it.
    pub fn total(&self) -> Usage {
        Usage {
            user_s: self.user_us as f64 / 1e6,
            system_s: self.system_us as f64 / 1e6,
            max_rss_bytes: self.max_rss_kib * 1024,
        }
    }
}
