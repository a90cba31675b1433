//! Who is in: how many sessions there are, how many may be, who gives way to whom, and since when nobody
//! is there.
//!
//! What a session does is not known here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::protocol::refusals::RefusalSource;

/// There is no seat; the name of the bound that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full(pub &'static str);

/// The seats for sessions.
#[derive(Debug)]
pub struct SessionSlots {
    tcp_max: u64,
    strangers_max: u64,
    taken: Mutex<TakenSessions>,
    seated: AtomicU64,
    left_at: Mutex<Instant>,
}

/// The seats on TCP that are taken, by number: who came first has the lowest.
#[derive(Debug, Default)]
struct TakenSessions {
    next: u64,
    known: BTreeSet<u64>,
    strangers: BTreeMap<u64, UnauthenticatedSession>,
}

/// One that has not shown the token.
#[derive(Debug)]
struct UnauthenticatedSession {
    source: RefusalSource,
    leave: CancellationToken,
}

impl TakenSessions {
    fn count(&self) -> u64 {
        (self.known.len() + self.strangers.len()) as u64
    }

    /// Takes the seat of a stranger, if there is one: its session ends soon.
    fn displace(&mut self) -> bool {
        let sources = self.strangers.iter();
        let sources: Vec<_> = sources.map(|(number, s)| (*number, s.source)).collect();
        let displaced = gives_way(&sources).and_then(|number| self.strangers.remove(&number));
        if let Some(stranger) = &displaced {
            stranger.leave.cancel();
        }
        displaced.is_some()
    }
}

/// Which of these, in the order in which they came, gives way: the oldest of the peer that has the most;
/// of equals, the one that came first. So nobody who opens one session after the other pushes out those
/// of others.
fn gives_way(strangers: &[(u64, RefusalSource)]) -> Option<u64> {
    let mut counts = BTreeMap::<RefusalSource, usize>::new();
    for (_, source) in strangers {
        *counts.entry(*source).or_default() += 1;
    }
    let most = counts.values().max()?;
    let (number, _) = strangers.iter().find(|(_, of)| counts[of] == *most)?;
    Some(*number)
}

impl SessionSlots {
    /// So many seats on TCP, so many of them for those who have not shown a token yet.
    pub fn new(tcp_max: u64, strangers_max: u64) -> Arc<Self> {
        Arc::new(Self {
            tcp_max,
            strangers_max,
            taken: Mutex::default(),
            seated: AtomicU64::new(0),
            left_at: Mutex::new(Instant::now()),
        })
    }

    /// A seat for a client on the Unix socket, whose connections are bounded by themselves.
    pub fn seat_unix(self: &Arc<Self>) -> SessionSlot {
        self.seat(None, CancellationToken::new())
    }

    /// A seat for a client on TCP that has shown the token; if need be that of one that has not.
    pub fn seat_known(self: &Arc<Self>) -> Result<SessionSlot, Full> {
        let mut taken = self.taken();
        if taken.count() >= self.tcp_max && !taken.displace() {
            return Err(Full("sessions_max"));
        }
        let number = taken.next;
        taken.next += 1;
        taken.known.insert(number);
        drop(taken);
        Ok(self.seat(Some(number), CancellationToken::new()))
    }

    /// A seat for a client on TCP that has not shown the token, if need be that of another such one.
    pub fn seat_stranger(self: &Arc<Self>, source: RefusalSource) -> Result<SessionSlot, Full> {
        let mut taken = self.taken();
        let are_many = taken.strangers.len() as u64 >= self.strangers_max;
        if (are_many || taken.count() >= self.tcp_max) && !taken.displace() {
            return Err(Full("sessions_max"));
        }
        let (number, leave) = (taken.next, CancellationToken::new());
        taken.next += 1;
        let stranger = UnauthenticatedSession {
            source,
            leave: leave.clone(),
        };
        taken.strangers.insert(number, stranger);
        drop(taken);
        Ok(self.seat(Some(number), leave))
    }

    fn seat(self: &Arc<Self>, number: Option<u64>, leave: CancellationToken) -> SessionSlot {
        self.seated.fetch_add(1, Ordering::SeqCst);
        SessionSlot {
            sessions: self.clone(),
            number,
            leave,
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

    fn taken(&self) -> MutexGuard<'_, TakenSessions> {
        // A panic cannot leave it half-changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's seat; dropping it leaves it to the next one.
#[derive(Debug)]
pub struct SessionSlot {
    sessions: Arc<SessionSlots>,
    number: Option<u64>,
    leave: CancellationToken,
}

impl SessionSlot {
    /// The session has shown the token, or only says goodbye: its seat is no stranger's any more. One
    /// that has been given away stays so.
    pub fn authenticated(&self) {
        let mut taken = self.sessions.taken();
        if let Some(number) = self.number
            && taken.strangers.remove(&number).is_some()
        {
            taken.known.insert(number);
        }
    }

    /// Set when another client has got the seat.
    pub fn given_away(&self) -> CancellationToken {
        self.leave.clone()
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut taken = self.sessions.taken();
        if let Some(number) = self.number {
            taken.known.remove(&number);
            taken.strangers.remove(&number);
        }
        drop(taken);
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

    const SOMEBODY: RefusalSource = RefusalSource::User(1);

    fn is_leaving(seat: &SessionSlot) -> bool {
        seat.given_away().is_cancelled()
    }

    #[test]
    fn both_bounds_hold_and_seats_come_back() {
        let sessions = SessionSlots::new(3, 1);
        let first = sessions.seat_stranger(SOMEBODY).expect("free");
        first.authenticated();
        let second = sessions.seat_stranger(SOMEBODY).expect("free");
        let third = sessions.seat_stranger(SOMEBODY).expect("a stranger's");
        assert_eq!(
            [&first, &second, &third].map(is_leaving),
            [false, true, false]
        );
        let fourth = sessions.seat_known().expect("free");
        let fifth = sessions.seat_known().expect("a stranger's");
        assert!(is_leaving(&third));
        assert_eq!(sessions.seat_known().err(), Some(Full("sessions_max")));
        let stranger = sessions.seat_stranger(SOMEBODY);
        assert_eq!(stranger.err(), Some(Full("sessions_max")));
        let unix = sessions.seat_unix();
        assert_eq!((sessions.count(), sessions.empty_since()), (6, None));
        drop((first, second, third, fourth, fifth, unix));
        assert!(sessions.empty_since().is_some());
        assert_eq!(sessions.taken().count(), 0);
    }

    /// It authenticates at the moment at which another one has got its seat.
    #[test]
    fn who_has_given_way_does_not_take_the_seat_back() {
        let sessions = SessionSlots::new(2, 1);
        let late = sessions.seat_stranger(SOMEBODY).expect("free");
        let next = sessions.seat_stranger(SOMEBODY).expect("a stranger's");
        late.authenticated();
        assert!(is_leaving(&late) && !is_leaving(&next));
        assert_eq!(sessions.taken().count(), 1);
        drop(late);
        assert_eq!(sessions.taken().count(), 1);
    }

    #[test]
    fn the_oldest_of_the_peer_that_has_the_most_gives_way() {
        let of = |peers: &[u32]| {
            let peers = peers.iter().enumerate();
            let all: Vec<_> = peers
                .map(|(n, p)| (n as u64, RefusalSource::User(*p)))
                .collect();
            gives_way(&all)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[1, 2, 2, 2]), Some(1));
        assert_eq!(of(&[1, 2, 3]), Some(0));
        assert_eq!(of(&[3, 3, 3]), Some(0));
        assert_eq!(of(&[1, 2, 2, 1]), Some(0));
    }
}
