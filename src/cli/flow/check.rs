//! The job that checks a step: it says in a line for each claim whether it is true, and ends with 0 if all
//! are.

use std::process::{ExitCode, Stdio};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use super::{
    ask::{self, OwnJob, ask},
    rules::CheckRules,
};
use crate::cli::{
    connect::target::Connect,
    render::{describe, exit_code, job::ShownJob, print, verdict},
};

/// Checks the step that this job waits for.
pub async fn check(connect: &Connect) -> ExitCode {
    match decide(connect).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit_code::FAILURE),
        Err(error) => {
            print::line(&print::chain(&error));
            ask::failure(&error)
        }
    }
}

async fn decide(connect: &Connect) -> anyhow::Result<bool> {
    let (mut own, rules): (OwnJob, CheckRules) = OwnJob::find(connect).await?;
    let subject = own.subject()?;
    let job = ask(&mut own.link, "job.get", &json!({"job": subject})).await?;
    let job = ShownJob::read(&job)?;
    let ended_well = exit_code_holds(&job, &rules)?;
    let claimed = claims_hold(&mut own, &job, &rules).await?;
    let checked = match &rules.command {
        Some(command) => checker_agrees(&mut own, &job, command).await?,
        None => true,
    };
    Ok(ended_well && claimed && checked)
}

fn exit_code_holds(job: &ShownJob, rules: &CheckRules) -> anyhow::Result<bool> {
    let codes: Vec<String> = rules.exit_codes.iter().map(ToString::to_string).collect();
    let codes = codes.join(", ");
    let code = job.exit_code.filter(|_| {
        // A step that ran into its timeout may have exited with a code, too.
        job.state == "succeeded" || job.reason.as_deref() == Some("exit_code")
    });
    let holds = code.is_some_and(|code| rules.exit_codes.contains(&i64::from(code)));
    let found = match code {
        Some(code) => format!("it exited with code {code}"),
        None => describe::of(job),
    };
    let word = if holds { "true" } else { "NOT true" };
    print::page(&format!("exit code {codes}: {word}, {found}\n"))?;
    Ok(holds)
}

async fn claims_hold(own: &mut OwnJob, job: &ShownJob, rules: &CheckRules) -> anyhow::Result<bool> {
    let params = json!({"job": job.id, "claims": rules.claims});
    let answer = ask(&mut own.link, "transcript.verify", &params).await?;
    let texts: Vec<(&str, &str)> = rules.claims.iter().filter_map(claim).collect();
    print::page(&verdict::page(&answer, &texts))?;
    Ok(verdict::holds(&answer))
}

/// The kind and the text of a claim.
fn claim(claim: &Value) -> Option<(&str, &str)> {
    let (kind, text) = claim.as_object()?.iter().next()?;
    Some((kind, text.as_str()?))
}

/// Runs the checker with the whole output on its stdin. One that does not read is fine.
async fn checker_agrees(
    own: &mut OwnJob,
    job: &ShownJob,
    command: &[String],
) -> anyhow::Result<bool> {
    let (program, words) = command.split_first().context("verify.command is empty")?;
    let mut checker = Command::new(program);
    checker.args(words).stdin(Stdio::piped());
    checker.env("FLOW_CHECKED_JOB", job.number.to_string());
    checker.env(
        "FLOW_CHECKED_EXIT_CODE",
        job.exit_code.map_or(String::new(), |code| code.to_string()),
    );
    let mut child = match checker.spawn() {
        Ok(child) => child,
        Err(error) => {
            print::page(&format!(
                "command {program}: NOT true, it cannot be started: {error}\n"
            ))?;
            return Ok(false);
        }
    };
    let mut stdin = child.stdin.take().context("the checker has no stdin")?;
    let write = async |bytes: &[u8]| Ok(stdin.write_all(bytes).await.is_ok());
    ask::output(&mut own.link, &job.id, 0, None, write).await?;
    drop(stdin);
    let status = child.wait().await.context("the checker's end is unknown")?;
    let word = if status.success() { "true" } else { "NOT true" };
    print::page(&format!("command {program}: {word}, {status}\n"))?;
    Ok(status.success())
}
