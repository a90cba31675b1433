//! The table of the tools: one row each, with the texts and schemas that a model is given.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value};

use super::{
    call::ToolCall, control, list_jobs, query_history, read_output, run, search_output, send_input,
    verify_transcript, wait,
};
use crate::{
    access::{Grant, Scope},
    protocol::{
        jsonrpc::error::Refusal,
        mcp::{reply::Reply, texts},
        narrowing::Narrowing,
    },
};

/// A running tool.
pub type ToolFuture<'a> = BoxFuture<'a, Result<Reply, Refusal>>;

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It changes nothing.
    Reads,
    /// It may run or stop anything.
    Acts,
}

/// A tool.
pub struct ToolRow {
    /// Its name on the wire.
    pub name: &'static str,
    description: &'static str,
    effect: Effect,
    /// The scopes that a client needs.
    pub scopes: &'static [Scope],
    /// How it is held to the jobs that a token reaches.
    pub narrowing: Narrowing,
    /// Its arguments: name, type or schema, and description.
    schema: fn() -> Value,
    /// Executes it.
    pub execute: for<'a> fn(ToolCall<'a>) -> ToolFuture<'a>,
}

macro_rules! tool {
    ($module:ident, $effect:ident, [$($scope:ident),+], $narrowing:ident) => {
        ToolRow {
            name: stringify!($module),
            description: texts::$module,
            effect: Effect::$effect,
            scopes: &[$(Scope::$scope),+],
            narrowing: Narrowing::$narrowing,
            schema: $module::schema,
            execute: |call| Box::pin($module::execute(call)),
        }
    };
}

/// Every tool, in the order in which models are shown them.
static TOOLS: [ToolRow; 9] = [
    tool!(run, Acts, [Submit, Read], Filtered),
    tool!(wait, Reads, [Read], Filtered),
    tool!(read_output, Reads, [Read], Filtered),
    tool!(send_input, Acts, [Input, Read], Filtered),
    tool!(control, Acts, [Control, Read], Filtered),
    tool!(list_jobs, Reads, [Read], Filtered),
    tool!(search_output, Reads, [Read], Filtered),
    tool!(query_history, Reads, [Read], Whole),
    tool!(verify_transcript, Reads, [Read], Filtered),
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

    /// As the protocol lists it.
    pub fn listed(&self) -> Tool {
        let annotations = ToolAnnotations::new()
            .read_only(self.effect == Effect::Reads)
            .destructive(self.effect != Effect::Reads)
            .idempotent(self.effect == Effect::Reads)
            .open_world(self.effect != Effect::Reads);
        let schema = match (self.schema)() {
            Value::Object(schema) => schema,
            _ => Map::new(),
        };
        Tool::new(self.name, self.description, Arc::new(schema)).with_annotations(annotations)
    }
}

/// The tools that a client with these rights may call, as the protocol lists them.
pub fn listed(grant: &Grant) -> Vec<Tool> {
    let may_call = |tool: &&ToolRow| {
        let is_narrowed_out = tool.narrowing == Narrowing::Whole && !grant.reach.is_all();
        grant.scopes.missing(tool.scopes).is_none() && !is_narrowed_out
    };
    TOOLS.iter().filter(may_call).map(ToolRow::listed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_is_small_enough_for_any_agent() {
        let tools = listed(&Grant::ALL);
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
        let text = serde_json::to_string(&listed(&Grant::ALL))
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
}
