//! What a run is asked to be, from variables. Knows nothing of how it is run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::mix;

/// How long the load lasts unless a variable says otherwise.
const SECONDS: u64 = 22;

/// One run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Every decision follows from it (not the moments at which processes happen to be).
    pub seed: u64,
    /// How long submitters and killer are at work.
    pub length: Duration,
    /// Built without optimisation: outputs are smaller, for the oracle is slow then.
    pub small: bool,
    /// The server's, instead of the one that was built with the tests.
    pub binary: Option<String>,
}

impl Settings {
    /// From `CC_CHAOS_SEED`, `CC_CHAOS_SECONDS` and `CC_CHAOS_BINARY`.
    pub fn read() -> Self {
        let seconds = number("CC_CHAOS_SECONDS").unwrap_or(SECONDS);
        Self {
            seed: number("CC_CHAOS_SEED").unwrap_or_else(random_seed),
            length: Duration::from_secs(seconds),
            small: cfg!(debug_assertions),
            binary: text("CC_CHAOS_BINARY"),
        }
    }

    /// The command that makes the same decisions again.
    pub fn again(&self) -> String {
        let (seed, seconds) = (self.seed, self.length.as_secs());
        let what = match self.small {
            true => "cargo test --locked --test chaos",
            false => "cargo test --locked --release --test chaos",
        };
        let binary = self.binary.iter();
        let binary: String = binary.map(|it| format!("CC_CHAOS_BINARY={it} ")).collect();
        format!("CC_CHAOS_SEED={seed} CC_CHAOS_SECONDS={seconds} {binary}{what} -- --nocapture")
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = text(name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn random_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    mix(since.expect("after 1970").as_nanos() as u64) % 1_000_000
}
