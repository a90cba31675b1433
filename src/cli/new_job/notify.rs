//! The options that say who is notified of a new job's states, and the key `notify` that they make.

use anyhow::Context;
use serde_json::{Value, json};

use crate::job::JobState;

/// A word of `--notify-secret` that begins like this names a file.
const FILE_MARK: char = '@';

/// Who is notified of the job's states.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(group = clap::ArgGroup::new("receiver").multiple(true).args(["notify_url", "notify_command"]))]
pub struct NotifyOptions {
    /// POST a notice to this URL when the job ends; may be given several times
    #[arg(long, value_name = "URL", help_heading = "Notices")]
    notify_url: Vec<String>,

    /// Let the server run this line with /bin/sh -c when the job ends; may be given several times
    #[arg(long, value_name = "CMD", help_heading = "Notices")]
    notify_command: Vec<String>,

    /// States of which the receivers are notified, with commas between them [default: succeeded,
    /// failed,cancelled]
    #[arg(
        long,
        value_name = "STATES",
        value_delimiter = ',',
        value_parser = state,
        requires = "receiver",
        help_heading = "Notices"
    )]
    notify_on: Vec<&'static str>,

    /// Sign the requests to the URLs with this secret (whsec_…), or with the one in @FILE, which
    /// other users of this machine cannot see in a list of processes
    #[arg(
        long,
        value_name = "SECRET",
        requires = "notify_url",
        help_heading = "Notices"
    )]
    notify_secret: Option<String>,
}

impl NotifyOptions {
    /// The value of `notify`; `None` without receivers.
    pub fn entries(&self) -> anyhow::Result<Option<Value>> {
        let finals = JobState::ALL.into_iter().filter(|state| state.is_final());
        let on = match self.notify_on.is_empty() {
            true => finals.map(JobState::name).collect(),
            false => self.notify_on.clone(),
        };
        let secret = self.notify_secret.as_deref().map(secret).transpose()?;
        let urls = self.notify_url.iter().map(|url| match &secret {
            Some(secret) => json!({"on": on, "url": url, "secret": secret}),
            None => json!({"on": on, "url": url}),
        });
        let commands = self.notify_command.iter();
        let commands = commands.map(|line| json!({"on": on, "argv": ["/bin/sh", "-c", line]}));
        let entries: Vec<Value> = urls.chain(commands).collect();
        Ok((!entries.is_empty()).then_some(Value::Array(entries)))
    }
}

/// A secret as it is, or the content of the file that a word like `@FILE` names.
pub fn secret(word: &str) -> anyhow::Result<String> {
    let Some(file) = word.strip_prefix(FILE_MARK) else {
        return Ok(word.to_owned());
    };
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("the secret cannot be read from {file}"))?;
    Ok(text.trim().to_owned())
}

fn state(word: &str) -> Result<&'static str, String> {
    let state = JobState::from_name(word.trim()).ok_or_else(|| {
        let states = JobState::ALL.map(JobState::name).join(", ");
        format!("{word:?} is no state; states are {states}")
    })?;
    Ok(state.name())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        notify: NotifyOptions,
    }

    fn entries(words: &[&str]) -> Option<Value> {
        let words = std::iter::once(&"run").chain(words);
        let notify = Line::try_parse_from(words).ok()?.notify;
        notify.entries().expect("readable")
    }

    #[test]
    fn every_receiver_gets_the_same_states_and_urls_the_secret() {
        let ended = json!(["succeeded", "failed", "cancelled"]);
        assert_eq!(
            entries(&["--notify-url", "http://a", "--notify-command", "mail me"]),
            Some(json!([
                {"on": ended, "url": "http://a"},
                {"on": ended, "argv": ["/bin/sh", "-c", "mail me"]},
            ]))
        );
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "whsec_x\n").expect("written");
        let word = format!("@{}", file.path().display());
        let words = [
            "--notify-url",
            "u",
            "--notify-on",
            "failed,paused",
            "--notify-secret",
            &word,
        ];
        let expected = json!([{"on": ["failed", "paused"], "url": "u", "secret": "whsec_x"}]);
        assert_eq!(entries(&words), Some(expected));
        assert_eq!(entries(&[]), None);
    }

    #[test]
    fn options_without_a_receiver_and_unknown_states_are_refused() {
        for wrong in [
            &["--notify-on", "failed"][..],
            &["--notify-secret", "whsec_x"],
            &["--notify-command", "x", "--notify-secret", "whsec_x"],
            &["--notify-url", "u", "--notify-on", "ended"],
        ] {
            let words = std::iter::once(&"run").chain(wrong);
            assert!(Line::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }
}
