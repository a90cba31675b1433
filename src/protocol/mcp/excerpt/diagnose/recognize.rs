//! Finds the rule of a line.

use std::sync::LazyLock;

use regex_automata::{
    Anchored, Input,
    meta::{BuildError, Regex},
    util::syntax,
};

use super::{
    rules::{BEGINNINGS, Rule},
    words::{HARMLESS_WORDS, WORDS},
};

/// How much of a line is looked at, bytes: what a line reports stands near its beginning.
const LINE_BYTES_MAX: usize = 1 << 10;

static BEGINNING: LazyLock<Regex> =
    LazyLock::new(|| patterns(BEGINNINGS.iter().map(|rule| rule.pattern)));
static WORD: LazyLock<Regex> = LazyLock::new(|| patterns(WORDS.iter().map(|rule| rule.pattern)));
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| patterns(HARMLESS_WORDS.iter().copied()));

fn patterns<'a>(patterns: impl Iterator<Item = &'a str>) -> Regex {
    let patterns: Vec<&str> = patterns.collect();
    compile(&patterns).expect("the tables have valid patterns")
}

fn compile(patterns: &[&str]) -> Result<Regex, Box<BuildError>> {
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    let mut builder = Regex::builder();
    builder
        .syntax(syntax)
        .configure(Regex::config().utf8_empty(false))
        .build_many(patterns)
        .map_err(Box::new)
}

/// The rule of a line that reports something; `None` for any other line.
pub(super) fn rule(line: &str) -> Option<&'static Rule> {
    match beginning(line) {
        Some(rule) => rule.severity.map(|_| rule),
        None => words(line),
    }
}

/// Whether any rule knows this line, those for lines that report nothing included.
pub(super) fn is_known(line: &str) -> bool {
    beginning(line).or_else(|| words(line)).is_some()
}

fn beginning(line: &str) -> Option<&'static Rule> {
    let found = BEGINNING.search_half(&Input::new(near(line)).anchored(Anchored::Yes))?;
    BEGINNINGS.get(found.pattern().as_usize())
}

fn words(line: &str) -> Option<&'static Rule> {
    let found = WORD.search_half(&Input::new(near(line)))?;
    match HARMLESS.is_match(near(line)) {
        true => None,
        false => WORDS.get(found.pattern().as_usize()),
    }
}

fn near(line: &str) -> &[u8] {
    &line.as_bytes()[..line.len().min(LINE_BYTES_MAX)]
}

/// A line without what a program that merges outputs writes in front of it: the step and the time of a
/// build (`#12 3.456 `), the name of a container (`web_1  | `), a time stamp.
pub(super) fn body(line: &str) -> &str {
    let bytes = line.as_bytes();
    match bytes.first() {
        Some(b'#') => after_step(line).unwrap_or(line),
        Some(b'0'..=b'9') => after_time(line).unwrap_or(line),
        Some(b'a'..=b'z' | b'A'..=b'Z') => after_name(line).unwrap_or(line),
        _ => line,
    }
}

fn after_step(line: &str) -> Option<&str> {
    let rest = line
        .strip_prefix('#')?
        .trim_start_matches(|c: char| c.is_ascii_digit());
    let time = rest.strip_prefix(' ')?;
    let rest = time.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if rest.len() == time.len() {
        return None;
    }
    rest.strip_prefix(' ')
}

/// After a time stamp as RFC 3339 has it.
fn after_time(line: &str) -> Option<&str> {
    let (stamp, rest) = line.split_at_checked(line.find(' ')?)?;
    let bytes = stamp.as_bytes();
    let is_stamp = (19..=35).contains(&bytes.len())
        && (bytes[4], bytes[7], bytes[10], bytes[13]) == (b'-', b'-', b'T', b':');
    is_stamp.then(|| &rest[1..])
}

/// After the name of a container, which is padded to the longest one.
fn after_name(line: &str) -> Option<&str> {
    /// Longest name, with its padding, bytes.
    const NAME_BYTES_MAX: usize = 40;
    let near = &line.as_bytes()[..line.len().min(NAME_BYTES_MAX)];
    let bar = near.iter().position(|byte| *byte == b'|')?;
    let name = line.get(..bar)?.trim_end_matches(' ');
    let is_name = name.len() < bar && !name.is_empty() && name.bytes().all(is_name_byte);
    if !is_name {
        return None;
    }
    match line.get(bar + 1..)? {
        "" => Some(""),
        rest => rest.strip_prefix(' '),
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
#[path = "recognize_tests.rs"]
mod tests;
