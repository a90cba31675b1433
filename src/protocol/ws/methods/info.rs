//! `server.info`: what there is to say about the server as a whole.
//!
//! Nothing secret: the token's place is told, not the token.

use serde_json::{Map, Value, json};

use super::{Outcome, PROTOCOL, limits};
use crate::protocol::{
    http::counts,
    jsonrpc::{error::Refusal, params::Params},
    ws::session::Session,
};

pub async fn execute(session: &Session, params: &Map<String, Value>) -> Result<Outcome, Refusal> {
    Params::new(params, &[])?;
    let door = &session.door;
    let info = door.executor.info().await?;
    Ok(Outcome::of(&json!({
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
