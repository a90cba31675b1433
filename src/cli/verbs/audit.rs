//! `audit`: exports the audit trail, and verifies one without a server.

use std::{path::PathBuf, process::ExitCode};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{
    audit::VerifierKey,
    cli::{
        audit::{
            export::{self, TrailFormat},
            verify::{self, VerifyRequest},
        },
        connect::{
            filter,
            target::{Connect, Target},
        },
        render::print::PrintOptions,
    },
};

/// Options of `audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`audit verify` needs no server and no network. It finds entries that were changed, put in, moved or \
removed. Only checkpoints show that the end was cut off, that an older copy was put back, or that the \
whole trail was written anew: a server makes them with --audit-checkpoints, and they must be kept where \
the server's user cannot change them. A checkpoint that no key of the trail has signed says nothing.

Exit code of `audit verify`: 0 when nothing is wrong and, if checkpoints are given, they confirm the \
trail; else 1. Each finding is a line on stdout. A file of `audit export --since` is accepted with \
--part only: nothing in it shows that its beginning was not removed.")]
pub struct AuditArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// Write the trail, one JSON object a line
    Export(ExportOptions),
    /// Verify an exported trail, or that of a data directory
    Verify(VerifyOptions),
}

#[derive(Debug, clap::Args)]
struct ExportOptions {
    /// Format: jsonl can be verified, ocsf is for a SIEM
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: TrailFormat,

    /// Only entries of the last TIME (2h, 30d), or since a time in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = filter::moment)]
    since: Option<DateTime<Utc>>,

    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace FILE if it exists
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct VerifyOptions {
    /// The trail, as `audit export` wrote it; without it, the trail in the data directory is read
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Compare with the checkpoints in this file; may be given several times
    #[arg(long, value_name = "FILE")]
    checkpoints: Vec<PathBuf>,

    /// Accept only this key, and those that it leads to; may be given several times
    #[arg(long, value_name = "KEY")]
    key: Vec<VerifierKey>,

    /// FILE is a part of a trail, exported with --since
    #[arg(long, requires = "file")]
    part: bool,
}

/// Runs the subcommand.
pub async fn audit(args: AuditArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        AuditCommand::Export(options) => {
            let since = options
                .since
                .map(|since| since.to_rfc3339_opts(SecondsFormat::Micros, true));
            export::export(
                args.connect.target()?,
                options.format,
                since,
                (options.output.as_deref(), options.force),
            )
            .await
        }
        AuditCommand::Verify(options) => {
            let named = args.connect.data_dir().is_some() || options.file.is_none();
            let layout = match args.connect.target()? {
                Target::Local(layout) if named => Some(layout),
                _ => None,
            };
            let request = VerifyRequest {
                file: options.file,
                checkpoints: options.checkpoints,
                keys: options.key,
                part: options.part,
                layout,
            };
            verify::verify(request, &args.print).await
        }
    }
}
