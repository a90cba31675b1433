//! `doctor`: checks the machine, the data directory and its server. Starts no server.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    cli::{
        connect::target::Connect,
        doctor::{self, Check, CheckOutcome},
        render::{
            exit_code,
            print::{self, PrintOptions},
        },
    },
    escape::visible,
};

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 if nothing has failed (warnings are no failures), else 1.")]
pub struct DoctorArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,
}

/// Checks all and prints it.
pub async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = doctor::check(&args.connect.target()?).await;
    let failed = checks
        .iter()
        .any(|check| check.outcome == CheckOutcome::Failure);
    if args.print.json {
        let checks: Vec<Value> = checks.iter().map(Check::json).collect();
        print::json(&json!({"ok": !failed, "checks": checks}))?;
    } else {
        print::out(args.page(&checks).as_bytes())?;
    }
    Ok(match failed {
        true => ExitCode::from(exit_code::FAILURE),
        false => ExitCode::SUCCESS,
    })
}

impl DoctorArgs {
    fn page(&self, checks: &[Check]) -> String {
        let mut page = String::new();
        for check in checks {
            let color = match check.outcome {
                CheckOutcome::Ok => "32",
                CheckOutcome::Warning => "33",
                CheckOutcome::Failure => "31",
            };
            let outcome = format!("{:<9}", check.outcome.name());
            let outcome = self.print.color(color, &outcome);
            page.push_str(&format!(
                "{outcome}{:<16}{}\n",
                check.name,
                visible(&check.found)
            ));
            if !check.advice.is_empty() {
                page.push_str(&format!("{:25}→ {}\n", "", visible(&check.advice)));
            }
        }
        page
    }
}
