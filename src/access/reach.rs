//! Which jobs a token reaches.

use std::collections::{BTreeMap, BTreeSet};

use super::TokenNumber;

/// Which jobs a token reaches: those that meet all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Only those that this token has submitted.
    pub own: Option<TokenNumber>,
    /// Only those of these queues.
    pub queues: Option<BTreeSet<String>>,
    /// Only those that have all of these labels. Two values of one key are met by no job.
    pub labels: BTreeSet<(String, String)>,
}

/// What decides whether a job is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlace {
    /// The token that has submitted it.
    pub token: Option<TokenNumber>,
    /// Its queue.
    pub queue: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Why a job is not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfReach {
    /// Another client has submitted it.
    Foreign,
    /// It is in this queue.
    Queue(String),
    /// It does not have this label.
    Label(String, String),
}

impl OutOfReach {
    /// The rule of the refusal.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Foreign => "token.own",
            Self::Queue(_) => "token.queues",
            Self::Label(..) => "token.labels",
        }
    }
}

impl std::fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign => f.write_str("the job was not submitted with it"),
            Self::Queue(queue) => write!(f, "the job is in the queue {queue:?}"),
            Self::Label(key, value) => write!(f, "the job does not have the label {key}={value}"),
        }
    }
}

impl Reach {
    /// Whether it reaches every job.
    pub fn is_all(&self) -> bool {
        self.own.is_none() && self.queues.is_none() && self.labels.is_empty()
    }

    /// Whether a queue is one of those whose jobs it reaches.
    pub fn has_queue(&self, queue: &str) -> bool {
        let queues = self.queues.as_ref();
        queues.is_none_or(|queues| queues.contains(queue))
    }

    /// Whether it reaches this job.
    pub fn check(&self, job: &JobPlace) -> Result<(), OutOfReach> {
        if self.own.is_some() && self.own != job.token {
            return Err(OutOfReach::Foreign);
        }
        if !self.has_queue(&job.queue) {
            return Err(OutOfReach::Queue(job.queue.clone()));
        }
        let missing = |(key, value): &&(String, String)| job.labels.get(key) != Some(value);
        match self.labels.iter().find(missing) {
            Some((key, value)) => Err(OutOfReach::Label(key.clone(), value.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(token: Option<TokenNumber>, queue: &str, labels: &[(&str, &str)]) -> JobPlace {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        JobPlace {
            token,
            queue: queue.to_owned(),
            labels: labels.iter().map(pair).collect(),
        }
    }

    #[test]
    fn all_conditions_hold_together() {
        assert_eq!(Reach::default().check(&job(None, "a", &[])), Ok(()));
        let reach = Reach {
            own: Some(1),
            queues: Some(["a".to_owned()].into()),
            labels: [("k".to_owned(), "v".to_owned())].into(),
        };
        assert_eq!(
            reach.check(&job(Some(1), "a", &[("k", "v"), ("l", "w")])),
            Ok(())
        );
        for (wrong, rule) in [
            (job(Some(2), "a", &[("k", "v")]), "token.own"),
            (job(None, "a", &[("k", "v")]), "token.own"),
            (job(Some(1), "b", &[("k", "v")]), "token.queues"),
            (job(Some(1), "a", &[("k", "w")]), "token.labels"),
            (job(Some(1), "a", &[]), "token.labels"),
        ] {
            let refused = reach.check(&wrong).expect_err("not reached");
            assert_eq!(refused.rule(), rule, "{wrong:?}");
        }
    }

    #[test]
    fn two_values_of_one_label_are_met_by_no_job() {
        let labels = ["v", "w"].map(|value| ("k".to_owned(), value.to_owned()));
        let reach = Reach {
            labels: labels.into(),
            ..Reach::default()
        };
        for value in ["v", "w"] {
            assert!(reach.check(&job(None, "a", &[("k", value)])).is_err());
        }
    }
}
