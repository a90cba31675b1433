//! What a run says in the end: a table when all went well, and for a failure the seed and both
//! histories of the jobs concerned, the clients' and the server's.

use std::{collections::BTreeMap, fmt::Write};

use crate::harness::Server;
use crate::{
    checks::Violation,
    evidence::Evidence,
    facts::Facts,
    history::{Entry, What},
    kills::Tally,
    plan::Key,
    rows::{self, EventRow},
    settings::Settings,
};

/// Jobs whose histories a failure prints.
const JOBS_TOLD: usize = 4;
/// Lines of each history.
const LINES_TOLD: usize = 120;
/// Violations that are printed.
const VIOLATIONS_TOLD: usize = 40;

/// What a run has done.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub tally: Tally,
    pub ends: BTreeMap<String, u32>,
    /// Of whole outputs, with what the jobs must have written.
    pub bytes_of_outputs: u64,
    /// Shown to readers, with what stands there in the end.
    pub bytes_shown: u64,
    pub untouched: usize,
    pub deleted: usize,
    pub voids: usize,
    /// What was waited for, and how often.
    pub waits: Vec<(&'static str, usize)>,
    pub violations: usize,
}

/// The table of a run, in Markdown.
pub fn table(settings: &Settings, evidence: &Evidence, figures: &Figures) -> String {
    let mut text = String::from("| what | how much |\n| --- | --- |\n");
    let mut row = |what: &str, how_much: String| {
        let _ = writeln!(text, "| {what} | {how_much} |");
    };
    row("seed", settings.seed.to_string());
    row(
        "length of the load",
        format!("{:.1} min", settings.length.as_secs_f64() / 60.0),
    );
    row("kills of servers", figures.tally.servers.to_string());
    let (shims, busy) = (figures.tally.shims, figures.tally.busy_shims);
    row(
        "kills of shims",
        format!("{shims} ({busy} of them with a job)"),
    );
    for (kind, count) in &figures.tally.by_kind {
        row(&format!("· {}", kind.name()), count.to_string());
    }
    row("jobs acknowledged", evidence.plans.len().to_string());
    row(
        "· that no kill of a shim, cancel or signal touched",
        figures.untouched.to_string(),
    );
    for (end, count) in &figures.ends {
        row(&format!("· {end}"), count.to_string());
    }
    row("· deleted", figures.deleted.to_string());
    row(
        "claims that never started (`void`)",
        figures.voids.to_string(),
    );
    for (what, count) in &figures.waits {
        row(what, count.to_string());
    }
    row(
        "output compared with what was written",
        megabytes(figures.bytes_of_outputs),
    );
    row(
        "shown to readers, compared with what is there",
        megabytes(figures.bytes_shown),
    );
    row("readers", evidence.readers().len().to_string());
    let ready = times(evidence, |what| match what {
        What::Ready { after_us } => Some(*after_us),
        _ => None,
    });
    row("from a server's start to its ready line", ready);
    let progress = times(evidence, |what| match what {
        What::Progress { after_us } => Some(*after_us),
        _ => None,
    });
    row(
        "from a server's start to the first reader's progress",
        progress,
    );
    row("violations", figures.violations.to_string());
    text
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn times(evidence: &Evidence, of: impl Fn(&What) -> Option<u64>) -> String {
    let mut all: Vec<u64> = evidence
        .entries
        .iter()
        .filter_map(|entry| of(&entry.what))
        .collect();
    all.sort_unstable();
    let at = |share: usize| {
        all.get(all.len() * share / 100)
            .or(all.last())
            .map_or(0, |us| us / 1000)
    };
    format!(
        "median {} ms, 99 % within {} ms, longest {} ms",
        at(50),
        at(99),
        at(100)
    )
}

/// Counts how the jobs ended.
pub fn ends(last: &BTreeMap<Key, Facts>) -> BTreeMap<String, u32> {
    let mut ends = BTreeMap::new();
    for facts in last.values() {
        *ends.entry(facts.word()).or_default() += 1;
    }
    ends
}

/// Counts what jobs have waited for.
pub fn waits(evidence: &Evidence) -> Vec<(&'static str, usize)> {
    let plans = || evidence.plans.values();
    let dependencies = plans().map(|plan| plan.waiting.after.len()).sum();
    let events = |is_one: fn(&EventRow) -> bool| {
        let events = evidence.rows.events.iter();
        events.filter(|event| is_one(event)).count()
    };
    let exclusive = plans().filter(|it| it.waiting.exclusive.is_some());
    vec![
        ("dependencies", dependencies),
        (
            "· jobs that waited for one",
            events(|it| it.to == "blocked"),
        ),
        (
            "· jobs that waited for a time first",
            events(|it| it.to == "scheduled" && !it.is_retry()),
        ),
        (
            "failed attempts that were tried again",
            events(EventRow::is_retry),
        ),
        (
            "lost attempts that were tried again",
            events(|it| it.to == "queued" && it.reason == "lost"),
        ),
        ("notices sent", evidence.deliveries.len()),
        ("changes of schedules", evidence.schedule_changes()),
        ("runs of schedules", evidence.rows.runs.len()),
        ("jobs with an exclusive key", exclusive.count()),
    ]
}

/// What a failure prints.
pub fn failure(
    settings: &Settings,
    evidence: &Evidence,
    violations: &[Violation],
    server: &Server,
) -> String {
    let mut text = format!(
        "{} violations; again: {}\n",
        violations.len(),
        settings.again()
    );
    for violation in violations.iter().take(VIOLATIONS_TOLD) {
        let job = violation
            .job
            .map_or("-".to_owned(), |job| format!("job {job}"));
        let _ = writeln!(
            text,
            "- {} ({job}): {:.2000}",
            violation.check, violation.what
        );
    }
    // The first of each checker.
    let mut jobs: BTreeMap<&str, Key> = BTreeMap::new();
    for violation in violations {
        if let Some(job) = violation.job {
            jobs.entry(violation.check).or_insert(job);
        }
    }
    for job in jobs.into_values().take(JOBS_TOLD) {
        text += &histories(evidence, job, server);
    }
    text
}

/// The clients' history of a job with the blows that fell meanwhile, and the server's.
fn histories(evidence: &Evidence, key: Key, server: &Server) -> String {
    let of_it = |entry: &&Entry| entry.job == Some(key);
    let mut times = evidence
        .entries
        .iter()
        .filter(of_it)
        .map(|entry| entry.at_us);
    let first = times.next().unwrap_or(0);
    let last = times.next_back().unwrap_or(first);
    let near = |entry: &&Entry| {
        let is_near = (first.saturating_sub(200_000)..last + 200_000).contains(&entry.at_us);
        entry.job == Some(key) || entry.job.is_none() && is_near && is_blow(&entry.what)
    };
    let lines: Vec<String> = evidence
        .entries
        .iter()
        .filter(near)
        .map(|entry| {
            format!(
                "  {:>12} {:?}",
                entry.at_us as i64 - first as i64,
                entry.what
            )
        })
        .collect();
    let number = evidence
        .rows
        .jobs
        .iter()
        .find(|row| row.key() == Some(key))
        .map(|row| row.number);
    // Logs that go to no terminal are JSON.
    let word = format!("\"job\":{},", number.unwrap_or(0));
    let said = server.said();
    let said: Vec<&str> = said.lines().filter(|line| line.contains(&word)).collect();
    format!(
        "\n=== job {key} (number {number:?}), microseconds since it was submitted\n{}\n--- database\n{}--- log\n{}\n",
        shortened(&lines).join("\n"),
        rows::tell(&server.data_dir(), key),
        said.into_iter()
            .take(LINES_TOLD)
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

fn is_blow(what: &What) -> bool {
    matches!(
        what,
        What::Blow { .. } | What::Launched | What::Ready { .. }
    )
}

/// The beginning and the end of a long list.
fn shortened(lines: &[String]) -> Vec<String> {
    if lines.len() <= 2 * LINES_TOLD {
        return lines.to_vec();
    }
    let left_out = format!("  … {} lines …", lines.len() - 2 * LINES_TOLD);
    [
        &lines[..LINES_TOLD],
        &[left_out],
        &lines[lines.len() - LINES_TOLD..],
    ]
    .concat()
}
