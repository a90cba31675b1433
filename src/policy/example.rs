//! A job in an example of a rule: how it is read, and what of it is examined.

use super::{
    bounds::JobBounds,
    predicate::Predicate,
    subject::Judged,
    toml_value::{PolicyMistake, TomlNode},
};
use crate::job::{Command, JobSpec, Requester};

/// A job in an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its line.
    pub line: usize,
    /// What is executed.
    pub command: Command,
    who: Option<Requester>,
    cwd: Option<String>,
    env: Option<Vec<String>>,
    secrets: Option<Vec<String>>,
    urls: Option<Vec<String>>,
    queue: Option<String>,
    priority: Option<i64>,
    timeout_s: Option<f64>,
    output_bytes: Option<u64>,
}

/// Keys of an example that is a table.
const KEYS: [&str; 11] = [
    "argv",
    "shell",
    "who",
    "cwd",
    "env",
    "secrets",
    "notify_urls",
    "queue",
    "priority",
    "timeout_s",
    "output_bytes",
];

impl Example {
    /// Reads an example: a list of words, or a table.
    pub fn read(node: &TomlNode<'_>) -> Result<Self, PolicyMistake> {
        if node.is_list() {
            return Ok(Self::of(node.line(), argv(node)?));
        }
        let table = node.table(&KEYS)?;
        let command = match (table.get("argv"), table.get("shell")) {
            (Some(words), None) => argv(&words)?,
            (None, Some(text)) => Command::Shell(text.string()?.to_owned()),
            _ => return Err(node.wrong("must have argv or shell, and not both")),
        };
        let get = |key| table.get(key);
        let text = |key| get(key).map(|node: TomlNode<'_>| node.string().map(str::to_owned));
        let names = |node: TomlNode<'_>| {
            let names = node.strings()?.into_iter();
            Ok(names.map(|(_, name)| name.to_owned()).collect())
        };
        Ok(Self {
            who: text("who").transpose()?.map(|name| who(&name)),
            cwd: text("cwd").transpose()?,
            env: get("env").map(names).transpose()?,
            secrets: get("secrets").map(names).transpose()?,
            urls: get("notify_urls").map(names).transpose()?,
            queue: text("queue").transpose()?,
            priority: get("priority").map(|node| node.integer()).transpose()?,
            timeout_s: get("timeout_s").map(|node| node.positive()).transpose()?,
            output_bytes: get("output_bytes")
                .map(|node| node.integer().map(|bytes| bytes.max(0) as u64))
                .transpose()?,
            ..Self::of(node.line(), command)
        })
    }

    fn of(line: usize, command: Command) -> Self {
        Self {
            line,
            command,
            who: None,
            cwd: None,
            env: None,
            secrets: None,
            urls: None,
            queue: None,
            priority: None,
            timeout_s: None,
            output_bytes: None,
        }
    }

    /// Whether it names what this predicate is about.
    pub fn examines(&self, predicate: Predicate) -> bool {
        match predicate {
            Predicate::Shell | Predicate::Program | Predicate::Args => true,
            Predicate::Sha256 => false,
            Predicate::Who => self.who.is_some(),
            Predicate::Cwd => self.cwd.is_some(),
            Predicate::Env => self.env.is_some(),
            Predicate::Secrets => self.secrets.is_some(),
            Predicate::NotifyUrls => self.urls.is_some(),
            Predicate::Queue => self.queue.is_some(),
            Predicate::Priority => self.priority.is_some(),
            Predicate::TimeoutS => self.timeout_s.is_some(),
            Predicate::OutputBytes => self.output_bytes.is_some(),
        }
    }

    /// The job, with defaults for what it does not name.
    pub fn judged(&self) -> Judged {
        let queue = self.queue.clone();
        Judged {
            requester: self.who.clone().unwrap_or_else(|| Requester::admin(None)),
            command: self.command.clone(),
            cwd: self.cwd.clone().unwrap_or_else(|| "/".to_owned()),
            path: None,
            names: self.env.clone().unwrap_or_default(),
            secrets: self.secrets.clone().unwrap_or_default(),
            urls: self.urls.clone().unwrap_or_default(),
            bounds: JobBounds {
                queue: queue.unwrap_or_else(|| JobSpec::QUEUE.to_owned()),
                priority: self.priority.unwrap_or_default(),
                timeout_s: self.timeout_s,
                output_bytes: self.output_bytes,
            },
        }
    }
}

fn argv(node: &TomlNode<'_>) -> Result<Command, PolicyMistake> {
    let words = node.list()?.into_iter();
    let words: Vec<String> = words
        .map(|word| word.string().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    match words.first() {
        None => Err(node.wrong("must have at least the program")),
        Some(_) => Ok(Command::Argv(words)),
    }
}

fn who(name: &str) -> Requester {
    let uid = name.strip_prefix("uid:").and_then(|uid| uid.parse().ok());
    Requester {
        name: match uid {
            Some(_) => Requester::ADMIN.to_owned(),
            None => name.to_owned(),
        },
        uid,
    }
}
