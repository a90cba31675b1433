//! The options that choose jobs by what they are, and the keys of a request that they become.

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::find_job::{FINAL, LIVE};
use crate::cli::render::{duration, times};

/// Options that choose jobs; all that are given must match.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct JobFilter {
    /// Only jobs in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = STATES)]
    pub states: Vec<String>,

    /// Only jobs of this queue
    #[arg(long)]
    queue: Option<String>,

    /// Only jobs with this label; may be given several times, and all must match
    #[arg(long = "label", value_name = "K=V")]
    labels: Vec<String>,

    /// Only jobs with this name
    #[arg(long)]
    name: Option<String>,

    /// Only jobs submitted since then: a length of time before now (2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
}

/// The states of jobs that have ended, for an option.
pub const FINAL_STATES: [&str; 3] = FINAL;

const STATES: [&str; 8] = [
    LIVE[0], LIVE[1], LIVE[2], LIVE[3], LIVE[4], FINAL[0], FINAL[1], FINAL[2],
];

impl JobFilter {
    /// The ids of its options.
    pub const OPTIONS: [&'static str; 5] = ["states", "queue", "labels", "name", "since"];

    /// The keys of `job.list` for it, without the states.
    ///
    /// # Errors
    ///
    /// A label without a value.
    pub fn keys(&self) -> anyhow::Result<Map<String, Value>> {
        let mut filter = Map::new();
        if let Some(queue) = &self.queue {
            filter.insert("queue".into(), json!(queue));
        }
        if let Some(name) = &self.name {
            filter.insert("name".into(), json!(name));
        }
        if let Some(since) = self.since {
            let since = since.to_rfc3339_opts(SecondsFormat::Micros, true);
            filter.insert("since".into(), json!(since));
        }
        let labels = pairs(&self.labels)?;
        if !labels.is_empty() {
            filter.insert("labels".into(), Value::Object(labels));
        }
        Ok(filter)
    }

    /// The same with the states, if there are any.
    ///
    /// # Errors
    ///
    /// As [`Self::keys`].
    pub fn all_keys(&self) -> anyhow::Result<Map<String, Value>> {
        let mut filter = self.keys()?;
        if !self.states.is_empty() {
            filter.insert("state".into(), json!(self.states));
        }
        Ok(filter)
    }
}

/// Labels as the object that a request has.
///
/// # Errors
///
/// A label without a value.
pub fn pairs(labels: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut pairs = Map::new();
    for label in labels {
        let Some((key, value)) = label.split_once('=') else {
            anyhow::bail!("--label {label}: write KEY=VALUE");
        };
        pairs.insert(key.to_owned(), json!(value));
    }
    Ok(pairs)
}

/// Reads a point in time.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let wrong = || {
        format!(
            "{text:?} is neither a length of time (90s, 2h, 7d) nor a time (2026-11-22T10:00:00Z)"
        )
    };
    let seconds = duration::parse(text).map_err(|_| wrong())?;
    let length = Duration::try_milliseconds((seconds * 1000.0) as i64).ok_or_else(wrong)?;
    times::now().checked_sub_signed(length).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: JobFilter,
    }

    fn parse(words: &[&str]) -> Option<JobFilter> {
        let words = std::iter::once(&"x").chain(words);
        Some(Line::try_parse_from(words).ok()?.filter)
    }

    #[test]
    fn filters_become_the_keys_of_the_question() {
        let filter = parse(&[
            "--queue",
            "q",
            "--label",
            "k=v",
            "--name",
            "n",
            "--state",
            "failed",
            "--since",
            "2026-11-22T11:00:00+01:00",
        ]);
        let keys = filter.expect("valid").all_keys().expect("keys");
        assert_eq!(
            Value::Object(keys),
            json!({"queue": "q", "labels": {"k": "v"}, "name": "n", "state": ["failed"],
                "since": "2026-11-22T10:00:00.000000Z"})
        );
        assert!(parse(&["--label", "k"]).expect("valid").keys().is_err());
        for wrong in [
            ["--state", "nope"],
            ["--since", "soon"],
            ["--since", "9999999999999999d"],
        ] {
            assert!(parse(&wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_length_of_time_is_before_now() {
        let since = parse(&["--since", "1h"]).and_then(|filter| filter.since);
        let age = times::seconds_between(since.expect("a time"), times::now());
        assert!((3599.0..3700.0).contains(&age), "{age}");
    }

    #[test]
    fn every_option_is_named() {
        use clap::CommandFactory;
        let ids: Vec<String> = Line::command()
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .collect();
        assert_eq!(ids, JobFilter::OPTIONS);
    }
}
