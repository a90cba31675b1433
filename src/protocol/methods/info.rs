//! `server.info`: facts about the server as a whole. Nothing secret: the data directory is shown, the token
//! is not.

use serde_json::{Map, Value, json, value::RawValue};

use super::{disk_usage, limits, principal};
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
    let server = &caller.server;
    let info = server.executor.info().await?;
    // Without a free descriptor, for example, the directory cannot be measured.
    let disk = server.executor.disk_totals().await.ok();
    let disk = disk.map(|totals| disk_usage::totals(&totals, &server.settings));
    let mut limits = limits::all(&server.settings);
    // Their defaults depend on the size of the file system.
    limits.insert("free_bytes_min".to_owned(), json!(info.free_bytes_min));
    limits.insert("ballast_bytes".to_owned(), json!(info.ballast_bytes));
    Ok(to_raw(&json!({
        "version": info.version,
        "protocol": PROTOCOL,
        "pid": std::process::id(),
        "started_at": info.started_at,
        "uptime_s": server.uptime_s(),
        "data_dir": server.addresses.data_dir.display().to_string(),
        "socket": server.addresses.socket.display().to_string(),
        "listen": server.addresses.listen,
        "isolation": info.isolation,
        "isolation_reason": info.isolation_reason,
        "instance": info.instance,
        "epoch": info.epoch,
        "sessions": server.sessions.count(),
        "counts": counts(&info.counts),
        "disk": disk,
        "notices": info.notices,
        "audit": info.audit,
        "principal": principal::view(&caller.principal()),
        "policy": server.executor.policy_status(),
        "secrets": {"sources": server.executor.secret_sources()},
        "limits": limits,
    })))
}
