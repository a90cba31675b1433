//! `update`: changes jobs that have not started.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::cli::{
    connect::{jobs::Jobs, link::Link},
    new_job::{moment, options::pair},
    render::{describe, job::ShownJob, print},
};

/// Heading of the options that change something.
const CHANGES: &str = "Changes (at least one)";

/// Options of `update`.
#[derive(Debug, clap::Args)]
// clap's own usage line names all changes and has 140 columns.
#[command(override_usage = "cc-executor update [OPTIONS] <CHANGES> <JOB>...")]
#[command(after_help = "Exit code: 0 when all were changed, 1 when one was not.")]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true)
    .args(["queue", "priority", "name", "no_name", "labels", "no_labels", "at", "no_at"]))]
pub struct UpdateArgs {
    #[command(flatten)]
    jobs: Jobs,

    /// Move to this queue
    #[arg(help_heading = CHANGES, long)]
    queue: Option<String>,

    /// Priority; jobs with a higher one start first
    #[arg(help_heading = CHANGES, long, allow_negative_numbers = true)]
    priority: Option<i64>,

    /// Name that people see and that verbs take for the job
    #[arg(help_heading = CHANGES, long)]
    name: Option<String>,

    /// Remove the name
    #[arg(help_heading = CHANGES, long, conflicts_with = "name")]
    no_name: bool,

    /// Label; may be given several times, and replaces all labels
    #[arg(help_heading = CHANGES, long = "label", value_name = "K=V", value_parser = pair)]
    labels: Vec<(String, String)>,

    /// Remove all labels
    #[arg(help_heading = CHANGES, long, conflicts_with = "labels")]
    no_labels: bool,

    /// Do not start before this time (18:30, 2026-12-24 18:30, or with a zone as in RFC 3339)
    #[arg(help_heading = CHANGES, long, value_name = "TIME", value_parser = moment::parse)]
    at: Option<String>,

    /// Do not wait for a time any more
    #[arg(help_heading = CHANGES, long, conflicts_with = "at")]
    no_at: bool,
}

/// Changes the jobs.
pub async fn update(args: UpdateArgs) -> anyhow::Result<ExitCode> {
    let mut params = args.change();
    let act = async |link: &mut Link, job| {
        params["job"] = job;
        let job = ShownJob::read(&link.request("job.update", &params).await?)?;
        print::page(&format!("{} {}\n", job.number, describe::of(&job)))
    };
    args.jobs.each_live(act).await
}

impl UpdateArgs {
    fn change(&self) -> Value {
        let mut change = Map::new();
        if let Some(queue) = &self.queue {
            change.insert("queue".into(), json!(queue));
        }
        if let Some(priority) = self.priority {
            change.insert("priority".into(), json!(priority));
        }
        if self.no_name || self.name.is_some() {
            change.insert("name".into(), json!(self.name));
        }
        if self.no_labels || !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(k, v)| (k.clone(), json!(v)));
            change.insert("labels".into(), Value::Object(labels.collect()));
        }
        if self.no_at || self.at.is_some() {
            change.insert("run_at".into(), json!(self.at));
        }
        Value::Object(change)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        update: UpdateArgs,
    }

    fn change(words: &str) -> Option<Value> {
        let words = std::iter::once("update").chain(words.split_whitespace());
        Some(Line::try_parse_from(words).ok()?.update.change())
    }

    #[test]
    fn options_become_the_keys_of_a_change() {
        let all = change("7 8 --queue q --priority -3 --name n --label a=b --label c=d=e");
        let expected = json!({"queue": "q", "priority": -3, "name": "n",
                              "labels": {"a": "b", "c": "d=e"}});
        assert_eq!(all, Some(expected));
        let cleared = change("7 --no-name --no-labels --no-at");
        let expected = json!({"name": null, "labels": {}, "run_at": null});
        assert_eq!(cleared, Some(expected));
        let later = change("7 --at 2026-12-24T18:30:00Z");
        assert_eq!(later, Some(json!({"run_at": "2026-12-24T18:30:00Z"})));
        for wrong in ["7", "--priority 1", "7 --name n --no-name", "7 --label x"] {
            assert_eq!(change(wrong), None, "{wrong}");
        }
    }
}
