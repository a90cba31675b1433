//! `server.backup`: copies the data directory while jobs run.
//!
//! It runs beside the session's other requests; what a backup is, is the executor's business.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Outcome;
use crate::protocol::{
    jsonrpc::{error::Refusal, params::Params},
    ws::session::Session,
};

pub async fn execute(session: &Session, params: &Map<String, Value>) -> Result<Outcome, Refusal> {
    let params = Params::new(params, &["to"])?;
    let to = params
        .text("to")?
        .ok_or_else(|| params.wrong("to", "missing"))?;
    let made = session.door.executor.backup(PathBuf::from(to)).await?;
    Ok(Outcome::of(&json!({
        "path": made.path.display().to_string(),
        "instance": made.instance,
        "jobs": made.jobs,
        "bytes": made.bytes,
        "shared_bytes": made.shared_bytes,
        "missing_segments": made.missing_segments,
        "elapsed_ms": made.elapsed_ms,
    })))
}
