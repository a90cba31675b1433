//! `ls`: live jobs and the last ten final ones, or all that match the filters, newest first.

use std::{collections::BTreeMap, io::IsTerminal, process::ExitCode};

use chrono::{DateTime, Utc};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table};
use serde_json::{Value, json};

use super::queue;
use crate::{
    cli::{
        connect::{
            disk_notice,
            filter::JobFilter,
            find_job::{self, FINAL, LIVE},
            link::{self, Link, StartPolicy, VersionNotice},
            target::Connect,
        },
        render::{
            duration, graph,
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

    #[command(flatten)]
    filter: JobFilter,

    /// All jobs, however old
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// At most this many jobs, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Show times in UTC instead of how long ago they were
    #[arg(long)]
    utc: bool,

    /// Draw the jobs below those that they wait or have waited for
    #[arg(long, conflicts_with = "json")]
    graph: bool,
}

/// Lists jobs.
pub async fn ls(args: LsArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let mut link = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?;
    let found = match &mut link {
        Some(link) => args.find(link).await?,
        None => Vec::new(),
    };
    if args.print.json {
        print::json(&Value::Array(found))?;
    } else {
        let pauses = match &mut link {
            Some(link) if found.iter().any(|job| job["state"] == "queued") => pauses(link).await?,
            _ => Pauses::new(),
        };
        args.print(&found, &pauses)?;
    }
    if let Some(link) = &mut link {
        disk_notice::print_if_due(link).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Queues that are paused, and what is said about it.
type Pauses = BTreeMap<String, String>;

async fn pauses(link: &mut Link) -> anyhow::Result<Pauses> {
    let queues = queue::all(link, "queue.list", "queues").await?;
    let pause = |queue: &Value| Some((queue["queue"].as_str()?.to_owned(), queue::pause(queue)?));
    Ok(queues.iter().filter_map(pause).collect())
}

impl LsArgs {
    fn print(&self, found: &[Value], pauses: &Pauses) -> anyhow::Result<()> {
        let found: Vec<ShownJob> = found.iter().map(ShownJob::read).collect::<Result<_, _>>()?;
        if found.is_empty() {
            print::line_on_terminal("no jobs; `cc-executor run -- COMMAND` runs one");
            return Ok(());
        }
        if self.graph {
            return print::page(&graph::draw(&found));
        }
        print::out(self.table(&found, pauses, times::now(), width()).as_bytes())
    }

    async fn find(&self, link: &mut Link) -> anyhow::Result<Vec<Value>> {
        let max = self.limit.unwrap_or(usize::MAX);
        if self.all || self.limit.is_some() || !self.filter.states.is_empty() {
            let filter = Value::Object(self.filter.all_keys()?);
            return find_job::list_raw(link, &filter, max).await;
        }
        let mut filter = Value::Object(self.filter.keys()?);
        filter["state"] = json!(LIVE);
        let mut found = find_job::list_raw(link, &filter, max).await?;
        filter["state"] = json!(FINAL);
        found.extend(find_job::list_raw(link, &filter, FINAL_JOBS).await?);
        // A job that ended between the two requests is in both replies.
        found.sort_by_key(|job| std::cmp::Reverse(job["number"].as_i64()));
        found.dedup_by_key(|job| job["number"].as_i64());
        Ok(found)
    }

    /// The jobs as text, one line each below a headline; `width` is that of the terminal, `None` if
    /// stdout is not one.
    fn table(
        &self,
        jobs: &[ShownJob],
        pauses: &Pauses,
        now: DateTime<Utc>,
        width: Option<u16>,
    ) -> String {
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
        table.add_rows(jobs.iter().map(|job| self.row(job, pauses, now)));
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

    fn row(&self, job: &ShownJob, pauses: &Pauses, now: DateTime<Utc>) -> Row {
        let clock = if self.utc { Clock::Utc } else { Clock::Local };
        let what = match &job.name {
            Some(name) => format!("{}: {}", visible(name), job.command()),
            None => job.command(),
        };
        let submitted = job.submitted_at.map(|at| times::short(at, now, clock));
        let time = job.run_seconds(now).map(duration::short);
        let waits = match (job.state.as_str(), job.waits_until) {
            ("queued", _) => pauses.get(&job.queue).map(|pause| format!("queue {pause}")),
            ("scheduled", Some(until)) => {
                let begins = if job.started_at.is_some() {
                    "again"
                } else {
                    "starts"
                };
                Some(format!("{begins} {}", times::short(until, now, clock)))
            }
            _ => None,
        };
        let mut row = Row::from([
            job.number.to_string(),
            visible(&job.state),
            what,
            visible(&job.queue),
            submitted.unwrap_or_default(),
            time.unwrap_or_default(),
            waits.unwrap_or_else(|| exit(job)),
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
        let pauses = Pauses::from([("builds".to_owned(), "paused: a disk is replaced".to_owned())]);
        args.table(
            jobs,
            &pauses,
            "2026-11-22T10:00:00Z".parse().expect("a time"),
            width,
        )
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
    fn a_job_that_waits_in_a_paused_queue_says_so() {
        let jobs = ["queued", "running"]
            .map(|state| sample(json!({"state": state, "queue": "builds", "argv": ["true"]})));
        let text = table(&["--color", "never"], &jobs, None);
        let said = text
            .lines()
            .map(|line| line.contains("queue paused: a disk is replaced"));
        assert_eq!(said.collect::<Vec<_>>(), [false, true, false], "{text}");
    }

    #[test]
    fn a_job_that_waits_for_a_time_says_when() {
        let jobs = [json!(null), json!("2026-11-22T09:00:00Z")].map(|started| {
            sample(
                json!({"state": "scheduled", "started_at": started, "argv": ["true"],
                "waits_until": "2026-11-22T10:02:05Z"}),
            )
        });
        let text = table(&["--color", "never"], &jobs, None);
        let ends: Vec<_> = text.lines().map(str::trim_end).collect();
        assert!(ends[1].ends_with("starts in 2m05s"), "{text}");
        assert!(ends[2].ends_with("again in 2m05s"), "{text}");
        let text = table(&["--color", "never", "--utc"], &jobs, None);
        assert!(text.contains("starts 2026-11-22T10:02:05Z"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_shortens_the_command_alone() {
        let text = table(&["--color", "always", "--utc"], &two_jobs(), Some(80));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("2026-11-22T09:59:00Z"), "{text}");
        assert!(text.contains("\x1b[31mfailed\x1b[0m"), "{text}");
        assert!(!text.contains("and on and on and on and on"), "{text}");
    }
}
