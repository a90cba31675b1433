//! `queue`: lists, creates, changes and deletes queues.

use std::process::ExitCode;

use anyhow::Context;
use comfy_table::Table;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        connect::{
            link::{self, Link, VersionNotice},
            target::Connect,
        },
        render::{
            exit_code,
            print::{self, PrintOptions},
        },
    },
    escape::visible,
};

/// Options of `queue`.
#[derive(Debug, clap::Args)]
pub struct QueueArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: Option<QueueCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum QueueCommand {
    /// List queues; the same as `queue` alone
    #[command(visible_alias = "list")]
    Ls,
    /// Create a queue, or change the given settings of one
    Set(QueueSettings),
    /// Delete queues whose jobs have all ended
    #[command(visible_alias = "delete")]
    Rm {
        /// Names of the queues
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct QueueSettings {
    /// Name of the queue
    name: String,

    /// How many jobs of the queue run at a time, 1 to 1024
    #[arg(help_heading = "Settings", long, value_name = "N")]
    concurrency: Option<u32>,

    /// Start no more jobs; running ones go on. The reason is shown beside the jobs that wait
    #[arg(help_heading = "Settings", long, value_name = "REASON", num_args = 0..=1,
        default_missing_value = "")]
    pause: Option<String>,

    /// Start jobs again after --pause
    #[arg(help_heading = "Settings", long, conflicts_with = "pause")]
    resume: bool,

    /// Take no new jobs; those that are queued are started
    #[arg(help_heading = "Settings", long)]
    drain: bool,

    /// Take jobs again after --drain
    #[arg(help_heading = "Settings", long, conflicts_with = "drain")]
    no_drain: bool,

    /// Start at most this many jobs in any 60 seconds, 1 to 6000; none: no bound
    #[arg(help_heading = "Settings", long, value_name = "N|none", value_parser = rate)]
    starts_per_minute: Option<Value>,

    /// Share of the queue when queues compete for shims, 1 to 1000
    #[arg(help_heading = "Settings", long, value_name = "N")]
    weight: Option<u32>,

    /// Default for jobs that leave the key out, such as timeout_s=600 or env={"CI":"1"}; may be
    /// given several times, and replaces all defaults
    #[arg(help_heading = "Settings", long = "default", value_name = "KEY=JSON", value_parser = default)]
    defaults: Vec<(String, Value)>,

    /// Remove all defaults
    #[arg(help_heading = "Settings", long, conflicts_with = "defaults")]
    no_defaults: bool,
}

/// Runs the subcommand; `ls` if there is none.
pub async fn queue(args: QueueArgs) -> anyhow::Result<ExitCode> {
    let mut link = link::open_always(args.connect.target()?, VersionNotice::Always).await?;
    match &args.command {
        None | Some(QueueCommand::Ls) => args.list(&mut link).await,
        Some(QueueCommand::Set(settings)) => {
            let queue = link.request("queue.set", &settings.params()).await?;
            args.show(vec![queue.clone()], queue)
        }
        Some(QueueCommand::Rm { names }) => remove(&mut link, names).await,
    }
}

async fn remove(link: &mut Link, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = exit_code::SUCCESS;
    for name in names {
        if let Err(error) = link.request("queue.delete", &json!({"queue": name})).await {
            print::line(&format!("{name}: {error:#}"));
            code = exit_code::FAILURE;
        }
    }
    Ok(ExitCode::from(code))
}

/// All pages of the list `key` of a method that takes a cursor.
pub async fn all(link: &mut Link, method: &str, key: &str) -> anyhow::Result<Vec<Value>> {
    let (mut found, mut params) = (Vec::new(), json!({}));
    loop {
        let mut page = link.request(method, &params).await?;
        if let Some(page) = page[key].as_array_mut() {
            found.append(page);
        }
        match page["next_cursor"].take() {
            Value::Null => return Ok(found),
            cursor => params["cursor"] = cursor,
        }
    }
}

/// Why jobs of a queue do not start, as far as its settings are the cause: it is paused.
pub fn pause(queue: &Value) -> Option<String> {
    if queue["paused"] != true {
        return None;
    }
    let reason = queue["pause_reason"].as_str();
    Some(reason.map_or_else(
        || "paused".to_owned(),
        |reason| format!("paused: {}", visible(reason)),
    ))
}

impl QueueArgs {
    async fn list(&self, link: &mut Link) -> anyhow::Result<ExitCode> {
        let queues = all(link, "queue.list", "queues").await?;
        self.show(queues.clone(), Value::Array(queues))
    }

    fn show(&self, queues: Vec<Value>, json: Value) -> anyhow::Result<ExitCode> {
        if self.print.json {
            print::json(&json)?;
        } else {
            print::page(&table(&queues))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl QueueSettings {
    fn params(&self) -> Value {
        let mut params = Map::from_iter([("queue".to_owned(), json!(self.name))]);
        if let Some(concurrency) = self.concurrency {
            params.insert("concurrency".into(), json!(concurrency));
        }
        if self.pause.is_some() || self.resume {
            params.insert("paused".into(), json!(self.pause.is_some()));
        }
        if let Some(reason) = self.pause.as_ref().filter(|reason| !reason.is_empty()) {
            params.insert("pause_reason".into(), json!(reason));
        }
        if self.drain || self.no_drain {
            params.insert("drain".into(), json!(self.drain));
        }
        if let Some(rate) = &self.starts_per_minute {
            params.insert("starts_per_minute".into(), rate.clone());
        }
        if let Some(weight) = self.weight {
            params.insert("weight".into(), json!(weight));
        }
        if self.no_defaults || !self.defaults.is_empty() {
            let defaults = self.defaults.iter().cloned().collect();
            params.insert("defaults".into(), Value::Object(defaults));
        }
        Value::Object(params)
    }
}

/// A number of starts, or null for `none`.
fn rate(text: &str) -> anyhow::Result<Value> {
    if text == "none" {
        return Ok(Value::Null);
    }
    let rate: u32 = text.parse().context("write a number of starts, or none")?;
    Ok(json!(rate))
}

fn default(text: &str) -> anyhow::Result<(String, Value)> {
    let (key, value) = text.split_once('=').context("write KEY=JSON")?;
    let value = serde_json::from_str(value)
        .with_context(|| format!("{value} is not JSON; a text needs quotes: '{key}=\"…\"'"))?;
    Ok((key.to_owned(), value))
}

/// Queues as text, one line each below a headline.
fn table(queues: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "QUEUE",
        "RUNNING",
        "SLOTS",
        "QUEUED",
        "WEIGHT",
        "PER MINUTE",
        "STATE",
        "DEFAULTS",
    ]);
    table.add_rows(queues.iter().map(row));
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(queue: &Value) -> [String; 8] {
    let number = |key: &str| queue[key].as_u64().unwrap_or(0).to_string();
    let drains = (queue["drain"] == true).then(|| "drains".to_owned());
    let states: Vec<String> = drains.into_iter().chain(pause(queue)).collect();
    let state = match states.is_empty() {
        true => "open".to_owned(),
        false => states.join(", "),
    };
    let rate = queue["starts_per_minute"].as_u64();
    let defaults = queue["defaults"].as_object().filter(|map| !map.is_empty());
    [
        visible(queue["queue"].as_str().unwrap_or_default()),
        number("running"),
        number("concurrency"),
        number("queued"),
        number("weight"),
        rate.map_or_else(String::new, |rate| rate.to_string()),
        state,
        defaults.map_or_else(String::new, |map| visible(&json!(map).to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        queue: QueueArgs,
    }

    fn params(words: &[&str]) -> Option<Value> {
        let words = ["queue", "set"].iter().chain(words);
        match Line::try_parse_from(words).ok()?.queue.command {
            Some(QueueCommand::Set(settings)) => Some(settings.params()),
            _ => None,
        }
    }

    #[test]
    fn options_become_the_keys_of_a_change() {
        assert_eq!(params(&["q"]), Some(json!({"queue": "q"})));
        let all = params(&[
            "q",
            "--concurrency",
            "3",
            "--pause",
            "--weight",
            "9",
            "--default",
            "timeout_s=5",
            "--default",
            "env={\"A\":\"b\"}",
            "--default",
            "name=\"n=m\"",
            "--drain",
            "--starts-per-minute",
            "30",
        ]);
        let expected = json!({"queue": "q", "concurrency": 3, "paused": true, "weight": 9,
            "drain": true, "starts_per_minute": 30, "defaults": {"timeout_s": 5, "env": {"A": "b"}, "name": "n=m"}});
        assert_eq!(all, Some(expected));
        let back = params(&["q", "--resume", "--no-defaults"]);
        assert_eq!(
            back,
            Some(json!({"queue": "q", "paused": false, "defaults": {}}))
        );
        let why = params(&[
            "q",
            "--pause",
            "a disk is replaced",
            "--starts-per-minute",
            "none",
        ]);
        let expected = json!({"queue": "q", "paused": true, "starts_per_minute": null,
            "pause_reason": "a disk is replaced"});
        assert_eq!(why, Some(expected));
        let open = json!({"queue": "q", "drain": false});
        assert_eq!(params(&["q", "--no-drain"]), Some(open));
        for wrong in [
            &["q", "--pause", "--resume"][..],
            &["q", "--drain", "--no-drain"],
            &["q", "--starts-per-minute", "many"],
            &["q", "--default", "timeout_s"],
            &["q", "--default", "name=text"],
            &[],
        ] {
            assert_eq!(params(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn options_stand_before_and_behind_the_word() {
        for words in [
            &["queue", "--json", "--data-dir", "/d", "ls"][..],
            &["queue", "ls", "--data-dir", "/d", "--json"],
            &["queue", "--json", "--data-dir", "/d"],
        ] {
            let args = Line::try_parse_from(words).expect("valid").queue;
            assert!(args.print.json, "{words:?}");
            let target = args.connect.target().expect("a target");
            assert_eq!(target.to_string(), "/d", "{words:?}");
        }
    }

    #[test]
    fn a_table_is_harmless() {
        let text = table(&[json!({
            "queue": "bu\u{1b}[2Jild", "running": 1, "concurrency": 4, "queued": 17, "weight": 2,
            "paused": true, "pause_reason": "dis\u{7}k", "drain": true,
            "defaults": {"name": "\u{9b}x"},
        })]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        for part in [
            "bu\\x1b[2Jild",
            "17",
            "drains, paused: dis\\x07k",
            "\\u{9b}x",
        ] {
            assert!(lines[1].contains(part), "{part} in {text}");
        }
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    }
}
