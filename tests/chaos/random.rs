//! Numbers that follow from a seed. Knows nothing of what is decided by them.

use std::time::Duration;

use crate::harness::mix;

/// A stream of numbers. Two with different salts have nothing to do with each other.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream `salt` of a seed.
    pub fn new(seed: u64, salt: u64) -> Self {
        Self(mix(seed ^ mix(salt)))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 up to, not including, `end`; 0 where that is empty.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// A number within a range, both ends included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of them.
    pub fn one_of<'a, T>(&mut self, them: &'a [T]) -> Option<&'a T> {
        them.get(self.below(them.len() as u64) as usize)
    }

    /// One of them, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, them: &[(u64, T)]) -> T {
        let mut left = self.below(them.iter().map(|(weight, _)| weight).sum());
        for (weight, it) in them {
            if left < *weight {
                return *it;
            }
            left -= weight;
        }
        them[0].1
    }

    /// A length of time, milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.within(low * 1000, high * 1000))
    }
}
