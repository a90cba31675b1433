//! `prune`: removes final jobs by filters and bounds, or their output alone; without `--yes` it only
//! says what would be removed.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::{
    connect::{
        filter::JobFilter,
        keep::KeepOptions,
        link::{self, StartPolicy, VersionNotice},
        target::Connect,
    },
    render::{
        print::{self, PrintOptions},
        size,
    },
};

/// The most jobs that are listed for people.
const LISTED: usize = 20;

/// Options of `prune`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only jobs that have ended are removed; their events stay in the history. Without --yes nothing is \
removed, and what would be is said. With --outputs the jobs stay, and readers get a gap `retention` \
where the output was. Exit code: 0, also when there is nothing to remove; 1 when it fails.")]
pub struct PruneArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(flatten)]
    filter: JobFilter,

    #[command(flatten)]
    keep: KeepOptions,

    /// Remove only the output; the jobs stay
    #[arg(long)]
    outputs: bool,

    /// Say what would be removed; this is the default
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    /// Remove it
    #[arg(long)]
    yes: bool,
}

/// Removes the jobs, or says which.
pub async fn prune(args: PruneArgs) -> anyhow::Result<ExitCode> {
    let mut params = args.filter.all_keys()?;
    args.keep.add_to(&mut params);
    if params.is_empty() {
        bail!(
            "say which jobs go, by a filter (--state, --queue, …) or a bound (--older-than 30d, …); \
             --older-than 0 is all that have ended"
        );
    }
    params.insert("outputs".into(), json!(args.outputs));
    params.insert("dry_run".into(), json!(!args.yes));
    let params = Value::Object(params);
    let target = args.connect.target()?;
    let pruned = match link::open(target, StartPolicy::IfData, VersionNotice::Always).await? {
        Some(mut link) if args.yes => match link.try_request("job.prune", &params).await? {
            Some(pruned) => pruned,
            None => {
                bail!("the server went away before it was done; run it again to remove the rest")
            }
        },
        Some(mut link) => link.request("job.prune", &params).await?,
        None => json!({"dry_run": !args.yes, "outputs": args.outputs, "jobs": 0, "bytes": 0,
            "more": 0, "listed": [], "elapsed_ms": 0}),
    };
    if args.print.json {
        print::json(&pruned)?;
    } else {
        print::page(&page(&pruned))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(pruned: &Value) -> String {
    let number = |key: &str| pruned[key].as_u64().unwrap_or(0);
    let (jobs, is_dry) = (number("jobs"), pruned["dry_run"] == true);
    let what = match (pruned["outputs"] == true, jobs) {
        (false, 1) => "1 job".to_owned(),
        (false, jobs) => format!("{jobs} jobs"),
        (true, 1) => "the output of 1 job".to_owned(),
        (true, jobs) => format!("the outputs of {jobs} jobs"),
    };
    let did = match is_dry {
        true => "would remove",
        false => "removed",
    };
    let size = size::short(number("bytes"));
    let mut page = format!("{did} {what} ({size} of stored output)");
    let listed = pruned["listed"].as_array().cloned().unwrap_or_default();
    let shown = listed.iter().take(LISTED);
    let shown: Vec<String> = shown.map(|job| job["number"].to_string()).collect();
    if !shown.is_empty() {
        page.push_str(&format!(": {}", shown.join(" ")));
        let more = jobs.saturating_sub(shown.len() as u64);
        if more > 0 {
            page.push_str(&format!(" and {more} more"));
        }
    }
    page.push('\n');
    if is_dry && jobs > 0 {
        page.push_str("nothing was removed; --yes removes it\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_removed_is_said_and_the_rest_is_counted() {
        let listed: Vec<Value> = (1..=25).map(|n| json!({"number": n, "bytes": 1})).collect();
        let dry = json!({"dry_run": true, "outputs": false, "jobs": 30, "bytes": 2048, "more": 5,
            "listed": listed});
        let text = page(&dry);
        assert!(text.starts_with("would remove 30 jobs (2.0 KiB of stored output): 1 2 3 "));
        assert!(
            text.contains(" 20 and 10 more\n") && text.contains("--yes"),
            "{text}"
        );
        let done = json!({"dry_run": false, "outputs": true, "jobs": 1, "bytes": 7,
            "listed": [{"number": 9, "bytes": 7}]});
        assert_eq!(
            page(&done),
            "removed the output of 1 job (7 B of stored output): 9\n"
        );
        let none = json!({"dry_run": true, "outputs": false, "jobs": 0, "bytes": 0, "listed": []});
        assert_eq!(page(&none), "would remove 0 jobs (0 B of stored output)\n");
    }
}
