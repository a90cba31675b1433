//! `wait`: waits for jobs and ends as they end. Never touches them.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    duration, exit_code,
    job::Job,
    jobs,
    link::{self, Link, Start, Tell},
    say, sentence,
    target::Connect,
};

/// Options of `wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: that of the job, as `run` has it. Of several jobs: 0 when all succeeded, else that of \
the first one in the order given that did not; with --any that of the job that decided. With \
--until running: 0 once they have started. 124 when --timeout is over.")]
pub struct WaitArgs {
    #[command(flatten)]
    connect: Connect,

    /// The jobs: numbers, ids, unique names or `last`
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,

    /// Stop at the first job of several
    #[arg(long)]
    any: bool,

    /// Wait for all jobs (the default)
    #[arg(long, conflicts_with = "any")]
    all: bool,

    /// What to wait for
    #[arg(long, value_enum, default_value_t)]
    until: Until,

    /// Give up after so long (90, 90s, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<f64>,

    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Until {
    /// Their end
    #[default]
    Final,
    /// Their start
    Running,
}

impl Until {
    fn name(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Running => "running",
        }
    }
}

/// The shortest timeout that is asked for: none is none at all.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// How long the server's own word on a timeout may be late.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Waits for the jobs.
pub async fn wait(args: WaitArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, Start::IfData, Tell::Everybody).await? else {
        return jobs::no_jobs_at_all();
    };
    let deadline = match args.timeout.map(Duration::try_from_secs_f64) {
        None => None,
        Some(Ok(length)) => Instant::now().checked_add(length),
        Some(Err(_)) => anyhow::bail!("--timeout is longer than any clock; leave it out for none"),
    };
    let names = jobs::resolve_all(&mut link, &args.jobs).await?;
    // One question at a time keeps every reply short, however many jobs there are.
    let groups: Vec<Value> = match args.any {
        true => vec![json!(names)],
        false => names.into_iter().map(|name| json!([name])).collect(),
    };
    let mut results = Vec::with_capacity(groups.len());
    for group in groups {
        results.push(args.ask(&mut link, group, deadline).await?);
    }
    if args.json {
        say::json(&summary(&results))?;
    }
    args.exit_code(&results).map(ExitCode::from)
}

impl WaitArgs {
    /// Waits for one group, across losses of the connection. Null after the timeout where no
    /// server was there to answer.
    async fn ask(
        &self,
        link: &mut Link,
        jobs: Value,
        deadline: Option<Instant>,
    ) -> anyhow::Result<Value> {
        let mut params = json!({"jobs": jobs, "mode": "any", "until": self.until.name()});
        loop {
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                params["timeout_s"] = json!(left.max(TIMEOUT_MIN).as_secs_f64());
            }
            let asked = link.try_request("job.wait", &params);
            let result = match deadline {
                None => asked.await,
                Some(deadline) => match timeout_at(deadline + LATE_MAX, asked).await {
                    Ok(result) => result,
                    Err(_) => {
                        link.lost();
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
            let Some(job) = decisive(result)? else {
                return Ok(exit_code::TIMED_OUT);
            };
            let code = match (self.until, result["met"].as_bool(), job.is_final()) {
                (Until::Running, Some(true), _) => exit_code::SUCCESS,
                (_, _, true) => exit_code::of(&job),
                (_, _, false) => exit_code::TIMED_OUT,
            };
            if code != exit_code::SUCCESS {
                say::to_person(&format!("job {} {}", job.number, sentence::of(&job)));
                return Ok(code);
            }
        }
        Ok(exit_code::SUCCESS)
    }
}

/// The job that decided, or that alone was asked for.
fn decisive(result: &Value) -> anyhow::Result<Option<Job>> {
    let job = match (&result["job"], result["jobs"].as_array().map(Vec::as_slice)) {
        (Value::Null, Some([only])) => only,
        (job, _) => job,
    };
    match job {
        Value::Null => Ok(None),
        job => Job::read(job).map(Some),
    }
}

/// One answer out of several: whether all were met, and all jobs in the order asked.
fn summary(results: &[Value]) -> Value {
    let jobs = results
        .iter()
        .filter_map(|result| result["jobs"].as_array());
    let jobs: Vec<&Value> = jobs.flatten().collect();
    let met = results.iter().all(|result| result["met"] == true);
    let job = match results {
        [only] => only["job"].clone(),
        _ => Value::Null,
    };
    json!({"met": met, "job": job, "jobs": jobs})
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
}
