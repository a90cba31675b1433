//! `server.info`: what there is to say about the server as a whole.
//!
//! Nothing secret: the token's place is told, not the token.

use serde_json::{Map, Value, json, value::RawValue};

use super::limits;
use crate::protocol::{
    caller::Caller,
    job_counts::counts,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    methods::PROTOCOL,
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    Params::new(&params, &[])?;
    let door = &caller.server;
    let info = door.executor.info().await?;
    Ok(to_raw(&json!({
        "version": info.version,
        "protocol": PROTOCOL,
        "pid": std::process::id(),
        "started_at": info.started_at,
        "uptime_s": door.uptime_s(),
        "data_dir": door.place.data_dir.display().to_string(),
        "socket": door.place.socket.display().to_string(),
        "listen": door.place.listen,
        "isolation": info.isolation,
        "instance": info.instance,
        "epoch": info.epoch,
        "sessions": door.sessions.count(),
        "counts": counts(&info.counts),
        "limits": limits::all(&door.settings),
    })))
}
