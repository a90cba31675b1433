//! `retention`: lists, sets and deletes the rules by which the server removes final jobs.

use std::process::ExitCode;

use comfy_table::Table;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        connect::{
            filter::{FINAL_STATES, pairs},
            keep::KeepOptions,
            link::{self, Link, VersionNotice},
            target::Connect,
        },
        render::{
            duration, exit_code,
            print::{self, PrintOptions},
            size,
        },
    },
    escape::visible,
};

/// Options of `retention`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
There is no rule by default. A rule is applied when it is set, every few minutes \
(retention_interval_s) and after many ends (retention_after_ends). `prune` with the same options \
says what a rule would remove.")]
pub struct RetentionArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: Option<RetentionCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum RetentionCommand {
    /// List rules; the same as `retention` alone
    #[command(visible_alias = "list")]
    Ls,
    /// Set a rule, or replace the one with its name
    Set(RuleOptions),
    /// Delete rules
    #[command(visible_alias = "delete")]
    Rm {
        /// Names of the rules
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct RuleOptions {
    /// Name of the rule
    rule: String,

    /// Only jobs in this final state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = FINAL_STATES)]
    states: Vec<String>,

    /// Only jobs of this queue
    #[arg(long)]
    queue: Option<String>,

    /// Only jobs with this label; may be given several times, and all must match
    #[arg(long = "label", value_name = "K=V")]
    labels: Vec<String>,

    /// Only jobs with this name
    #[arg(long)]
    name: Option<String>,

    #[command(flatten)]
    keep: KeepOptions,

    /// Remove only the output; the jobs stay
    #[arg(long)]
    outputs: bool,
}

/// Runs the subcommand; `ls` if there is none.
pub async fn retention(args: RetentionArgs) -> anyhow::Result<ExitCode> {
    let mut link = link::open_always(args.connect.target()?, VersionNotice::Always).await?;
    match &args.command {
        None | Some(RetentionCommand::Ls) => {
            let rules = list(&mut link).await?;
            args.show(&rules, Value::Array(rules.clone()))
        }
        Some(RetentionCommand::Set(options)) => {
            let rule = link.request("retention.set", &options.params()?).await?;
            args.show(std::slice::from_ref(&rule), rule.clone())
        }
        Some(RetentionCommand::Rm { names }) => remove(&mut link, names).await,
    }
}

async fn list(link: &mut Link) -> anyhow::Result<Vec<Value>> {
    let (mut rules, mut params) = (Vec::new(), json!({}));
    loop {
        let mut page = link.request("retention.list", &params).await?;
        if let Some(page) = page["rules"].as_array_mut() {
            rules.append(page);
        }
        match page["next_cursor"].take() {
            Value::Null => return Ok(rules),
            cursor => params["cursor"] = cursor,
        }
    }
}

async fn remove(link: &mut Link, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = exit_code::SUCCESS;
    for name in names {
        let params = json!({"rule": name});
        if let Err(error) = link.request("retention.delete", &params).await {
            print::line(&format!("{name}: {error:#}"));
            code = exit_code::FAILURE;
        }
    }
    Ok(ExitCode::from(code))
}

impl RetentionArgs {
    fn show(&self, rules: &[Value], json: Value) -> anyhow::Result<ExitCode> {
        if self.print.json {
            print::json(&json)?;
        } else if rules.is_empty() {
            print::line_on_terminal("no rules; `cc-executor retention set` sets one");
        } else {
            print::page(&table(rules))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl RuleOptions {
    fn params(&self) -> anyhow::Result<Value> {
        let mut params = Map::from_iter([
            ("rule".to_owned(), json!(self.rule)),
            (
                "scope".to_owned(),
                json!(if self.outputs { "outputs" } else { "jobs" }),
            ),
        ]);
        if !self.states.is_empty() {
            params.insert("state".into(), json!(self.states));
        }
        for (key, value) in [("queue", &self.queue), ("name", &self.name)] {
            if let Some(value) = value {
                params.insert(key.into(), json!(value));
            }
        }
        let labels = pairs(&self.labels)?;
        if !labels.is_empty() {
            params.insert("labels".into(), Value::Object(labels));
        }
        self.keep.add_to(&mut params);
        Ok(Value::Object(params))
    }
}

/// Rules as text, one line each below a headline.
fn table(rules: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["RULE", "REMOVES", "OF", "KEEPS"]);
    table.add_rows(rules.iter().map(row));
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(rule: &Value) -> [String; 4] {
    let text = |value: &Value| visible(value.as_str().unwrap_or_default());
    let mut of = Vec::new();
    if let Some(states) = rule["state"].as_array() {
        of.push(states.iter().map(text).collect::<Vec<_>>().join("|"));
    }
    for key in ["queue", "name"] {
        if rule[key].is_string() {
            of.push(format!("{key}={}", text(&rule[key])));
        }
    }
    for (key, value) in rule["labels"].as_object().into_iter().flatten() {
        of.push(format!("label {}={}", visible(key), text(value)));
    }
    let mut keeps = Vec::new();
    if let Some(seconds) = rule["older_than_s"].as_u64() {
        keeps.push(duration::short(seconds as f64));
    }
    if let Some(count) = rule["keep_newest"].as_u64() {
        keeps.push(format!("the newest {count}"));
    }
    if let Some(bytes) = rule["keep_bytes"].as_u64() {
        keeps.push(size::short(bytes));
    }
    let of = match of.is_empty() {
        true => "all jobs".to_owned(),
        false => of.join(", "),
    };
    [
        text(&rule["rule"]),
        text(&rule["scope"]),
        of,
        keeps.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        retention: RetentionArgs,
    }

    fn params(words: &[&str]) -> Option<Value> {
        let words = ["retention", "set"].iter().chain(words);
        match Line::try_parse_from(words).ok()?.retention.command {
            Some(RetentionCommand::Set(options)) => options.params().ok(),
            _ => None,
        }
    }

    #[test]
    fn options_become_a_rule() {
        let all = params(&[
            "r",
            "--state",
            "failed",
            "--queue",
            "q",
            "--label",
            "k=v",
            "--name",
            "n",
            "--older-than",
            "1d",
            "--keep-bytes",
            "1KiB",
            "--outputs",
        ]);
        let expected = json!({"rule": "r", "scope": "outputs", "state": ["failed"], "queue": "q",
            "labels": {"k": "v"}, "name": "n", "older_than_s": 86400, "keep_bytes": 1024});
        assert_eq!(all, Some(expected));
        for wrong in [
            &["r", "--state", "running"][..],
            &["r", "--label", "k"],
            &["--keep-newest", "5"],
        ] {
            assert_eq!(params(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_table_is_harmless() {
        let text = table(&[
            json!({"rule": "a\u{1b}", "scope": "jobs", "older_than_s": 86400, "keep_newest": 3}),
            json!({"rule": "b", "scope": "outputs", "state": ["failed"], "queue": "q\u{9b}",
                "labels": {"k": "v"}, "keep_bytes": 2048}),
        ]);
        for part in [
            "a\\x1b",
            "all jobs",
            "1d00h, the newest 3",
            "label k=v",
            "2.0 KiB",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    }
}
