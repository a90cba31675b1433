//! A flow as the server has it: its jobs, by their labels, and what they mean for its steps.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::labels::{FLOW, HEAD, IS_HEAD, ROUND, STEP, StepPart};
use crate::{
    cli::{
        connect::{find_job, link::Link},
        render::job::ShownJob,
        sql::flows::RUNNING_FLOWS,
    },
    escape::visible,
    job::DependencyCondition,
};

/// A job of a flow.
#[derive(Debug, Clone)]
pub struct FlowJob {
    /// The job.
    pub shown: ShownJob,
    /// The same as the server sent it.
    pub raw: Value,
    /// The step that it belongs to.
    pub step: String,
    /// Which of the step's jobs it is.
    pub part: StepPart,
    /// How often this step was submitted until then, from 1.
    pub round: u32,
    /// The ids of the jobs that it waits for, and how they must end.
    pub after: Vec<(String, DependencyCondition)>,
}

/// All jobs of a flow.
#[derive(Debug, Clone)]
pub struct FlowState {
    /// Its id.
    pub id: String,
    /// Its jobs, in the order of their numbers.
    pub jobs: Vec<FlowJob>,
}

/// A step of a flow.
#[derive(Debug, Clone)]
pub struct StepState<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its jobs, in the order of their numbers.
    pub jobs: Vec<&'a FlowJob>,
    /// The newest of those that decide whether the next steps start.
    pub decides: &'a FlowJob,
}

/// The ids of flows, newest first: of those that have their first job, and of those that still run without
/// it. It may have been deleted as soon as it had ended.
pub async fn ids(link: &mut Link, max: usize) -> anyhow::Result<Vec<String>> {
    let heads = find_job::list_raw(link, &json!({"labels": {HEAD: IS_HEAD}}), max).await?;
    let heads = heads.iter().filter_map(|job| {
        let id = job["labels"][FLOW].as_str()?;
        Some((job["number"].as_i64()?, id.to_owned()))
    });
    let mut found: Vec<(i64, String)> = heads.collect();
    let running = json!({"sql": RUNNING_FLOWS, "params": [FLOW]});
    let running = link.request("history.query", &running).await?;
    for row in running["rows"].as_array().into_iter().flatten() {
        let (Some(id), Some(number)) = (row[0].as_str(), row[1].as_i64()) else {
            continue;
        };
        let head = json!({"labels": {FLOW: id, HEAD: IS_HEAD}});
        let is_found = found.iter().any(|(_, found)| found == id);
        if !is_found && find_job::list_raw(link, &head, 1).await?.is_empty() {
            found.push((number, id.to_owned()));
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.truncate(max);
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// The flow that an argument means: an id, or `last`.
pub async fn find(link: &mut Link, name: &str) -> anyhow::Result<FlowState> {
    let id = match name {
        "last" => ids(link, 1)
            .await?
            .pop()
            .context("there are no flows; `cc-executor flow run FILE` runs one")?,
        id => id.to_owned(),
    };
    load(link, &id).await
}

/// The jobs of a flow as they are now.
pub async fn load(link: &mut Link, id: &str) -> anyhow::Result<FlowState> {
    let jobs = find_job::list_raw(link, &json!({"labels": {FLOW: id}}), usize::MAX).await?;
    let flow = FlowState::of(id, jobs)?;
    if flow.jobs.is_empty() {
        bail!(
            "there is no flow {}; `cc-executor flow ls` lists them",
            visible(id)
        );
    }
    Ok(flow)
}

impl FlowState {
    /// The flow of these jobs, as `job.list` sends them.
    pub fn of(id: &str, jobs: Vec<Value>) -> anyhow::Result<Self> {
        let mut read = Vec::with_capacity(jobs.len());
        for raw in jobs {
            read.extend(FlowJob::read(raw)?);
        }
        read.sort_by_key(|job| job.shown.number);
        read.dedup_by_key(|job| job.shown.number);
        Ok(Self {
            id: id.to_owned(),
            jobs: read,
        })
    }

    /// The steps, in the order in which they were first submitted.
    pub fn steps(&self) -> Vec<StepState<'_>> {
        let mut names: Vec<&str> = Vec::new();
        for job in &self.jobs {
            if !names.contains(&job.step.as_str()) {
                names.push(&job.step);
            }
        }
        let steps = names.into_iter().filter_map(|name| {
            let jobs = self.jobs.iter().filter(|job| job.step == name);
            let jobs: Vec<&FlowJob> = jobs.collect();
            let newest = |is_one: &dyn Fn(StepPart) -> bool| {
                let jobs = jobs.iter().filter(|job| is_one(job.part));
                jobs.max_by_key(|job| job.round).copied()
            };
            let gate = newest(&|part| matches!(part, StepPart::Check | StepPart::Review));
            let decides = gate.or_else(|| newest(&|part| part == StepPart::Own))?;
            Some(StepState {
                name,
                jobs,
                decides,
            })
        });
        steps.collect()
    }

    /// Whether all jobs have ended; then no more come.
    pub fn is_final(&self) -> bool {
        self.jobs.iter().all(|job| job.shown.is_final())
    }

    /// `running` as long as a job has not ended; then `failed`, `cancelled` or `succeeded`.
    pub fn state(&self) -> &'static str {
        let steps = self.steps();
        let ended = |state| steps.iter().any(|step| step.decides.shown.state == state);
        match (self.is_final(), ended("failed"), ended("cancelled")) {
            (false, ..) => "running",
            (true, true, _) => "failed",
            (true, false, true) => "cancelled",
            (true, false, false) => "succeeded",
        }
    }

    /// The job with this id.
    pub fn job(&self, id: &str) -> Option<&FlowJob> {
        self.jobs.iter().find(|job| job.shown.id == id)
    }
}

impl FlowJob {
    /// Reads a job; `None` if its labels are not those of a flow.
    fn read(raw: Value) -> anyhow::Result<Option<Self>> {
        let labels = &raw["labels"];
        let part = labels[STEP].as_str().and_then(StepPart::read);
        let round = labels[ROUND].as_str().and_then(|round| round.parse().ok());
        let (Some((step, part)), Some(round)) = (part, round) else {
            return Ok(None);
        };
        let after = raw["after"].as_array().into_iter().flatten();
        let after = after.filter_map(|entry| {
            let on = entry["on"]
                .as_str()
                .and_then(DependencyCondition::from_name);
            Some((entry["job"].as_str()?.to_owned(), on.unwrap_or_default()))
        });
        Ok(Some(Self {
            shown: ShownJob::read(&raw)?,
            step: step.to_owned(),
            part,
            round,
            after: after.collect(),
            raw,
        }))
    }
}

impl StepState<'_> {
    /// The state of the step: how it has ended, or what the furthest of its jobs does.
    pub fn state(&self) -> &str {
        let decides = &self.decides.shown;
        let runs = self.jobs.iter().any(|job| job.shown.state == "running");
        match !decides.is_final() && runs {
            true => "running",
            false => &decides.state,
        }
    }

    /// The round of the next submission of this step.
    pub fn next_round(&self) -> u32 {
        let rounds = self.jobs.iter().map(|job| job.round);
        rounds.max().unwrap_or(0) + 1
    }

    /// The step's own job that belongs to the newest one that decides.
    pub fn newest_own(&self) -> Option<&FlowJob> {
        let mut own = self.jobs.iter().filter(|job| job.part == StepPart::Own);
        own.find(|job| job.round == self.decides.round).copied()
    }
}

/// A job of a flow for tests: number, label of its step, round, state, and the numbers that it waits for.
#[cfg(test)]
pub fn sample(number: i64, step: &str, round: u32, state: &str, after: &[i64]) -> Value {
    let id = |number: i64| uuid::Uuid::from_u128(number as u128).to_string();
    let after: Vec<Value> = after
        .iter()
        .map(|number| json!({"job": id(*number), "on": "success"}))
        .collect();
    json!({"id": id(number), "number": number, "state": state, "reason": null, "exit_code": null,
        "signal": null, "argv": ["true"], "shell": null, "queue": "default", "after": after,
        "labels": {FLOW: "f-1", STEP: step, ROUND: round.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_its_newest_deciding_job_says() {
        let jobs = vec![
            sample(5, "review/review", 1, "running", &[4]),
            sample(4, "review", 1, "failed", &[2]),
            sample(7, "review", 2, "queued", &[6]),
            sample(6, "review/fix-1", 1, "succeeded", &[]),
            sample(1, "build", 1, "failed", &[]),
            sample(2, "build", 2, "succeeded", &[]),
            sample(3, "last", 1, "blocked", &[5]),
        ];
        let flow = FlowState::of("f-1", jobs).expect("a flow");
        let steps = flow.steps();
        let said: Vec<_> = steps
            .iter()
            .map(|step| (step.name, step.state(), step.next_round()))
            .collect();
        let expected = [
            ("build", "succeeded", 3),
            ("last", "blocked", 2),
            ("review", "running", 3),
        ];
        assert_eq!(said, expected);
        assert_eq!(steps[2].newest_own().map(|job| job.shown.number), Some(4));
        assert_eq!((flow.state(), flow.is_final()), ("running", false));
    }

    #[test]
    fn a_flow_has_failed_when_a_step_has_in_the_end() {
        let state = |states: [&str; 2]| {
            let jobs = vec![
                sample(1, "a", 1, states[0], &[]),
                sample(2, "b", 1, states[1], &[1]),
            ];
            FlowState::of("f-1", jobs).expect("a flow").state()
        };
        assert_eq!(state(["succeeded", "succeeded"]), "succeeded");
        assert_eq!(state(["failed", "succeeded"]), "failed");
        assert_eq!(state(["cancelled", "failed"]), "failed");
        assert_eq!(state(["succeeded", "cancelled"]), "cancelled");
        assert_eq!(state(["failed", "blocked"]), "running");
    }
}
