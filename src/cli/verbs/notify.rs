//! `notify`: lists notices, tries them again, and tests their receivers.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use comfy_table::Table;
use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            find_job,
            link::{self, Link, StartPolicy, VersionNotice},
            target::Connect,
        },
        new_job::notify::secret,
        render::{
            exit_code,
            print::{self, PrintOptions},
            receiver::receiver,
            times::{self, Clock},
        },
    },
    escape::visible,
};

/// Notices in a list without `--all` and `--limit`.
const LISTED: usize = 20;

/// Options of `notify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A notice is one state of a job for one receiver. It is kept until its receiver has taken it, and tried \
again for up to three days. `submit` and `run` have the options that ask for notices.")]
pub struct NotifyArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NotifyCommand {
    /// List notices, newest first
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Send a test to receivers, and say what they answered
    Test(TestOptions),
    /// Try notices again now, also those that were given up
    Retry {
        /// Their numbers or ids, as `notify ls` shows them
        #[arg(required = true, value_name = "NOTICE")]
        notices: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct ListOptions {
    /// Only notices of this job: a number, an id, a name (the newest of it), or `last`
    job: Option<String>,

    /// Only notices in this state: waiting, delivered or given_up
    #[arg(long)]
    state: Option<String>,

    /// All notices, however old
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// At most this many notices, the newest [default: 20]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Show times in UTC instead of how long ago they were
    #[arg(long)]
    utc: bool,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("receivers").required(true).args(["job", "queue", "url", "argv"]))]
struct TestOptions {
    /// Test the receivers of this job
    #[arg(long)]
    job: Option<String>,

    /// Test the receivers of this queue's defaults
    #[arg(long)]
    queue: Option<String>,

    /// Test this URL
    #[arg(long)]
    url: Option<String>,

    /// Sign the request to the URL with this secret (whsec_…), or with the one in @FILE
    #[arg(long, requires = "url", conflicts_with_all = ["job", "queue", "argv"])]
    secret: Option<String>,

    /// Test this command, which the server runs
    #[arg(value_name = "ARGV", trailing_var_arg = true, num_args = 1..)]
    argv: Vec<String>,
}

/// Runs the subcommand.
pub async fn notify(args: NotifyArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    match &args.command {
        NotifyCommand::Ls(options) => {
            let link = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?;
            let (notices, is_cut) = match link {
                Some(mut link) => options.find(&mut link).await?,
                None => (Vec::new(), false),
            };
            options.show(notices, &args.print)?;
            if is_cut && options.limit.is_none() {
                print::line(&format!("the newest {LISTED} are shown; --all lists all"));
            }
            Ok(ExitCode::SUCCESS)
        }
        NotifyCommand::Test(options) => {
            let mut link = link::open_always(target, VersionNotice::Always).await?;
            let params = options.params(&mut link).await?;
            let results = link.request("notice.test", &params).await?;
            show_results(&results["results"], &args.print)
        }
        NotifyCommand::Retry { notices } => {
            let mut link = link::open_always(target, VersionNotice::Always).await?;
            retry(&mut link, notices).await
        }
    }
}

async fn retry(link: &mut Link, notices: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = exit_code::SUCCESS;
    for notice in notices {
        if let Err(error) = link
            .request("notice.retry", &json!({"notice": notice}))
            .await
        {
            print::line(&format!("{}: {error:#}", visible(notice)));
            code = exit_code::FAILURE;
        }
    }
    Ok(ExitCode::from(code))
}

impl ListOptions {
    /// The notices, and whether there are older ones.
    async fn find(&self, link: &mut Link) -> anyhow::Result<(Vec<Value>, bool)> {
        let mut params = json!({"limit": 1000, "state": self.state});
        if let Some(job) = &self.job {
            params["job"] = find_job::resolve(link, job).await?;
        }
        let max = match self.all {
            true => usize::MAX,
            false => self.limit.unwrap_or(LISTED),
        };
        let mut found = Vec::new();
        let is_cut = loop {
            params["limit"] = json!((max - found.len()).clamp(1, 1000));
            let mut page = link.request("notice.list", &params).await?;
            if let Some(page) = page["notices"].as_array_mut() {
                found.append(page);
            }
            match page["next_cursor"].take() {
                cursor if cursor.is_null() || found.len() >= max => break !cursor.is_null(),
                cursor => params["cursor"] = cursor,
            }
        };
        found.truncate(max);
        Ok((found, is_cut))
    }

    fn show(&self, notices: Vec<Value>, print: &PrintOptions) -> anyhow::Result<()> {
        if print.json {
            print::json(&Value::Array(notices))?;
        } else if notices.is_empty() {
            print::line_on_terminal("no notices");
        } else {
            let clock = if self.utc { Clock::Utc } else { Clock::Local };
            print::page(&table(&notices, times::now(), clock))?;
        }
        Ok(())
    }
}

impl TestOptions {
    async fn params(&self, link: &mut Link) -> anyhow::Result<Value> {
        let mut params = json!({"queue": self.queue, "url": self.url});
        if let Some(job) = &self.job {
            params["job"] = find_job::resolve(link, job).await?;
        }
        if let Some(word) = &self.secret {
            params["secret"] = json!(secret(word)?);
        }
        if !self.argv.is_empty() {
            params["argv"] = json!(self.argv);
        }
        Ok(params)
    }
}

fn show_results(results: &Value, print: &PrintOptions) -> anyhow::Result<ExitCode> {
    let results_list = results.as_array().map_or(&[][..], Vec::as_slice);
    if print.json {
        print::json(results)?;
    } else {
        let lines = results_list.iter().map(result);
        print::page(&lines.collect::<String>())?;
    }
    let all = results_list
        .iter()
        .all(|result| result["delivered"] == true);
    Ok(ExitCode::from(match all {
        true => exit_code::SUCCESS,
        false => exit_code::FAILURE,
    }))
}

/// What a receiver answered, as a line.
fn result(result: &Value) -> String {
    let to = receiver(result);
    let elapsed = &result["elapsed_ms"];
    match result["error"].as_str() {
        Some(error) => format!("{to}: not taken after {elapsed} ms: {}\n", visible(error)),
        None => format!("{to}: taken after {elapsed} ms\n"),
    }
}

/// Notices as text, one line each below a headline.
fn table(notices: &[Value], now: DateTime<Utc>, clock: Clock) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "NOTICE",
        "JOB",
        "ON",
        "WHEN",
        "STATE",
        "TRIED",
        "RECEIVER",
        "LAST ERROR",
    ]);
    table.add_rows(notices.iter().map(|notice| row(notice, now, clock)));
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(notice: &Value, now: DateTime<Utc>, clock: Clock) -> [String; 8] {
    let text = |key: &str| notice[key].as_str().map(visible).unwrap_or_default();
    let time = |key: &str| {
        let at = notice[key].as_str().and_then(|at| at.parse().ok());
        at.map(|at| times::short(at, now, clock))
            .unwrap_or_default()
    };
    let state = match notice["state"].as_str() {
        Some("waiting") => format!("waiting, due {}", time("due_at")),
        _ => text("state"),
    };
    [
        notice["number"].to_string(),
        notice["job"].to_string(),
        text("on"),
        time("at"),
        state,
        notice["attempts"].to_string(),
        receiver(notice),
        text("error"),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        notify: NotifyArgs,
    }

    #[test]
    fn one_receiver_or_group_of_receivers_is_tested() {
        let parses = |words: &[&str]| {
            let words = ["notify", "test"].iter().chain(words);
            Line::try_parse_from(words).is_ok()
        };
        for fine in [
            &["--queue", "q"][..],
            &["--job", "1"],
            &["--url", "http://a", "--secret", "s"],
            &["--", "mail", "-s", "x"],
        ] {
            assert!(parses(fine), "{fine:?}");
        }
        for wrong in [
            &[][..],
            &["--queue", "q", "--url", "u"],
            &["--queue", "q", "--secret", "s"],
            &["--url", "u", "--", "mail"],
        ] {
            assert!(!parses(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_table_is_harmless_and_names_the_error() {
        let now = "2026-11-22T10:00:00Z".parse().expect("a time");
        let text = table(
            &[json!({
                "number": 7, "job": 3, "on": "failed", "at": "2026-11-22T09:59:00.000001Z",
                "state": "waiting", "due_at": "2026-11-22T10:00:05.000001Z", "attempts": 2,
                "url": "http://h/\u{1b}[2J", "argv": null, "error": "HTTP 500: \u{9b}x",
            })],
            now,
            Clock::Utc,
        );
        for part in [
            "7",
            "failed",
            "waiting, due",
            "http://h/\\x1b[2J",
            "HTTP 500",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    }
}
