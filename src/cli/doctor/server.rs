//! What the server says of itself.

use serde_json::{Value, json};

use super::Check;
use crate::cli::connect::{
    client::Client, dial::ConnectError, disk_notice, holder, target::Target,
};

/// Asks the server, if one answers.
pub async fn ask(
    connected: Result<Client, ConnectError>,
    target: &Target,
) -> (Option<Value>, Check) {
    let mut client = match connected {
        Ok(client) => client,
        Err(ConnectError::Absent(_)) => return (None, absent(target)),
        Err(error) => {
            let advice = "`cc-executor status` says more";
            return (None, Check::failure("server", error.to_string(), advice));
        }
    };
    match client.request("server.info", &json!({})).await {
        Ok(info) => {
            let check = answers(&info);
            (Some(info), check)
        }
        Err(error) => (
            None,
            Check::failure("server", error.to_string(), "try again"),
        ),
    }
}

fn absent(target: &Target) -> Check {
    let holder = match target {
        Target::Local(layout) => holder::holder(layout),
        Target::Remote { .. } => None,
    };
    match holder {
        Some(pid) => Check::failure(
            "server",
            format!("process {pid} has locked the data directory and does not listen"),
            "try again in a moment, or end it with `cc-executor stop`",
        ),
        None => Check::ok("server", "none runs; `cc-executor run` starts one"),
    }
}

fn answers(info: &Value) -> Check {
    let version = info["version"].as_str().unwrap_or_default();
    let ours = env!("CARGO_PKG_VERSION");
    match version == ours {
        true => Check::ok("server", format!("version {version} answers")),
        false => Check::warning(
            "server",
            format!("version {version} answers, this is {ours}"),
            "`cc-executor restart` starts this version; running jobs go on",
        ),
    }
}

/// What has gone wrong by the server's own account.
pub fn check(info: &Value) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(line) = disk_notice::line(&info["disk"]) {
        checks.push(Check::warning(
            "disk use",
            line,
            "`cc-executor prune` deletes ended jobs",
        ));
    }
    if let Some(error) = info["audit"]["error"].as_str() {
        checks.push(Check::failure(
            "audit",
            error,
            "mend the place of audit_checkpoints",
        ));
    }
    if let Some(error) = info["policy"]["last_error"].as_str() {
        let advice =
            "the policy before it is in force; mend the file and run `cc-executor policy reload`";
        checks.push(Check::failure("policy", error, advice));
    }
    let given_up = info["notices"]["given_up"].as_u64().unwrap_or(0);
    if given_up > 0 {
        let advice = "`cc-executor notify ls` shows why, `notify retry` tries again";
        checks.push(Check::warning(
            "notices",
            format!("{given_up} were given up"),
            advice,
        ));
    }
    checks
}
