//! `verify`: asks the server to verify what it stores of a job, and prints what it found.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::{
    connect::{
        find_job,
        link::{self, StartPolicy, VersionNotice},
        target::Connect,
    },
    render::{exit_code, print, verdict},
};

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server reads everything that is stored of the job: it hashes the output again and compares it with \
the digest that was made while the job ran, and checks the recorded states. A job that still runs is \
verified up to its present end. PATTERN is a regular expression over bytes, as in `wait --until \
regex:PATTERN`.

Exit code: 0 when the job is intact and every assertion is true, else 1.")]
pub struct VerifyArgs {
    #[command(flatten)]
    connect: Connect,

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
    #[arg(default_value = "last")]
    job: String,

    /// Assert that the output contains this text
    #[arg(long, value_name = "TEXT")]
    contains: Vec<String>,

    /// Assert that something in the output matches
    #[arg(long, value_name = "PATTERN")]
    regex: Vec<String>,

    /// Assert that the whole output has this SHA-256
    #[arg(long, value_name = "HEX")]
    sha256: Vec<String>,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Verifies the job.
pub async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let assertions = args.assertions();
    let wanted: Vec<Value> = assertions
        .iter()
        .map(|(kind, text)| json!({*kind: text}))
        .collect();
    let params = json!({"job": job, "claims": wanted});
    let answer = link.request("transcript.verify", &params).await?;
    if args.json {
        print::json(&answer)?;
    } else {
        print::page(&verdict::page(&answer, &assertions))?;
    }
    Ok(match verdict::holds(&answer) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit_code::FAILURE),
    })
}

impl VerifyArgs {
    fn assertions(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("contains", &self.contains),
            ("regex", &self.regex),
            ("sha256", &self.sha256),
        ];
        let assertions = all.into_iter().flat_map(|(kind, texts)| {
            let texts = texts.iter();
            texts.map(move |text| (kind, text.as_str()))
        });
        assertions.collect()
    }
}
