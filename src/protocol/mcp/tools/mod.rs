//! The tools: one row each, with the texts and schemas that a model is given. One file per tool.
//!
//! `waiting` waits with progress, `output` shows output, `arguments` reads what several tools take.

use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use rmcp::{
    RoleServer,
    model::{Tool, ToolAnnotations},
    service::RequestContext,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    client::Client,
    http::ClientLeft,
    reply::{NextCall, Reply},
    texts,
};
use crate::protocol::{caller::Caller, jsonrpc::error::Refusal};

mod arguments;
mod control;
mod list_jobs;
pub(super) mod output;
mod query_history;
mod read_output;
pub(super) mod run;
mod search_output;
mod send_input;
mod verify_transcript;
mod wait;
mod waiting;

/// Where a client on this machine runs: what its jobs start with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClientPlace {
    /// Its working directory, absolute.
    pub cwd: Option<String>,
    /// Its environment.
    pub env: std::collections::BTreeMap<String, String>,
    /// Its file mode creation mask, octal digits.
    pub umask: Option<String>,
}

/// A call of a tool.
pub struct Call<'a> {
    /// The client as the methods see it.
    pub caller: &'a Caller,
    /// The client as the request tells.
    pub client: Client,
    /// Where the client runs, if it told.
    pub place: Option<Arc<ClientPlace>>,
    /// The arguments.
    pub arguments: Map<String, Value>,
    /// The request.
    pub context: &'a RequestContext<RoleServer>,
    /// Whether the client takes a task instead of a result.
    pub takes_tasks: bool,
}

impl Call<'_> {
    /// Whether the client still waits for the answer, as far as its connection tells.
    pub fn is_connected(&self) -> bool {
        let parts = self.context.extensions.get::<Parts>();
        let left = parts.and_then(|parts| parts.extensions.get::<ClientLeft>());
        !left.is_some_and(|left| left.0.is_cancelled())
    }
}

/// A running tool.
pub type ToolFuture<'a> = BoxFuture<'a, Result<Reply, Refusal>>;

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It changes nothing.
    Reads,
    /// It may run or stop anything.
    Acts,
    /// The same; a repeated call has no further effect.
    ActsOnce,
}

/// A tool.
pub struct ToolRow {
    /// Its name on the wire.
    pub name: &'static str,
    description: &'static str,
    effect: Effect,
    /// Its arguments: name, type or schema, and description.
    schema: fn() -> Value,
    /// A call that works, shown where a call is refused.
    example: fn() -> Value,
    /// Executes it.
    pub execute: for<'a> fn(Call<'a>) -> ToolFuture<'a>,
}

macro_rules! tool {
    ($module:ident, $effect:ident) => {
        ToolRow {
            name: stringify!($module),
            description: texts::$module,
            effect: Effect::$effect,
            schema: $module::schema,
            example: $module::example,
            execute: |call| Box::pin($module::execute(call)),
        }
    };
}

/// Every tool, in the order in which models are shown them.
static TOOLS: [ToolRow; 9] = [
    tool!(run, Acts),
    tool!(wait, Reads),
    tool!(read_output, Reads),
    tool!(send_input, Acts),
    tool!(control, ActsOnce),
    tool!(list_jobs, Reads),
    tool!(search_output, Reads),
    tool!(query_history, Reads),
    tool!(verify_transcript, Reads),
];

impl ToolRow {
    /// The tool with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TOOLS.iter().find(|tool| tool.name == name)
    }

    /// The names of all tools, for a message.
    pub fn names() -> String {
        let names: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        names.join(", ")
    }

    /// A call of it that works.
    pub fn example_call(&self) -> NextCall {
        NextCall::new(self.name, (self.example)())
    }

    /// As the protocol lists it.
    pub fn listed(&self) -> Tool {
        let annotations = ToolAnnotations::new()
            .read_only(self.effect == Effect::Reads)
            .destructive(self.effect != Effect::Reads)
            .idempotent(self.effect != Effect::Acts)
            .open_world(self.effect != Effect::Reads);
        let schema = match (self.schema)() {
            Value::Object(schema) => schema,
            _ => Map::new(),
        };
        Tool::new(self.name, self.description, Arc::new(schema)).with_annotations(annotations)
    }
}

/// All tools as the protocol lists them.
pub fn listed() -> Vec<Tool> {
    TOOLS.iter().map(ToolRow::listed).collect()
}

/// A schema of an object with these properties, of which the first are required.
fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The schema of an argument that names a job.
fn job_schema() -> Value {
    json!({"type": ["integer", "string"], "description": "number, id, task id, name or \"last\""})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_small_enough_for_any_agent() {
        let tools = listed();
        let bytes = serde_json::to_string(&json!({"tools": tools}))
            .expect("JSON")
            .len();
        assert!(bytes < 8_000, "{bytes} bytes");
        for tool in tools {
            let description = tool.description.expect("described");
            assert!(description.len() < 1_000, "{}", tool.name);
        }
    }

    #[test]
    fn the_words_of_a_search_are_there() {
        let text = serde_json::to_string(&listed())
            .expect("JSON")
            .to_lowercase();
        for word in [
            "shell",
            "command",
            "terminal",
            "background",
            "log",
            "build",
            "test",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }

    #[test]
    fn every_example_names_only_arguments_of_its_schema() {
        for tool in &TOOLS {
            let schema = (tool.schema)();
            let example = (tool.example)();
            for key in example.as_object().expect("an object").keys() {
                assert!(
                    schema["properties"][key].is_object(),
                    "{}: {key}",
                    tool.name
                );
            }
        }
    }
}
