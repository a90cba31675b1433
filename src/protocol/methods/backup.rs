//! `server.backup`: copies the data directory while jobs run. It runs beside the session's other requests.

use std::path::PathBuf;

use serde_json::{Map, Value, json, value::RawValue};

use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["to"])?;
    let to = params
        .text("to")?
        .ok_or_else(|| params.wrong("to", "missing"))?;
    let made = caller.executor().backup(PathBuf::from(to)).await?;
    Ok(to_raw(&json!({
        "path": made.path.display().to_string(),
        "instance": made.instance,
        "jobs": made.jobs,
        "bytes": made.bytes,
        "shared_bytes": made.shared_bytes,
        "missing_segments": made.missing_segments,
        "elapsed_ms": made.elapsed_ms,
    })))
}
