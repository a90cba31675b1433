//! The places of a door's connections: how many there are, and who leaves when one more comes.
//!
//! Whoever is known keeps its place. A newcomer that has not said who it is yet gives way, the one
//! that came first before the others: half-open connections cannot keep anybody out. What makes a
//! newcomer known is not decided here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{config::Settings, sys::descriptors};

/// The places of one door.
#[derive(Debug)]
pub struct ConnectionSlots {
    max: u64,
    taken: Mutex<TakenConnections>,
}

#[derive(Debug, Default)]
struct TakenConnections {
    /// Known ones and newcomers.
    count: u64,
    /// Numbers the next one.
    next: u64,
    /// In the order in which they came.
    newcomers: BTreeMap<u64, CancellationToken>,
}

impl ConnectionSlots {
    /// So many places.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    /// A place for a newcomer, if need be that of another one; `None` where all are known.
    pub fn take(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut taken = self.lock();
        if taken.count >= self.max {
            let (_, gives_way) = taken.newcomers.pop_first()?;
            // Its task ends soon, and counts itself out then.
            gives_way.cancel();
        }
        let (number, leave) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.count += 1;
        taken.newcomers.insert(number, leave.clone());
        Some(ConnectionSlot {
            places: self.clone(),
            number,
            leave,
        })
    }

    fn lock(&self) -> MutexGuard<'_, TakenConnections> {
        // A panic cannot leave it half-changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; dropping it leaves it to another one.
#[derive(Debug)]
pub struct ConnectionSlot {
    places: Arc<ConnectionSlots>,
    number: u64,
    leave: CancellationToken,
}

impl ConnectionSlot {
    /// From now on it gives way to nobody.
    pub fn known(&self) {
        self.places.lock().newcomers.remove(&self.number);
    }

    /// Returns when somebody else needs the place.
    pub async fn given_away(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.newcomers.remove(&self.number);
        taken.count -= 1;
    }
}

/// Lowers the bounds of connections where this process may not open so many files: half of what the
/// server leaves of them is for connections, the rest for shims.
/// Returns whether it did.
pub fn fit(settings: &mut Settings, open_files_max: u64) -> bool {
    let (tcp, unix) = (settings.tcp_connections_max, settings.unix_connections_max);
    let room = (descriptors::left_of(open_files_max) / 2).max(2);
    if tcp + unix <= room {
        return false;
    }
    settings.tcp_connections_max = (room * tcp / (tcp + unix)).max(1);
    settings.unix_connections_max = (room - settings.tcp_connections_max).max(1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn is_leaving(place: &ConnectionSlot) -> bool {
        place.leave.is_cancelled()
    }

    #[test]
    fn the_first_newcomer_gives_way_and_the_known_do_not() {
        let places = ConnectionSlots::new(3);
        let take = || places.take().expect("a place");
        let (one, two, three) = (take(), take(), take());
        one.known();
        let four = take();
        assert_eq!(
            [&one, &two, &three, &four].map(is_leaving),
            [false, true, false, false]
        );
        drop(two);
        for place in [&three, &four] {
            place.known();
        }
        assert!(places.take().is_none(), "all of them are known");
        drop(one);
        assert!(places.take().is_some());
    }

    #[test]
    fn places_come_back() {
        let places = ConnectionSlots::new(1);
        for _ in 0..100 {
            drop(places.take().expect("a place"));
        }
        assert_eq!(places.lock().count, 0);
        assert!(places.lock().newcomers.is_empty());
    }

    #[test]
    fn connections_leave_half_of_the_descriptors_to_the_work() {
        let defaults = config::load_from(None, BTreeMap::new(), &BTreeMap::new());
        let defaults = defaults.expect("defaults").settings;
        let mut many = defaults.clone();
        assert!(!fit(&mut many, 1 << 20));
        assert_eq!(many, defaults);
        let mut few = defaults;
        assert!(fit(&mut few, 1024));
        // Half of what is left beside the server's own 36.
        assert_eq!(few.tcp_connections_max + few.unix_connections_max, 494);
        assert!(few.unix_connections_max > 100);
    }
}
