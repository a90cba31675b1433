//! A call of a tool: the client, where it runs, and the arguments; and what the tools' schemas share.

use std::sync::Arc;

use axum::http::request::Parts;
use rmcp::{RoleServer, service::RequestContext};
use serde_json::{Map, Value, json};

use crate::protocol::{
    caller::Caller,
    mcp::client::{ClientLeft, ClientPlace, McpClient},
};

/// A call of a tool.
pub struct ToolCall<'a> {
    /// The client as the methods see it.
    pub caller: &'a Caller,
    /// The client as the request tells.
    pub client: McpClient,
    /// Where the client runs, if it told.
    pub place: Option<Arc<ClientPlace>>,
    /// The arguments.
    pub arguments: Map<String, Value>,
    /// The request.
    pub context: &'a RequestContext<RoleServer>,
    /// Whether the client takes a task instead of a result.
    pub takes_tasks: bool,
}

impl ToolCall<'_> {
    /// Whether the client still waits for the answer, as far as its connection tells.
    pub fn is_connected(&self) -> bool {
        let parts = self.context.extensions.get::<Parts>();
        let left = parts.and_then(|parts| parts.extensions.get::<ClientLeft>());
        !left.is_some_and(|left| left.0.is_cancelled())
    }
}

/// A schema of an object with these properties, of which the first are required.
pub fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The schema of an argument that names a job.
pub fn job_schema() -> Value {
    json!({"type": ["integer", "string"], "description": "number, id, task id, name or \"last\""})
}
