//! What a job of the run waits for before it starts, and which of its failures are tried again.
//! Knows nothing of what the job does then.

use serde_json::{Value, json};

use crate::{
    plan::{End, Key},
    random::Random,
};

/// Reasons that are tried again where a policy names none.
const TRIED_AGAIN: [&str; 6] = [
    "exit_code",
    "signal",
    "timeout",
    "stalled",
    "spawn",
    "unverified",
];

/// Keys of jobs that exclude each other.
const EXCLUSIVE: [&str; 3] = ["red", "green", "blue"];

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Waiting {
    /// Jobs that are to be found when it is submitted.
    pub wanted: Vec<Wanted>,
    /// Those that were found.
    pub after: Vec<After>,
    /// Milliseconds from the submission to the first start.
    pub delay_ms: u64,
    pub exclusive: Option<&'static str>,
}

/// A dependency whose job is not chosen yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// Chooses the job, among as many as there are.
    pub choice: u64,
    /// Among those that are not final.
    pub live: bool,
    pub by_number: bool,
    pub on_success: bool,
}

/// A dependency.
#[derive(Debug, Clone, PartialEq)]
pub struct After {
    pub key: Key,
    pub target: Target,
    pub on_success: bool,
}

/// How a submit names the other job.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Id(String),
    Number(u64),
    /// An earlier entry of the same batch.
    Entry(usize),
}

impl Waiting {
    /// Draws what a job waits for.
    pub fn draw(random: &mut Random) -> Self {
        let count = match random.percent(28) {
            true => random.weighted(&[(5, 1), (2, 2), (1, 4)]),
            false => 0,
        };
        Self {
            wanted: (0..count).map(|_| Wanted::draw(random)).collect(),
            after: Vec::new(),
            delay_ms: match random.percent(12) {
                true => random.within(1, 2000),
                false => 0,
            },
            exclusive: match random.percent(14) {
                true => random.one_of(&EXCLUSIVE).copied(),
                false => None,
            },
        }
    }

    /// Writes it into a NewJob.
    pub fn write(&self, job: &mut Value) {
        if !self.after.is_empty() {
            job["after"] = self.after.iter().map(After::json).collect();
        }
        if self.delay_ms > 0 {
            job["delay_s"] = json!(self.delay_ms as f64 / 1000.0);
        }
        if let Some(key) = self.exclusive {
            job["exclusive"] = json!(key);
        }
    }

    /// Whether it can be submitted without its batch.
    pub fn stands_alone(&self) -> bool {
        let mut targets = self.after.iter().map(|after| &after.target);
        !targets.any(|target| matches!(target, Target::Entry(_)))
    }
}

impl Wanted {
    fn draw(random: &mut Random) -> Self {
        Self {
            choice: random.number(),
            live: random.percent(75),
            by_number: random.percent(30),
            on_success: random.percent(60),
        }
    }
}

impl After {
    fn json(&self) -> Value {
        let job = match &self.target {
            Target::Id(id) => json!(id),
            Target::Number(number) => json!(number),
            Target::Entry(index) => json!(format!("#{index}")),
        };
        let on = if self.on_success { "success" } else { "finish" };
        json!({"job": job, "on": on})
    }

    /// Whether such an end of the other job is what it requires.
    pub fn is_met_by(&self, state: &str) -> bool {
        !self.on_success || state == "succeeded"
    }
}

/// Which failures of a job are tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How many attempts may fail, lost and void ones aside.
    pub max_attempts: u32,
    pub backoff_ms: u64,
    pub max_backoff_ms: u64,
    pub on: Option<Vec<Condition>>,
    /// From this attempt on it succeeds.
    pub succeeds_at: Option<u32>,
}

/// A failure that a policy names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    Reason(&'static str),
    Code(i64),
}

impl Retry {
    /// Draws a policy for a job that ends like this; `slow`: its attempts take seconds.
    pub fn draw(end: End, slow: bool, random: &mut Random) -> Option<Self> {
        let may_fail = !matches!(end, End::Code(0) | End::Never);
        if !random.percent(if may_fail { 60 } else { 10 }) {
            return None;
        }
        let max_attempts = if slow { 2 } else { random.within(2, 4) as u32 };
        let backoff_ms = random.within(0, 300);
        let can_succeed = matches!(end, End::Code(1..) | End::Signal(_));
        Some(Self {
            max_attempts,
            backoff_ms,
            max_backoff_ms: backoff_ms + random.below(500),
            on: match random.below(10) {
                0..4 => None,
                4..8 => Some(named(end)),
                _ => Some(others(end)),
            },
            succeeds_at: match can_succeed && random.percent(60) {
                true => Some(random.within(2, 4) as u32),
                false => None,
            },
        })
    }

    /// The policy as a NewJob has it.
    pub fn json(&self) -> Value {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let mut policy = json!({
            "max_attempts": self.max_attempts,
            "backoff_s": seconds(self.backoff_ms),
            "max_backoff_s": seconds(self.max_backoff_ms),
        });
        if let Some(on) = &self.on {
            policy["on"] = on.iter().map(Condition::json).collect();
        }
        policy
    }

    /// Whether this failure is one that is tried again.
    pub fn covers(&self, reason: &str, exit_code: Option<i64>) -> bool {
        let Some(on) = &self.on else {
            return TRIED_AGAIN.contains(&reason);
        };
        on.iter().any(|condition| match condition {
            Condition::Reason(name) => *name == reason,
            Condition::Code(code) => reason == "exit_code" && exit_code == Some(*code),
        })
    }

    /// The shortest pause after so many failures, microseconds.
    pub fn pause_us(&self, failures: u32) -> u64 {
        let doubled = self.backoff_ms << (failures - 1).min(10);
        doubled.min(self.max_backoff_ms) * 500
    }
}

impl Condition {
    fn json(&self) -> Value {
        match self {
            Self::Reason(reason) => json!(reason),
            Self::Code(code) => json!(code),
        }
    }
}

/// A list that has this end.
fn named(end: End) -> Vec<Condition> {
    let mut on = others(end);
    on.push(match end {
        End::Code(code @ 1..) if code % 2 == 0 => Condition::Code(code),
        // No policy may name it.
        End::OutputLimit => return on,
        _ => Condition::Reason(end.reason().unwrap_or("stalled")),
    });
    on
}

/// A list that does not have it.
fn others(end: End) -> Vec<Condition> {
    let another = match end {
        End::Code(code @ 1..) => Condition::Code(code % 255 + 1),
        _ => Condition::Code(9),
    };
    let reasons = ["stalled", "unverified", "timeout"];
    let reasons = reasons
        .into_iter()
        .filter(|name| end.reason() != Some(name));
    [another]
        .into_iter()
        .chain(reasons.map(Condition::Reason))
        .collect()
}

#[test]
fn lists_have_an_end_or_not() {
    let ends = [
        End::Code(8),
        End::Code(255),
        End::Signal("SIGKILL"),
        End::Timeout,
        End::Spawn,
    ];
    for end in ends {
        let policy = |on| Retry {
            max_attempts: 2,
            backoff_ms: 100,
            max_backoff_ms: 150,
            on: Some(on),
            succeeds_at: None,
        };
        let (reason, code) = (end.reason().expect("a failure"), end.code());
        assert!(policy(named(end)).covers(reason, code), "{end:?}");
        assert!(!policy(others(end)).covers(reason, code), "{end:?}");
        assert_eq!(policy(Vec::new()).pause_us(1), 50_000);
        assert_eq!(policy(Vec::new()).pause_us(3), 75_000);
    }
}
