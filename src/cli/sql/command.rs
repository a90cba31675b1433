//! The prompt's commands: words that begin with a backslash.

use clap::ValueEnum;

use super::format::Format;

/// The commands, for completion.
pub const WORDS: [&str; 5] = [DESCRIBE, "\\format", "\\timing", "\\?", "\\q"];
/// The command whose argument is a view.
pub const DESCRIBE: &str = "\\d";
/// The arguments of `\format`.
pub const FORMATS: [&str; 3] = ["table", "json", "csv"];

/// The text of `\?`.
pub const HELP: &str = "\
A statement ends with `;` and may take several lines; Tab completes names and words.
  \\d            list the views and their columns
  \\d VIEW       list the columns of one view
  \\format F     print results as table, json or csv
  \\timing       turn the time of each query on or off
  \\?            show this help
  \\q            leave; so does Ctrl-D
Ctrl-C ends a running query or clears the line.
";

/// A command at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptCommand {
    /// List the views with their columns, or the columns of one view.
    Describe(Option<String>),
    /// Set the format of results; `None`: print its name.
    Format(Option<Format>),
    /// Turn the time of each query on or off.
    Timing,
    /// Print the commands.
    Help,
    /// End the prompt.
    Quit,
}

/// Whether a text is a command, valid or not, and no SQL.
pub fn is_command(text: &str) -> bool {
    let text = text.trim();
    // Words that a new user tries first.
    text.starts_with('\\') || ["quit", "exit", "help"].contains(&text)
}

/// Parses a command; the error says what would be right.
pub fn read(text: &str) -> Result<PromptCommand, String> {
    let text = text.trim().trim_end_matches(';');
    let mut words = text.split_whitespace();
    let (word, argument) = (words.next().unwrap_or_default(), words.next());
    if words.next().is_some() {
        return Err(format!(
            "{word} takes at most one argument; \\? lists the commands"
        ));
    }
    match (word, argument) {
        (DESCRIBE, view) => Ok(PromptCommand::Describe(view.map(str::to_owned))),
        ("\\format", None) => Ok(PromptCommand::Format(None)),
        ("\\format", Some(format)) => Format::from_str(format, true)
            .map(|format| PromptCommand::Format(Some(format)))
            .map_err(|_| format!("\\format takes {}", FORMATS.join(", "))),
        ("\\timing", None) => Ok(PromptCommand::Timing),
        ("\\?" | "\\h" | "\\help" | "help", None) => Ok(PromptCommand::Help),
        ("\\q" | "\\quit" | "quit" | "exit", None) => Ok(PromptCommand::Quit),
        (word, _) => Err(format!("{word} is not a command; \\? lists them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        for (text, command) in [
            ("\\d", PromptCommand::Describe(None)),
            (
                " \\d history_jobs; ",
                PromptCommand::Describe(Some("history_jobs".into())),
            ),
            ("\\format CSV", PromptCommand::Format(Some(Format::Csv))),
            ("\\format", PromptCommand::Format(None)),
            ("\\timing", PromptCommand::Timing),
            ("\\?", PromptCommand::Help),
            ("\\q", PromptCommand::Quit),
            ("exit", PromptCommand::Quit),
        ] {
            assert!(is_command(text), "{text}");
            assert_eq!(read(text), Ok(command), "{text}");
        }
        for wrong in ["\\x", "\\d a b", "\\format xml", "\\timing on", "\\"] {
            assert!(is_command(wrong) && read(wrong).is_err(), "{wrong}");
        }
        assert!(!is_command("select '\\d';"));
    }

    #[test]
    fn every_word_and_format_is_one() {
        for word in WORDS {
            assert!(read(word).is_ok(), "{word}");
            assert!(HELP.contains(word), "{word}");
        }
        let formats: Vec<_> = Format::value_variants()
            .iter()
            .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
            .collect();
        assert_eq!(formats, FORMATS);
    }
}
