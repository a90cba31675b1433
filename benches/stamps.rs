//! A program that writes the time, and how old what it wrote is: both sides share one clock.
//!
//! Over which way the lines travel is not known here.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Writes the time so often, a line each.
pub fn write(times: usize, every: Duration) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for _ in 0..times {
        thread::sleep(every);
        stdout.write_all(format!("{}\n", now_ns()).as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}

/// Microseconds since the line was written.
pub fn age_us(line: &str) -> f64 {
    let written: u128 = line.trim().parse().expect("a stamp");
    now_ns().saturating_sub(written) as f64 / 1000.0
}

fn now_ns() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_nanos()
}
