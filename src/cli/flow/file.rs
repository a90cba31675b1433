//! A flow's file: its steps with their jobs, checked as a whole before anything is submitted. A fault has
//! its line and column, and says what was expected.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::{
    graph,
    labels::{self, PREFIX, VARIABLE_PREFIX},
    rules::{CheckRules, FixTemplate, ReviewRules},
    step_command::{COMMAND_KEYS, StepCommand},
    template::{self, Variables},
    toml,
    tree::{FileFault, FileNode, FilePlace, FileTable, unknown_key},
    yaml,
};
use crate::job::{DependencyCondition, JobSpec, Queue};

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

/// A flow as its file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowFile {
    /// Its name; an id is made of it.
    pub name: String,
    /// Its steps, each after those that it waits for.
    pub steps: Vec<FlowStep>,
}

/// A step of a flow.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowStep {
    /// Its name.
    pub name: String,
    /// Indices of the steps that it waits for, and how they must have ended.
    pub after: Vec<(usize, DependencyCondition)>,
    /// Its NewJob, without what makes it a part of this flow.
    pub job: Map<String, Value>,
    /// What decides whether the next steps start, if not its own end.
    pub gate: Option<StepGate>,
}

/// What decides whether the steps after one start.
#[derive(Debug, Clone, PartialEq)]
pub enum StepGate {
    /// A job that checks the step.
    Verify(CheckRules),
    /// A job that has the reviewer's tasks done, and the reviewer run again.
    Review(ReviewRules),
}

/// What a file is read with.
#[derive(Debug, Clone, Default)]
pub struct FileContext {
    /// Variables from the command line; they win over those of the file.
    pub variables: Variables,
    /// Keys of NewJob that each job has where neither its step nor `[defaults]` says otherwise.
    pub base: Map<String, Value>,
}

/// Reads a flow's file: YAML by its extension, else TOML.
pub fn read(path: &Path, context: &FileContext) -> anyhow::Result<FlowFile> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read; it must be UTF-8", path.display()))?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let read = match extension {
        Some("yaml" | "yml") => yaml::read(&text),
        _ => toml::read(&text),
    };
    let flow = read.and_then(|document| flow(&document, context));
    match flow {
        Ok(flow) => Ok(flow),
        Err(fault) => bail!("{}:{fault} (nothing was submitted)", path.display()),
    }
}

/// Reads a flow.
fn flow(document: &FileNode, context: &FileContext) -> Result<FlowFile, FileFault> {
    let table = document.table("a flow")?;
    table.refuse_others("a flow", &["name", "vars", "defaults", "step"])?;
    let needed = |key: &str| {
        let message = format!("{key}: is missing; a flow needs its name and its steps");
        table
            .get(key)
            .ok_or_else(|| FileFault::new(document.place, message))
    };
    let name = plain_name(needed("name")?)?;
    let mut variables = variables(table.get("vars"))?;
    let declared: BTreeSet<String> = variables.keys().cloned().collect();
    variables.extend(context.variables.clone());
    let none = FileTable::default();
    let defaults = table
        .get("defaults")
        .map(|node| node.table("defaults"))
        .transpose()?;
    let reader = StepReader {
        variables,
        defaults: Defaults::read(defaults.unwrap_or(&none))?,
        base: &context.base,
    };
    let nodes = needed("step")?.list("step")?;
    if nodes.is_empty() {
        return Err(needed("step")?.expected("step", "a list of steps that is not empty"));
    }
    let steps = nodes.iter().map(|node| reader.step(node));
    let steps = steps.collect::<Result<Vec<_>, FileFault>>()?;
    reader.refuse_unused(&context.variables, &declared, &steps)?;
    Ok(FlowFile {
        name,
        steps: in_order(steps)?,
    })
}

/// `[defaults]`: keys of NewJob, and the command that takes prompts.
struct Defaults<'a> {
    table: &'a FileTable,
    job: Map<String, Value>,
    command: StepCommand,
}

impl<'a> Defaults<'a> {
    fn read(table: &'a FileTable) -> Result<Self, FileFault> {
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

struct StepReader<'a> {
    variables: Variables,
    defaults: Defaults<'a>,
    base: &'a Map<String, Value>,
}

/// A step before the others are known.
struct ReadStep {
    step: FlowStep,
    place: FilePlace,
    after: Vec<(String, DependencyCondition, FilePlace)>,
    templates: Vec<String>,
}

impl StepReader<'_> {
    fn step(&self, node: &FileNode) -> Result<ReadStep, FileFault> {
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
                after: Vec::new(),
                job,
                gate,
            };
            Ok(ReadStep {
                step,
                place: table.place_of("name").unwrap_or(node.place),
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
        Queue::fill_in(self.base, &Queue::fill_in(&self.defaults.job, &keys))
    }

    fn check(
        &self,
        job: &Map<String, Value>,
        table: &FileTable,
        place: FilePlace,
    ) -> Result<(), FileFault> {
        let Err(refusal) = JobSpec::read(job.clone()) else {
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
    fn refuse_unused(
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

fn plain_name(node: &FileNode) -> Result<String, FileFault> {
    let name = node.text("name")?;
    match labels::is_plain_name(name) {
        true => Ok(name.to_owned()),
        false => Err(node.expected(
            "name",
            "1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit",
        )),
    }
}

fn variables(node: Option<&FileNode>) -> Result<Variables, FileFault> {
    let Some(node) = node else {
        return Ok(Variables::new());
    };
    let mut read = Variables::new();
    for entry in node.table("vars")?.entries() {
        if !template::is_variable_name(&entry.key) {
            let message = format!(
                "vars.{}: a name must have letters, digits and `_`, and not begin with a digit",
                entry.key
            );
            return Err(FileFault::new(entry.place, message));
        }
        let value = match entry.value.json() {
            Value::String(text) => text,
            scalar @ (Value::Number(_) | Value::Bool(_)) => scalar.to_string(),
            _ => {
                return Err(entry
                    .value
                    .expected(&format!("vars.{}", entry.key), "a string"));
            }
        };
        read.insert(entry.key.clone(), value);
    }
    Ok(read)
}

/// Reads `after`: names of steps, or tables with `step` and `on`.
fn after(node: &FileNode) -> Result<Vec<(String, DependencyCondition, FilePlace)>, FileFault> {
    let entry = |node: &FileNode| {
        let expected = "a step's name or {step, on: \"success\" or \"finish\"}";
        if let Ok(name) = node.text("after") {
            return Ok((name.to_owned(), DependencyCondition::Success, node.place));
        }
        let table = node
            .table("after")
            .map_err(|_| node.expected("after", expected))?;
        table.refuse_others("an entry of after", &["step", "on"])?;
        let step = table
            .get("step")
            .ok_or_else(|| node.expected("after", expected))?;
        let on = match table.get("on") {
            None => DependencyCondition::Success,
            Some(on) => DependencyCondition::from_name(on.text("after.on")?)
                .ok_or_else(|| on.expected("after.on", "\"success\" or \"finish\""))?,
        };
        Ok((step.text("after.step")?.to_owned(), on, step.place))
    };
    if node.text("after").is_ok() {
        return Ok(vec![entry(node)?]);
    }
    node.list("after")?.iter().map(entry).collect()
}

fn verify(node: &FileNode) -> Result<CheckRules, FileFault> {
    let table = node.table("verify")?;
    let keys = ["contains", "regex", "sha256", "exit_codes", "command"];
    table.refuse_others("verify", &keys)?;
    if table.entries().next().is_none() {
        return Err(node.expected(
            "verify",
            &format!("a table with one of {}", keys.join(", ")),
        ));
    }
    let mut claims = Vec::new();
    for kind in ["contains", "regex", "sha256"] {
        let Some(node) = table.get(kind) else {
            continue;
        };
        let texts = node.one_or_more(&format!("verify.{kind}"))?;
        claims.extend(texts.into_iter().map(|text| json!({kind: text})));
    }
    let codes = table.get("exit_codes").map(|node| {
        let codes = node.list("verify.exit_codes")?.iter();
        let codes = codes.map(|node| node.integer("verify.exit_codes", 0, 255));
        let codes: Vec<i64> = codes.collect::<Result<_, _>>()?;
        match codes.is_empty() {
            true => Err(node.expected(
                "verify.exit_codes",
                "a list of exit codes that is not empty",
            )),
            false => Ok(codes),
        }
    });
    let command = table
        .get("command")
        .map(|node| node.words("verify.command"));
    Ok(CheckRules {
        claims,
        exit_codes: codes.transpose()?.unwrap_or_else(|| vec![0]),
        command: command.transpose()?,
    })
}

/// The steps in an order in which they can be submitted, with their dependencies resolved.
fn in_order(steps: Vec<ReadStep>) -> Result<Vec<FlowStep>, FileFault> {
    let mut waits_for = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let name = &step.step.name;
        if let Some(first) = steps[..at].iter().find(|other| other.step.name == *name) {
            let message = format!(
                "step {name:?}: there is a step of that name at {}",
                first.place
            );
            return Err(FileFault::new(step.place, message));
        }
        waits_for.push(indices(step, &steps)?);
    }
    let order = graph::order(&waits_for).map_err(|circle| {
        let names = circle.iter().chain(circle.first());
        let names: Vec<&str> = names.map(|at| steps[*at].step.name.as_str()).collect();
        let message = format!(
            "these steps wait for each other in a circle: {}",
            names.join(" -> ")
        );
        FileFault::new(steps[circle[0]].place, message)
    })?;
    let mut position = vec![0; order.len()];
    for (to, from) in order.iter().enumerate() {
        position[*from] = to;
    }
    let mut steps: Vec<(usize, FlowStep)> = steps
        .into_iter()
        .zip(waits_for)
        .enumerate()
        .map(|(at, (mut read, others))| {
            let conditions = read.after.iter().map(|(_, on, _)| *on);
            let others = others.into_iter().map(|other| position[other]);
            read.step.after = others.zip(conditions).collect();
            (position[at], read.step)
        })
        .collect();
    steps.sort_by_key(|(to, _)| *to);
    Ok(steps.into_iter().map(|(_, step)| step).collect())
}

fn indices(step: &ReadStep, steps: &[ReadStep]) -> Result<Vec<usize>, FileFault> {
    let find = |(name, _, place): &(String, DependencyCondition, FilePlace)| {
        let found = steps.iter().position(|other| other.step.name == *name);
        found.ok_or_else(|| {
            let names: Vec<&str> = steps.iter().map(|step| step.step.name.as_str()).collect();
            let message = format!(
                "step {:?}: after: there is no step {name:?}; the steps are {}",
                step.step.name,
                names.join(", ")
            );
            FileFault::new(*place, message)
        })
    };
    step.after.iter().map(find).collect()
}
