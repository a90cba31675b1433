//! The options for what a job waits for before it starts, and for its retries.

use serde_json::{Map, Value, json};

use super::moment;
use crate::cli::render::duration;

/// Heading of these options.
const HEADING: &str = "Order, retries and expectations";

/// What a job waits for, and what happens when it fails.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WaitingOptions {
    /// Start when this job has succeeded, or with `:finish`, when it has ended; may be given several
    /// times
    #[arg(long = "after", value_name = "JOB[:finish]", value_parser = after, help_heading = HEADING)]
    after: Vec<(Value, &'static str)>,

    /// Do not start before this time (18:30, 2026-12-24 18:30, or with a zone as in RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment::parse, help_heading = HEADING)]
    at: Option<String>,

    /// Do not start before this time has passed (90, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "at", help_heading = HEADING)]
    delay: Option<f64>,

    /// Fail the job, even with exit code 0, unless its output contains this text; may be given several
    /// times
    #[arg(long = "expect", value_name = "TEXT", help_heading = HEADING)]
    expect: Vec<String>,

    /// The same with a regular expression
    #[arg(long = "expect-regex", value_name = "PATTERN", help_heading = HEADING)]
    expect_regex: Vec<String>,

    /// Run one job with this key at a time, in all queues together
    #[arg(long, value_name = "KEY", help_heading = HEADING)]
    exclusive: Option<String>,

    /// Run the job again when it fails, up to N times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..1000), help_heading = HEADING)]
    retry: Option<u32>,

    /// The pause before the first retry; each later one is twice as long [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, requires = "retry", help_heading = HEADING)]
    retry_backoff: Option<f64>,

    /// The longest pause before a retry [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, requires = "retry", help_heading = HEADING)]
    retry_backoff_max: Option<f64>,

    /// Retry only after these exit codes and reasons (75,timeout) [default: any failure]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "retry", help_heading = HEADING)]
    retry_on: Vec<String>,
}

impl WaitingOptions {
    /// Puts their keys into a NewJob.
    pub fn add_to(&self, job: &mut Map<String, Value>) {
        let after = self
            .after
            .iter()
            .map(|(job, on)| json!({"job": job, "on": on}));
        let keys = [
            ("after", Value::Array(after.collect())),
            ("run_at", json!(self.at)),
            ("delay_s", json!(self.delay)),
            ("exclusive", json!(self.exclusive)),
            ("expect", self.expectations()),
            ("retry", self.retry()),
        ];
        let given = keys.into_iter().filter(|(_, value)| !is_nothing(value));
        job.extend(given.map(|(key, value)| (key.to_owned(), value)));
    }

    fn expectations(&self) -> Value {
        let texts = self.expect.iter().map(|text| json!({"contains": text}));
        let patterns = self
            .expect_regex
            .iter()
            .map(|pattern| json!({"regex": pattern}));
        Value::Array(texts.chain(patterns).collect())
    }

    fn retry(&self) -> Value {
        let Some(retries) = self.retry else {
            return Value::Null;
        };
        let on = self.retry_on.iter().map(|on| match on.parse::<u64>() {
            Ok(code) => json!(code),
            Err(_) => json!(on),
        });
        let keys = [
            ("max_attempts", json!(retries + 1)),
            ("backoff_s", json!(self.retry_backoff)),
            ("max_backoff_s", json!(self.longest_backoff())),
            ("on", Value::Array(on.collect())),
        ];
        let given = keys.into_iter().filter(|(_, value)| !is_nothing(value));
        Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// A first pause beyond the default longest one is the longest one, too.
    fn longest_backoff(&self) -> Option<f64> {
        let first = self
            .retry_backoff
            .filter(|first| *first > BACKOFF_MAX_DEFAULT_S);
        self.retry_backoff_max.or(first)
    }
}

/// `retry.max_backoff_s` of a job that does not name it, seconds.
const BACKOFF_MAX_DEFAULT_S: f64 = 300.0;

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// `JOB`, `JOB:success` or `JOB:finish`. A name is looked up when the job is submitted.
fn after(text: &str) -> Result<(Value, &'static str), String> {
    let (job, on) = match text.rsplit_once(':') {
        None => (text, "success"),
        Some((job, "success")) => (job, "success"),
        Some((job, "finish")) => (job, "finish"),
        Some(_) => return Err("write JOB, JOB:success or JOB:finish".to_owned()),
    };
    match job.parse::<u64>() {
        Ok(number) => Ok((json!(number), on)),
        Err(_) if job.is_empty() || job.starts_with('#') => {
            Err("the job must be a number, an id, a name or `last`".to_owned())
        }
        Err(_) => Ok((json!(job), on)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::job::JobSpec;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        waiting: WaitingOptions,
    }

    fn keys(words: &str) -> Option<Value> {
        let words = std::iter::once("submit").chain(words.split_whitespace());
        let line = Line::try_parse_from(words).ok()?;
        let mut job = Map::new();
        line.waiting.add_to(&mut job);
        Some(Value::Object(job))
    }

    #[test]
    fn options_become_keys_that_the_server_takes() {
        let id = uuid::Uuid::nil();
        let words = format!(
            "--after 7 --after {id}:finish --after build --delay 5m --exclusive gpu --retry 3 --retry-backoff 10m \
             --retry-on 75,timeout --expect done --expect-regex ^ok"
        );
        let expected = json!({
            "after": [{"job": 7, "on": "success"}, {"job": id, "on": "finish"},
                {"job": "build", "on": "success"}],
            "delay_s": 300.0, "exclusive": "gpu", "expect": [{"contains": "done"}, {"regex": "^ok"}],
            "retry": {"max_attempts": 4, "backoff_s": 600.0, "max_backoff_s": 600.0,
                "on": [75, "timeout"]},
        });
        let mut job = keys(&words).expect("fine");
        assert_eq!(job, expected);
        job["argv"] = json!(["true"]);
        job["after"][2]["job"] = json!(8);
        JobSpec::read(job.as_object().expect("an object").clone()).expect("valid");
        assert_eq!(keys(""), Some(json!({})));
        assert_eq!(
            keys("--retry 0"),
            Some(json!({"retry": {"max_attempts": 1}}))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--after #0",
            "--after :finish",
            "--after 7:failure",
            "--at tomorrow",
            "--at 18:30 --delay 5",
            "--retry -1",
            "--retry-backoff 5",
            "--retry-on 75",
        ] {
            assert_eq!(keys(wrong), None, "{wrong}");
        }
    }
}
