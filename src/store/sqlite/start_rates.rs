//! The starts of queues whose starts in a minute are bounded, as far back as the bound looks. Pure: a
//! moment is the time since boot, and the caller says what it is.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::job::Queue;

/// Names are shared by the maps that have them as keys.
pub(in crate::store) type QueueName = Arc<str>;

/// The last starts of the queues that are bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct StartRates {
    /// When each start was, the oldest first. A deleted queue keeps its starts, so that making it anew
    /// gives no more of them.
    starts: HashMap<QueueName, VecDeque<Duration>>,
    /// When the oldest start of each queue does not count any more.
    leaving: BTreeSet<(Duration, QueueName)>,
    now: Duration,
}

impl StartRates {
    /// Moves on to `now`; returns the queues that have got starts back.
    pub fn advance(&mut self, now: Duration) -> Vec<QueueName> {
        self.now = self.now.max(now);
        let mut changed = Vec::new();
        while let Some((at, name)) = self.leaving.first().cloned()
            && at <= self.now
        {
            self.unlist(&name);
            if let Some(starts) = self.starts.get_mut(&name) {
                let left = starts.partition_point(|start| *start + Queue::RATE_WINDOW <= self.now);
                starts.drain(..left);
            }
            self.list(&name);
            changed.push(name);
        }
        changed
    }

    /// How many starts of a queue count now.
    pub fn count(&self, name: &str) -> u64 {
        self.starts
            .get(name)
            .map_or(0, |starts| starts.len() as u64)
    }

    /// A job of this queue starts now.
    pub fn add(&mut self, name: &QueueName) {
        self.add_at(name, self.now);
    }

    /// A job of this queue was started at `moment`; earlier ones must come first.
    pub fn add_at(&mut self, name: &QueueName, moment: Duration) {
        self.unlist(name);
        self.starts
            .entry(name.clone())
            .or_default()
            .push_back(moment);
        self.list(name);
    }

    /// The newest start of this queue has not taken place.
    pub fn take_back(&mut self, name: &QueueName) {
        self.unlist(name);
        if let Some(starts) = self.starts.get_mut(name) {
            starts.pop_back();
        }
        self.list(name);
    }

    /// The first time from now at which one of the queues that `rests` picks gets a start back.
    pub fn next_of(&self, rests: impl Fn(&QueueName) -> bool) -> Option<Duration> {
        let mut leaving = self.leaving.iter();
        let (at, _) = leaving.find(|(_, name)| rests(name))?;
        Some(at.saturating_sub(self.now))
    }

    fn leaves_at(&self, name: &str) -> Option<Duration> {
        let oldest = self.starts.get(name)?.front()?;
        Some(*oldest + Queue::RATE_WINDOW)
    }

    fn unlist(&mut self, name: &QueueName) {
        if let Some(at) = self.leaves_at(name) {
            self.leaving.remove(&(at, name.clone()));
        }
    }

    fn list(&mut self, name: &QueueName) {
        match self.leaves_at(name) {
            Some(at) => {
                self.leaving.insert((at, name.clone()));
            }
            None => {
                self.starts.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn starts_count_for_a_minute_and_can_be_taken_back() {
        let mut rates = StartRates::default();
        let (a, b): (QueueName, QueueName) = ("a".into(), "b".into());
        assert_eq!(rates.advance(s(100)), Vec::<QueueName>::new());
        rates.add(&a);
        rates.advance(s(110));
        rates.add(&a);
        rates.add(&b);
        rates.take_back(&b);
        assert_eq!((rates.count("a"), rates.count("b")), (2, 0));
        assert_eq!(rates.next_of(|_| true), Some(s(50)));
        assert_eq!(rates.next_of(|name| **name == *"b"), None);
        assert_eq!(rates.advance(s(159)), Vec::<QueueName>::new());
        assert_eq!(rates.advance(s(160)), vec![a.clone()]);
        assert_eq!(rates.count("a"), 1);
        // It never goes back.
        rates.advance(s(5));
        assert_eq!(rates.next_of(|_| true), Some(s(10)));
        assert_eq!(rates.advance(s(1000)), vec![a]);
        assert_eq!(rates.count("a"), 0);
        assert!(rates.starts.is_empty() && rates.leaving.is_empty());
    }
}
