//! Verifies an exported trail, or that of a data directory, and prints what is wrong.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::data_dir::DataDirTrail;
use crate::{
    audit::{
        Checkpoint, TrailEvidence, TrailFileCheck, VerifierKey,
        chain::hex,
        checkpoint::ORIGIN,
        evidence::{TrailReport, TrailStart, TrailVerdict},
    },
    cli::render::{
        exit_code,
        print::{self, PrintOptions},
    },
    escape::visible,
    spool::Layout,
};

/// What is verified, and against what.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The exported trail; `None`: that of the data directory.
    pub file: Option<PathBuf>,
    /// Files of checkpoints.
    pub checkpoints: Vec<PathBuf>,
    /// The keys that are accepted; empty: the first one of the trail.
    pub keys: Vec<VerifierKey>,
    /// Whether a file may be a part of a trail.
    pub part: bool,
    /// The data directory to compare with.
    pub layout: Option<Layout>,
}

/// Verifies, and prints each finding on a line.
pub async fn verify(request: VerifyRequest, print: &PrintOptions) -> anyhow::Result<ExitCode> {
    let evidence = TrailEvidence {
        checkpoints: read_checkpoints(&request.checkpoints)?,
        keys: request.keys,
        part: request.part,
    };
    let mut data_dir = match &request.layout {
        Some(layout) => Some(DataDirTrail::open(layout).await?),
        None => None,
    };
    let report = match (&request.file, &mut data_dir) {
        (Some(file), data_dir) => {
            let mut check = read_file(file, evidence, data_dir)?;
            if let Some(data_dir) = data_dir {
                let head = check.end().unwrap_or_default();
                for finding in data_dir.compare_with_file(head).await? {
                    check.find(finding);
                }
            }
            check.finish()
        }
        (None, Some(data_dir)) => data_dir.verify(evidence).await?,
        (None, None) => bail!("name a FILE that `audit export` wrote, or a --data-dir"),
    };
    show(&report, print)
}

fn read_checkpoints(files: &[PathBuf]) -> anyhow::Result<Vec<Checkpoint>> {
    let mut all = Vec::new();
    for file in files {
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = Checkpoint::all(&String::from_utf8_lossy(&bytes));
        if found.is_empty() {
            bail!("{} holds no checkpoints of an audit trail", file.display());
        }
        all.extend(found);
    }
    Ok(all)
}

/// Reads and verifies the lines of a file.
fn read_file(
    path: &Path,
    evidence: TrailEvidence,
    data_dir: &mut Option<DataDirTrail>,
) -> anyhow::Result<TrailFileCheck> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = BufReader::new(File::open(path).with_context(unreadable)?);
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        file.read_until(b'\n', line).with_context(unreadable)
    };
    next(&mut line)?;
    let Some(mut check) = TrailFileCheck::begin(&line, evidence) else {
        bail!(
            "{} is no audit trail that `audit export --format jsonl` wrote, or its first line was changed",
            path.display()
        );
    };
    while next(&mut line)? > 0 {
        let entry = check.add(&line);
        if let (Some(data_dir), Some(entry)) = (data_dir.as_mut(), entry) {
            data_dir.collect(&entry);
        }
    }
    Ok(check)
}

fn show(report: &TrailReport, print: &PrintOptions) -> anyhow::Result<ExitCode> {
    if print.json {
        print::json(&view(report))?;
    } else {
        print::page(&page(report))?;
    }
    Ok(match report.verdict() {
        TrailVerdict::Intact => ExitCode::SUCCESS,
        TrailVerdict::Unconfirmed | TrailVerdict::Refuted => ExitCode::from(exit_code::FAILURE),
    })
}

fn view(report: &TrailReport) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| json!({"seq": finding.seq, "what": finding.what}))
        .collect();
    let confirmation = &report.confirmation;
    let foreign: usize = confirmation.foreign.values().sum();
    json!({
        "verdict": report.verdict().name(),
        "intact": report.verdict() == TrailVerdict::Intact,
        "after": report.begin.seq,
        "after_hash": hex(&report.begin.hash),
        "is_part": report.start == TrailStart::Part,
        "pruned_by": match report.start {
            TrailStart::Pruned { by } => Some(by),
            _ => None,
        },
        "last": report.head.seq,
        "hash": hex(&report.head.hash),
        "first_key": report.first_key.as_ref().map(ToString::to_string),
        "is_key_named": report.is_key_named,
        "checkpoints": confirmation.confirming,
        "checkpoints_before": confirmation.before,
        "checkpoints_foreign": foreign + confirmation.foreign_more,
        "last_checkpoint": confirmation.through(),
        "last_checkpoint_at": confirmation.last.as_ref().map(|last| &last.at),
        "unconfirmed": report.unconfirmed,
        "findings": findings,
        "more": report.more,
    })
}

fn page(report: &TrailReport) -> String {
    let mut page: String = report
        .findings
        .iter()
        .map(|finding| format!("{}\n", visible(&finding.to_string())))
        .collect();
    if report.more > 0 {
        page += &format!("{} more findings\n", report.more);
    }
    if let Some(why) = &report.unconfirmed {
        page += &format!("{}\n", visible(why));
    }
    let (before, first, last) = (report.begin.seq, report.begin.seq + 1, report.head.seq);
    let verdict = match report.verdict() {
        TrailVerdict::Intact => "intact",
        TrailVerdict::Unconfirmed => "NOT confirmed",
        TrailVerdict::Refuted => "NOT intact",
    };
    page += &match last > before {
        true => format!("{verdict}: entries {first} to {last}\n"),
        false => format!("{verdict}: no entries\n"),
    };
    page += &match report.start {
        TrailStart::Whole => String::new(),
        TrailStart::Part => format!("it is a part: it does not hold entries 1 to {before}\n"),
        TrailStart::Pruned { by } => {
            format!("entries 1 to {before} were pruned, as entry {by} says\n")
        }
        TrailStart::Missing => format!("it does not hold entries 1 to {before}\n"),
    };
    if let Some(key) = &report.first_key {
        let word = match report.is_key_named {
            true => "",
            false => " (the trail's own word: name the key that you have noted with --key)",
        };
        page += &format!("first key: {}{word}\n", visible(&key.to_string()));
    }
    page + &checkpoints_page(report)
}

/// Which entries the checkpoints confirm, and which they do not.
fn checkpoints_page(report: &TrailReport) -> String {
    let confirmation = &report.confirmation;
    if confirmation.given == 0 {
        return "without checkpoints nothing confirms it: a cut end, an older copy or a trail that was written anew is \
                not found\n"
            .to_owned();
    }
    let (first, last) = (report.begin.seq + 1, report.head.seq);
    let mut page = match &confirmation.last {
        Some(checkpoint) if checkpoint.head.seq >= first => {
            let through = checkpoint.head.seq;
            let rest = match last > through {
                true => format!("; none confirms entries {} to {last}", through + 1),
                false => String::new(),
            };
            format!(
                "{} checkpoints confirm it, the last one of {} up to entry {through}{rest}\n",
                confirmation.confirming,
                visible(&checkpoint.at),
            )
        }
        Some(_) | None => "no checkpoint confirms it\n".to_owned(),
    };
    if confirmation.before > 0 {
        page += &format!(
            "{} checkpoints are of entries before it\n",
            confirmation.before
        );
    }
    for (instance, count) in &confirmation.foreign {
        let own = report.first_key.as_ref().map(|key| &key.name);
        let whose = match own.is_some_and(|own| own.strip_prefix(ORIGIN) == Some(instance.as_str()))
        {
            true => "; if its server has made them, its end was cut off or its key was lost",
            false => "",
        };
        page += &format!(
            "{count} checkpoints of instance {} are not signed by a key of this trail: they say nothing about it{whose}\n",
            visible(instance)
        );
    }
    if confirmation.foreign_more > 0 {
        page += &format!(
            "{} checkpoints of further instances are not signed by a key of this trail\n",
            confirmation.foreign_more
        );
    }
    page
}
