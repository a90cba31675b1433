//! What the jobs that decide about a step are given on their stdin: which claims a check makes, and how a
//! review goes on.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{step_command::StepCommand, template::Variables};

/// What must be true of a step before the next one starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRules {
    /// Claims of `transcript.verify`.
    pub claims: Vec<Value>,
    /// Exit codes that are taken.
    pub exit_codes: Vec<i64>,
    /// A command that gets the transcript on stdin, and decides by its own exit code.
    pub command: Option<Vec<String>>,
    /// How long the check may run, seconds: the `timeout_s` of its job, which therefore needs no other rule.
    #[serde(skip)]
    pub timeout_s: Option<Value>,
}

/// How often a reviewer runs, and what becomes of the tasks that it finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReviewRules {
    /// How often the reviewer runs at most.
    pub rounds: u32,
    /// What a task becomes.
    pub fix: FixTemplate,
}

/// A job for a task that a reviewer found, without what the task itself says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FixTemplate {
    /// Keys of NewJob.
    pub job: Map<String, Value>,
    /// What is run, where the task does not say so.
    pub command: StepCommand,
    /// The variables of its templates; `task` comes with each task.
    pub variables: Variables,
}
