//! Reads a step of a flow's file: its NewJob, checked as the server would check it, with the place of each
//! fault.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Map, Value, json};

use super::{
    file_values::{after, patterns, plain_name, variables, verify},
    labels::{self, GATE_QUEUE, PREFIX, VARIABLE_PREFIX},
    rules::{FixTemplate, ReviewRules},
    step::{FlowStep, StepGate},
    step_command::{COMMAND_KEYS, StepCommand},
    template::{self, Variables},
    tree::{FileFault, FileNode, FilePlace, FileTable, unknown_key},
};
use crate::job::{DependencyCondition, JobSpec, NewJobRefusal, Queue};

/// How often a reviewer runs at most, where its step does not say so.
const ROUNDS_DEFAULT: u32 = 3;
/// The most that a step may say.
const ROUNDS_MAX: i64 = 100;
/// Keys of NewJob that a flow sets itself, or that make no sense in it.
const NOT_IN_FLOWS: [&str; 8] = [
    "argv",
    "shell",
    "after",
    "name",
    "interactive",
    "on_disconnect",
    "disconnect_delay_s",
    "idempotency_key",
];

/// `[defaults]`: keys of NewJob, and the command that takes prompts.
pub struct FileDefaults<'a> {
    table: &'a FileTable,
    job: Map<String, Value>,
    command: StepCommand,
}

impl<'a> FileDefaults<'a> {
    /// Reads them, and checks them as far as they can be without a step.
    pub fn read(table: &'a FileTable) -> Result<Self, FileFault> {
        let command = StepCommand::read(table)?;
        if let Some(entry) = table.entries().find(|entry| is_run(&entry.key)) {
            let message = format!(
                "{}: each step has its own; [defaults] may have command",
                entry.key
            );
            return Err(FileFault::new(entry.place, message));
        }
        Ok(Self {
            table,
            job: job_keys(table, "[defaults]", &["command"])?,
            command,
        })
    }
}

fn is_run(key: &str) -> bool {
    ["argv", "shell", "prompt"].contains(&key)
}

/// Reads the steps of one file.
pub struct StepReader<'a> {
    /// The variables of the file and of the command line.
    pub variables: Variables,
    /// What steps have that do not say it themselves.
    pub defaults: FileDefaults<'a>,
    /// The same from the command line.
    pub base: &'a Map<String, Value>,
}

/// A step before the others are known.
pub struct ReadStep {
    /// The step, without its dependencies.
    pub step: FlowStep,
    /// The names of the steps that it waits for.
    pub after: Vec<(String, DependencyCondition, FilePlace)>,
    templates: Vec<String>,
}

impl StepReader<'_> {
    /// Reads a step.
    pub fn step(&self, node: &FileNode) -> Result<ReadStep, FileFault> {
        let table = node.table("a step")?;
        let name = table.get("name");
        let name = name
            .ok_or_else(|| FileFault::new(node.place, "name: is missing; each step needs one"))?;
        let name = plain_name(name)?;
        let of = format!("step {name:?}");
        let within =
            |fault: FileFault| FileFault::new(fault.place, format!("{of}: {}", fault.message));
        let read = || {
            let own = ["name", "after", "vars", "verify", "review"];
            let variables = self.with_own(table)?;
            let (job, templates) = self.job(table, node.place, &own, &variables)?;
            let gate = self.gate(table, &variables)?;
            let after = table.get("after").map(after).transpose()?;
            let mut templates = templates;
            if let Some(StepGate::Review(rules)) = &gate {
                templates.extend(rules.fix.command.templates().map(str::to_owned));
            }
            let step = FlowStep {
                name: name.clone(),
                place: table.place_of("name").unwrap_or(node.place),
                after: Vec::new(),
                job,
                gate,
            };
            Ok(ReadStep {
                step,
                after: after.unwrap_or_default(),
                templates,
            })
        };
        read().map_err(within)
    }

    /// The variables of a step: its own win.
    fn with_own(&self, table: &FileTable) -> Result<Variables, FileFault> {
        let mut all = self.variables.clone();
        all.extend(variables(table.get("vars"))?);
        Ok(all)
    }

    /// The NewJob of a step, checked as the server would, and its templates.
    fn job(
        &self,
        table: &FileTable,
        place: FilePlace,
        own: &[&str],
        variables: &Variables,
    ) -> Result<(Map<String, Value>, Vec<String>), FileFault> {
        let keys = job_keys(table, "a step", &[own, &COMMAND_KEYS].concat())?;
        let command = self
            .defaults
            .command
            .clone()
            .replaced_by(StepCommand::read(table)?);
        let made = command.new_job(variables).map_err(|fault| {
            let place = table.place_of(fault.key()).unwrap_or(place);
            FileFault::new(place, fault.to_string())
        })?;
        if let (Some(_), Some(entry)) = (made.get("stdin"), table.entry("stdin")) {
            let message = "stdin: the prompt is the command's stdin; leave one of them out";
            return Err(FileFault::new(entry.place, message));
        }
        let mut job = self.filled(keys);
        job.extend(made);
        put_variables(&mut job, variables);
        self.check(&job, table, place)?;
        let templates = command.templates().map(str::to_owned).collect();
        Ok((job, templates))
    }

    /// The keys of a step with the defaults of the file and of the command line.
    fn filled(&self, keys: Map<String, Value>) -> Map<String, Value> {
        let mut job = Queue::fill_in(self.base, &Queue::fill_in(&self.defaults.job, &keys));
        let caller = self.base.get("cwd").and_then(Value::as_str).map(Path::new);
        if let (Some(caller), Some(Value::String(cwd))) = (caller, job.get_mut("cwd")) {
            *cwd = caller.join(&*cwd).display().to_string();
        }
        job
    }

    fn check(
        &self,
        job: &Map<String, Value>,
        table: &FileTable,
        place: FilePlace,
    ) -> Result<(), FileFault> {
        let read = JobSpec::read(job.clone()).and_then(|job| {
            let wrong = |(nth, message)| NewJobRefusal::invalid(&format!("expect[{nth}]"), message);
            patterns(&job).map_err(wrong)
        });
        let Err(refusal) = read else {
            return Ok(());
        };
        let key = refusal.key();
        let place = table
            .place_of(key)
            .or(self.defaults.table.place_of(key))
            .unwrap_or(place);
        Err(FileFault::new(place, refusal.to_string()))
    }

    fn gate(
        &self,
        table: &FileTable,
        variables: &Variables,
    ) -> Result<Option<StepGate>, FileFault> {
        match (table.get("verify"), table.entry("review")) {
            (None, None) => Ok(None),
            (Some(node), None) => Ok(Some(StepGate::Verify(verify(node)?))),
            (None, Some(entry)) => {
                let rules = self.review(&entry.value, variables)?;
                Ok(Some(StepGate::Review(rules)))
            }
            (Some(_), Some(entry)) => {
                let message =
                    "review: a step has verify or review, not both; put one on a step of its own";
                Err(FileFault::new(entry.place, message))
            }
        }
    }

    fn review(&self, node: &FileNode, variables: &Variables) -> Result<ReviewRules, FileFault> {
        let table = node.table("review")?;
        table.refuse_others("review", &["rounds", "fix"])?;
        let rounds = match table.get("rounds") {
            Some(node) => node.integer("review.rounds", 1, ROUNDS_MAX)? as u32,
            None => ROUNDS_DEFAULT,
        };
        let none = FileTable::default();
        let fix = table
            .get("fix")
            .map(|node| node.table("review.fix"))
            .transpose()?;
        let fix = fix.unwrap_or(&none);
        let mut job = self.filled(job_keys(fix, "review.fix", &COMMAND_KEYS)?);
        put_variables(&mut job, variables);
        let command = self
            .defaults
            .command
            .clone()
            .replaced_by(StepCommand::read(fix)?);
        // Any task will do: what a task says itself is checked when there is one.
        let mut with_task = variables.clone();
        with_task.insert("task".to_owned(), "task".to_owned());
        let mut whole = job.clone();
        match command.is_given() {
            true => whole.extend(command.new_job(&with_task).map_err(|fault| {
                let place = fix.place_of(fault.key()).unwrap_or(node.place);
                FileFault::new(place, format!("review.fix: {fault}"))
            })?),
            false => whole.extend([("argv".to_owned(), json!(["true"]))]),
        }
        self.check(&whole, fix, node.place)?;
        let fix = FixTemplate {
            job,
            command,
            variables: variables.clone(),
        };
        Ok(ReviewRules { rounds, fix })
    }

    /// Refuses a variable of the command line that nothing in the file knows: a typo.
    pub fn refuse_unused(
        &self,
        given: &Variables,
        declared: &BTreeSet<String>,
        steps: &[ReadStep],
    ) -> Result<(), FileFault> {
        let is_used = |name: &str| {
            let mut templates = steps.iter().flat_map(|step| &step.templates);
            declared.contains(name) || templates.any(|text| template::names(text, name))
        };
        let Some(name) = given.keys().find(|name| !is_used(name)) else {
            return Ok(());
        };
        let known: Vec<&str> = declared.iter().map(String::as_str).collect();
        let known = match known.is_empty() {
            true => "there is no [vars]".to_owned(),
            false => format!("[vars] has {}", known.join(", ")),
        };
        let message = format!("--var {name}: the file does not use this variable; {known}");
        Err(FileFault::new(FilePlace { line: 1, column: 1 }, message))
    }
}

/// The keys of NewJob of a table that may also have `own` keys.
fn job_keys(table: &FileTable, of: &str, own: &[&str]) -> Result<Map<String, Value>, FileFault> {
    let allowed = JobSpec::keys()
        .iter()
        .filter(|key| !NOT_IN_FLOWS.contains(*key));
    let allowed: Vec<&str> = own.iter().chain(allowed).copied().collect();
    let mut keys = Map::new();
    for entry in table.entries() {
        if own.contains(&entry.key.as_str()) {
            continue;
        }
        if !allowed.contains(&entry.key.as_str()) {
            return Err(unknown_key(entry, of, &allowed));
        }
        keys.insert(entry.key.clone(), entry.value.json());
    }
    if keys.get("queue").is_some_and(|queue| queue == GATE_QUEUE) {
        let place = table.place_of("queue").unwrap_or_default();
        let message =
            format!("queue: {GATE_QUEUE} is for the jobs that decide about steps; choose another");
        return Err(FileFault::new(place, message));
    }
    if let Some(Value::Object(labels)) = keys.get("labels")
        && let Some(label) = labels.keys().find(|label| label.starts_with(PREFIX))
    {
        let place = table
            .place_of(&format!("labels.{label}"))
            .unwrap_or_default();
        let message = format!(
            "labels.{label}: labels that begin with {PREFIX} belong to flows; choose another"
        );
        return Err(FileFault::new(place, message));
    }
    Ok(keys)
}

/// Gives a command the flow's variables, for lines of shell.
fn put_variables(job: &mut Map<String, Value>, variables: &Variables) {
    let env = variables.iter();
    let env: Map<String, Value> = env
        .map(|(name, value)| (format!("{VARIABLE_PREFIX}{name}"), json!(value)))
        .collect();
    if !env.is_empty() {
        labels::merge(job, "env", Value::Object(env));
    }
}
