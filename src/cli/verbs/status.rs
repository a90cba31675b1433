//! `status`: the server's version, address, jobs and queues. Starts no server.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            client::Client,
            dial::ConnectError,
            disk_notice, holder,
            target::{Connect, Target},
        },
        render::{
            duration, exit_code,
            print::{self, PrintOptions},
            size,
        },
    },
    escape::visible,
};

/// Options of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 when a server answers, 1 when none does.")]
pub struct StatusArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,
}

/// Shows the server's state.
pub async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let mut client = match Client::connect(&target).await {
        Ok(client) => client,
        Err(ConnectError::Absent(_)) => match lock_holder(&target) {
            Some(pid) => return args.print_not_listening(&target, pid),
            None => return args.print_no_server(&target),
        },
        Err(error) => return Err(error.into()),
    };
    let mut info = client.request("server.info", &json!({})).await?;
    // From the kernel, so that it is right in our PID namespace.
    if let Some(pid) = client.server_pid() {
        info["pid"] = json!(pid);
    }
    if args.print.json {
        info["running"] = json!(true);
        print::json(&info)?;
    } else {
        // A server of an earlier version may not have this method.
        let queues = client.request("queue.list", &json!({})).await;
        let queues = queues.map(|list| busy_queues(&list)).unwrap_or_default();
        print::out(args.page(&info, &target, queues).as_bytes())?;
    }
    if let Some(line) = disk_notice::line(&info["disk"]) {
        print::line(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// The process id of a server that holds the directory's lock without listening.
fn lock_holder(target: &Target) -> Option<i32> {
    match target {
        Target::Local(layout) => holder::holder(layout),
        Target::Remote { .. } => None,
    }
}

impl StatusArgs {
    /// The server is starting or stopping, or its socket was removed and is not yet there again.
    fn print_not_listening(&self, target: &Target, pid: i32) -> anyhow::Result<ExitCode> {
        if self.print.json {
            print::json(
                &json!({"running": true, "answers": false, "pid": pid, "server": target.to_string()}),
            )?;
        } else {
            print::line(&format!(
                "a server (process {pid}) has locked {target} but does not listen; try again in a moment, or end it with `cc-executor stop`"
            ));
        }
        Ok(ExitCode::from(exit_code::FAILURE))
    }

    fn print_no_server(&self, target: &Target) -> anyhow::Result<ExitCode> {
        if self.print.json {
            print::json(&json!({"running": false, "server": target.to_string()}))?;
        } else {
            print::line(&format!(
                "no server runs on {target}; `cc-executor serve` starts one, and so does `cc-executor run`"
            ));
        }
        Ok(ExitCode::from(exit_code::FAILURE))
    }

    fn page(&self, info: &Value, target: &Target, queues: String) -> String {
        let text = |key: &str| info[key].as_str().map(visible).unwrap_or_default();
        let number = |key: &str| {
            info[key]
                .as_i64()
                .map(|n| n.to_string())
                .unwrap_or_default()
        };
        let place = match target {
            Target::Local(_) => text("data_dir"),
            Target::Remote { address, .. } => format!("{} at {address}", text("data_dir")),
        };
        let listen = info["listen"]
            .as_str()
            .map_or("Unix socket only".to_owned(), visible);
        let lines = [
            ("version", text("version")),
            ("pid", number("pid")),
            (
                "up",
                info["uptime_s"]
                    .as_f64()
                    .map(duration::short)
                    .unwrap_or_default(),
            ),
            ("data", place),
            ("listen", listen),
            ("isolation", isolation(info)),
            ("jobs", self.counts(info)),
            ("queues", queues),
            ("disk", disk(&info["disk"])),
            ("notices", notices(info)),
            ("audit", checkpoints(&info["audit"])),
        ];
        let mut page = String::new();
        for (name, text) in lines.iter().filter(|(_, text)| !text.is_empty()) {
            page.push_str(&format!("{name:<12}{text}\n"));
        }
        page
    }

    fn counts(&self, info: &Value) -> String {
        let counts = ["jobs", "counts"]
            .iter()
            .find_map(|key| info[*key].as_object());
        let counts: Vec<_> = counts
            .into_iter()
            .flatten()
            .filter(|(_, n)| n.as_u64() != Some(0))
            .map(|(state, n)| self.print.paint(state, &format!("{n} {}", visible(state))))
            .collect();
        match counts.is_empty() {
            true => "none".to_owned(),
            false => counts.join(", "),
        }
    }
}

/// The level of isolation, and why it is not the highest.
fn isolation(info: &Value) -> String {
    let level = visible(info["isolation"].as_str().unwrap_or_default());
    match info["isolation_reason"].as_str() {
        Some(reason) => format!("{level} ({})", visible(reason)),
        None => level,
    }
}

/// What the data directory takes; nothing if the server cannot tell.
fn disk(disk: &Value) -> String {
    let bytes = disk["bytes"].as_u64();
    bytes.map_or_else(String::new, |bytes| {
        format!("{} ({})", size::short(bytes), disk_notice::kinds(disk))
    })
}

/// Notices that are not delivered; empty without any.
fn notices(info: &Value) -> String {
    let count = |key: &str| info["notices"][key].as_u64().unwrap_or(0);
    match (count("waiting"), count("given_up")) {
        (0, 0) => String::new(),
        (waiting, given_up) => format!("{waiting} waiting, {given_up} given up"),
    }
}

/// The last checkpoint of the audit trail; empty where none are made.
fn checkpoints(audit: &Value) -> String {
    match (audit["error"].as_str(), audit["entries"].as_u64()) {
        (Some(error), _) => format!("no checkpoint could be made: {}", visible(error)),
        (None, Some(entries)) => format!("checkpoint of {entries} entries"),
        (None, None) => String::new(),
    }
}

/// The queues that are paused or have running or queued jobs: `default 3 of 4 running, 12 queued`.
fn busy_queues(list: &Value) -> String {
    let queues = list["queues"].as_array().into_iter().flatten();
    queues.filter_map(queue).collect::<Vec<_>>().join("; ")
}

fn queue(queue: &Value) -> Option<String> {
    let number = |key: &str| queue[key].as_u64().unwrap_or(0);
    let (running, queued) = (number("running"), number("queued"));
    let paused = queue["paused"].as_bool() == Some(true);
    if running + queued == 0 && !paused {
        return None;
    }
    let name = visible(queue["queue"].as_str().unwrap_or_default());
    let slots = number("concurrency");
    let paused = if paused { ", paused" } else { "" };
    Some(format!(
        "{name} {running} of {slots} running, {queued} queued{paused}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_queues_are_told_and_idle_ones_are_not() {
        let queue = |name, running, queued, paused| json!({"queue": name, "concurrency": 4, "running": running, "queued": queued, "paused": paused});
        let list = json!({"queues": [
            queue("a", 3, 12, false), queue("b", 0, 0, false), queue("c\u{7}", 0, 0, true),
        ]});
        assert_eq!(
            busy_queues(&list),
            "a 3 of 4 running, 12 queued; c\\x07 0 of 4 running, 0 queued, paused"
        );
    }
}
