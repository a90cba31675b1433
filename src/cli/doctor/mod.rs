//! What `doctor` checks: this machine, the data directory, its server. A check changes nothing, apart from a control
//! group that it makes and removes.

mod directory;
mod machine;
mod server;

use serde_json::{Value, json};

use super::connect::{client::Client, target::Target};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// All is well.
    Ok,
    /// It works, with a limit that one should know.
    Warning,
    /// Something does not work.
    Failure,
}

impl CheckOutcome {
    /// Its name in JSON and on a terminal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, one word.
    pub name: &'static str,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What was found, for people.
    pub found: String,
    /// What to do about it; empty where all is well.
    pub advice: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            outcome: CheckOutcome::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            outcome: CheckOutcome::Warning,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn failure(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            outcome: CheckOutcome::Failure,
            ..Self::warning(name, found, advice)
        }
    }

    /// The check for programs.
    pub fn json(&self) -> Value {
        let advice = (!self.advice.is_empty()).then_some(&self.advice);
        json!({"name": self.name, "outcome": self.outcome.name(), "found": self.found, "advice": advice})
    }
}

/// Checks all: of a server on another machine only what it says itself.
pub async fn check(target: &Target) -> Vec<Check> {
    let (info, answer) = server::ask(Client::connect(target).await, target).await;
    let mut checks = match target {
        Target::Local(layout) => {
            let mut checks = machine::check(info.as_ref());
            checks.extend(directory::check(layout, info.as_ref()));
            checks
        }
        Target::Remote { .. } => Vec::new(),
    };
    checks.push(answer);
    if let Some(info) = &info {
        checks.extend(server::check(info));
    }
    checks
}
