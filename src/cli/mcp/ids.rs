//! Ids of messages, and progress tokens.

use serde::{Deserialize, Serialize};

/// A JSON-RPC id, or a progress token: MCP allows strings and integers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MessageId {
    /// An integer.
    Number(i64),
    /// A string.
    Text(String),
}
