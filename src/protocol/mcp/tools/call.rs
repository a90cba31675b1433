//! A call of a tool: the client, where it runs, and the arguments; and what the tools' schemas share.

use std::sync::Arc;

use axum::http::request::Parts;
use rmcp::{RoleServer, service::RequestContext};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::protocol::{
    caller::Caller,
    mcp::{
        client::{ClientLeft, McpClient},
        place::ClientPlace,
    },
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
    /// Cancelled when the client has left; it may come back for the answer over HTTP.
    pub fn left(&self) -> CancellationToken {
        let extensions = &self.context.extensions;
        let over_http = || extensions.get::<Parts>()?.extensions.get::<ClientLeft>();
        let left = extensions.get::<ClientLeft>().or_else(over_http);
        left.map(|left| left.0.clone()).unwrap_or_default()
    }

    /// Returns when no client waits for the answer any more.
    pub async fn unwanted(&self) {
        match self.context.extensions.get::<ClientLeft>() {
            Some(left) => tokio::select! {
                () = left.0.cancelled() => {}
                () = self.context.ct.cancelled() => {}
            },
            None => self.context.ct.cancelled().await,
        }
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
