//! Values of a flow's file: names, variables, what a step waits for, and what is claimed of it.

use serde_json::{Map, Value, json};

use super::{
    labels,
    rules::CheckRules,
    template::{self, Variables},
    tree::{FileFault, FileNode, FilePlace},
};
use crate::{
    job::{DependencyCondition, Expectation, JobSpec, NewJobRefusal},
    output::Pattern,
};

/// The name of a flow or of a step.
pub fn plain_name(node: &FileNode) -> Result<String, FileFault> {
    let name = node.text("name")?;
    match labels::is_plain_name(name) {
        true => Ok(name.to_owned()),
        false => Err(node.expected(
            "name",
            "1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit",
        )),
    }
}

/// The variables of a table; none if there is no table.
pub fn variables(node: Option<&FileNode>) -> Result<Variables, FileFault> {
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
                return Err(entry.value.expected(
                    &format!("vars.{}", entry.key),
                    "a string, a number, true or false",
                ));
            }
        };
        read.insert(entry.key.clone(), value);
    }
    Ok(read)
}

/// Reads `after`, one or a list: names of steps, or tables with `step` and `on`.
pub fn after(node: &FileNode) -> Result<Vec<(String, DependencyCondition, FilePlace)>, FileFault> {
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
    match node.list("after") {
        Ok(nodes) => nodes.iter().map(entry).collect(),
        Err(_) => Ok(vec![entry(node)?]),
    }
}

/// Reads `verify`.
pub fn verify(node: &FileNode) -> Result<CheckRules, FileFault> {
    let table = node.table("verify")?;
    let keys = [
        "contains",
        "regex",
        "sha256",
        "exit_codes",
        "command",
        "timeout_s",
    ];
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
        let texts = texts.into_iter().map(|text| json!({kind: text}));
        let texts: Vec<Value> = texts.collect();
        check_claims(node, kind, &texts)?;
        claims.extend(texts);
        // Together they have a bound, too.
        check_claims(node, kind, &claims)?;
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
        timeout_s: table.get("timeout_s").map(timeout).transpose()?,
    })
}

/// A `timeout_s`, as a job takes it.
fn timeout(node: &FileNode) -> Result<Value, FileFault> {
    match job_with("timeout_s", node.json()) {
        Ok(_) => Ok(node.json()),
        Err(refusal) => Err(FileFault::new(node.place, format!("verify.{refusal}"))),
    }
}

/// Refuses claims that could not be checked: a job expects the same of its output.
fn check_claims(node: &FileNode, kind: &str, claims: &[Value]) -> Result<(), FileFault> {
    let fault = |message: &str| FileFault::new(node.place, format!("verify.{kind}: {message}"));
    let job = job_with("expect", json!(claims));
    let job = job.map_err(|refusal| fault(refusal.message()))?;
    patterns(&job).map_err(|(_, message)| fault(&message))
}

/// Refuses expectations with a pattern that is none; the index of the first one, and why.
pub fn patterns(job: &JobSpec) -> Result<(), (usize, String)> {
    for (nth, expectation) in job.expect.iter().enumerate() {
        if let Expectation::Regex(text) = expectation {
            Pattern::new(text).map_err(|error| (nth, error.to_string()))?;
        }
    }
    Ok(())
}

/// A job with this key.
fn job_with(key: &str, value: Value) -> Result<JobSpec, NewJobRefusal> {
    let mut job = Map::new();
    job.insert("argv".to_owned(), json!(["true"]));
    job.insert(key.to_owned(), value);
    JobSpec::read(job)
}
