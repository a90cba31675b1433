//! `show`: everything about one job, with a sentence on how it ended and the last lines of its
//! output.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            find_job,
            link::{self, StartPolicy, VersionNotice},
            target::Connect,
        },
        new_job::options::GENERATED_KEY,
        render::{
            describe, duration,
            job::ShownJob,
            last_lines,
            print::{self, PrintOptions},
            receiver,
            times::{self, Clock},
        },
    },
    escape::visible,
};

/// Options of `show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
    #[arg(default_value = "last")]
    job: String,

    /// Show times in UTC
    #[arg(long)]
    utc: bool,
}

/// Shows the job.
pub async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let value = link.request("job.get", &json!({"job": job})).await?;
    if args.print.json {
        print::json(&value)?;
    } else {
        let mut page = args.page(&value)?;
        let lines = last_lines::of(
            &mut link,
            &value["id"],
            ShownJob::read(&value)?.output_bytes,
        )
        .await;
        // A page without them is better than none: the job may just have been deleted.
        page.push_str(&lines.map(ending).unwrap_or_default());
        print::out(page.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl ShowArgs {
    fn page(&self, value: &Value) -> anyhow::Result<String> {
        let job = ShownJob::read(value)?;
        let ended = describe::of(&job);
        let mut lines = vec![
            ("job", format!("{} ({})", job.number, visible(&job.id))),
            ("state", self.print.paint(&job.state, &ended)),
            ("command", job.command()),
            ("directory", text(&value["cwd"])),
            ("name", text(&value["name"])),
            ("retry of", text(&value["retry_of"])),
            ("labels", pairs(&value["labels"])),
            (
                "queue",
                format!("{}, priority {}", visible(&job.queue), value["priority"]),
            ),
        ];
        lines.extend(self.times(&job));
        lines.extend(limits(&job, value));
        lines.extend(results(&job, value));
        let mut page = String::new();
        for (name, text) in lines.iter().filter(|(_, text)| !text.is_empty()) {
            page.push_str(&format!("{name:<12}{text}\n"));
        }
        Ok(page)
    }

    fn times(&self, job: &ShownJob) -> Vec<(&'static str, String)> {
        let now = times::now();
        let clock = if self.utc { Clock::Utc } else { Clock::Local };
        let shown = |at: Option<_>| at.map_or_else(String::new, |at| times::long(at, now, clock));
        let time = job.run_seconds(now).map(duration::short);
        vec![
            ("submitted", shown(job.submitted_at)),
            ("started", shown(job.started_at)),
            ("finished", shown(job.finished_at)),
            ("time", time.unwrap_or_default()),
        ]
    }
}

/// The last lines of the output, for below the page.
fn ending(lines: Vec<String>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("\nIt ends with:\n{}\n", lines.join("\n"))
}

fn limits(job: &ShownJob, value: &Value) -> Vec<(&'static str, String)> {
    let length = |seconds: Option<f64>| seconds.map(duration::short).unwrap_or_default();
    let output = &value["output"];
    let bounds_of = ["bytes", "lines"].into_iter().filter_map(|unit| {
        let max = output[format!("max_{unit}")].as_u64();
        max.map(|max| format!("{max} {unit}"))
    });
    let max: Vec<_> = bounds_of.collect();
    vec![
        ("timeout", length(job.timeout_s)),
        ("silence", length(job.stall_timeout_s)),
        ("grace", length(value["grace_s"].as_f64())),
        (
            "output max",
            match max.is_empty() {
                true => String::new(),
                false => format!("{}, then {}", max.join(" or "), text(&output["when_full"])),
            },
        ),
        (
            "secrets",
            match output["redact"].as_bool() {
                Some(false) => "not masked in the output".to_owned(),
                _ => String::new(),
            },
        ),
        ("umask", text(&value["umask"])),
        ("limits", bounds(&value["limits"])),
        ("variables", count(&value["env_names"])),
        ("stdin", stdin(value)),
        ("notify", receiver::entries(&value["notify"])),
        ("key", key(&value["idempotency_key"])),
    ]
}

fn bounds(limits: &Value) -> String {
    let limits = limits.as_object().into_iter().flatten();
    let bound = |(name, bound): (&String, &Value)| {
        let soft = bound.get("soft").unwrap_or(bound);
        format!("{} {soft}", visible(name))
    };
    let limits = limits.filter(|(_, bound)| !bound.is_null()).map(bound);
    limits.collect::<Vec<_>>().join(", ")
}

fn stdin(value: &Value) -> String {
    let bytes = value["stdin_bytes"].as_u64().map(|n| format!("{n} bytes"));
    let open = value["interactive"].as_bool().unwrap_or(false);
    let open = open.then(|| "open for input".to_owned());
    let parts: Vec<_> = bytes.into_iter().chain(open).collect();
    parts.join(", then ")
}

fn results(job: &ShownJob, value: &Value) -> Vec<(&'static str, String)> {
    let digest = value["output_sha256"].as_str();
    let digest = digest.map_or_else(String::new, |hex| format!(", sha256 {}", visible(hex)));
    let leaked = value["leaked"].as_u64().filter(|n| *n > 0);
    vec![
        ("output", format!("{} bytes{digest}", job.output_bytes)),
        ("dropped", dropped(value)),
        ("attempts", value["attempts"].to_string()),
        ("usage", usage(&value["usage"])),
        (
            "leaked",
            leaked.map_or_else(String::new, |n| {
                format!("{n} processes outlived it and were ended")
            }),
        ),
        ("survivors", survivors(&value["survivors"])),
    ]
}

/// Output that was dropped under `--max-output`; empty if none was.
fn dropped(value: &Value) -> String {
    let count = |key: &str| value[key].as_u64().unwrap_or(0);
    match (count("dropped_bytes"), count("dropped_lines")) {
        (0, _) => String::new(),
        (bytes, lines) => format!("{bytes} of these bytes, with {lines} line ends"),
    }
}

fn text(value: &Value) -> String {
    visible(value.as_str().unwrap_or_default())
}

/// An idempotency key that the user chose; empty for one that the command line generated.
fn key(value: &Value) -> String {
    let chosen = value.as_str().filter(|key| !key.starts_with(GENERATED_KEY));
    chosen.map(visible).unwrap_or_default()
}

fn count(value: &Value) -> String {
    let number = value.as_array().map_or(0, Vec::len);
    format!("{number} (their values are in no view)")
}

fn pairs(value: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{}={}", visible(key), text(value));
    let pairs: Vec<_> = value.as_object().into_iter().flatten().map(pair).collect();
    pairs.join(", ")
}

fn usage(value: &Value) -> String {
    let (Some(user), Some(system)) = (value["user_s"].as_f64(), value["system_s"].as_f64()) else {
        return String::new();
    };
    let memory = value["max_rss_bytes"].as_u64().unwrap_or(0) as f64 / f64::from(1 << 20);
    format!("{user:.2}s user, {system:.2}s system, {memory:.1} MiB at most in one process")
}

fn survivors(value: &Value) -> String {
    let one = |s: &Value| format!("{} {}", s["pid"], text(&s["comm"]));
    let all: Vec<_> = value.as_array().into_iter().flatten().map(one).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        show: ShowArgs,
    }

    #[test]
    fn a_page_says_how_it_ended_and_is_harmless() {
        let args = Line::try_parse_from(["show", "--color", "never", "--utc", "42"]);
        let job = json!({
            "id": "01939b9e-0000-7000-8000-000000000000", "number": 42, "state": "failed",
            "reason": "exit_code", "exit_code": 3, "signal": null,
            "argv": ["printf", "\u{1b}]0;gotcha\u{7}"], "shell": null, "queue": "default",
            "priority": 0, "name": "n\u{9b}2J", "labels": {"a": "b\n"}, "cwd": "/src",
            "submitted_at": "2026-11-22T09:59:00.000001Z", "env_names": ["A"], "attempts": 1,
            "output_bytes": 12, "output_sha256": "abc", "leaked": 0, "survivors": [],
            "usage": {"user_s": 0.5, "system_s": 0.25, "max_rss_bytes": 1048576},
        });
        let page = args.expect("valid").show.page(&job).expect("a page");
        for part in [
            "job         42 (01939b9e",
            "failed: it exited with code 3",
            "a=b\\n",
            "2026-11-22T09:59:00.000Z",
            "12 bytes, sha256 abc",
            "0.50s user",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page}");
    }
}
