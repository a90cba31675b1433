//! The jobs of a flow: its steps, and what decides about each of them, in one list for `job.submit_many`.

use anyhow::ensure;
use serde_json::{Map, Value, json};

use super::{
    labels::{self, GATE_QUEUE, HEAD, IS_HEAD, StepPart},
    rules::CheckRules,
    step::{FlowFile, FlowStep, StepGate},
};
use crate::{cli::connect::batch, job::DependencyCondition};

/// Exit code of a job that decides, where it could not: it is tried again.
pub const UNDECIDED: u8 = 75;
/// How often a job that decides is tried at most when it is killed, or cannot decide.
const ATTEMPTS_MAX: u32 = 20;
/// Keys that a job that decides has from its step.
const SHARED_KEYS: [&str; 6] = ["cwd", "env", "umask", "limits", "labels", "priority"];

/// A new id for a flow of this name.
pub fn new_id(name: &str) -> String {
    let random = uuid::Uuid::now_v7().simple().to_string();
    format!("{name}-{}", &random[24..])
}

/// The NewJobs of a flow, each after those that it waits for. `program` runs our own verbs.
pub fn of_file(file: &FlowFile, id: &str, program: &str) -> Vec<Map<String, Value>> {
    let mut jobs: Vec<Map<String, Value>> = Vec::new();
    // The entry of each step that the steps after it wait for.
    let mut decides: Vec<usize> = Vec::new();
    for step in &file.steps {
        let after = step
            .after
            .iter()
            .map(|(other, on)| wait_for(decides[*other], *on));
        let mut job = step.job.clone();
        job.insert("after".to_owned(), after.collect());
        labels::identify(&mut job, id, &step.name, StepPart::Own, 1);
        jobs.push(job);
        if let Some(mut gate) = gate(step, program) {
            let on = gate_condition(step);
            gate.insert("after".to_owned(), json!([wait_for(jobs.len() - 1, on)]));
            let part = match step.gate {
                Some(StepGate::Review(_)) => StepPart::Review,
                _ => StepPart::Check,
            };
            labels::identify(&mut gate, id, &step.name, part, 1);
            jobs.push(gate);
        }
        decides.push(jobs.len() - 1);
    }
    if let Some(first) = jobs.first_mut() {
        labels::merge(first, "labels", json!({HEAD: IS_HEAD}));
    }
    jobs
}

/// Refuses more jobs than any server stores in one commit.
pub fn check_count(jobs: &[Map<String, Value>]) -> anyhow::Result<()> {
    let (count, max) = (jobs.len(), batch::JOBS_MAX);
    ensure!(
        count <= max,
        "the flow has {count} jobs, but at most {max} can be stored at once (a step with verify or review has \
         two); divide it into several files (nothing was submitted)"
    );
    Ok(())
}

/// Whether a NewJob decides about a step.
pub fn is_gate(job: &Map<String, Value>) -> bool {
    job.get("queue").is_some_and(|queue| queue == GATE_QUEUE)
}

/// An entry of `after` that names an earlier entry of the same request.
pub fn wait_for(entry: usize, on: DependencyCondition) -> Value {
    json!({"job": format!("#{entry}"), "on": on})
}

/// A reviewer that has failed is looked at, and so is a step whose exit code may be another than 0.
fn gate_condition(step: &FlowStep) -> DependencyCondition {
    match &step.gate {
        Some(StepGate::Verify(rules)) if rules.exit_codes == [0] => DependencyCondition::Success,
        _ => DependencyCondition::Finish,
    }
}

/// The NewJob that decides about a step, if one does.
fn gate(step: &FlowStep, program: &str) -> Option<Map<String, Value>> {
    let (verb, rules) = match step.gate.as_ref()? {
        StepGate::Verify(rules) => ("check", json!(rules)),
        StepGate::Review(rules) => ("review", json!(rules)),
    };
    let own = json!({
        "argv": [program, "flow", verb],
        "stdin": rules.to_string(),
        "queue": GATE_QUEUE,
        "on_lost": "retry",
        "retry": {"max_attempts": ATTEMPTS_MAX, "on": ["signal", UNDECIDED]},
    });
    let shared = SHARED_KEYS
        .iter()
        .filter_map(|key| step.job.get_key_value(*key));
    let mut job: Map<String, Value> = shared
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(Value::Object(env)) = job.get_mut("env") {
        // It finds its server by these, and so must not have them from its step.
        env.retain(|name, _| !name.starts_with("CC_EXECUTOR_"));
    }
    if let Value::Object(own) = own {
        job.extend(own);
    }
    if let Some(StepGate::Verify(CheckRules {
        timeout_s: Some(timeout),
        ..
    })) = &step.gate
    {
        job.insert("timeout_s".to_owned(), timeout.clone());
    }
    Some(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::flow::rules::{FixTemplate, ReviewRules},
        job::JobSpec,
    };

    fn step(name: &str, after: &[usize], gate: Option<StepGate>) -> FlowStep {
        let env = json!({"CC_EXECUTOR_DATA_DIR": "/elsewhere"});
        let job = json!({"shell": name, "cwd": "/here", "queue": "gpu", "env": env});
        FlowStep {
            name: name.to_owned(),
            place: Default::default(),
            after: after
                .iter()
                .map(|at| (*at, DependencyCondition::Success))
                .collect(),
            job: job.as_object().expect("an object").clone(),
            gate,
        }
    }

    #[test]
    fn steps_wait_for_what_decides_about_others() {
        let check = |exit_codes: &[i64]| {
            StepGate::Verify(CheckRules {
                claims: vec![json!({"contains": "ok"})],
                exit_codes: exit_codes.to_vec(),
                command: None,
                timeout_s: (exit_codes == [0]).then(|| json!(2.5)),
            })
        };
        let review = StepGate::Review(ReviewRules {
            rounds: 2,
            fix: FixTemplate {
                job: Map::new(),
                command: Default::default(),
                variables: Default::default(),
            },
        });
        let file = FlowFile {
            name: "f".to_owned(),
            steps: vec![
                step("a", &[], Some(check(&[0]))),
                step("b", &[0], Some(check(&[0, 3]))),
                step("c", &[0, 1], Some(review)),
                step("d", &[2], None),
            ],
        };
        let jobs = of_file(&file, "f-1", "/bin/cc-executor");
        let said: Vec<String> = jobs
            .iter()
            .map(|job| format!("{} {}", job["labels"]["flow-step"], job["after"]))
            .collect();
        let on = |entry: usize, on: &str| format!("{{\"job\":\"#{entry}\",\"on\":\"{on}\"}}");
        let expected = [
            "\"a\" []".to_owned(),
            format!("\"a/check\" [{}]", on(0, "success")),
            format!("\"b\" [{}]", on(1, "success")),
            format!("\"b/check\" [{}]", on(2, "finish")),
            format!("\"c\" [{},{}]", on(1, "success"), on(3, "success")),
            format!("\"c/review\" [{}]", on(4, "finish")),
            format!("\"d\" [{}]", on(5, "success")),
        ];
        assert_eq!(said, expected);
        assert_eq!(
            (&jobs[0]["queue"], &jobs[1]["queue"]),
            (&json!("gpu"), &json!("flow"))
        );
        assert_eq!(jobs[1]["cwd"], "/here");
        assert_eq!(
            (&jobs[1]["timeout_s"], jobs[3].get("timeout_s")),
            (&json!(2.5), None)
        );
        let elsewhere = |job: &Map<String, Value>| job["env"].get("CC_EXECUTOR_DATA_DIR").is_some();
        assert!(elsewhere(&jobs[0]) && !elsewhere(&jobs[1]));
        assert_eq!(
            (
                &jobs[0]["labels"]["flow-head"],
                &jobs[1]["labels"]["flow-head"]
            ),
            (&json!("true"), &Value::Null)
        );
        for job in jobs {
            JobSpec::read(job).expect("a job that the server takes");
        }
    }

    #[test]
    fn ids_differ_and_are_plain() {
        let (one, other) = (new_id("a.b"), new_id("a.b"));
        assert!(one != other && labels::is_plain_name(&one), "{one}");
        assert_eq!(one.len(), "a.b-".len() + 8);
    }
}
