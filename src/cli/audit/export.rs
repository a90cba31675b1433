//! Exports the audit trail of a server: as lines that can be verified, or as events for a SIEM.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    audit::{
        ChainHead, ExportedEntry,
        canonical::canonical,
        chain::unhex,
        exported::{ExportedLine, PastKey, TrailBegin},
        ocsf,
    },
    cli::{
        connect::{
            find_job,
            link::{self, Link, StartPolicy, VersionNotice},
            target::Target,
        },
        render::export_output::ExportOutput,
    },
};

/// Entries of one request.
const PAGE: u64 = 1000;

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TrailFormat {
    /// Entries with their hashes
    #[default]
    Jsonl,
    /// Events of OCSF
    Ocsf,
}

/// Writes the trail up to where it ends when the export begins.
pub async fn export(
    target: Target,
    format: TrailFormat,
    since: Option<String>,
    (to, replaces): (Option<&Path>, bool),
) -> anyhow::Result<ExitCode> {
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let mut out = ExportOutput::open(to, replaces)?;
    let first = page(&mut link, &json!({"since": since, "limit": PAGE})).await?;
    let (last, mut head) = (first.last, first.after);
    let begin = ExportedLine::Begin(TrailBegin {
        after: head,
        key: first.key.clone(),
        is_part: since.is_some(),
    });
    write_line(&mut out, format, &begin)?;
    for past in past_keys(&mut link, head.seq).await? {
        write_line(&mut out, format, &ExportedLine::Key(past))?;
    }
    let mut page = Some(first);
    while let Some(TrailPage { entries, .. }) = page.take() {
        for (seq, entry, hash) in entries {
            if seq > last {
                break;
            }
            let prev = head.hash;
            head = ChainHead { seq, hash };
            let line = ExportedLine::Entry(ExportedEntry { entry, hash, prev });
            write_line(&mut out, format, &line)?;
        }
        if head.seq < last {
            let next = self::page(&mut link, &json!({"after": head.seq, "limit": PAGE})).await?;
            // Entries may be missing at the end; the next line of the file says where it ends.
            page = (!next.entries.is_empty()).then_some(next);
        }
    }
    write_line(&mut out, format, &ExportedLine::End(head))?;
    out.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The keys that were put in force before the entry `after`, and with it: they lead to the one in force there.
async fn past_keys(link: &mut Link, after: u64) -> anyhow::Result<Vec<PastKey>> {
    let (mut all, mut keys_after) = (Vec::new(), 0);
    while keys_after < after {
        let params = json!({"after": after, "keys_after": keys_after, "limit": PAGE});
        let reply = link.request("audit.read", &params).await?;
        let rows = reply["keys"].as_array().into_iter().flatten();
        let read = |row: &Value| {
            Some(PastKey {
                seq: row["seq"].as_u64()?,
                key: row["key"].as_str()?.parse().ok()?,
                signature: row["signature"].as_str().map(str::to_owned),
            })
        };
        let keys: Option<Vec<PastKey>> = rows.map(read).collect();
        let keys = keys.context("the server's answer to audit.read cannot be read")?;
        let Some(last) = keys.last() else { break };
        keys_after = last.seq;
        all.extend(keys);
    }
    Ok(all)
}

/// A reply of `audit.read`.
struct TrailPage {
    after: ChainHead,
    key: Option<String>,
    entries: Vec<(u64, String, [u8; 32])>,
    last: u64,
}

async fn page(link: &mut Link, params: &Value) -> anyhow::Result<TrailPage> {
    let reply = link.request("audit.read", params).await?;
    let read = || {
        let hash = |value: &Value| unhex(value.as_str()?);
        let entries = reply["entries"].as_array()?.iter().map(|row| {
            let entry = match &row["entry"] {
                Value::String(text) => text.clone(),
                entry => canonical(entry),
            };
            Some((row["seq"].as_u64()?, entry, hash(&row["hash"])?))
        });
        Some(TrailPage {
            after: ChainHead {
                seq: reply["after"].as_u64()?,
                hash: hash(&reply["hash"])?,
            },
            key: reply["key"].as_str().map(str::to_owned),
            entries: entries.collect::<Option<_>>()?,
            last: reply["last"].as_u64()?,
        })
    };
    read().context("the server's answer to audit.read cannot be read")
}

fn write_line(
    out: &mut ExportOutput,
    format: TrailFormat,
    line: &ExportedLine,
) -> anyhow::Result<()> {
    let text = match (format, line) {
        (TrailFormat::Jsonl, line) => line.text(),
        (TrailFormat::Ocsf, ExportedLine::Entry(exported)) => {
            let entry = serde_json::from_str(&exported.entry).unwrap_or_default();
            let hash = crate::audit::chain::hex(&exported.hash);
            ocsf::event(&entry, &exported.entry, &hash).to_string()
        }
        (TrailFormat::Ocsf, _) => return Ok(()),
    };
    out.write(text.as_bytes())?;
    out.write(b"\n")
}
