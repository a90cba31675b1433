//! A flow as its file describes it: its steps, what decides about them, and what a file is read with.

use serde_json::{Map, Value};

use super::{
    rules::{CheckRules, ReviewRules},
    template::Variables,
    tree::FilePlace,
};
use crate::job::DependencyCondition;

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
    /// Where the file names it.
    pub place: FilePlace,
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
