//! The only place of the server that reads the wall clock; the age of things that are dated by
//! CLOCK_BOOTTIME, which cannot be set; and how long a thread has computed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::job::Micros;

/// Now, by the wall clock. Times are for people and records: order never depends on them.
pub fn now() -> Micros {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is broken hardware; 1970 is as good an answer as any.
    Micros(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}

/// How long ago a record of this boot was written, by its CLOCK_BOOTTIME, µs.
pub fn since_boottime(boottime_us: u64) -> Duration {
    since_boot().saturating_sub(Duration::from_micros(boottime_us))
}

/// How long ago a process of this boot was started, by its start time in clock ticks since boot
/// (field 22 of `/proc/PID/stat`).
pub fn since_ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    let at_ms = ticks.saturating_mul(1000) / per_second.max(1);
    since_boot().saturating_sub(Duration::from_millis(at_ms))
}

/// The time since boot, with the time that the machine was suspended: it cannot be set.
pub fn since_boot() -> Duration {
    // CLOCK_BOOTTIME exists in every kernel that has pidfds.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// How long this thread has computed.
pub fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_start_was_a_moment_ago() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let stat = crate::sys::proc::Stat::read(own).expect("our own line");
        let age = since_ticks(stat.start_ticks);
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(since_ticks(0) > age, "the machine is older");
        assert_eq!(since_boottime(u64::MAX / 2), Duration::ZERO);
        assert!(since_boottime(0) > age);
    }

    #[test]
    fn now_lies_after_this_was_written() {
        assert!(now() > Micros(1_700_000_000_000_000));
    }
}
