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
/// A server that lives so long has looked at the clock, microseconds.
const LOOKS_WITHIN_US: u64 = 4_000_000;
/// Runs that are submitted within so much may come from one look, microseconds.
const ONE_LOOK_US: u64 = 100_000;

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

/// When servers have looked at the clock.
#[derive(Debug, Clone, Default)]
pub struct Looks {
    /// When servers were there: from, to.
    lives: Vec<(u64, u64)>,
    /// Runs by the clock: when each was submitted, and its time. One shows that a server has looked at all
    /// schedules, between its time and its submission.
    runs: Vec<(u64, u64)>,
}

impl Looks {
    /// From the blows of the killer, the ready lines of the servers, and the runs.
    pub fn of(evidence: &Evidence) -> Self {
        let (mut lives, mut since) = (Vec::new(), Some(0));
        for entry in &evidence.entries {
            let is_there = match &entry.what {
                What::Ready { .. } => true,
                What::Blow { target, signal } if *target == Target::Server => *signal == "SIGCONT",
                _ => continue,
            };
            match (since, is_there) {
                (None, true) => since = Some(entry.at_us),
                (Some(from), false) => {
                    lives.push((from, entry.at_us));
                    since = None;
                }
                _ => {}
            }
        }
        lives.extend(since.map(|from| (from, u64::MAX)));
        let runs = evidence.rows.runs.iter();
        let by_clock = runs.filter(|run| run.request().is_none());
        let mut runs: Vec<_> = by_clock.map(|run| (run.submitted_at, run.at)).collect();
        runs.sort_unstable();
        Self { lives, runs }
    }

    /// When servers must have looked at a clock that showed this, and have stored what came of it: they
    /// were there for long, or have submitted others twice. Many are killed before they have looked.
    pub fn after(&self, at_us: u64) -> u64 {
        let lives = self.lives.iter();
        let long = lives.filter_map(|(from, to)| {
            let looked = (*from).max(at_us) + LOOKS_WITHIN_US;
            (looked <= *to).then_some(looked)
        });
        let mut later = self.runs.iter().filter(|(_, at)| *at >= at_us);
        let first = later.next().map_or(u64::MAX, |(submitted, _)| *submitted);
        let another = first.saturating_add(ONE_LOOK_US);
        let second = later.find(|(submitted, _)| *submitted >= another);
        let second = second.map_or(u64::MAX, |(submitted, _)| *submitted);
        long.min().unwrap_or(u64::MAX).min(second)
    }
}
