//! `schedule`: lists, sets, tries, pauses and deletes schedules.

use std::process::ExitCode;

use anyhow::bail;
use comfy_table::Table;
use serde_json::{Map, Value, json};

use super::{queue, submit};
use crate::{
    cli::{
        connect::{
            link::{self, Link, VersionNotice},
            target::{Connect, Target},
        },
        new_job::options::{GENERATED_KEY, JobOptions},
        render::{
            exit_code,
            job::ShownJob,
            print::{self, PrintOptions},
            time_zone, times,
        },
    },
    escape::visible,
    job::{JobSpec, Micros, Schedule, Timetable},
};

/// Options of `schedule`.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: Option<ScheduleCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum ScheduleCommand {
    /// List schedules; the same as `schedule` alone
    #[command(visible_alias = "list")]
    Ls,
    /// Create a schedule, or replace one; prints its next five times
    #[command(mut_args(hide_of_submissions))]
    Set(Box<ScheduleSettings>),
    /// Delete schedules; their jobs stay
    #[command(visible_alias = "delete")]
    Rm {
        /// Names of the schedules
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print the next five times of a cron expression; asks no server
    Next {
        /// minute hour day month weekday, such as "30 2 * * MON-FRI"; a sixth field before them is for seconds
        cron: String,

        /// Time zone of the IANA database [default: this shell's]
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
    },
    /// Submit a run now
    Run {
        /// Name of the schedule
        schedule: String,
    },
    /// Let a schedule not fire until `resume`; times in between are not made up for, and runs that wait
    /// already go on waiting
    Pause {
        /// Name of the schedule
        schedule: String,
    },
    /// Let a paused schedule fire again
    Resume {
        /// Name of the schedule
        schedule: String,
    },
}

#[derive(Debug, clap::Args)]
struct ScheduleSettings {
    /// Name of the schedule
    #[arg(value_name = "NAME")]
    schedule: String,

    /// minute hour day month weekday, such as "30 2 * * MON-FRI"; a sixth field before them is for seconds
    #[arg(long, help_heading = "Schedule")]
    cron: String,

    /// Time zone of the IANA database [default: this shell's]
    #[arg(long, value_name = "ZONE", help_heading = "Schedule")]
    timezone: Option<String>,

    /// What happens to a run while the one before it has not ended [default: skip]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "Schedule")]
    overlap: Option<OverlapOption>,

    /// Which of the times that were missed run afterwards [default: last]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "Schedule")]
    catch_up: Option<CatchUpOption>,

    /// Check everything and print the next times, but store nothing
    #[arg(long, help_heading = "Schedule")]
    dry_run: bool,

    #[command(flatten)]
    job: JobOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OverlapOption {
    /// It does not run.
    Skip,
    /// It waits for its end.
    Queue,
    /// The one before is cancelled.
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CatchUpOption {
    /// None.
    None,
    /// The newest one.
    Last,
    /// All, one after the other.
    All,
}

/// Leaves options out of the help that belong to a single submission: a schedule has no use for them, and the
/// server says why where one is given.
fn hide_of_submissions(option: clap::Arg) -> clap::Arg {
    let is_of_submissions = ["after", "at", "delay", "key"].contains(&option.get_id().as_str());
    option.hide(is_of_submissions)
}

/// Runs the subcommand; `ls` if there is none.
pub async fn schedule(args: ScheduleArgs) -> anyhow::Result<ExitCode> {
    if let Some(ScheduleCommand::Next { cron, timezone }) = &args.command {
        return next(cron, timezone.as_deref());
    }
    let target = args.connect.target()?;
    if let Some(ScheduleCommand::Set(settings)) = &args.command {
        return args.set(settings, target).await;
    }
    let mut link = link::open_always(target, VersionNotice::Always).await?;
    match &args.command {
        Some(ScheduleCommand::Rm { names }) => remove(&mut link, names).await,
        Some(ScheduleCommand::Run { schedule }) => args.run(&mut link, schedule).await,
        Some(ScheduleCommand::Pause { schedule }) => args.pause(&mut link, schedule, true).await,
        Some(ScheduleCommand::Resume { schedule }) => args.pause(&mut link, schedule, false).await,
        _ => args.list(&mut link).await,
    }
}

/// Prints the next times without a server.
fn next(cron: &str, timezone: Option<&str>) -> anyhow::Result<ExitCode> {
    let now = Micros(times::now().timestamp_micros());
    let zone = timezone.map_or_else(time_zone::of_this_process, str::to_owned);
    let timetable = match Timetable::read_new(cron, &zone, now) {
        Ok(timetable) => timetable,
        Err(refusal) => bail!("{refusal}"),
    };
    let mut text = format!("in {zone}:\n");
    for time in timetable.following(now, Schedule::NEXT_SHOWN) {
        text += &time_line(&timetable.show(time), &time.to_rfc3339());
    }
    print::page(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(link: &mut Link, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = exit_code::SUCCESS;
    for name in names {
        if let Err(error) = link
            .request("schedule.delete", &json!({"name": name}))
            .await
        {
            print::line(&format!("{name}: {error:#}"));
            code = exit_code::FAILURE;
        }
    }
    Ok(ExitCode::from(code))
}

impl ScheduleArgs {
    async fn set(&self, settings: &ScheduleSettings, target: Target) -> anyhow::Result<ExitCode> {
        let job = submit::describe(&settings.job, &target, JobSpec::QUEUE)?;
        let params = settings.params(job, time_zone::of_this_process);
        let mut link = link::open_always(target, VersionNotice::Always).await?;
        let schedule = link.request("schedule.set", &params).await?;
        self.show(&schedule)?;
        if settings.dry_run {
            print::line("nothing is stored (--dry-run)");
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn pause(&self, link: &mut Link, name: &str, pause: bool) -> anyhow::Result<ExitCode> {
        // A schedule that does not exist lacks `cron`: say what is meant.
        let known = queue::all(link, "schedule.list", "schedules").await?;
        if !known.iter().any(|schedule| schedule["name"] == name) {
            bail!("there is no schedule {name:?}");
        }
        let change = json!({"name": name, "paused": pause});
        let schedule = link.request("schedule.set", &change).await?;
        self.show(&schedule)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The key keeps a lost reply from making a second job.
    async fn run(&self, link: &mut Link, name: &str) -> anyhow::Result<ExitCode> {
        let key = uuid::Uuid::now_v7().to_string();
        let params = json!({"name": name, "key": key});
        let reply = link.request("schedule.run", &params).await?;
        if self.print.json {
            print::json(&reply)?;
        } else {
            let job = ShownJob::read(&reply["job"])?;
            print::page(&format!("{}\n", job.id))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn list(&self, link: &mut Link) -> anyhow::Result<ExitCode> {
        let schedules = queue::all(link, "schedule.list", "schedules").await?;
        if self.print.json {
            print::json(&Value::Array(schedules))?;
        } else if schedules.is_empty() {
            print::line_on_terminal("no schedules; `cc-executor schedule set` makes one");
        } else {
            print::page(&table(&schedules))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, schedule: &Value) -> anyhow::Result<()> {
        match self.print.json {
            true => print::json(schedule),
            false => print::page(&description(schedule)),
        }
    }
}

impl ScheduleSettings {
    fn params(&self, mut job: Map<String, Value>, own_zone: impl Fn() -> String) -> Value {
        let key = job.get("idempotency_key").and_then(Value::as_str);
        if key.is_some_and(|key| key.starts_with(GENERATED_KEY)) {
            job.remove("idempotency_key");
        }
        let overlap = self.overlap.map(|overlap| match overlap {
            OverlapOption::Skip => "skip",
            OverlapOption::Queue => "queue",
            OverlapOption::Replace => "replace",
        });
        let catch_up = self.catch_up.map(|catch_up| match catch_up {
            CatchUpOption::None => "none",
            CatchUpOption::Last => "last",
            CatchUpOption::All => "all",
        });
        json!({
            "name": self.schedule,
            "cron": self.cron,
            "timezone": self.timezone.clone().unwrap_or_else(own_zone),
            "overlap": overlap.unwrap_or("skip"),
            "catch_up": catch_up.unwrap_or("last"),
            "job": job,
            "dry_run": self.dry_run,
        })
    }
}

fn text<'a>(schedule: &'a Value, key: &str) -> &'a str {
    schedule[key].as_str().unwrap_or_default()
}

fn time_line(local: &str, utc: &str) -> String {
    let utc = utc.split('.').next().unwrap_or_default();
    format!("  {local}  {utc}Z\n")
}

/// A schedule with its next times.
fn description(schedule: &Value) -> String {
    let mut out = format!(
        "{}: {} in {}, overlap {}, catch-up {}{}\n",
        visible(text(schedule, "name")),
        visible(text(schedule, "cron")),
        visible(text(schedule, "timezone")),
        text(schedule, "overlap"),
        text(schedule, "catch_up"),
        if schedule["paused"] == true {
            ", paused"
        } else {
            ""
        },
    );
    for time in schedule["next"].as_array().into_iter().flatten() {
        out += &time_line(&visible(text(time, "local")), &visible(text(time, "at")));
    }
    out
}

/// Schedules as text, one line each below a headline.
fn table(schedules: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "SCHEDULE", "CRON", "ZONE", "NEXT", "LAST JOB", "RUNS", "SKIPPED", "STATE",
    ]);
    table.add_rows(schedules.iter().map(row));
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(schedule: &Value) -> [String; 8] {
    let number = |value: &Value| value.as_u64().map_or_else(String::new, |n| n.to_string());
    let waiting = schedule["waiting"].as_array().map_or(0, Vec::len);
    let state = match (schedule["paused"] == true, waiting) {
        (true, _) => "paused".to_owned(),
        (false, 0) => "on".to_owned(),
        (false, runs) => format!("on, {runs} waiting"),
    };
    let why = schedule["last_skip"]["reason"].as_str();
    let skipped = number(&schedule["skipped"]);
    [
        visible(text(schedule, "name")),
        visible(text(schedule, "cron")),
        visible(text(schedule, "timezone")),
        visible(text(&schedule["next"][0], "local")),
        number(&schedule["last"]["job"]),
        number(&schedule["runs"]),
        why.map_or(skipped.clone(), |why| {
            format!("{skipped} ({})", visible(why))
        }),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        schedule: ScheduleArgs,
    }

    fn params(words: &[&str]) -> Option<Value> {
        let words = ["schedule", "set"].iter().chain(words);
        match Line::try_parse_from(words).ok()?.schedule.command {
            Some(ScheduleCommand::Set(settings)) => {
                let job = settings.job.new_job(None, "default").expect("a job");
                Some(settings.params(job, || "Asia/Kathmandu".to_owned()))
            }
            _ => None,
        }
    }

    #[test]
    fn options_become_the_keys_of_a_schedule() {
        let least = params(&["nightly", "--cron", "0 2 * * *", "--", "make", "-j2"]);
        let expected = json!({"name": "nightly", "cron": "0 2 * * *", "overlap": "skip",
            "timezone": "Asia/Kathmandu", "catch_up": "last", "dry_run": false,
            "job": {"argv": ["make", "-j2"], "queue": "default"}});
        assert_eq!(least, Some(expected));
        let all = params(&[
            "n",
            "--cron",
            "@daily",
            "--timezone",
            "UTC",
            "--overlap",
            "replace",
            "--catch-up",
            "all",
            "--dry-run",
            "--queue",
            "q",
            "--name",
            "job",
            "--shell",
            "make",
        ]);
        let expected = json!({"name": "n", "cron": "@daily", "overlap": "replace",
            "timezone": "UTC", "catch_up": "all", "dry_run": true,
            "job": {"shell": "make", "queue": "q", "name": "job"}});
        assert_eq!(all, Some(expected));
        for wrong in [
            &["n", "--", "true"][..],
            &["n", "--cron", "@daily"],
            &["--cron", "@daily", "--overlap", "maybe", "n", "--", "true"],
        ] {
            assert_eq!(params(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn options_that_a_schedule_has_no_use_for_are_not_in_its_help() {
        use clap::CommandFactory;
        let mut line = Line::command();
        let set = line.find_subcommand_mut("set").expect("a subcommand");
        let help = set.render_long_help().to_string();
        for option in ["--after", "--at ", "--delay", "--key"] {
            assert!(!help.contains(option), "{option}: {help}");
        }
        for option in [
            "--retry",
            "--expect",
            "--exclusive",
            "--notify-url",
            "--cron",
        ] {
            assert!(help.contains(option), "{option}: {help}");
        }
        // One that is given is not lost: the server refuses it and says why.
        let given = params(&[
            "n", "--cron", "@daily", "--key", "k", "--after", "7", "--", "true",
        ]);
        let job = given.expect("read")["job"].clone();
        assert_eq!(job["idempotency_key"], "k");
        let refused = Schedule::check_job(job.as_object().expect("an object"));
        assert_eq!(refused.expect_err("refused").key(), "job.idempotency_key");
    }

    #[test]
    fn texts_are_harmless_and_have_both_times() {
        let schedule = json!({
            "name": "ni\u{1b}ghtly", "cron": "0 2 * * *", "timezone": "Europe/Berlin",
            "overlap": "skip", "catch_up": "last", "paused": false, "waiting": [], "runs": 3,
            "skipped": 1, "last": {"job": 7, "at": ""}, "last_skip": {"reason": "a\u{7}b"},
            "next": [{"local": "2026-12-01T02:00:00+01:00", "at": "2026-12-01T01:00:00.000000Z"}],
        });
        let text = description(&schedule);
        assert!(
            text.contains("2026-12-01T02:00:00+01:00  2026-12-01T01:00:00Z"),
            "{text}"
        );
        let page = table(&[schedule]);
        for part in [
            "ni\\x1bghtly",
            "1 (a\\x07b)",
            "2026-12-01T02:00:00+01:00",
            "7",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
