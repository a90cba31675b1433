//! Flows as text and as JSON.

use chrono::{DateTime, Utc};
use comfy_table::Table;
use serde_json::{Value, json};

use super::{
    labels::StepPart,
    state::{FlowJob, FlowState, StepState},
    step::FlowFile,
};
use crate::{
    cli::render::{
        describe, duration,
        print::PrintOptions,
        times::{self, Clock},
    },
    escape::visible,
};

/// A flow: a line for each step, and below it one for each of its jobs if there are several.
pub fn flow(flow: &FlowState, print: &PrintOptions, now: DateTime<Utc>) -> String {
    let steps = flow.steps();
    let mut lines: Vec<([String; 6], String)> = Vec::new();
    for step in &steps {
        let after = waits_for(flow, step).join(", ");
        if let [only] = step.jobs.as_slice() {
            lines.push((
                row(only, step.name.to_owned(), after, now),
                only.shown.state.clone(),
            ));
            continue;
        }
        let state = visible(step.state());
        let head = [
            step.name.to_owned(),
            String::new(),
            state,
            String::new(),
            after,
            String::new(),
        ];
        lines.push((head, step.state().to_owned()));
        for job in &step.jobs {
            let label = match job.part {
                StepPart::Own => "run".to_owned(),
                part => part.of("").trim_start_matches('/').to_owned(),
            };
            let line = row(job, format!("  {label}"), String::new(), now);
            lines.push((line, job.shown.state.clone()));
        }
    }
    let mut table = plain_table(&["STEP", "ROUND", "STATE", "JOB", "AFTER", "WHY"]);
    table.add_rows(lines.iter().map(|(line, _)| line.clone()));
    let mut text = format!("{}: {}, {}\n", flow.id, flow.state(), counts(&steps));
    let states = std::iter::once("").chain(lines.iter().map(|(_, state)| state.as_str()));
    for (line, state) in table.lines().zip(states) {
        let painted = print.paint(state, state);
        let line = match state {
            "" => line.trim_end().to_owned(),
            state => line
                .trim_end()
                .replacen(&format!(" {state}"), &format!(" {painted}"), 1),
        };
        text.push_str(&format!("{line}\n"));
    }
    text
}

fn row(job: &FlowJob, name: String, after: String, now: DateTime<Utc>) -> [String; 6] {
    [
        name,
        job.round.to_string(),
        visible(&job.shown.state),
        job.shown.number.to_string(),
        after,
        why(job, now),
    ]
}

/// Why a job has failed, or how long it runs.
fn why(job: &FlowJob, now: DateTime<Utc>) -> String {
    match job.shown.state.as_str() {
        "failed" | "cancelled" => {
            let said = describe::of(&job.shown);
            said.trim_start_matches("failed: ").to_owned()
        }
        "succeeded" | "running" => job
            .shown
            .run_seconds(now)
            .map(duration::short)
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// The names of the steps that a step waits for.
fn waits_for(flow: &FlowState, step: &StepState<'_>) -> Vec<String> {
    let first = step.jobs.iter().find(|job| job.part == StepPart::Own);
    let after = first.into_iter().flat_map(|job| &job.after);
    let names = after.map(|(id, _)| {
        flow.job(id)
            .map_or_else(|| "(deleted)".to_owned(), |job| job.step.clone())
    });
    names.map(|name| visible(&name)).collect()
}

/// `2 steps succeeded, 1 failed`.
fn counts(steps: &[StepState<'_>]) -> String {
    let states = [
        "succeeded",
        "failed",
        "cancelled",
        "running",
        "paused",
        "queued",
        "scheduled",
        "blocked",
    ];
    let counted = states.iter().filter_map(|state| {
        let count = steps.iter().filter(|step| step.state() == *state).count();
        (count > 0).then(|| format!("{count} {state}"))
    });
    let counted: Vec<String> = counted.collect();
    let plural = if steps.len() == 1 { "" } else { "s" };
    format!("{} step{plural}: {}", steps.len(), counted.join(", "))
}

/// A flow as JSON.
pub fn flow_json(flow: &FlowState) -> Value {
    let steps = flow.steps();
    let steps = steps.iter().map(|step| {
        let jobs = step.jobs.iter().map(|job| job.raw.clone());
        json!({"step": step.name, "state": step.state(), "round": step.decides.round,
            "after": waits_for(flow, step), "jobs": jobs.collect::<Vec<_>>()})
    });
    json!({"flow": flow.id, "state": flow.state(), "steps": steps.collect::<Vec<_>>()})
}

/// A line for each flow.
pub fn list(flows: &[FlowState], print: &PrintOptions, now: DateTime<Utc>) -> String {
    let mut table = plain_table(&["FLOW", "STATE", "SUBMITTED", "STEPS"]);
    table.add_rows(flows.iter().map(|flow| {
        let first = flow.jobs.first().and_then(|job| job.shown.submitted_at);
        let submitted = first.map(|at| times::short(at, now, Clock::Local));
        [
            visible(&flow.id),
            flow.state().to_owned(),
            submitted.unwrap_or_default(),
            counts(&flow.steps()),
        ]
    }));
    let states = std::iter::once("").chain(flows.iter().map(FlowState::state));
    let lines = table.lines().zip(states).map(|(line, state)| match state {
        "" => format!("{}\n", line.trim_end()),
        state => {
            let painted = print.paint(state, state);
            format!(
                "{}\n",
                line.trim_end()
                    .replacen(&format!(" {state}"), &format!(" {painted}"), 1)
            )
        }
    });
    lines.collect()
}

/// The steps of a file that is not submitted.
pub fn file(file: &FlowFile) -> String {
    let mut table = plain_table(&["STEP", "AFTER", "COMMAND"]);
    table.add_rows(file.steps.iter().map(|step| {
        let after = step
            .after
            .iter()
            .map(|(other, _)| file.steps[*other].name.clone());
        let command = match (&step.job.get("shell"), &step.job.get("argv")) {
            (Some(Value::String(line)), _) => line.clone(),
            (_, Some(Value::Array(words))) => {
                let words = words.iter().filter_map(Value::as_str);
                words.collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        };
        [
            step.name.clone(),
            after.collect::<Vec<_>>().join(", "),
            visible(&command),
        ]
    }));
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

fn plain_table(headline: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(headline);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flow::state::sample, render::print::Color};

    #[test]
    fn steps_and_their_jobs_are_lines() {
        let mut failed = sample(3, "review", 1, "failed", &[2]);
        failed["reason"] = json!("exit_code");
        failed["exit_code"] = json!(1);
        let jobs = vec![
            sample(1, "build", 1, "succeeded", &[]),
            sample(2, "build/check", 1, "succeeded", &[1]),
            failed,
            sample(4, "review/review", 1, "running", &[3]),
            sample(5, "last", 1, "blocked", &[4]),
        ];
        let state = FlowState::of("f-1", jobs).expect("a flow");
        let print = PrintOptions {
            json: false,
            color: Color::Never,
        };
        let text = flow(&state, &print, DateTime::<Utc>::UNIX_EPOCH);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let expected: Vec<Vec<&str>> = [
            "f-1: running, 3 steps: 1 succeeded, 1 running, 1 blocked",
            "STEP ROUND STATE JOB AFTER WHY",
            "build succeeded",
            "run 1 succeeded 1",
            "check 1 succeeded 2",
            "review running build",
            "run 1 failed 3 it exited with code 1",
            "review 1 running 4",
            "last 1 blocked 5 review",
        ]
        .map(|line| line.split_whitespace().collect())
        .to_vec();
        assert_eq!(lines, expected, "{text}");
        let json = flow_json(&state);
        assert_eq!(json["steps"][1]["after"], json!(["build"]));
        assert_eq!(json["steps"][1]["jobs"][1]["number"], 4);
    }
}
