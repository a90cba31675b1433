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
        ChainHead, Checkpoint, TrailCheck, TrailFinding, VerifierKey,
        chain::hex,
        exported::ExportedLine,
        trail::{TrailReport, TrailRow},
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
    /// The data directory to compare with.
    pub layout: Option<Layout>,
}

/// Verifies, and prints each finding on a line.
pub async fn verify(request: VerifyRequest, print: &PrintOptions) -> anyhow::Result<ExitCode> {
    let checkpoints = read_checkpoints(&request.checkpoints)?;
    let count = checkpoints.len();
    let mut data_dir = match &request.layout {
        Some(layout) => Some(DataDirTrail::open(layout).await?),
        None => None,
    };
    let report = match (&request.file, &mut data_dir) {
        (Some(file), data_dir) => {
            let (mut check, end) = read_file(file, checkpoints, request.keys, data_dir)?;
            if let Some(data_dir) = data_dir {
                let head = end.unwrap_or_default();
                for finding in data_dir.compare_with_file(head).await? {
                    check.find(finding);
                }
            }
            check.finish(end)
        }
        (None, Some(data_dir)) => data_dir.verify(checkpoints, request.keys).await?,
        (None, None) => bail!("name a FILE that `audit export` wrote, or a --data-dir"),
    };
    show(&report, count, print)
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

/// Reads and verifies the lines of a file; also returns where it says that the trail ends.
fn read_file(
    path: &Path,
    checkpoints: Vec<Checkpoint>,
    keys: Vec<VerifierKey>,
    data_dir: &mut Option<DataDirTrail>,
) -> anyhow::Result<(TrailCheck, Option<ChainHead>)> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable)?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().transpose().with_context(unreadable)?;
    let Some(ExportedLine::Begin(begin)) = first.as_deref().and_then(ExportedLine::read) else {
        bail!(
            "{} is no audit trail that `audit export --format jsonl` wrote, or its first line was changed",
            path.display()
        );
    };
    let (mut check, mut end) = (TrailCheck::new(begin, checkpoints, keys), None);
    for (at, line) in lines.enumerate() {
        let line = line.with_context(unreadable)?;
        if end.is_some() {
            check.find(TrailFinding::general("something follows the last line"));
        }
        match ExportedLine::read(&line) {
            Some(ExportedLine::Entry(exported)) => {
                let entry = check.add(TrailRow {
                    seq: None,
                    entry: &exported.entry,
                    hash: exported.hash,
                    prev: Some(exported.prev),
                });
                if let (Some(data_dir), Some(entry)) = (data_dir.as_mut(), entry) {
                    data_dir.collect(&entry);
                }
            }
            Some(ExportedLine::End(head)) => end = Some(head),
            Some(ExportedLine::Begin(_)) | None => {
                let what = format!(
                    "line {} is not as an export writes it: it was changed",
                    at + 2
                );
                check.find(TrailFinding::general(what));
            }
        }
    }
    if end.is_none() {
        check.find(TrailFinding::general(
            "the file has no last line: it was cut off",
        ));
    }
    Ok((check, end))
}

fn show(
    report: &TrailReport,
    checkpoints: usize,
    print: &PrintOptions,
) -> anyhow::Result<ExitCode> {
    let is_intact = report.findings.is_empty();
    if print.json {
        print::json(&view(report))?;
    } else {
        print::page(&page(report, checkpoints))?;
    }
    Ok(match is_intact {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit_code::FAILURE),
    })
}

fn view(report: &TrailReport) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| json!({"seq": finding.seq, "what": finding.what}))
        .collect();
    json!({
        "intact": findings.is_empty(),
        "after": report.begin.seq,
        "last": report.head.seq,
        "hash": hex(&report.head.hash),
        "first_key": report.first_key.as_ref().map(ToString::to_string),
        "checkpoints": report.confirmed,
        "checkpoints_before": report.not_covered,
        "last_checkpoint": report.last_confirmed.as_ref().map(|last| last.head.seq),
        "findings": findings,
        "more": report.more,
    })
}

fn page(report: &TrailReport, checkpoints: usize) -> String {
    let mut page: String = report
        .findings
        .iter()
        .map(|finding| format!("{}\n", visible(&finding.to_string())))
        .collect();
    if report.more > 0 {
        page += &format!("{} more findings\n", report.more);
    }
    page += &format!(
        "{}: entries {} to {}\n",
        if report.findings.is_empty() {
            "intact"
        } else {
            "NOT intact"
        },
        report.begin.seq + 1,
        report.head.seq,
    );
    if let Some(key) = &report.first_key {
        page += &format!("first key: {}\n", visible(&key.to_string()));
    }
    page += &match (checkpoints, &report.last_confirmed) {
        (0, _) => {
            "without checkpoints: a cut end, an older copy or a trail that was written anew is not \
                   found\n"
                .to_owned()
        }
        (_, None) => "no checkpoint confirms it\n".to_owned(),
        (_, Some(last)) => format!(
            "{} checkpoints confirm it, the last one of {} up to entry {}\n",
            report.confirmed,
            visible(&last.at),
            last.head.seq
        ),
    };
    page
}
