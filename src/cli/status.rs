//! `status`: how the server is. Starts none.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    client::{Client, ConnectError},
    duration,
    escape::visible,
    exit_code,
    say::{self, Look},
    target::{Connect, Target},
};

/// Options of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 when a server answers, 1 when none does.")]
pub struct StatusArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    look: Look,
}

/// Shows how the server is.
pub async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let mut client = match Client::connect(&target).await {
        Ok(client) => client,
        Err(ConnectError::Absent(_)) => return args.nobody(&target),
        Err(error) => return Err(error.into()),
    };
    let mut info = client.request("server.info", &json!({})).await?;
    // The kernel's word, in our own numbering of processes.
    if let Some(pid) = client.peer() {
        info["pid"] = json!(pid);
    }
    if args.look.json {
        info["running"] = json!(true);
        say::json(&info)?;
    } else {
        say::out(args.page(&info, &target).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl StatusArgs {
    fn nobody(&self, target: &Target) -> anyhow::Result<ExitCode> {
        if self.look.json {
            say::json(&json!({"running": false, "server": target.to_string()}))?;
        } else {
            say::line(&format!(
                "no server runs on {target}; `cc-executor serve` starts one, and so does `cc-executor run`"
            ));
        }
        Ok(ExitCode::from(exit_code::FAILURE))
    }

    fn page(&self, info: &Value, target: &Target) -> String {
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
            ("isolation", text("isolation")),
            ("jobs", self.counts(info)),
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
            .map(|(state, n)| self.look.paint(state, &format!("{n} {}", visible(state))))
            .collect();
        match counts.is_empty() {
            true => "none".to_owned(),
            false => counts.join(", "),
        }
    }
}
