//! Runs the examples of a rule: jobs that it must match, and jobs that it must not. What an example does
//! not name is not examined.

use std::path::{Path, PathBuf};

use super::{
    digests::FileDigest,
    example::Example,
    rule::{PolicyRule, What},
    subject::{LocatedProgram, Subject},
    toml_value::PolicyMistake,
};
use crate::job::Command;

/// How paths are freed of links: where this one leads.
pub type Resolve<'a> = &'a dyn Fn(&Path) -> PathBuf;

/// Why a rule does not match an example.
fn failure(example: &Example, rule: &PolicyRule, resolve: Resolve<'_>) -> Option<String> {
    let job = example.judged();
    let subject = Subject {
        program: program(rule, &example.command, resolve),
        sha256: FileDigest::NotYet,
        real_cwd: Some(resolve(Path::new(&job.cwd))),
        job: &job,
    };
    let failure = rule.first_failure(&subject, |predicate| example.examines(predicate))?;
    Some(format!("{}: {}", failure.predicate.name(), failure.message))
}

/// The program of an example: a path as it is, or the program of the rule that has this file name.
fn program(rule: &PolicyRule, command: &Command, resolve: Resolve<'_>) -> LocatedProgram {
    let word = match command {
        Command::Argv(argv) => argv.first().map_or("", String::as_str),
        Command::Shell(_) => "/bin/sh",
    };
    let path = Path::new(word);
    let found = match (word.contains('/'), &rule.what) {
        (true, _) => Some(path.to_owned()),
        (
            false,
            What::Programs {
                programs: Some(programs),
                ..
            },
        ) => {
            let mut written = programs.iter().map(|program| &program.written);
            let of_name = written.find(|written| written.file_name() == path.file_name());
            of_name.cloned()
        }
        // The rule is for any program.
        (false, _) => Some(Path::new("/").join(path)),
    };
    LocatedProgram {
        word: word.to_owned(),
        real: found.as_deref().map(resolve),
        is_relative: word.contains('/') && path.is_relative(),
        found,
        same_as: Vec::new(),
    }
}

/// Runs the examples of a rule.
///
/// # Errors
///
/// The first one that does not come out as the rule says.
pub fn run(rule: &PolicyRule, resolve: Resolve<'_>) -> Result<(), PolicyMistake> {
    for example in &rule.matches {
        if let Some(why) = failure(example, rule, resolve) {
            return Err(wrong(
                rule,
                example,
                &format!("must match and does not: {why}"),
            ));
        }
    }
    for example in &rule.not_matches {
        if failure(example, rule, resolve).is_none() {
            return Err(wrong(rule, example, "must not match and does"));
        }
    }
    Ok(())
}

fn wrong(rule: &PolicyRule, example: &Example, why: &str) -> PolicyMistake {
    let command = match &example.command {
        Command::Argv(argv) => format!("{argv:?}"),
        Command::Shell(text) => format!("the shell text {text:?}"),
    };
    PolicyMistake {
        line: example.line,
        message: format!("rule {:?}: the example {command} {why}", rule.id),
    }
}
