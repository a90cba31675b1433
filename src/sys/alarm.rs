//! Waits for a moment of the wall clock, also when the clock is set or the machine was suspended.

use std::{io, os::fd::OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::{job::Micros, sys::clock};

/// A timer of the kernel on CLOCK_REALTIME (timerfd_create(2)).
#[derive(Debug)]
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// A timer that waits for nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no free descriptor, or no memory for a timer.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for the sake of other types; an OwnedFd stays open"
        )]
        AsyncFd::new(timer).map(Self)
    }

    /// Returns when the wall clock shows `at` or later; at once if it does already. It may return
    /// earlier: whenever the clock is set (`TFD_TIMER_CANCEL_ON_SET`), because the moment may lie
    /// elsewhere now. The caller looks at the clock and waits again.
    ///
    /// # Errors
    ///
    /// The timer cannot be set.
    pub async fn wait_until(&self, at: Micros) -> io::Result<()> {
        if at <= clock::now() {
            return Ok(());
        }
        let moment = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            // 0 would disarm the timer; such a moment is over already.
            it_value: Timespec {
                tv_sec: at.0 / 1_000_000,
                tv_nsec: (at.0 % 1_000_000) * 1000,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(self.0.get_ref(), flags, &moment)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            // The read fails with ECANCELED where the clock was set: time to look at it.
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer, &mut expirations)?);
            if ready.try_io(read).is_ok() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_when_the_clock_shows_the_moment_and_not_before() {
        let alarm = Alarm::new().expect("a timer");
        for wait_us in [0, -5_000_000, 1, 30_000, 1000] {
            let at = Micros(clock::now().0 + wait_us);
            alarm.wait_until(at).await.expect("rings");
            assert!(clock::now() >= at, "{wait_us}");
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_disturb_the_next_one() {
        let alarm = Alarm::new().expect("a timer");
        let soon = Micros(clock::now().0 + 2000);
        let far = Micros(clock::now().0 + 3_600_000_000);
        tokio::select! {
            biased;
            _ = alarm.wait_until(far) => panic!("an hour is not over"),
            done = async { tokio::task::yield_now().await } => done,
        }
        alarm.wait_until(soon).await.expect("rings");
        assert!(clock::now() >= soon);
    }
}
