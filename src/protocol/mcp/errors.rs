//! Refusals as errors of the protocol: for requests that are no calls of tools.

use rmcp::ErrorData;
use serde_json::json;

use crate::protocol::{ErrorKind, jsonrpc::error::Refusal};

/// A refusal as an error of the protocol.
pub fn data(refusal: Refusal) -> ErrorData {
    let kind = json!({"kind": refusal.kind.name()});
    match refusal.kind {
        ErrorKind::NotFound => ErrorData::resource_not_found(refusal.message, Some(kind)),
        ErrorKind::Internal | ErrorKind::Unavailable => {
            ErrorData::internal_error(refusal.message, Some(kind))
        }
        _ => ErrorData::invalid_params(refusal.message, Some(kind)),
    }
}
