//! The slots for sessions: how many are taken, how many there are, which session is displaced by a new one,
//! since when there has been no session, and that none begins while a server decides to exit for want of
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_util::sync::CancellationToken;

use crate::{protocol::refusals::RefusalSource, sys::lock};

/// There is no free slot; holds the name of the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full(pub &'static str);

/// The slots for sessions.
#[derive(Debug)]
pub struct SessionSlots {
    tcp_max: u64,
    unauthenticated_max: u64,
    taken: Mutex<TakenSessions>,
    count: AtomicU64,
    emptied_at: Mutex<Instant>,
    /// Read by what begins a session or does without one, written by [`Self::hold_if_empty`].
    gate: Arc<RwLock<()>>,
}

/// The slots on TCP that are taken, by number; older sessions have lower numbers.
#[derive(Debug, Default)]
struct TakenSessions {
    next: u64,
    authenticated: BTreeSet<u64>,
    unauthenticated: BTreeMap<u64, UnauthenticatedSession>,
}

/// A session that has not shown the token.
#[derive(Debug)]
struct UnauthenticatedSession {
    source: RefusalSource,
    displaced: CancellationToken,
}

impl TakenSessions {
    fn count(&self) -> u64 {
        (self.authenticated.len() + self.unauthenticated.len()) as u64
    }

    /// Displaces an unauthenticated session, if there is one: it ends soon. True if it did.
    fn displace(&mut self) -> bool {
        let sources = self.unauthenticated.iter();
        let sources: Vec<_> = sources.map(|(number, s)| (*number, s.source)).collect();
        let displaced =
            to_displace(&sources).and_then(|number| self.unauthenticated.remove(&number));
        if let Some(session) = &displaced {
            session.displaced.cancel();
        }
        displaced.is_some()
    }
}

/// Which of these sessions, oldest first, is displaced: the oldest of the peer that has the most; of peers
/// with equally many, the oldest session. So a peer that opens one session after the other does not
/// displace those of others.
fn to_displace(unauthenticated: &[(u64, RefusalSource)]) -> Option<u64> {
    let mut counts = BTreeMap::<RefusalSource, usize>::new();
    for (_, source) in unauthenticated {
        *counts.entry(*source).or_default() += 1;
    }
    let most = counts.values().max()?;
    let (number, _) = unauthenticated.iter().find(|(_, of)| counts[of] == *most)?;
    Some(*number)
}

impl SessionSlots {
    /// Up to `tcp_max` sessions on TCP, and up to `unauthenticated_max` of them without the token.
    pub fn new(tcp_max: u64, unauthenticated_max: u64) -> Arc<Self> {
        Arc::new(Self {
            tcp_max,
            unauthenticated_max,
            taken: Mutex::default(),
            count: AtomicU64::new(0),
            emptied_at: Mutex::new(Instant::now()),
            gate: Arc::default(),
        })
    }

    /// Before a slot is taken, and for a request without a session: waits while [`Self::hold_if_empty`] is
    /// held, which it is not while the guard lives.
    pub async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        self.gate.clone().read_owned().await
    }

    /// If there is no session, and nothing that begins one, then none begins before the guard is dropped.
    pub fn hold_if_empty(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        let held = self.gate.clone().try_write_owned().ok()?;
        (self.count() == 0).then_some(held)
    }

    /// A slot for a client on the Unix socket; only the connections there have a bound.
    pub fn take_unix(self: &Arc<Self>) -> SessionSlot {
        self.new_slot(None, CancellationToken::new())
    }

    /// A slot for a client on TCP that has shown the token; displaces an unauthenticated session if none is
    /// free.
    pub fn take_authenticated(self: &Arc<Self>) -> Result<SessionSlot, Full> {
        let mut taken = self.taken();
        if taken.count() >= self.tcp_max && !taken.displace() {
            return Err(Full("sessions_max"));
        }
        let number = taken.next;
        taken.next += 1;
        taken.authenticated.insert(number);
        drop(taken);
        Ok(self.new_slot(Some(number), CancellationToken::new()))
    }

    /// A slot for a client on TCP that has not shown the token; displaces another such session if none is
    /// free.
    pub fn take_unauthenticated(
        self: &Arc<Self>,
        source: RefusalSource,
    ) -> Result<SessionSlot, Full> {
        let mut taken = self.taken();
        let are_many = taken.unauthenticated.len() as u64 >= self.unauthenticated_max;
        if (are_many || taken.count() >= self.tcp_max) && !taken.displace() {
            return Err(Full("sessions_max"));
        }
        let (number, displaced) = (taken.next, CancellationToken::new());
        taken.next += 1;
        let session = UnauthenticatedSession {
            source,
            displaced: displaced.clone(),
        };
        taken.unauthenticated.insert(number, session);
        drop(taken);
        Ok(self.new_slot(Some(number), displaced))
    }

    fn new_slot(
        self: &Arc<Self>,
        number: Option<u64>,
        displaced: CancellationToken,
    ) -> SessionSlot {
        self.count.fetch_add(1, Ordering::SeqCst);
        SessionSlot {
            sessions: self.clone(),
            number,
            displaced,
        }
    }

    /// How many sessions there are, on the Unix socket and on TCP.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Since when there has been no session; `None` while there is one.
    pub fn empty_since(&self) -> Option<Instant> {
        let emptied_at = *lock(&self.emptied_at);
        (self.count() == 0).then_some(emptied_at)
    }

    fn taken(&self) -> MutexGuard<'_, TakenSessions> {
        // A panic cannot leave it half-changed.
        lock(&self.taken)
    }
}

/// A session's slot; free again when this is dropped.
#[derive(Debug)]
pub struct SessionSlot {
    sessions: Arc<SessionSlots>,
    number: Option<u64>,
    displaced: CancellationToken,
}

impl SessionSlot {
    /// The session has shown the token, or is ending: it no longer counts as unauthenticated. A session
    /// that has been displaced stays so.
    pub fn set_authenticated(&self) {
        let mut taken = self.sessions.taken();
        if let Some(number) = self.number
            && taken.unauthenticated.remove(&number).is_some()
        {
            taken.authenticated.insert(number);
        }
    }

    /// Cancelled when another client has taken the slot.
    pub fn displaced(&self) -> CancellationToken {
        self.displaced.clone()
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut taken = self.sessions.taken();
        if let Some(number) = self.number {
            taken.authenticated.remove(&number);
            taken.unauthenticated.remove(&number);
        }
        drop(taken);
        let mut emptied_at = lock(&self.sessions.emptied_at);
        *emptied_at = Instant::now();
        drop(emptied_at);
        self.sessions.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: RefusalSource = RefusalSource::User(1);

    fn is_leaving(slot: &SessionSlot) -> bool {
        slot.displaced().is_cancelled()
    }

    #[test]
    fn both_bounds_hold_and_slots_come_back() {
        let sessions = SessionSlots::new(3, 1);
        let first = sessions.take_unauthenticated(PEER).expect("free");
        first.set_authenticated();
        let second = sessions.take_unauthenticated(PEER).expect("free");
        let third = sessions
            .take_unauthenticated(PEER)
            .expect("a displaced one");
        assert_eq!(
            [&first, &second, &third].map(is_leaving),
            [false, true, false]
        );
        let fourth = sessions.take_authenticated().expect("free");
        let fifth = sessions.take_authenticated().expect("a displaced one");
        assert!(is_leaving(&third));
        assert_eq!(
            sessions.take_authenticated().err(),
            Some(Full("sessions_max"))
        );
        let refused = sessions.take_unauthenticated(PEER);
        assert_eq!(refused.err(), Some(Full("sessions_max")));
        let unix = sessions.take_unix();
        assert_eq!((sessions.count(), sessions.empty_since()), (6, None));
        drop((first, second, third, fourth, fifth, unix));
        assert!(sessions.empty_since().is_some());
        assert_eq!(sessions.taken().count(), 0);
    }

    #[tokio::test]
    async fn no_session_begins_while_it_is_decided_whether_there_is_any() {
        let sessions = SessionSlots::new(3, 3);
        let entering = sessions.enter().await;
        assert!(sessions.hold_if_empty().is_none(), "one is about to begin");
        let slot = sessions.take_unix();
        drop(entering);
        assert!(sessions.hold_if_empty().is_none(), "there is one");
        drop(slot);
        let held = sessions.hold_if_empty().expect("there is none");
        let mut late = Box::pin(sessions.enter());
        assert!(futures_util::poll!(&mut late).is_pending());
        drop(held);
        late.await;
    }

    /// It authenticates at the moment at which another one has got its slot.
    #[test]
    fn who_has_given_way_does_not_take_the_slot_back() {
        let sessions = SessionSlots::new(2, 1);
        let late = sessions.take_unauthenticated(PEER).expect("free");
        let next = sessions
            .take_unauthenticated(PEER)
            .expect("a displaced one");
        late.set_authenticated();
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
            to_displace(&all)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[1, 2, 2, 2]), Some(1));
        assert_eq!(of(&[1, 2, 3]), Some(0));
        assert_eq!(of(&[3, 3, 3]), Some(0));
        assert_eq!(of(&[1, 2, 2, 1]), Some(0));
    }
}
