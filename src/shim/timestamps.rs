//! The two clocks in every record: wall time and CLOCK_BOOTTIME. Deadlines use
//! `attempt::stopwatch`.

use nix::time::{ClockId, clock_gettime};

/// Wall clock (µs since 1970) and CLOCK_BOOTTIME (µs). Async-signal-safe.
pub fn now() -> (i64, u64) {
    (
        micros(ClockId::CLOCK_REALTIME),
        micros(ClockId::CLOCK_BOOTTIME) as u64,
    )
}

/// Wall clock, µs since 1970.
pub fn wall_us() -> i64 {
    micros(ClockId::CLOCK_REALTIME)
}

fn micros(clock: ClockId) -> i64 {
    // Both clocks exist in every kernel that has pidfds, so the 0 is never seen.
    clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000 + t.tv_nsec() / 1000)
}
