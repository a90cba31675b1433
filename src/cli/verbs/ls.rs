//! `ls`: live jobs and the last ten final ones, or all that match the filters, newest first.

use std::{io::IsTerminal, process::ExitCode};

use chrono::{DateTime, Utc};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table};
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        connect::{
            find_job::{self, FINAL, LIVE},
            link::{self, Link, StartPolicy, VersionNotice},
            target::Connect,
        },
        render::{
            duration,
            job::ShownJob,
            print::{self, PrintOptions},
            times::{self, Clock},
        },
    },
    escape::visible,
};

/// Number of final jobs in a list without --state, --all and --limit.
const FINAL_JOBS: usize = 10;

/// Options of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --state, --all and --limit: the jobs that have not ended, and the last ten that have.")]
pub struct LsArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    /// Only jobs in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = STATES)]
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

    /// All jobs, however old
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// At most this many jobs, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Show times in UTC instead of how long ago they were
    #[arg(long)]
    utc: bool,
}

const STATES: [&str; 8] = [
    LIVE[0], LIVE[1], LIVE[2], LIVE[3], LIVE[4], FINAL[0], FINAL[1], FINAL[2],
];

/// Lists jobs.
pub async fn ls(args: LsArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let found = match link::open(target, StartPolicy::IfData, VersionNotice::Always).await? {
        Some(mut link) => args.find(&mut link).await?,
        None => Vec::new(),
    };
    if args.print.json {
        print::json(&Value::Array(found))?;
        return Ok(ExitCode::SUCCESS);
    }
    let found: Vec<ShownJob> = found.iter().map(ShownJob::read).collect::<Result<_, _>>()?;
    if found.is_empty() {
        print::line_on_terminal("no jobs; `cc-executor run -- COMMAND` runs one");
    } else {
        print::out(args.table(&found, times::now(), width()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl LsArgs {
    async fn find(&self, link: &mut Link) -> anyhow::Result<Vec<Value>> {
        let filter = self.filter()?;
        let max = self.limit.unwrap_or(usize::MAX);
        if self.all || self.limit.is_some() || !self.states.is_empty() {
            return find_job::list_raw(link, &self.with_states(filter, None), max).await;
        }
        let live = self.with_states(filter.clone(), Some(&LIVE));
        let mut found = find_job::list_raw(link, &live, max).await?;
        let ended = self.with_states(filter, Some(&FINAL));
        found.extend(find_job::list_raw(link, &ended, FINAL_JOBS).await?);
        // A job that ended between the two requests is in both replies.
        found.sort_by_key(|job| std::cmp::Reverse(job["number"].as_i64()));
        found.dedup_by_key(|job| job["number"].as_i64());
        Ok(found)
    }

    fn filter(&self) -> anyhow::Result<Map<String, Value>> {
        let mut filter = Map::new();
        if let Some(queue) = &self.queue {
            filter.insert("queue".into(), json!(queue));
        }
        if let Some(name) = &self.name {
            filter.insert("name".into(), json!(name));
        }
        let mut labels = Map::new();
        for label in &self.labels {
            let Some((key, value)) = label.split_once('=') else {
                anyhow::bail!("--label {label}: write KEY=VALUE");
            };
            labels.insert(key.to_owned(), json!(value));
        }
        if !labels.is_empty() {
            filter.insert("labels".into(), Value::Object(labels));
        }
        Ok(filter)
    }

    fn with_states(&self, mut filter: Map<String, Value>, states: Option<&[&str]>) -> Value {
        match states {
            Some(states) => filter.insert("state".into(), json!(states)),
            None if self.states.is_empty() => None,
            None => filter.insert("state".into(), json!(self.states)),
        };
        Value::Object(filter)
    }

    /// The jobs as text, one line each below a headline; `width` is that of the terminal, `None` if
    /// stdout is not one.
    fn table(&self, jobs: &[ShownJob], now: DateTime<Utc>, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header([
            "NUMBER",
            "STATE",
            "JOB",
            "QUEUE",
            "SUBMITTED",
            "TIME",
            "EXIT",
        ]);
        table.add_rows(jobs.iter().map(|job| self.row(job, now)));
        if let Some(width) = width {
            table.set_width(width.max(WIDTH_MIN));
            table.set_content_arrangement(ContentArrangement::Dynamic);
            for column in table
                .column_iter_mut()
                .filter(|column| column.index != JOB_COLUMN)
            {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let mut lines = table.lines();
        let mut out = format!("{}\n", lines.next().unwrap_or_default().trim_end());
        for (line, job) in lines.zip(jobs) {
            let painted = self.print.paint(&job.state, &job.state);
            out.push_str(line.trim_end().replacen(&job.state, &painted, 1).as_str());
            out.push('\n');
        }
        out
    }

    fn row(&self, job: &ShownJob, now: DateTime<Utc>) -> Row {
        let clock = if self.utc { Clock::Utc } else { Clock::Local };
        let what = match &job.name {
            Some(name) => format!("{}: {}", visible(name), job.command()),
            None => job.command(),
        };
        let submitted = job.submitted_at.map(|at| times::short(at, now, clock));
        let time = job.run_seconds(now).map(duration::short);
        let mut row = Row::from([
            job.number.to_string(),
            visible(&job.state),
            what,
            visible(&job.queue),
            submitted.unwrap_or_default(),
            time.unwrap_or_default(),
            exit(job),
        ]);
        row.max_height(1);
        row
    }
}

/// Index of the column with the name and the command, the only one that is shortened.
const JOB_COLUMN: usize = 2;
/// Narrowest table, columns; a terminal that is narrower wraps its lines.
const WIDTH_MIN: u16 = 80;

/// How a job ended, short: the code, the signal, or the reason.
fn exit(job: &ShownJob) -> String {
    match (job.state.as_str(), job.reason.as_deref()) {
        ("failed", Some("exit_code")) | ("succeeded", _) => job
            .exit_code
            .map_or_else(String::new, |code| code.to_string()),
        ("failed", Some("signal")) => visible(job.signal.as_deref().unwrap_or("signal")),
        ("failed", Some("spawn")) => job
            .spawn_error
            .as_ref()
            .map_or_else(|| "spawn".to_owned(), |error| visible(&error.name)),
        ("failed", Some(reason)) => visible(reason),
        _ => String::new(),
    }
}

/// The width of the terminal on stdout, columns; `None` if stdout is no terminal.
fn width() -> Option<u16> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::render::job::sample;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        ls: LsArgs,
    }

    fn table(words: &[&str], jobs: &[ShownJob], width: Option<u16>) -> String {
        let words = std::iter::once(&"ls").chain(words);
        let args = Line::try_parse_from(words).expect("valid").ls;
        args.table(jobs, "2026-11-22T10:00:00Z".parse().expect("a time"), width)
    }

    fn two_jobs() -> [ShownJob; 2] {
        [
            sample(
                json!({"number": 7, "state": "running", "name": "bu\u{1b}[2Jild",
                "submitted_at": "2026-11-22T09:59:00Z", "started_at": "2026-11-22T09:59:30Z"}),
            ),
            sample(
                json!({"state": "failed", "reason": "exit_code", "exit_code": 3,
                "argv": ["sh", "-c", "a\nlong command that goes on and on and on and on and on"]}),
            ),
        ]
    }

    #[test]
    fn each_job_is_a_line_and_harmless() {
        let text = table(&["--color", "never"], &two_jobs(), None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for part in ["7", "running", "bu\\x1b[2Jild", "1m00s ago", "30s"] {
            assert!(lines[1].contains(part), "{text}");
        }
        for part in ["42", "failed", "a\\nlong", "3"] {
            assert!(lines[2].contains(part), "{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_narrow_terminal_shortens_the_command_alone() {
        let text = table(&["--color", "always", "--utc"], &two_jobs(), Some(80));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("2026-11-22T09:59:00Z"), "{text}");
        assert!(text.contains("\x1b[31mfailed\x1b[0m"), "{text}");
        assert!(!text.contains("and on and on and on and on"), "{text}");
    }

    #[test]
    fn filters_become_the_keys_of_the_question() {
        let words = [
            "ls", "--queue", "q", "--label", "k=v", "--name", "n", "--state", "failed",
        ];
        let args = Line::try_parse_from(words).expect("valid").ls;
        let filter = args.with_states(args.filter().expect("a filter"), None);
        assert_eq!(
            filter,
            json!({"queue": "q", "labels": {"k": "v"}, "name": "n", "state": ["failed"]})
        );
        assert!(Line::try_parse_from(["ls", "--state", "nope"]).is_err());
    }
}
