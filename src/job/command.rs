//! What a job executes, and its file mode creation mask.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{NewJobRefusal, read};

/// The command. On the wire it is two keys, one of which is null: `argv` and `shell`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Executed directly; the first word is looked up in the job's PATH. Never empty, no NUL.
    Argv(Vec<String>),
    /// Run by `/bin/sh -c`.
    Shell(String),
}

impl Command {
    /// The keys of a command; a job has exactly one of them.
    pub const KEYS: [&str; 2] = ["argv", "shell"];

    /// The arguments for exec, the program first.
    pub fn to_argv(&self) -> Vec<String> {
        match self {
            Self::Argv(argv) => argv.clone(),
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        }
    }

    /// Takes the command out of a job's keys.
    ///
    /// # Errors
    ///
    /// Both keys are given, or none, or the value is wrong. Null means that a key is left out.
    pub(super) fn take(object: &mut Map<String, Value>) -> Result<Self, NewJobRefusal> {
        let given = |key| object.remove(key).filter(|value| !value.is_null());
        match Self::KEYS.map(given) {
            [Some(argv), None] => argv_of(argv)
                .map(Self::Argv)
                .map_err(|wrong| NewJobRefusal::invalid("argv", wrong)),
            [None, Some(line)] => read::string(line)
                .and_then(read::without_nul)
                .map(Self::Shell)
                .map_err(|wrong| NewJobRefusal::invalid("shell", wrong)),
            [Some(_), Some(_)] => Err(NewJobRefusal::invalid(
                "argv",
                "give argv or shell, not both",
            )),
            [None, None] => Err(NewJobRefusal::invalid(
                "argv",
                "missing; give argv (a list of strings) or shell (a string)",
            )),
        }
    }
}

pub(super) fn argv_of(value: Value) -> Result<Vec<String>, String> {
    let wrong = || "must be a list of at least one string".to_owned();
    let Value::Array(words) = value else {
        return Err(wrong());
    };
    let words = words.into_iter().map(|word| match word {
        Value::String(word) => Ok(word),
        _ => Err(wrong()),
    });
    let argv = words.collect::<Result<Vec<_>, _>>()?;
    match argv.first() {
        None => return Err(wrong()),
        Some(program) if program.is_empty() => {
            return Err("the program's name is empty".to_owned());
        }
        Some(_) => {}
    }
    argv.into_iter().map(read::without_nul).collect()
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (argv, shell) = match self {
            Self::Argv(argv) => (Some(argv), None),
            Self::Shell(line) => (None, Some(line)),
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("argv", &argv)?;
        map.serialize_entry("shell", &shell)?;
        map.end()
    }
}

/// A file mode creation mask, 0 to 0o777. Written as three octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Umask(pub u32);

impl Default for Umask {
    fn default() -> Self {
        Self(0o077)
    }
}

impl Serialize for Umask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:03o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Umask {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        read::checked(value, |value| {
            let text = read::string(value)?;
            let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            let mask = u32::from_str_radix(&text, 8).ok();
            mask.filter(|mask| octal && *mask <= 0o777)
                .map(Self)
                .ok_or("must be octal digits from \"000\" to \"777\"".to_owned())
        })
    }
}
