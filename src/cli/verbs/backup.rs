//! `backup`: asks the server to copy its data directory while jobs run.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            link::{self, VersionNotice},
            target::{Connect, Target},
        },
        render::print::{self, PrintOptions},
    },
    escape::visible,
};

/// Options of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The backup is a complete data directory. To restore it, put it in place and start a server there: \
`cc-executor serve --data-dir DEST`. That server runs the jobs that wait in the backup, too; jobs \
that were running are `lost` there. The token is not in the backup. Exit code: 0 when the backup is \
complete, else 1.")]
pub struct BackupArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    /// Path of the backup; it must not exist yet
    #[arg(value_name = "DEST")]
    dest: PathBuf,
}

/// Makes the backup.
pub async fn backup(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let to = match &target {
        Target::Local(_) => std::path::absolute(&args.dest)?,
        Target::Remote { .. } if args.dest.is_absolute() => args.dest.clone(),
        Target::Remote { .. } => {
            bail!("DEST is on the server's machine: give an absolute path")
        }
    };
    let to = to.to_str().context("DEST must be valid UTF-8")?.to_owned();
    let mut link = link::open_always(target, VersionNotice::Always).await?;
    match link
        .try_request("server.backup", &json!({"to": to}))
        .await?
    {
        Some(made) if args.print.json => print::json(&made)?,
        Some(made) => print::page(&format!("{}\n", line(&made)))?,
        None => bail!(
            "the server went away before the backup was complete; remove {to}.partial, if it is \
             there, and try again"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn line(made: &Value) -> String {
    let number = |key: &str| made[key].as_u64().unwrap_or(0);
    let jobs = match number("jobs") {
        1 => "1 job".to_owned(),
        jobs => format!("{jobs} jobs"),
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let shared = match number("shared_bytes") {
        0 => String::new(),
        bytes => format!(" ({:.1} MiB of them shared with the original)", mib(bytes)),
    };
    let missing = match number("missing_segments") {
        0 => String::new(),
        count => format!("; {count} segments are missing, in the original too"),
    };
    format!(
        "{}: {jobs}, {:.1} MiB{shared}, {:.1} s{missing}",
        visible(made["path"].as_str().unwrap_or_default()),
        mib(number("bytes")),
        number("elapsed_ms") as f64 / 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_was_made() {
        let made = json!({"path": "/b", "jobs": 12, "bytes": 3 << 20, "shared_bytes": 0,
            "missing_segments": 0, "elapsed_ms": 250});
        assert_eq!(line(&made), "/b: 12 jobs, 3.0 MiB, 0.2 s");
        let made = json!({"path": "/b", "jobs": 1, "bytes": 3 << 20, "shared_bytes": 1 << 20,
            "missing_segments": 2, "elapsed_ms": 0});
        let expected = "/b: 1 job, 3.0 MiB (1.0 MiB of them shared with the original), 0.0 s; 2 \
            segments are missing, in the original too";
        assert_eq!(line(&made), expected);
    }
}
