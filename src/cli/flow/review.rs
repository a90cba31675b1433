//! The job that goes on with a review: the tasks of a reviewer that has failed become jobs, and the reviewer
//! runs again after them, until it succeeds or the rounds are used up. A second run of this job finds the
//! jobs of the first by their idempotency keys.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::{
    ask::{self, OwnJob, ask, new_job_of},
    fix_list::{self, FixTask},
    labels::{self, FLOW, HEAD, ROUND, STEP, StepPart},
    new_jobs::wait_for,
    rules::ReviewRules,
    stdout_end::StdoutEnd,
};
use crate::{
    cli::{
        connect::{
            batch::{self, BatchLimits, SharedJobs},
            target::Connect,
        },
        render::{describe, exit_code, job::ShownJob, print},
    },
    escape::visible,
    job::DependencyCondition,
};

/// How much of the end of a reviewer's stdout is searched for tasks, bytes: a task must fit into a message.
const TASKS_BYTES_MAX: usize = 1 << 20;

/// Sees a review through to its end.
pub async fn review(connect: &Connect) -> ExitCode {
    let end = async {
        let (own, rules): (OwnJob, ReviewRules) = OwnJob::find(connect).await?;
        Review::of(own, rules)?.run().await
    };
    match end.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit_code::FAILURE),
        Err(error) => {
            print::line(&print::chain(&error));
            ask::failure(&error)
        }
    }
}

struct Review {
    own: OwnJob,
    rules: ReviewRules,
    flow: String,
    step: String,
    first_round: u32,
}

impl Review {
    fn of(own: OwnJob, rules: ReviewRules) -> anyhow::Result<Self> {
        let (step, _) =
            StepPart::read(own.label(STEP)?).context("this job is no part of a step")?;
        Ok(Self {
            flow: own.label(FLOW)?.to_owned(),
            step: step.to_owned(),
            first_round: own
                .label(ROUND)?
                .parse()
                .context("the round is no number")?,
            own,
            rules,
        })
    }

    /// Whether the reviewer has succeeded in the end.
    async fn run(&mut self) -> anyhow::Result<bool> {
        let first = self.own.subject()?;
        let mut reviewer = first.clone();
        for round in 1..=self.rules.rounds {
            let job = self.end_of(&reviewer).await?;
            say(round, &job, &format!("the reviewer {}", describe::of(&job)))?;
            if job.state == "succeeded" {
                return Ok(true);
            }
            if job.reason.as_deref() != Some("exit_code") {
                return Ok(false);
            }
            let tasks = match self.tasks(&job).await? {
                Ok(tasks) => tasks,
                Err(wrong) => {
                    say(round, &job, &wrong)?;
                    return Ok(false);
                }
            };
            if tasks.is_empty() {
                say(
                    round,
                    &job,
                    "its stdout ends with no tasks, so there is nothing to fix",
                )?;
                return Ok(false);
            }
            if round == self.rules.rounds {
                let rounds = self.rules.rounds;
                say(
                    round,
                    &job,
                    &format!(
                        "this was the last of {rounds} rounds, and tasks are left: {}",
                        tasks.len()
                    ),
                )?;
                return Ok(false);
            }
            match self.go_on(&first, round, &tasks).await? {
                Ok(next) => reviewer = next,
                Err(wrong) => {
                    say(round, &job, &wrong)?;
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    async fn end_of(&mut self, job: &str) -> anyhow::Result<ShownJob> {
        let params = json!({"jobs": [job], "until": "final"});
        let reply = ask(&mut self.own.link, "job.wait", &params).await?;
        ShownJob::read(&reply["job"])
    }

    /// The tasks at the end of a reviewer's stdout; the inner error is the reviewer's.
    async fn tasks(&mut self, job: &ShownJob) -> anyhow::Result<Result<Vec<FixTask>, String>> {
        let mut lines = StdoutEnd::of(TASKS_BYTES_MAX);
        let keep = async |bytes: &[u8]| {
            lines.push(bytes);
            Ok(true)
        };
        ask::output(&mut self.own.link, &job.id, 0, Some("stdout"), keep).await?;
        let (first_line, stdout) = lines.end();
        Ok(fix_list::tasks(&stdout, first_line))
    }

    /// Submits the tasks of a round, and the reviewer after them, in one commit; the id of that reviewer.
    async fn go_on(
        &mut self,
        first: &str,
        round: u32,
        tasks: &[FixTask],
    ) -> anyhow::Result<Result<String, String>> {
        // The numbers of rounds go on where a step is tried again by `flow retry`.
        let number = self.first_round + round - 1;
        let mut jobs = Vec::with_capacity(tasks.len() + 1);
        for (at, task) in tasks.iter().enumerate() {
            let mut job = match fix_list::new_job(&self.rules.fix, task) {
                Ok(job) => job,
                Err(wrong) => return Ok(Err(wrong)),
            };
            let part = StepPart::Fix(at as u32 + 1);
            labels::identify(&mut job, &self.flow, &self.step, part, number);
            jobs.push(job);
        }
        let mut reviewer = new_job_of(&mut self.own.link, first).await?;
        next_reviewer(&mut reviewer, jobs.len());
        labels::identify(
            &mut reviewer,
            &self.flow,
            &self.step,
            StepPart::Own,
            number + 1,
        );
        jobs.push(reviewer);
        let link = &mut self.own.link;
        let shared = SharedJobs::new(jobs, BatchLimits::of(link).await?);
        let submitted = batch::submit(&shared.defaults, &shared.jobs, async |params| {
            ask(link, "job.submit_many", params).await
        });
        let submitted = submitted.await?;
        for (task, job) in tasks.iter().zip(&submitted) {
            print::page(&format!(
                "  job {}: {}\n",
                job["number"],
                visible(&task.task)
            ))?;
        }
        match submitted.last().and_then(|job| job["id"].as_str()) {
            Some(id) if submitted.len() == shared.jobs.len() => Ok(Ok(id.to_owned())),
            _ => bail!("the server's answer does not have all jobs"),
        }
    }
}

/// The reviewer once more, after so many tasks of the same request, however these end: it judges them.
fn next_reviewer(job: &mut Map<String, Value>, tasks: usize) {
    let after = (0..tasks).map(|at| wait_for(at, DependencyCondition::Finish));
    job.insert("after".to_owned(), after.collect());
    job.remove("run_at");
    job.remove("delay_s");
    if let Some(Value::Object(labels)) = job.get_mut("labels") {
        labels.remove(HEAD);
    }
}

fn say(round: u32, job: &ShownJob, text: &str) -> anyhow::Result<()> {
    print::page(&format!(
        "round {round}, job {}: {}\n",
        job.number,
        visible(text)
    ))
}
