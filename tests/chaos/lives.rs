//! The lives of a run's schedules, from what their planners were answered: which definition may have held
//! at which moment, and when a server was there to look at the clock. Judges nothing.

use std::collections::BTreeMap;

use crate::{
    evidence::Evidence,
    history::{Target, What},
    schedules::{Account, Definition},
};

/// How far the clocks of the history and of the servers may differ, microseconds.
pub const CLOCKS_DIFFER_US: u64 = 20_000;
/// How long a server must have lived, in all, to have looked at the clock, microseconds.
const LOOKS_WITHIN_US: u64 = 1_500_000;

/// One schedule from its creation to its deletion, or to the end of the run.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// What held, and after which moment it may have, and must have: in order.
    changes: Vec<Change>,
    /// What it told when it was paused for the last time.
    pub account: Option<Account>,
    /// Keys of runs that were asked for, and their jobs.
    pub requests: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone)]
struct Change {
    asked_us: u64,
    answered_us: u64,
    definition: Option<Definition>,
}

/// The lives of each name, in order.
pub fn lives(evidence: &Evidence) -> BTreeMap<&str, Vec<Life>> {
    let mut lives: BTreeMap<&str, Vec<Life>> = BTreeMap::new();
    for entry in &evidence.entries {
        let (What::Scheduled { name, .. }
        | What::RunAtOnce { name, .. }
        | What::Accounted { name, .. }) = &entry.what
        else {
            continue;
        };
        let of_name = lives.entry(name).or_default();
        if of_name.last().is_none_or(Life::is_over) {
            of_name.push(Life::default());
        }
        let Some(life) = of_name.last_mut() else {
            continue;
        };
        match &entry.what {
            What::Scheduled {
                asked_us,
                definition,
                ..
            } => life.changes.push(Change {
                asked_us: *asked_us,
                answered_us: entry.at_us,
                definition: definition.clone(),
            }),
            What::RunAtOnce { key, job, .. } => life.requests.push((key.clone(), job.clone())),
            What::Accounted { account, .. } => life.account = Some(account.clone()),
            _ => {}
        }
    }
    lives
}

impl Life {
    /// Whether it was deleted.
    pub fn is_over(&self) -> bool {
        let last = self.changes.last();
        last.is_some_and(|change| change.definition.is_none())
    }

    /// What may have held at some time between these moments; `None`: it was not there.
    pub fn held(&self, from_us: u64, to_us: u64) -> Vec<Option<&Definition>> {
        let mut held = Vec::new();
        let first = self.changes.first().map_or(u64::MAX, |it| it.answered_us);
        if from_us <= first + CLOCKS_DIFFER_US {
            held.push(None);
        }
        for (nth, change) in self.changes.iter().enumerate() {
            let next = self.changes.get(nth + 1);
            let until = next.map_or(u64::MAX, |next| next.answered_us + CLOCKS_DIFFER_US);
            if change.asked_us <= to_us + CLOCKS_DIFFER_US && from_us <= until {
                held.push(change.definition.as_ref());
            }
        }
        held
    }

    /// Whether a moment may belong to it.
    pub fn covers(&self, at_us: u64) -> bool {
        self.held(at_us, at_us).iter().any(Option::is_some)
    }

    /// All multiples of a second at which it may have been there.
    pub fn seconds(&self) -> impl Iterator<Item = u64> {
        let first = self.changes.first().map_or(0, |it| it.asked_us);
        let last = self.changes.last().map_or(0, |it| it.answered_us);
        let from = first.saturating_sub(CLOCKS_DIFFER_US).div_ceil(1_000_000);
        (from..=(last + CLOCKS_DIFFER_US) / 1_000_000).map(|second| second * 1_000_000)
    }
}

impl Definition {
    /// Whether this is one of its times.
    pub fn has(&self, at_us: u64) -> bool {
        !self.paused && at_us.is_multiple_of(self.step_s * 1_000_000)
    }
}

/// When servers were there: from, to.
#[derive(Debug, Clone, Default)]
pub struct Presence(Vec<(u64, u64)>);

impl Presence {
    /// From the blows of the killer and the ready lines of the servers.
    pub fn of(evidence: &Evidence) -> Self {
        let (mut spans, mut since) = (Vec::new(), Some(0));
        for entry in &evidence.entries {
            let is_there = match &entry.what {
                What::Ready { .. } => true,
                What::Blow { target, signal } if *target == Target::Server => *signal == "SIGCONT",
                _ => continue,
            };
            match (since, is_there) {
                (None, true) => since = Some(entry.at_us),
                (Some(from), false) => {
                    spans.push((from, entry.at_us));
                    since = None;
                }
                _ => {}
            }
        }
        spans.extend(since.map(|from| (from, u64::MAX)));
        Self(spans)
    }

    /// When a server must have looked at the clock that showed this.
    pub fn looks_after(&self, at_us: u64) -> u64 {
        let mut left = LOOKS_WITHIN_US;
        for (from, to) in &self.0 {
            let from = (*from).max(at_us);
            match to.saturating_sub(from) {
                length if length >= left => return from + left,
                length => left -= length,
            }
        }
        u64::MAX
    }
}
