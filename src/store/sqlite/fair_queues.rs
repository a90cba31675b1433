//! Which queue gets the next free shim: every queue its share by weight, and none is left out. Pure:
//! no I/O, no clock, no SQL.
//!
//! Start-time fair queueing: each start of a job takes its queue 1/weight of virtual time further, and
//! the queue that has come least far is next. `docs/design/scheduling.md` has the reasons.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::start_rates::StartRates;

pub(in crate::store) use super::start_rates::QueueName;

/// A moment of virtual time, in steps of 1/[`START`] of a start at weight 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct VirtualTime(u128);

/// What a start costs a queue of weight 1. Dividing it by a weight of up to 1000 loses less than one
/// part in four million.
const START: u128 = 1 << 32;

/// The settings of a queue that decide which of its jobs may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct SharingSettings {
    /// The most jobs that are active at a time.
    pub concurrency: u32,
    /// Whether it starts nothing new.
    pub paused: bool,
    /// Its share, from 1.
    pub weight: u32,
    /// The most starts in any minute; `None`: no bound.
    pub starts_per_minute: Option<u32>,
}

/// The jobs of a queue that are not final.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct QueueCounts {
    /// Scheduled or blocked.
    pub held: u64,
    /// Queued, and nothing else keeps them from a slot.
    pub queued: u64,
    /// Queued, but another job with their exclusive key comes first.
    pub waiting_for_key: u64,
    /// Running or paused: those that hold a slot.
    pub active: u64,
}

impl QueueCounts {
    /// All of them.
    pub fn live(&self) -> u64 {
        self.held + self.queued + self.waiting_for_key + self.active
    }
}

/// A queue, and its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueShare {
    pub settings: SharingSettings,
    pub counts: QueueCounts,
    /// Its next start is not before this.
    next: VirtualTime,
    /// Decides between queues that are due at the same time: the number of its last start, so that the
    /// one that waits longest is next. One that has had no start has the number of its arrival, negative:
    /// it comes before all others, and the last one before those that came before it. Right after a
    /// start of the server, when no queue has had a start, so do those that become busy then.
    turn: i64,
    /// When its next start is due; `None`: none of its jobs can start.
    due: Option<VirtualTime>,
    /// How many starts its bound of starts in a minute leaves now.
    left: u64,
}

impl QueueShare {
    /// One without jobs.
    fn new(settings: SharingSettings) -> Self {
        Self {
            settings,
            counts: QueueCounts::default(),
            next: VirtualTime::default(),
            turn: 0,
            due: None,
            left: u64::MAX,
        }
    }

    /// How many of its jobs lack nothing but a shim.
    fn ready(&self) -> u64 {
        self.startable().min(self.left)
    }

    /// The same without the bound of starts in a minute.
    fn startable(&self) -> u64 {
        let slots = u64::from(self.settings.concurrency);
        match self.settings.paused {
            true => 0,
            false => slots
                .saturating_sub(self.counts.active)
                .min(self.counts.queued),
        }
    }

    /// How many more jobs may start in this minute, of which `starts` have started.
    fn left_after(&self, starts: u64) -> u64 {
        match self.settings.starts_per_minute {
            None => u64::MAX,
            Some(most) => u64::from(most).saturating_sub(starts),
        }
    }

    /// What a start costs it.
    fn stride(&self) -> u128 {
        START / u128::from(self.settings.weight.max(1))
    }
}

/// How far the order has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OrderClock {
    now: VirtualTime,
    /// All starts so far.
    starts: i64,
    /// How often a queue without a start has become ready.
    arrivals: i64,
}

/// All queues. Those with a job that lacks only a shim are in an order; a change of one queue and the
/// choice of the next take steps by the logarithm of their number.
#[derive(Debug, Default)]
pub(super) struct FairQueues {
    queues: HashMap<QueueName, QueueShare>,
    /// Of those that are due at the same time, the one with the lowest turn is first.
    order: BTreeSet<(VirtualTime, i64, QueueName)>,
    clock: OrderClock,
    /// The sum over all queues.
    ready: u64,
    /// The starts of queues that may have only so many in a minute.
    rates: StartRates,
}

impl FairQueues {
    /// How many jobs lack nothing but a shim.
    pub fn ready(&self) -> u64 {
        self.ready
    }

    /// How far the order has come, for [`Self::restore_clock`].
    pub fn clock(&self) -> OrderClock {
        self.clock
    }

    /// Moves on to this moment, a time since boot: queues whose bound of starts in a minute allows more
    /// starts than before have them from now on.
    pub fn advance(&mut self, now: Duration) {
        for name in self.rates.advance(now) {
            self.change(&name, |_| ());
        }
    }

    /// How long it takes until a queue that has jobs and slots, and no start left in this minute, gets
    /// one; `None` if there is no such queue.
    pub fn next_start_in(&self) -> Option<Duration> {
        self.rates.next_of(|name| {
            let queue = self.queues.get(name);
            queue.is_some_and(|queue| queue.left == 0 && queue.startable() > 0)
        })
    }

    /// A job of this queue was started at a moment before now; earlier ones must come first.
    pub fn restore_start(&mut self, name: &str, moment: Duration) {
        let name = self.shared_name(name);
        self.rates.add_at(&name, moment);
        self.change(&name, |_| ());
    }

    /// A start of this queue, which counted for its bound, has not taken place. The queue itself is
    /// restored by [`Self::restore`].
    pub fn take_start_back(&mut self, name: &QueueName) {
        self.rates.take_back(name);
    }

    /// The queue of this name.
    pub fn get(&self, name: &str) -> Option<&QueueShare> {
        self.queues.get(name)
    }

    /// All queues.
    pub fn iter(&self) -> impl Iterator<Item = (&QueueName, &QueueShare)> {
        self.queues.iter()
    }

    /// The name as the maps have it.
    pub fn shared_name(&self, name: &str) -> QueueName {
        let known = self.queues.get_key_value(name);
        known.map_or_else(|| name.into(), |(name, _)| Arc::clone(name))
    }

    /// Adds a queue, or replaces its settings and counts; its place in the order stays.
    pub fn set(&mut self, name: &str, settings: SharingSettings, counts: QueueCounts) {
        if !self.queues.contains_key(name) {
            self.queues.insert(name.into(), QueueShare::new(settings));
        }
        let now = self.clock.now;
        self.change(name, |queue| {
            let weight = queue.settings.weight;
            queue.settings = settings;
            queue.counts = counts;
            queue.weigh_anew(weight, now);
        });
    }

    /// Takes a queue away.
    pub fn remove(&mut self, name: &str) {
        self.unlist(name);
        self.queues.remove(name);
    }

    /// Changes the counts of a queue; `None` where there is no such queue.
    pub fn count<T>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut QueueCounts) -> T,
    ) -> Option<T> {
        self.change(name, |queue| change(&mut queue.counts))
    }

    /// The queue that is next; `None` where no job is ready.
    pub fn next(&self) -> Option<&QueueName> {
        self.order.first().map(|(_, _, name)| name)
    }

    /// The queue that is next, of which one queued job becomes active; `None` where no job is ready.
    pub fn start_next(&mut self) -> Option<QueueName> {
        let (due, _, name) = self.order.first()?.clone();
        self.clock.now = due;
        self.clock.starts += 1;
        let starts = self.clock.starts;
        if self.is_bounded(&name) {
            self.rates.add(&name);
        }
        self.change(&name, |queue| {
            queue.counts.queued -= 1;
            queue.counts.active += 1;
            queue.turn = starts;
            queue.next = VirtualTime(due.0 + queue.stride());
            queue.due = None;
        });
        Some(name)
    }

    /// Whether a start of this queue counts for a bound of starts in a minute.
    pub fn is_bounded(&self, name: &str) -> bool {
        let queue = self.queues.get(name);
        queue.is_some_and(|queue| queue.settings.starts_per_minute.is_some())
    }

    /// Makes a queue what it was, with its place in the order; `None`: takes it away.
    pub fn restore(&mut self, name: &QueueName, queue: Option<QueueShare>) {
        self.unlist(name);
        match queue {
            None => {
                self.queues.remove(name);
            }
            Some(queue) => {
                self.queues.insert(Arc::clone(name), queue);
                self.list(name);
            }
        }
    }

    /// Goes back to an earlier moment, at which every queue is restored.
    pub fn restore_clock(&mut self, clock: OrderClock) {
        self.clock = clock;
    }

    /// Takes over where the order of `earlier` had come.
    pub fn continue_from(&mut self, earlier: &Self) {
        self.clock = earlier.clock;
        self.rates = earlier.rates.clone();
        let names: Vec<_> = self.queues.keys().cloned().collect();
        for name in names {
            let earlier = earlier.get(&name);
            self.change(&name, |queue| {
                queue.next = earlier.map_or(VirtualTime::default(), |earlier| earlier.next);
                queue.turn = earlier.map_or(0, |earlier| earlier.turn);
                queue.due = earlier.and_then(|earlier| earlier.due);
            });
        }
    }

    fn change<T>(&mut self, name: &str, change: impl FnOnce(&mut QueueShare) -> T) -> Option<T> {
        self.unlist(name);
        let now = self.clock.now;
        let starts = self.rates.count(name);
        let queue = self.queues.get_mut(name)?;
        let changed = change(queue);
        queue.left = queue.left_after(starts);
        // A queue that becomes ready starts at the present: it neither saves up what it did not use
        // nor pays for it.
        let is_new = queue.due.is_none() && queue.turn <= 0;
        queue.due = match queue.ready() {
            0 => None,
            _ => queue.due.or(Some(queue.next.max(now))),
        };
        if is_new && queue.due.is_some() {
            self.clock.arrivals += 1;
            queue.turn = -self.clock.arrivals;
        }
        self.list(name);
        Some(changed)
    }

    fn unlist(&mut self, name: &str) {
        let Some((name, queue)) = self.queues.get_key_value(name) else {
            return;
        };
        self.ready -= queue.ready();
        if let Some(due) = queue.due {
            self.order.remove(&(due, queue.turn, Arc::clone(name)));
        }
    }

    fn list(&mut self, name: &str) {
        let Some((name, queue)) = self.queues.get_key_value(name) else {
            return;
        };
        self.ready += queue.ready();
        if let Some(due) = queue.due {
            self.order.insert((due, queue.turn, Arc::clone(name)));
        }
    }
}

impl QueueShare {
    /// Makes a change of weight apply at once: what it still has to wait shrinks or grows with it.
    fn weigh_anew(&mut self, before: u32, now: VirtualTime) {
        let (before, after) = (u128::from(before), u128::from(self.settings.weight.max(1)));
        if before == after {
            return;
        }
        let ahead = self.next.0.saturating_sub(now.0);
        self.next = VirtualTime(now.0.min(self.next.0) + ahead * before / after);
        // Due again from `next`.
        self.due = None;
    }
}

#[cfg(test)]
mod tests;
