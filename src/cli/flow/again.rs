//! `flow retry`: the steps of a flow that have not succeeded are submitted again within it, and wait for the
//! newest jobs of the others.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::{
    ask::new_job_of,
    labels::{self, HEAD, StepPart},
    new_jobs::wait_for,
    state::{FlowJob, FlowState, StepState},
};
use crate::cli::connect::link::Link;

/// A job that is submitted again, and what it waits for then.
#[derive(Debug, Clone, PartialEq)]
struct Repeat {
    /// The id of the job whose NewJob it is.
    id: String,
    step: String,
    part: StepPart,
    round: u32,
    after: Vec<Value>,
}

/// The NewJobs of the steps that have not succeeded. `program` runs our own verbs.
pub async fn new_jobs(
    link: &mut Link,
    flow: &FlowState,
    program: &str,
) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut jobs = Vec::new();
    for repeat in plan(flow)? {
        let mut job = new_job_of(link, &repeat.id).await?;
        job.insert("after".to_owned(), Value::Array(repeat.after));
        job.remove("run_at");
        if let Some(Value::Object(labels)) = job.get_mut("labels") {
            labels.remove(HEAD);
        }
        if repeat.part != StepPart::Own
            && let Some(word) = job.get_mut("argv").and_then(|argv| argv.get_mut(0))
        {
            *word = json!(program);
        }
        labels::identify(&mut job, &flow.id, &repeat.step, repeat.part, repeat.round);
        jobs.push(job);
    }
    Ok(jobs)
}

/// What is submitted again, each after those that it waits for.
fn plan(flow: &FlowState) -> anyhow::Result<Vec<Repeat>> {
    if !flow.is_final() {
        bail!(
            "the flow {} still runs; wait for it, or cancel it first",
            flow.id
        );
    }
    let steps = flow.steps();
    let mut chosen: Vec<&StepState<'_>> = steps
        .iter()
        .filter(|step| step.decides.shown.state != "succeeded")
        .collect();
    if chosen.is_empty() {
        bail!(
            "every step of the flow {} has succeeded; there is nothing to try again",
            flow.id
        );
    }
    chosen.sort_by_key(|step| step.jobs.first().map(|job| job.shown.number));
    let mut repeats: Vec<Repeat> = Vec::new();
    for step in chosen {
        let own = step.newest_own().with_context(|| {
            format!(
                "the job of step {} was deleted; it cannot be submitted again",
                step.name
            )
        })?;
        let gate = (step.decides.part != StepPart::Own).then_some(step.decides);
        for job in std::iter::once(own).chain(gate) {
            let after = job.after.iter().map(|(id, on)| {
                let Some(other) = flow.job(id) else {
                    return Ok(json!({"job": id, "on": on}));
                };
                let earlier = repeats
                    .iter()
                    .position(|repeat| repeat.step == other.step && repeat.part == other.part);
                match earlier {
                    Some(entry) => Ok(wait_for(entry, *on)),
                    None => Ok(json!({"job": newest(&steps, other)?.shown.id, "on": on})),
                }
            });
            let after = after.collect::<anyhow::Result<Vec<Value>>>()?;
            repeats.push(Repeat {
                id: job.shown.id.clone(),
                step: step.name.to_owned(),
                part: job.part,
                round: step.next_round(),
                after,
            });
        }
    }
    Ok(repeats)
}

/// The newest job that is what an earlier one was: it decides, or is the step itself.
fn newest<'a>(steps: &'a [StepState<'a>], job: &FlowJob) -> anyhow::Result<&'a FlowJob> {
    let step = steps.iter().find(|step| step.name == job.step);
    let step = step.context("a job waits for an unknown step")?;
    if step.decides.part == job.part {
        return Ok(step.decides);
    }
    step.newest_own()
        .context("a job that another one waits for was deleted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flow::state::sample;

    fn planned(jobs: Vec<Value>) -> Result<Vec<String>, String> {
        let flow = FlowState::of("f-1", jobs).expect("a flow");
        let plan = plan(&flow).map_err(|error| error.to_string())?;
        let said = plan.iter().map(|repeat| {
            let number = uuid::Uuid::try_parse(&repeat.id).expect("an id").as_u128();
            let after = repeat
                .after
                .iter()
                .map(|entry| match entry["job"].as_str() {
                    Some(id) if !id.starts_with('#') => uuid::Uuid::try_parse(id)
                        .expect("an id")
                        .as_u128()
                        .to_string(),
                    other => other.unwrap_or_default().to_owned(),
                });
            let label = repeat.part.of(&repeat.step);
            format!(
                "{number} as {label}.{} after {:?}",
                repeat.round,
                after.collect::<Vec<_>>()
            )
        });
        Ok(said.collect())
    }

    #[test]
    fn failed_steps_and_those_after_them_are_submitted_again() {
        let jobs = vec![
            sample(1, "a", 1, "succeeded", &[]),
            sample(2, "b", 1, "succeeded", &[1]),
            sample(3, "b/check", 1, "failed", &[2]),
            sample(4, "c", 1, "failed", &[1, 3]),
            sample(5, "d", 1, "succeeded", &[1]),
            sample(6, "e", 1, "failed", &[4, 5]),
        ];
        let expected = [
            "2 as b.2 after [\"1\"]",
            "3 as b/check.2 after [\"#0\"]",
            "4 as c.2 after [\"1\", \"#1\"]",
            "6 as e.2 after [\"#2\", \"5\"]",
        ];
        assert_eq!(planned(jobs).expect("a plan"), expected);
    }

    #[test]
    fn a_review_that_has_failed_begins_again_after_its_last_round() {
        let jobs = vec![
            sample(1, "a", 1, "failed", &[]),
            sample(2, "r", 1, "failed", &[1]),
            sample(3, "r/review", 1, "failed", &[2]),
            sample(4, "r/fix-1", 1, "succeeded", &[]),
            sample(5, "r", 2, "failed", &[4]),
            sample(6, "a", 2, "succeeded", &[]),
        ];
        let expected = ["2 as r.3 after [\"6\"]", "3 as r/review.3 after [\"#0\"]"];
        assert_eq!(planned(jobs).expect("a plan"), expected);
    }

    #[test]
    fn what_runs_or_has_succeeded_is_not_tried_again() {
        let running = planned(vec![
            sample(1, "a", 1, "failed", &[]),
            sample(2, "b", 1, "queued", &[]),
        ]);
        assert!(running.expect_err("refused").contains("still runs"));
        let done = planned(vec![sample(1, "a", 1, "succeeded", &[])]);
        assert!(done.expect_err("refused").contains("nothing to try again"));
    }
}
