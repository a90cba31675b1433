//! The slots for the connections of one listener: how many there are, and which connection is closed when
//! one more comes.
//!
//! An authenticated connection keeps its slot. Of the others the oldest is displaced, so half-open
//! connections cannot lock other clients out. `http` and `ws` decide when a connection is authenticated.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio_util::sync::CancellationToken;

use crate::{config::Settings, sys::descriptors, sys::lock};

/// The slots of one listener.
#[derive(Debug)]
pub struct ConnectionSlots {
    max: u64,
    taken: Mutex<TakenConnections>,
}

#[derive(Debug, Default)]
struct TakenConnections {
    /// All connections, authenticated or not.
    count: u64,
    /// The number of the next connection.
    next: u64,
    /// By number, which is the order in which they came.
    unauthenticated: BTreeMap<u64, CancellationToken>,
}

impl ConnectionSlots {
    /// `max` slots.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    /// A slot for a new connection; displaces the oldest unauthenticated one if none is free. `None` if all
    /// are authenticated.
    pub fn take(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut taken = self.lock();
        if taken.count >= self.max {
            let (_, oldest) = taken.unauthenticated.pop_first()?;
            // Its task ends soon, and frees its slot then.
            oldest.cancel();
        }
        let (number, displaced) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.count += 1;
        taken.unauthenticated.insert(number, displaced.clone());
        Some(ConnectionSlot {
            slots: self.clone(),
            number,
            displaced,
        })
    }

    fn lock(&self) -> MutexGuard<'_, TakenConnections> {
        // A panic cannot leave it half-changed.
        lock(&self.taken)
    }
}

/// A connection's slot; free again when this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    displaced: CancellationToken,
}

impl ConnectionSlot {
    /// The connection is authenticated: it is not displaced any more.
    pub fn set_authenticated(&self) {
        self.slots.lock().unauthenticated.remove(&self.number);
    }

    /// Returns when another connection needs the slot.
    pub async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.unauthenticated.remove(&self.number);
        taken.count -= 1;
    }
}

/// Lowers the bounds of connections if this process may not open enough files: half of what the server
/// leaves of them is for connections, the rest for shims. True if it did.
pub fn fit_open_files(settings: &mut Settings, open_files_max: u64) -> bool {
    let (tcp, unix) = (settings.tcp_connections_max, settings.unix_connections_max);
    let available = (descriptors::left_of(open_files_max) / 2).max(2);
    if tcp + unix <= available {
        return false;
    }
    settings.tcp_connections_max = (available * tcp / (tcp + unix)).max(1);
    settings.unix_connections_max = (available - settings.tcp_connections_max).max(1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn is_leaving(slot: &ConnectionSlot) -> bool {
        slot.displaced.is_cancelled()
    }

    #[test]
    fn the_first_newcomer_gives_way_and_the_known_do_not() {
        let slots = ConnectionSlots::new(3);
        let take = || slots.take().expect("a slot");
        let (one, two, three) = (take(), take(), take());
        one.set_authenticated();
        let four = take();
        assert_eq!(
            [&one, &two, &three, &four].map(is_leaving),
            [false, true, false, false]
        );
        drop(two);
        for slot in [&three, &four] {
            slot.set_authenticated();
        }
        assert!(slots.take().is_none(), "all of them are authenticated");
        drop(one);
        assert!(slots.take().is_some());
    }

    #[test]
    fn slots_come_back() {
        let slots = ConnectionSlots::new(1);
        for _ in 0..100 {
            drop(slots.take().expect("a slot"));
        }
        assert_eq!(slots.lock().count, 0);
        assert!(slots.lock().unauthenticated.is_empty());
    }

    #[test]
    fn connections_leave_half_of_the_descriptors_to_the_work() {
        let defaults = config::load_from(None, BTreeMap::new(), &BTreeMap::new());
        let defaults = defaults.expect("defaults").settings;
        let mut many = defaults.clone();
        assert!(!fit_open_files(&mut many, 1 << 20));
        assert_eq!(many, defaults);
        let mut few = defaults;
        assert!(fit_open_files(&mut few, 1024));
        // Half of what is left beside the server's own 36.
        assert_eq!(few.tcp_connections_max + few.unix_connections_max, 494);
        assert!(few.unix_connections_max > 100);
    }
}
