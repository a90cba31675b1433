//! How many jobs a token may submit in a time: a token bucket for each rate.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::sys::lock;

/// Most buckets that are not full at the same time.
const BUCKETS_MAX: usize = 10_000;

/// So many new jobs in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Up to this number of new jobs, at once or spread over the time.
    pub jobs: u32,
    /// The time, seconds.
    pub per_s: u32,
}

impl Rate {
    /// The units of a text such as `60/m`.
    const UNITS: [(&'static str, u32); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

    /// Reads a text such as `60/m`.
    pub fn parse(text: &str) -> Option<Self> {
        let (jobs, unit) = text.split_once('/')?;
        let (_, per_s) = Self::UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let jobs = jobs.parse().ok()?;
        Some(Self { jobs, per_s }).filter(|rate| rate.is_valid())
    }

    /// Whether there is any job and any time in it.
    pub fn is_valid(self) -> bool {
        self.jobs > 0 && self.per_s > 0
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = Self::UNITS.iter().find(|(_, per_s)| *per_s == self.per_s);
        match unit {
            Some((unit, _)) => write!(f, "{}/{unit}", self.jobs),
            None => write!(f, "{} in {} s", self.jobs, self.per_s),
        }
    }
}

/// Why no job is let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateRefusal {
    /// There may be room after this time.
    Wait(Duration),
    /// The rate is lower than this number of jobs at once.
    TooMany,
    /// Too many rates are in use.
    Buckets,
}

/// How much of a rate is left, as it was at a moment.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let (jobs, per_s) = (f64::from(self.rate.jobs), f64::from(self.rate.per_s));
        self.left = (self.left + passed * jobs / per_s).min(jobs);
        self.at = self.at.max(now);
    }

    fn is_full(&self) -> bool {
        self.left >= f64::from(self.rate.jobs)
    }

    fn check(&self, jobs: usize) -> Result<(), RateRefusal> {
        let jobs = jobs as f64;
        let most = f64::from(self.rate.jobs);
        if jobs > most {
            return Err(RateRefusal::TooMany);
        }
        match jobs - self.left {
            short if short > 0.0 => Err(RateRefusal::Wait(Duration::from_secs_f64(
                short * f64::from(self.rate.per_s) / most,
            ))),
            _ => Ok(()),
        }
    }
}

/// Names a bucket: the tag of the chain at the place where the rate stands.
pub type BucketKey = [u8; 32];

/// The buckets of all rates in use. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RateBuckets(Arc<Mutex<HashMap<BucketKey, Bucket>>>);

impl RateBuckets {
    /// Takes room for so many jobs from all of these rates, or from none.
    ///
    /// # Errors
    ///
    /// The first rate that has no room, and why.
    pub fn take(
        &self,
        rates: &[(BucketKey, Rate)],
        jobs: usize,
    ) -> Result<(), (Rate, RateRefusal)> {
        self.take_at(rates, jobs, Instant::now())
    }

    fn take_at(
        &self,
        rates: &[(BucketKey, Rate)],
        jobs: usize,
        now: Instant,
    ) -> Result<(), (Rate, RateRefusal)> {
        if rates.is_empty() || jobs == 0 {
            return Ok(());
        }
        let mut buckets = lock(&self.0);
        for (key, rate) in rates {
            if !buckets.contains_key(key) {
                forget_full(&mut buckets, now);
                if buckets.len() >= BUCKETS_MAX {
                    return Err((*rate, RateRefusal::Buckets));
                }
            }
            let bucket = buckets.entry(*key).or_insert_with(|| Bucket {
                rate: *rate,
                left: f64::from(rate.jobs),
                at: now,
            });
            bucket.refill(now);
            bucket.check(jobs).map_err(|refusal| (*rate, refusal))?;
        }
        for (key, _) in rates {
            if let Some(bucket) = buckets.get_mut(key) {
                bucket.left -= jobs as f64;
            }
        }
        Ok(())
    }
}

/// A full bucket says nothing that a new one would not. Looked for only when there are many.
fn forget_full(buckets: &mut HashMap<BucketKey, Bucket>, now: Instant) {
    if buckets.len() < BUCKETS_MAX {
        return;
    }
    buckets.retain(|_, bucket| {
        bucket.refill(now);
        !bucket.is_full()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_and_written() {
        let rate = Rate::parse("60/m").expect("a rate");
        assert_eq!((rate.jobs, rate.per_s), (60, 60));
        assert_eq!(rate.to_string(), "60/m");
        for wrong in [
            "", "60", "/m", "60/", "0/m", "-1/m", "1/y", "1.5/s", "60/m ",
        ] {
            assert_eq!(Rate::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_bucket_gives_its_jobs_once_and_refills() {
        let (buckets, now) = (RateBuckets::default(), Instant::now());
        let rates = [([1; 32], Rate { jobs: 2, per_s: 10 })];
        assert_eq!(buckets.take_at(&rates, 2, now), Ok(()));
        let refused = buckets.take_at(&rates, 1, now).expect_err("empty").1;
        assert_eq!(refused, RateRefusal::Wait(Duration::from_secs(5)));
        let later = now + Duration::from_secs(5);
        assert_eq!(buckets.take_at(&rates, 1, later), Ok(()));
        let long = later + Duration::from_secs(10_000);
        assert_eq!(
            buckets.take_at(&rates, 3, long).map_err(|(_, why)| why),
            Err(RateRefusal::TooMany)
        );
        assert_eq!(buckets.take_at(&rates, 2, long), Ok(()));
        // A clock that goes backward gives nothing.
        assert!(buckets.take_at(&rates, 1, now).is_err());
    }

    #[test]
    fn a_refusal_of_one_rate_takes_nothing_from_the_others() {
        let (buckets, now) = (RateBuckets::default(), Instant::now());
        let (wide, tight) = (
            Rate {
                jobs: 10,
                per_s: 60,
            },
            Rate { jobs: 1, per_s: 60 },
        );
        let both = [([1; 32], wide), ([2; 32], tight)];
        assert_eq!(buckets.take_at(&both, 1, now), Ok(()));
        assert!(buckets.take_at(&both, 1, now).is_err());
        assert_eq!(buckets.take_at(&both[..1], 9, now), Ok(()));
    }

    #[test]
    fn many_rates_do_not_make_a_used_one_forgotten() {
        let (buckets, now) = (RateBuckets::default(), Instant::now());
        let rate = Rate {
            jobs: 1,
            per_s: 86_400,
        };
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        for number in 0..BUCKETS_MAX {
            assert_eq!(buckets.take_at(&[(key(number), rate)], 1, now), Ok(()));
        }
        let next = buckets.take_at(&[(key(BUCKETS_MAX), rate)], 1, now);
        assert_eq!(next.map_err(|(_, why)| why), Err(RateRefusal::Buckets));
        assert!(buckets.take_at(&[(key(0), rate)], 1, now).is_err());
        let tomorrow = now + Duration::from_secs(90_000);
        assert_eq!(
            buckets.take_at(&[(key(BUCKETS_MAX), rate)], 1, tomorrow),
            Ok(())
        );
    }
}
