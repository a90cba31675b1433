//! `signal`: sends a signal to the process groups of running jobs.

use std::process::ExitCode;

use serde_json::json;

use crate::{cli::connect::control::ControlArgs, job};

/// Options of `signal`.
#[derive(Debug, clap::Args)]
pub struct SignalArgs {
    /// The signal, by name or number: USR1, SIGHUP, 15
    #[arg(value_name = "SIGNAL", value_parser = signal_name)]
    signal: String,

    #[command(flatten)]
    control: ControlArgs,
}

/// Sends the signal to the jobs.
pub async fn signal(args: SignalArgs) -> anyhow::Result<ExitCode> {
    let params = json!({"action": "signal", "signal": args.signal});
    args.control.act_with(params).await
}

fn signal_name(text: &str) -> Result<String, String> {
    job::signal::number(text)
        .map(job::signal::name)
        .ok_or_else(|| "there is no such signal; `kill -l` lists them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_taken_as_people_write_them() {
        for text in ["usr1", "SIGUSR1", "10"] {
            assert_eq!(signal_name(text), Ok("SIGUSR1".to_owned()), "{text}");
        }
        assert!(signal_name("SIGNOPE").is_err());
    }
}
