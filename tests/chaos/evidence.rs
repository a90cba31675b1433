//! Everything that is known after a run, gathered so that pure checkers can judge it: the plans,
//! the history, the rows of the database, the jobs' own ledger.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    history::{Entry, Target, What},
    plan::{Key, Plan},
    receiver::Delivery,
    rows::{AttemptRow, Rows},
};

/// What the checkers see.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The plan of each job that was acknowledged.
    pub plans: BTreeMap<Key, Plan>,
    /// In order.
    pub entries: Vec<Entry>,
    pub rows: Rows,
    /// What the jobs wrote into their ledger.
    pub lines: Vec<Line>,
    /// What the jobs' receiver was sent.
    pub deliveries: Vec<Delivery>,
}

/// A line of the jobs' own ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub is_start: bool,
    pub seed: u64,
    pub job_id: String,
    pub attempt: u32,
}

impl Line {
    /// `start|end SEED PID JOB ATTEMPT`
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, seed, _pid, job_id, attempt] = words[..] else {
            return None;
        };
        Some(Self {
            is_start: match what {
                "start" => true,
                "end" => false,
                _ => return None,
            },
            seed: seed.parse().ok()?,
            job_id: job_id.to_owned(),
            attempt: attempt.parse().ok()?,
        })
    }
}

/// What one job went through that was not planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Somebody asked for its cancel or kill, with whatever answer.
    pub cancel: bool,
    /// Somebody asked for a signal.
    pub signal: bool,
    /// A shim was killed while it held an attempt that was begun.
    pub shim_kill: bool,
}

impl Touched {
    /// Whether it must have gone as planned.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }
}

/// How much later than its end an attempt's shim may still have been needed, microseconds: what the
/// shim writes as the end is when the leader ended, and the tree, the last bytes and the exit record
/// come behind it.
const BEHIND_END_US: u64 = 1_500_000;

impl Evidence {
    /// What was done to each job.
    pub fn touched(&self) -> BTreeMap<Key, Touched> {
        let mut touched: BTreeMap<Key, Touched> = self
            .plans
            .keys()
            .map(|key| (*key, Touched::default()))
            .collect();
        for entry in &self.entries {
            if let (
                Some(key),
                What::Asked {
                    method: "job.control",
                    note,
                    ..
                },
            ) = (entry.job, &entry.what)
            {
                let touched = touched.entry(key).or_default();
                touched.cancel |= note == "cancel" || note == "kill";
                touched.signal |= note == "signal";
            }
        }
        for key in self.killed_with_their_shim() {
            touched.entry(key).or_default().shim_kill = true;
        }
        touched
    }

    fn killed_with_their_shim(&self) -> BTreeSet<Key> {
        let (keys, numbers) = (self.keys(), self.hit());
        let hit = numbers.iter().filter_map(|number| keys.get(number));
        hit.copied().collect()
    }

    /// The numbers of jobs that had an attempt, not void, whose shim was killed before it was through
    /// with it.
    pub fn hit(&self) -> BTreeSet<u64> {
        let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in &self.entries {
            if let What::Blow {
                target: Target::Shim(id),
                signal: "SIGKILL",
            } = &entry.what
            {
                killed.entry(id).or_insert(entry.at_us);
            }
        }
        let hit = self.rows.attempts.iter().filter(|row| {
            let at = killed.get(row.shim.as_str());
            let ended = row
                .ended_at
                .unwrap_or(u64::MAX)
                .saturating_add(BEHIND_END_US);
            row.state != "void" && at.is_some_and(|at| *at <= ended)
        });
        hit.map(|row| row.job).collect()
    }

    /// The attempts of each job in order, the void ones aside. Those of deleted jobs are gone.
    pub fn attempts(&self) -> BTreeMap<Key, Vec<&AttemptRow>> {
        let keys = self.keys();
        let mut attempts: BTreeMap<Key, Vec<&AttemptRow>> = BTreeMap::new();
        for row in self.rows.attempts.iter().filter(|row| row.state != "void") {
            if let Some(key) = keys.get(&row.job) {
                attempts.entry(*key).or_default().push(row);
            }
        }
        attempts
    }

    /// The attempts of each job that came to their end by themselves: the job says so, and nobody
    /// says that the attempt was lost, stopped or over its bound.
    pub fn whole_attempts(&self) -> BTreeMap<Key, BTreeSet<u32>> {
        let (keys, ids) = (self.keys(), self.keys_by_id());
        let ended: BTreeSet<(Key, u32)> = self
            .lines
            .iter()
            .filter(|line| !line.is_start)
            .filter_map(|line| Some((*ids.get(line.job_id.as_str())?, line.attempt)))
            .collect();
        let mut whole: BTreeMap<Key, BTreeSet<u32>> = BTreeMap::new();
        for event in self.rows.events.iter().filter(|event| event.ends_attempt()) {
            let by_itself =
                event.to == "succeeded" || ["exit_code", "signal"].contains(&event.reason.as_str());
            if let Some(key) = keys.get(&event.job)
                && by_itself
                && ended.contains(&(*key, event.attempt))
            {
                whole.entry(*key).or_default().insert(event.attempt);
            }
        }
        whole
    }

    /// When the last server was launched.
    pub fn last_launch_us(&self) -> u64 {
        let mut entries = self.entries.iter().rev();
        let last = entries.find(|entry| entry.what == What::Launched);
        last.map_or(0, |entry| entry.at_us)
    }

    /// How often a schedule was created, changed or deleted.
    pub fn schedule_changes(&self) -> usize {
        let entries = self.entries.iter();
        let changes = entries.filter(|entry| matches!(entry.what, What::Scheduled { .. }));
        changes.count()
    }

    /// Each acknowledgement: key, id, number.
    fn acknowledged(&self) -> impl Iterator<Item = (Key, &str, u64)> {
        self.entries.iter().filter_map(|entry| match &entry.what {
            What::Acknowledged { id, number, .. } => Some((entry.job?, id.as_str(), *number)),
            _ => None,
        })
    }

    /// The key of each job by its number; of deleted jobs, too.
    pub fn keys(&self) -> BTreeMap<u64, Key> {
        self.acknowledged()
            .map(|(key, _, number)| (number, key))
            .collect()
    }

    /// The key of each job by its id; of deleted jobs, too.
    pub fn keys_by_id(&self) -> BTreeMap<&str, Key> {
        self.acknowledged().map(|(key, id, _)| (id, key)).collect()
    }

    /// Jobs that were deleted, or whose deletion was asked for and not answered.
    pub fn deleted(&self) -> BTreeSet<Key> {
        let is_one = |what: &What| {
            matches!(
                what,
                What::Deleted
                    | What::Asked {
                        method: "job.delete",
                        ..
                    }
            )
        };
        let deleted = self.entries.iter().filter(|entry| is_one(&entry.what));
        deleted.filter_map(|entry| entry.job).collect()
    }

    /// The entries of each reader, in order.
    pub fn readers(&self) -> BTreeMap<u32, Vec<&Entry>> {
        let mut readers: BTreeMap<u32, Vec<&Entry>> = BTreeMap::new();
        for entry in &self.entries {
            let reader = match &entry.what {
                What::Began { reader, .. }
                | What::Shown { reader, .. }
                | What::Gap { reader, .. }
                | What::Passed { reader, .. }
                | What::CaughtUp { reader, .. }
                | What::Told { reader, .. }
                | What::Ended { reader, .. }
                | What::Behind { reader, .. } => *reader,
                _ => continue,
            };
            readers.entry(reader).or_default().push(entry);
        }
        readers
    }
}
