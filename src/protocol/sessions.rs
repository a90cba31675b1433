//! Who is in: how many sessions there are, how many may be, and since when nobody is.
//!
//! What a session does is not known here.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// There is no seat; the name of the bound that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full(pub &'static str);

/// The seats for sessions.
#[derive(Debug)]
pub struct Sessions {
    tcp: Arc<Semaphore>,
    unauthenticated: Arc<Semaphore>,
    seated: AtomicU64,
    left_at: Mutex<Instant>,
}

impl Sessions {
    /// So many seats on TCP, so many of them for those who have not shown a token yet.
    pub fn new(tcp_max: u64, unauthenticated_max: u64) -> Arc<Self> {
        let semaphore = |max: u64| {
            let max = usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)))
        };
        Arc::new(Self {
            tcp: semaphore(tcp_max),
            unauthenticated: semaphore(unauthenticated_max),
            seated: AtomicU64::new(0),
            left_at: Mutex::new(Instant::now()),
        })
    }

    /// A seat for a client on the Unix socket, whose connections are bounded by themselves.
    pub fn seat_unix(self: &Arc<Self>) -> Seat {
        self.seat(None, None)
    }

    /// A seat for a client on TCP.
    pub fn seat_tcp(self: &Arc<Self>, authenticated: bool) -> Result<Seat, Full> {
        let take = |semaphore: &Arc<Semaphore>, name| {
            semaphore
                .clone()
                .try_acquire_owned()
                .map_err(|_| Full(name))
        };
        let tcp = take(&self.tcp, "sessions_max")?;
        let waiting = if authenticated {
            None
        } else {
            Some(take(&self.unauthenticated, "unauthenticated_sessions_max")?)
        };
        Ok(self.seat(Some(tcp), waiting))
    }

    fn seat(
        self: &Arc<Self>,
        tcp: Option<OwnedSemaphorePermit>,
        waiting: Option<OwnedSemaphorePermit>,
    ) -> Seat {
        self.seated.fetch_add(1, Ordering::SeqCst);
        Seat {
            sessions: self.clone(),
            _tcp: tcp,
            waiting,
        }
    }

    /// How many sessions there are, on all doors.
    pub fn count(&self) -> u64 {
        self.seated.load(Ordering::SeqCst)
    }

    /// Since when there has been no session; `None` while there is one.
    pub fn empty_since(&self) -> Option<Instant> {
        let left_at = *self.left_at.lock().unwrap_or_else(PoisonError::into_inner);
        (self.count() == 0).then_some(left_at)
    }
}

/// A session's seat; dropping it leaves it to the next one.
#[derive(Debug)]
pub struct Seat {
    sessions: Arc<Sessions>,
    _tcp: Option<OwnedSemaphorePermit>,
    waiting: Option<OwnedSemaphorePermit>,
}

impl Seat {
    /// The session has shown the token.
    pub fn authenticated(&mut self) {
        self.waiting = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut left_at = self
            .sessions
            .left_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *left_at = Instant::now();
        drop(left_at);
        self.sessions.seated.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_seats_come_back() {
        let sessions = Sessions::new(3, 1);
        let mut first = sessions.seat_tcp(false).expect("free");
        assert_eq!(
            sessions.seat_tcp(false).err(),
            Some(Full("unauthenticated_sessions_max"))
        );
        first.authenticated();
        let second = sessions.seat_tcp(false).expect("free again");
        let third = sessions.seat_tcp(true).expect("free");
        assert_eq!(sessions.seat_tcp(true).err(), Some(Full("sessions_max")));
        let unix = sessions.seat_unix();
        assert_eq!((sessions.count(), sessions.empty_since()), (4, None));
        drop((first, second, third, unix));
        assert!(sessions.empty_since().is_some());
        assert!(sessions.seat_tcp(false).is_ok());
    }

    /// The 17th stranger must not cost one of the hundred seats.
    #[test]
    fn a_refused_stranger_takes_no_seat() {
        let sessions = Sessions::new(2, 1);
        let _stranger = sessions.seat_tcp(false).expect("free");
        for _ in 0..10 {
            assert!(sessions.seat_tcp(false).is_err());
        }
        assert!(sessions.seat_tcp(true).is_ok());
        assert_eq!(sessions.count(), 1);
    }
}
