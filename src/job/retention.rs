//! Retention: which final jobs go, and when. Pure: the store finds the jobs, the executor removes
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{JobNumber, JobState, Micros};

/// What goes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionScope {
    /// The whole job, with its output.
    Jobs,
    /// Its output alone; the job stays.
    Outputs,
}

/// Which final jobs a rule is about: all that are given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionFilter {
    /// Only these final states; empty: all of them.
    #[serde(default, rename = "state", skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<JobState>,
    /// Only this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// All of these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Exactly this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How much stays of the jobs that match. A job goes as soon as one of the bounds says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionBounds {
    /// Jobs that ended longer ago go, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than_s: Option<u64>,
    /// Only so many stay, the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_newest: Option<u64>,
    /// Only so much stored output stays, that of the newest, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_bytes: Option<u64>,
}

/// A rule that the server applies by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRule {
    /// Its name.
    #[serde(rename = "rule")]
    pub name: String,
    /// What goes.
    pub scope: RetentionScope,
    /// Of which jobs.
    #[serde(flatten)]
    pub filter: RetentionFilter,
    /// When.
    #[serde(flatten)]
    pub bounds: RetentionBounds,
}

/// A job that may go, as the store finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionCandidate {
    /// Its number.
    pub number: JobNumber,
    /// When it ended.
    pub finished_at: Micros,
    /// Bytes of its output that are stored.
    pub stored_bytes: u64,
}

/// Decides about candidates, one after the other, the newest first.
#[derive(Debug)]
pub struct RetentionCount {
    bounds: RetentionBounds,
    cutoff: Option<Micros>,
    jobs: u64,
    bytes: u64,
}

impl RetentionScope {
    /// Its name on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Outputs => "outputs",
        }
    }
}

impl RetentionRule {
    /// The most rules: the server applies each of them every few minutes.
    pub const COUNT_MAX: u32 = 256;
}

impl RetentionBounds {
    /// The longest age, seconds: ten years.
    pub const OLDER_THAN_S_MAX: u64 = 315_360_000;

    /// Whether nothing is bounded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the age of a job alone decides about it.
    pub fn is_age_alone(&self) -> bool {
        self.keep_newest.is_none() && self.keep_bytes.is_none()
    }

    /// Jobs that ended before this moment are too old.
    pub fn cutoff(&self, now: Micros) -> Option<Micros> {
        let age_us =
            |seconds: u64| i64::try_from(seconds).map_or(i64::MAX, |s| s.saturating_mul(1_000_000));
        self.older_than_s
            .map(|seconds| Micros(now.0.saturating_sub(age_us(seconds))))
    }
}

impl RetentionCount {
    /// Nothing has been seen yet.
    pub fn new(bounds: RetentionBounds, now: Micros) -> Self {
        Self {
            cutoff: bounds.cutoff(now),
            bounds,
            jobs: 0,
            bytes: 0,
        }
    }

    /// Whether the next job goes. Without bounds all do.
    pub fn goes(&mut self, next: &RetentionCandidate) -> bool {
        self.jobs = self.jobs.saturating_add(1);
        self.bytes = self.bytes.saturating_add(next.stored_bytes);
        let too_many = self.bounds.keep_newest.is_some_and(|max| self.jobs > max);
        let too_much = self.bounds.keep_bytes.is_some_and(|max| self.bytes > max);
        let too_old = self.cutoff.is_some_and(|cutoff| next.finished_at < cutoff);
        too_many || too_much || too_old || self.bounds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(bounds: RetentionBounds, jobs: &[(i64, u64)]) -> Vec<bool> {
        let mut count = RetentionCount::new(bounds, Micros(100_000_000));
        let goes = jobs.iter().map(|&(finished_s, stored_bytes)| {
            count.goes(&RetentionCandidate {
                number: 1,
                finished_at: Micros(finished_s * 1_000_000),
                stored_bytes,
            })
        });
        goes.collect()
    }

    #[test]
    fn a_job_goes_as_soon_as_one_bound_says_so() {
        let jobs = [(99, 10), (95, 10), (98, 0), (80, 5), (97, 0)];
        let none = RetentionBounds::default();
        assert_eq!(goes(none, &jobs), [true; 5], "nothing is to be kept");
        let age = RetentionBounds {
            older_than_s: Some(5),
            ..none
        };
        assert_eq!(goes(age, &jobs), [false, false, false, true, false]);
        let count = RetentionBounds {
            keep_newest: Some(3),
            ..none
        };
        assert_eq!(goes(count, &jobs), [false, false, false, true, true]);
        let bytes = RetentionBounds {
            keep_bytes: Some(20),
            ..none
        };
        assert_eq!(goes(bytes, &jobs), [false, false, false, true, true]);
        let all = RetentionBounds {
            older_than_s: Some(2),
            keep_newest: Some(4),
            keep_bytes: Some(1000),
        };
        assert_eq!(goes(all, &jobs), [false, true, false, true, true]);
        let nothing = RetentionBounds {
            keep_newest: Some(0),
            ..none
        };
        assert_eq!(goes(nothing, &jobs), [true; 5]);
    }

    #[test]
    fn a_rule_is_one_flat_object() {
        let rule = RetentionRule {
            name: "r".into(),
            scope: RetentionScope::Outputs,
            filter: RetentionFilter {
                states: vec![JobState::Failed],
                name: Some("n".into()),
                ..RetentionFilter::default()
            },
            bounds: RetentionBounds {
                keep_bytes: Some(7),
                ..RetentionBounds::default()
            },
        };
        let json = serde_json::to_value(&rule).expect("JSON");
        let expected = serde_json::json!({"rule": "r", "scope": "outputs", "state": ["failed"],
            "name": "n", "keep_bytes": 7});
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::from_value::<RetentionRule>(json).ok(),
            Some(rule)
        );
    }

    #[test]
    fn an_age_beyond_the_beginning_is_no_error() {
        let bounds = RetentionBounds {
            older_than_s: Some(u64::MAX),
            ..RetentionBounds::default()
        };
        assert!(bounds.cutoff(Micros(5)).is_some_and(|cutoff| cutoff.0 < 0));
    }
}
