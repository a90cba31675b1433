//! `wait`: waits for jobs and exits with their code. Does not affect them.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::cli::{
    connect::{
        find_job,
        link::{self, Link, StartPolicy, VersionNotice},
        target::Connect,
    },
    new_job::options,
    render::{describe, duration, exit_code, job::ShownJob, print},
};

/// Options of `wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: the job's, as from `run`. Of several jobs: 0 when all succeeded, else the code of the \
first one in the order given that did not; with --any the code of the job that ended first. With \
another --until than final: 0 when it has come true, for all jobs or with --any for one; when it can \
no longer come true, the job's code, or 1 where that is 0. 124 when --timeout has passed.

PATTERN is a regular expression over bytes; ^ and $ match at the ends of lines. A job is idle when it \
runs and for TIME has written nothing and received no input.")]
pub struct WaitArgs {
    #[command(flatten)]
    connect: Connect,

    /// The jobs: numbers, ids, names (the newest of a name), or `last` for the newest of all
    #[arg(required_unless_present = "labels", value_name = "JOB")]
    jobs: Vec<String>,

    /// Wait for all jobs with this label; may be given several times, and all must match
    #[arg(long = "label", value_name = "K=V", value_parser = options::pair)]
    labels: Vec<(String, String)>,

    /// Stop when the first of several jobs is there
    #[arg(long)]
    any: bool,

    /// Wait for all jobs (the default)
    #[arg(long, conflicts_with = "any")]
    all: bool,

    /// What to wait for: final, running, regex:PATTERN, idle:TIME or bytes:N
    #[arg(long, value_name = "WHAT", value_parser = WaitUntil::parse, default_value = "final")]
    until: WaitUntil,

    /// Give up after this time (90, 90s, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<f64>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What to wait for, as the `until` of `job.wait`.
#[derive(Debug, Clone, PartialEq)]
struct WaitUntil(Value);

impl WaitUntil {
    fn parse(text: &str) -> Result<Self, String> {
        let until = match text.split_once(':') {
            None if text == "final" || text == "running" => json!(text),
            Some(("regex", pattern)) => json!({"regex": pattern}),
            Some(("idle", length)) => json!({"idle_s": duration::parse(length)?}),
            Some(("bytes", number)) => json!({"bytes": options::bytes(number)?}),
            _ => return Err("write final, running, regex:PATTERN, idle:TIME or bytes:N".to_owned()),
        };
        Ok(Self(until))
    }

    fn is_final(&self) -> bool {
        self.0 == "final"
    }
}

/// The shortest timeout that is sent, also after the deadline.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// How long the server's reply may come after the timeout: it checks every job once more, for up to
/// two seconds.
const REPLY_LATE_MAX: Duration = Duration::from_secs(3);

/// Waits for the jobs.
pub async fn wait(args: WaitArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let deadline = match args.timeout.map(Duration::try_from_secs_f64) {
        None => None,
        Some(Ok(length)) => Instant::now().checked_add(length),
        Some(Err(_)) => anyhow::bail!("--timeout is too long; leave it out for none"),
    };
    let mut names = find_job::resolve_all(&mut link, &args.jobs).await?;
    names.extend(args.labelled(&mut link).await?);
    // One request for each job keeps every reply short, however many jobs there are.
    let groups: Vec<Value> = match args.any {
        true => vec![json!(names)],
        false => names.into_iter().map(|name| json!([name])).collect(),
    };
    let mut results = Vec::with_capacity(groups.len());
    for group in groups {
        let result = args.wait_for_group(&mut link, group, deadline).await?;
        let impossible = !args.until.is_final() && result["met"] != true;
        results.push(result);
        if impossible {
            break;
        }
    }
    if args.json {
        print::json(&summary(&results))?;
    }
    args.exit_code(&results).map(ExitCode::from)
}

impl WaitArgs {
    /// The ids of the jobs with the labels, the oldest first.
    async fn labelled(&self, link: &mut Link) -> anyhow::Result<Vec<Value>> {
        if self.labels.is_empty() {
            return Ok(Vec::new());
        }
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)));
        let filter = json!({"labels": Value::Object(labels.collect())});
        let mut jobs = find_job::list_raw(link, &filter, usize::MAX).await?;
        if jobs.is_empty() {
            anyhow::bail!("no job has these labels; `cc-executor ls --all` lists all jobs");
        }
        jobs.reverse();
        Ok(jobs.iter_mut().map(|job| job["id"].take()).collect())
    }

    /// Waits for one group, across losses of the connection. Null when the timeout has passed and
    /// no server has replied.
    async fn wait_for_group(
        &self,
        link: &mut Link,
        jobs: Value,
        deadline: Option<Instant>,
    ) -> anyhow::Result<Value> {
        let mut params = json!({"jobs": jobs, "mode": "any", "until": self.until.0});
        loop {
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                params["timeout_s"] = json!(left.max(TIMEOUT_MIN).as_secs_f64());
            }
            let asked = link.try_request("job.wait", &params);
            let result = match deadline {
                None => asked.await,
                Some(deadline) => match timeout_at(deadline + REPLY_LATE_MAX, asked).await {
                    Ok(result) => result,
                    Err(_) => {
                        link.mark_lost();
                        return Ok(Value::Null);
                    }
                },
            };
            if let Some(reply) = result? {
                return Ok(reply);
            }
        }
    }

    fn exit_code(&self, results: &[Value]) -> anyhow::Result<u8> {
        for result in results {
            let Some(job) = deciding_job(result)? else {
                return Ok(exit_code::TIMED_OUT);
            };
            let came_true = result["met"] == true && !self.until.is_final();
            let code = match (came_true, job.is_final()) {
                (true, _) => exit_code::SUCCESS,
                (false, false) => exit_code::TIMED_OUT,
                (false, true) if self.until.is_final() => exit_code::of(&job),
                (false, true) => exit_code::of(&job).max(exit_code::FAILURE),
            };
            if code != exit_code::SUCCESS {
                let impossible = match job.is_final() && !self.until.is_final() {
                    true => "; what was waited for can no longer come true",
                    false => "",
                };
                let stands = describe::of(&job);
                print::line_on_terminal(&format!("job {} {stands}{impossible}", job.number));
                return Ok(code);
            }
        }
        Ok(exit_code::SUCCESS)
    }
}

/// The job that decided the wait, or the only one in the request; `None` when the timeout has
/// passed.
fn deciding_job(result: &Value) -> anyhow::Result<Option<ShownJob>> {
    let job = match (&result["job"], result["jobs"].as_array().map(Vec::as_slice)) {
        (Value::Null, Some([only])) => only,
        (job, _) => job,
    };
    match job {
        Value::Null => Ok(None),
        job => ShownJob::read(job).map(Some),
    }
}

/// One result from several: whether all were met, and all jobs in the order of the command line. Of one it
/// is the server's reply.
fn summary(results: &[Value]) -> Value {
    if let [Value::Object(only)] = results {
        return Value::Object(only.clone());
    }
    let jobs = results
        .iter()
        .filter_map(|result| result["jobs"].as_array());
    let jobs: Vec<&Value> = jobs.flatten().collect();
    let met = results.iter().all(|result| result["met"] == true);
    json!({"met": met, "job": null, "jobs": jobs})
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        wait: WaitArgs,
    }

    fn code(words: &[&str], results: &[Value]) -> u8 {
        let words = ["wait", "1"].iter().chain(words);
        let args = Line::try_parse_from(words).expect("valid").wait;
        args.exit_code(results).expect("a code")
    }

    fn job(state: &str, reason: Value, exit_code: Value) -> Value {
        json!({"id": "x", "number": 1, "state": state, "reason": reason, "exit_code": exit_code,
            "signal": null, "argv": ["true"], "shell": null})
    }

    fn met(job: Value) -> Value {
        json!({"met": true, "job": job, "jobs": [job]})
    }

    #[test]
    fn one_job_gives_its_code_and_several_the_first_failure() {
        let good = met(job("succeeded", json!(null), json!(0)));
        let bad = |code: i32| met(job("failed", json!("exit_code"), json!(code)));
        assert_eq!(code(&[], std::slice::from_ref(&good)), 0);
        assert_eq!(code(&[], &[bad(3)]), 3);
        assert_eq!(code(&["2", "3"], &[good.clone(), bad(4), bad(5)]), 4);
        assert_eq!(code(&["2"], &[good.clone(), good]), 0);
    }

    #[test]
    fn a_timeout_is_124_with_and_without_a_server() {
        let running = job("running", json!(null), json!(null));
        let late = json!({"met": false, "job": null, "jobs": [running]});
        assert_eq!(code(&[], &[late]), 124);
        assert_eq!(code(&[], &[Value::Null]), 124);
    }

    #[test]
    fn a_start_is_enough_where_that_is_asked() {
        let running = met(job("running", json!(null), json!(null)));
        assert_eq!(code(&["--until", "running"], &[running]), 0);
        let never = job("cancelled", json!(null), json!(null));
        let never = json!({"met": false, "job": null, "jobs": [never]});
        assert_eq!(code(&["--until", "running"], &[never]), 130);
        let failed = met(job("failed", json!("exit_code"), json!(9)));
        assert_eq!(code(&["--until", "running"], &[failed]), 0);
    }

    #[test]
    fn what_can_no_longer_come_is_a_failure_also_of_a_job_that_succeeded() {
        let unmet = |exit_code: i32| {
            let state = ["succeeded", "failed"][usize::from(exit_code != 0)];
            let job = job(state, json!("exit_code"), json!(exit_code));
            json!({"met": false, "job": job, "jobs": [job]})
        };
        let until = ["--until", "regex:ready"];
        assert_eq!(code(&until, &[unmet(0)]), 1);
        assert_eq!(code(&until, &[unmet(7)]), 7);
        let running = job("running", json!(null), json!(null));
        assert_eq!(code(&until, &[met(running.clone())]), 0);
        let late = json!({"met": false, "job": null, "jobs": [running]});
        assert_eq!(code(&until, &[late]), 124);
    }

    #[test]
    fn one_reply_is_printed_as_it_came() {
        let good = met(job("succeeded", json!(null), json!(0)));
        let mut long = good.clone();
        (long["truncated"], long["offset"]) = (json!(true), json!(7));
        assert_eq!(summary(std::slice::from_ref(&long)), long);
        let both = summary(&[good.clone(), good.clone()]);
        let jobs = [&good["job"], &good["job"]];
        assert_eq!(both, json!({"met": true, "job": null, "jobs": jobs}));
        let none = json!({"met": false, "job": null, "jobs": []});
        assert_eq!(summary(&[Value::Null]), none);
    }

    #[test]
    fn conditions_are_read() {
        for (text, until) in [
            ("final", json!("final")),
            ("running", json!("running")),
            ("regex:a:b", json!({"regex": "a:b"})),
            ("idle:1m", json!({"idle_s": 60.0})),
            ("bytes:2K", json!({"bytes": 2048})),
        ] {
            assert_eq!(WaitUntil::parse(text), Ok(WaitUntil(until)), "{text}");
        }
        for wrong in ["", "ready", "final:", "idle", "idle:soon", "bytes:-1"] {
            assert!(WaitUntil::parse(wrong).is_err(), "{wrong}");
        }
    }
}
