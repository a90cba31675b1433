//! What a step runs: `argv`, `shell`, or a `prompt` for a `command`; and the keys of NewJob that it
//! becomes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    template::{self, MissingVariable, Variables},
    tree::{FileFault, FileTable},
};

/// The keys of a step that say what it runs.
pub const COMMAND_KEYS: [&str; 4] = ["argv", "shell", "prompt", "command"];
/// The variable of a `command` that is the prompt.
const PROMPT: &str = "prompt";

/// What a step runs, as its file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCommand {
    /// Words that are executed as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// A line for `/bin/sh -c`, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// A template for what `command` gets on stdin, or in the place of its word `{{prompt}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Words, each a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// Why a step's command cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// There is none, or more than one.
    #[error("needs exactly one of argv, shell and prompt")]
    NotOne,
    /// A prompt has nothing that takes it.
    #[error(
        "a prompt needs a command that takes it on stdin or as its word {{{{prompt}}}}, here or in [defaults]; for example command = [\"claude\", \"-p\"]"
    )]
    NoCommand,
    /// A template names a variable that there is not.
    #[error("{key}: there is no variable {name:?}; there are {known}")]
    Missing {
        /// The template's key.
        key: &'static str,
        /// The variable.
        name: String,
        /// Those that there are.
        known: String,
    },
}

impl CommandFault {
    /// The key at which it shows.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NotOne => "",
            Self::NoCommand => "prompt",
            Self::Missing { key, .. } => key,
        }
    }
}

impl StepCommand {
    /// Reads the keys of a table.
    pub fn read(table: &FileTable) -> Result<Self, FileFault> {
        let words = |key| table.get(key).map(|node| node.words(key)).transpose();
        let text = |key| {
            let text = table.get(key).map(|node| node.text(key)).transpose();
            text.map(|text| text.map(str::to_owned))
        };
        Ok(Self {
            argv: words("argv")?,
            shell: text("shell")?,
            prompt: text("prompt")?,
            command: words("command")?,
        })
    }

    /// Whether it says what is run.
    pub fn is_given(&self) -> bool {
        self.argv.is_some() || self.shell.is_some() || self.prompt.is_some()
    }

    /// The same, with what is run taken from `own` where that says so.
    pub fn replaced_by(self, own: Self) -> Self {
        let command = own.command.clone().or(self.command.clone());
        let chosen = if own.is_given() { own } else { self };
        Self { command, ..chosen }
    }

    /// The texts in which variables are replaced.
    pub fn templates(&self) -> impl Iterator<Item = &str> {
        let words = self.command.iter().flatten();
        words.chain(&self.prompt).map(String::as_str)
    }

    /// The keys of NewJob: `argv` or `shell`, and `stdin` for a prompt.
    pub fn new_job(&self, variables: &Variables) -> Result<Map<String, Value>, CommandFault> {
        let keys = match (&self.argv, &self.shell, &self.prompt) {
            (Some(argv), None, None) => json!({"argv": argv}),
            (None, Some(shell), None) => json!({"shell": shell}),
            (None, None, Some(prompt)) => self.prompted(prompt, variables)?,
            _ => return Err(CommandFault::NotOne),
        };
        match keys {
            Value::Object(keys) => Ok(keys),
            _ => Err(CommandFault::NotOne),
        }
    }

    fn prompted(&self, prompt: &str, variables: &Variables) -> Result<Value, CommandFault> {
        let command = self.command.as_ref().ok_or(CommandFault::NoCommand)?;
        let prompt = template::fill(prompt, variables)
            .map_err(|missing| missing_in("prompt", missing, variables))?;
        let mut variables = variables.clone();
        variables.insert(PROMPT.to_owned(), prompt.clone());
        let words = command.iter().map(|word| template::fill(word, &variables));
        let words: Result<Vec<String>, _> = words.collect();
        let words = words.map_err(|missing| missing_in("command", missing, &variables))?;
        let takes_it = command.iter().any(|word| template::names(word, PROMPT));
        Ok(match takes_it {
            true => json!({"argv": words}),
            false => json!({"argv": words, "stdin": prompt}),
        })
    }
}

fn missing_in(key: &'static str, missing: MissingVariable, variables: &Variables) -> CommandFault {
    let known: Vec<&str> = variables.keys().map(String::as_str).collect();
    CommandFault::Missing {
        key,
        name: missing.0,
        known: match known.is_empty() {
            true => "none; define it in [vars], or give it with --var".to_owned(),
            false => known.join(", "),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_job(command: Value) -> Result<Value, String> {
        let command: StepCommand = serde_json::from_value(command).expect("a command");
        let variables = Variables::from([("what".to_owned(), "it; rm".to_owned())]);
        let keys = command.new_job(&variables).map(Value::Object);
        keys.map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_prompt_goes_to_stdin_or_to_its_word() {
        let said = new_job(json!({"prompt": "Do {{what}}.", "command": ["claude", "-p"]}));
        assert_eq!(
            said,
            Ok(json!({"argv": ["claude", "-p"], "stdin": "Do it; rm."}))
        );
        let said = new_job(
            json!({"prompt": "Do {{what}}", "command": ["x", "--say={{prompt}}", "{{what}}"]}),
        );
        assert_eq!(
            said,
            Ok(json!({"argv": ["x", "--say=Do it; rm", "it; rm"]}))
        );
        let plain = json!({"shell": "docker ps --format '{{what}}'"});
        assert_eq!(new_job(plain.clone()), Ok(plain));
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        for (command, part) in [
            (json!({}), "exactly one of"),
            (json!({"shell": "a", "argv": ["b"]}), "exactly one of"),
            (json!({"prompt": "a"}), "a prompt needs a command"),
            (
                json!({"prompt": "a {{b}}", "command": ["c"]}),
                "prompt: there is no variable \"b\"; there are what",
            ),
            (
                json!({"prompt": "a", "command": ["{{b}}"]}),
                "command: there is no variable \"b\"",
            ),
        ] {
            let fault = new_job(command.clone()).expect_err("refused");
            assert!(fault.contains(part), "{command}: {fault}");
        }
    }
}
