//! `du`: what the data directory takes on the disk, by kind of file, and the jobs, queues and labels
//! that take most of it.

use std::process::ExitCode;

use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            disk_notice,
            link::{self, StartPolicy, VersionNotice},
            target::Connect,
        },
        render::{
            exit_code,
            print::{self, PrintOptions},
            size,
        },
    },
    escape::visible,
};

/// Options of `du`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first lines are of files as they are on the disk. The tables count bytes of stored output; of \
running jobs, what has reached the database.")]
pub struct DuArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    /// Show so many jobs, queues and labels, at most 100
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: u64,
}

/// Shows what takes the space.
pub async fn du(args: DuArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        print::line_on_terminal("there is no data directory yet");
        return Ok(ExitCode::from(exit_code::SUCCESS));
    };
    let usage = link
        .request("server.disk_usage", &json!({"limit": args.top}))
        .await?;
    match args.print.json {
        true => print::json(&usage)?,
        false => print::page(&page(&usage))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn page(usage: &Value) -> String {
    let bytes = |value: &Value| size::short(value["bytes"].as_u64().unwrap_or(0));
    let mut page = format!("total       {}\n", bytes(usage));
    page.push_str(&format!("files       {}\n", disk_notice::kinds(usage)));
    let free = usage["free_bytes"].as_u64().unwrap_or(0);
    let use_of_free = match usage["can_shrink"] == true {
        true => "",
        false => "; a backup of this directory takes less, and can shrink by itself",
    };
    let free = size::short(free);
    page.push_str(&format!(
        "free        {free} within the database{use_of_free}\n"
    ));
    let text = |value: &Value| visible(value.as_str().unwrap_or_default());
    let jobs = rows(usage, "jobs", |job| {
        let name = text(&job["name"]);
        [
            job["number"].to_string(),
            name,
            text(&job["queue"]),
            bytes(job),
        ]
    });
    let queues = rows(usage, "queues", |queue| {
        let jobs = format!("{} jobs", queue["jobs"]);
        [text(&queue["queue"]), jobs, String::new(), bytes(queue)]
    });
    let labels = rows(usage, "labels", |label| {
        let name = format!("{}={}", text(&label["key"]), text(&label["value"]));
        [
            name,
            format!("{} jobs", label["jobs"]),
            String::new(),
            bytes(label),
        ]
    });
    for (headline, rows, more) in [
        ("jobs", jobs, 0),
        ("queues", queues, usage["more_queues"].as_u64().unwrap_or(0)),
        ("labels", labels, usage["more_labels"].as_u64().unwrap_or(0)),
    ] {
        if rows.is_empty() {
            continue;
        }
        page.push_str(&format!(
            "\nstored output by {headline}, the largest first\n"
        ));
        page.push_str(&table(rows));
        if more > 0 {
            page.push_str(&format!("and {more} more {headline}\n"));
        }
    }
    page
}

fn rows(usage: &Value, key: &str, row: impl Fn(&Value) -> [String; 4]) -> Vec<[String; 4]> {
    let entries = usage[key].as_array().into_iter().flatten();
    entries.map(row).collect()
}

fn table(rows: Vec<[String; 4]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.add_rows(rows);
    if let Some(sizes) = table.column_mut(3) {
        sizes.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_what_is_large_and_counts_the_rest() {
        let usage = json!({"bytes": 3 << 20, "database_bytes": 1 << 20, "log_bytes": 0,
            "spool_bytes": 2 << 20, "other_bytes": 0, "free_bytes": 4096, "can_shrink": false,
            "jobs": [{"number": 7, "name": "n\u{1b}", "queue": "q", "bytes": 2 << 20}],
            "queues": [{"queue": "q", "jobs": 3, "bytes": 2 << 20}], "more_queues": 4,
            "labels": [{"key": "k", "value": "v", "jobs": 1, "bytes": 5}], "more_labels": 0});
        let page = page(&usage);
        for part in [
            "3.0 MiB",
            "spool 2.0 MiB",
            "n\\x1b",
            "3 jobs",
            "k=v",
            "and 4 more queues",
            "backup",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page}");
    }
}
