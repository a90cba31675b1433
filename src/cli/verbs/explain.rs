//! `explain`: why a job is where it is.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            find_job,
            link::{self, StartPolicy, VersionNotice},
            target::Connect,
        },
        render::print::{self, PrintOptions},
    },
    escape::visible,
};

/// Options of `explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
    #[arg(default_value = "last")]
    job: String,
}

/// Explains the job.
pub async fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let value = link.request("job.explain", &json!({"job": job})).await?;
    match args.print.json {
        true => print::json(&value)?,
        false => print::page(&page(&value))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A sentence on each line; then the state changes.
fn page(value: &Value) -> String {
    let facts = value["facts"].as_array();
    let facts = || facts.into_iter().flatten();
    let mut page = String::new();
    for text in facts().filter_map(|fact| fact["text"].as_str()) {
        page.push_str(&format!("{}\n", visible(text)));
    }
    let events: Vec<_> = facts().filter(|fact| fact["kind"] == "event").collect();
    if !events.is_empty() {
        page.push_str("\nWhat has happened:\n");
    }
    for event in events {
        let text = |key: &str| visible(event[key].as_str().unwrap_or_default());
        let reason = match event["reason"].as_str() {
            Some(reason) => format!(" ({})", visible(reason)),
            None => String::new(),
        };
        page.push_str(&format!(
            "  {}  {}{reason}, by {}\n",
            text("at"),
            text("to"),
            text("actor")
        ));
    }
    page
}
