//! Completes a half-typed word: a view, a column, a function, a keyword, a command. Guesses from
//! the words around it, without a grammar. Pure.

use std::collections::HashSet;

use super::{
    command,
    names::{QueryNames, ViewColumns},
    statement, words,
};

/// The start of the word at the cursor (a byte offset in `text`), and its completions.
pub fn complete(text: &str, cursor: usize, names: &QueryNames) -> (usize, Vec<String>) {
    let before = &text[..cursor];
    let word = last_word(before);
    let start = cursor - word.len();
    if before.trim_start().starts_with('\\') {
        return command_words(before, names);
    }
    // Below, the text after the cursor counts, too: columns are typed before their views.
    let typed = statement::cut(before);
    if typed.is_open {
        return (start, Vec::new());
    }
    let ahead = before[..start].trim_end();
    let mut found = match qualifier(ahead, &before[..start]) {
        Some(alias) => columns(&of_alias(alias, text, names), word),
        None if wants_view(ahead) => views(names, word),
        None => anything(text, word, names),
    };
    let mut seen = HashSet::new();
    found.retain(|word| seen.insert(word.clone()));
    (start, found)
}

fn command_words(before: &str, names: &QueryNames) -> (usize, Vec<String>) {
    let line = before.trim_start();
    let Some((_, argument)) = line.split_once(char::is_whitespace) else {
        let fits = command::WORDS.iter().filter(|word| word.starts_with(line));
        return (
            before.len() - line.len(),
            fits.map(|word| (*word).to_owned()).collect(),
        );
    };
    let argument = argument.trim_start();
    let start = before.len() - argument.len();
    let found = match line.starts_with(command::DESCRIBE) {
        true => views(names, argument),
        false => matching(command::FORMATS.into_iter(), argument),
    };
    (start, found)
}

/// Completions where a view is not required, the likeliest first.
fn anything(text: &str, word: &str, names: &QueryNames) -> Vec<String> {
    let named = named(text, names);
    let mut found = match named.is_empty() {
        true => columns(&names.views.iter().collect::<Vec<_>>(), word),
        false => columns(&named, word),
    };
    if word.is_empty() {
        return found;
    }
    found.extend(views(names, word));
    let functions = matching(words::functions(), word);
    found.extend(functions.into_iter().map(|name| format!("{name}(")));
    found.extend(keywords(word));
    found
}

fn keywords(word: &str) -> Vec<String> {
    let small = word.chars().any(|c| c.is_ascii_lowercase());
    let found = matching(words::keywords(), word).into_iter();
    found
        .map(|keyword| {
            if small {
                keyword.to_ascii_lowercase()
            } else {
                keyword
            }
        })
        .collect()
}

fn views(names: &QueryNames, word: &str) -> Vec<String> {
    matching(names.views.iter().map(|view| view.name.as_str()), word)
}

fn columns(views: &[&ViewColumns], word: &str) -> Vec<String> {
    let all = views.iter().flat_map(|view| view.columns.iter());
    let mut found = matching(all.map(String::as_str), word);
    found.sort();
    found.dedup();
    found
}

fn matching<'a>(words: impl Iterator<Item = &'a str>, beginning: &str) -> Vec<String> {
    let fits = |word: &&str| {
        let head = word.get(..beginning.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(beginning))
    };
    words.filter(fits).map(str::to_owned).collect()
}

/// `j` of `j.`, if nothing is between the dot and the word.
fn qualifier<'a>(ahead: &'a str, up_to_word: &str) -> Option<&'a str> {
    let name = ahead.strip_suffix('.')?;
    (ahead.len() == up_to_word.len()).then(|| last_word(name))
}

/// Whether a view must follow: the last word is FROM or JOIN.
fn wants_view(ahead: &str) -> bool {
    let last = last_word(ahead);
    ["FROM", "JOIN"]
        .iter()
        .any(|word| last.eq_ignore_ascii_case(word))
}

/// The views that occur in a text.
fn named<'a>(text: &str, names: &'a QueryNames) -> Vec<&'a ViewColumns> {
    let mut found: Vec<&ViewColumns> = Vec::new();
    for view in words_of(text).filter_map(|word| names.view(word)) {
        if !found.contains(&view) {
            found.push(view);
        }
    }
    found
}

/// The view that an alias stands for, as in `VIEW alias` or `VIEW AS alias`; if there is none, all
/// views that occur in the text.
fn of_alias<'a>(alias: &str, text: &str, names: &'a QueryNames) -> Vec<&'a ViewColumns> {
    if let Some(view) = names.view(alias) {
        return vec![view];
    }
    let words: Vec<&str> = words_of(text).collect();
    for (at, view) in words.iter().enumerate() {
        let Some(view) = names.view(view) else {
            continue;
        };
        let mut after = words[at + 1..].iter();
        let next = after.next().filter(|word| !word.eq_ignore_ascii_case("as"));
        if next
            .or_else(|| after.next())
            .is_some_and(|word| word.eq_ignore_ascii_case(alias))
        {
            return vec![view];
        }
    }
    named(text, names)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_of_word(c))
        .filter(|word| !word.is_empty())
}

/// The word at the end of a text; empty if the text ends with another character.
fn last_word(text: &str) -> &str {
    let end = text.trim_end_matches(is_of_word).len();
    &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> QueryNames {
        let view = |name: &str, columns: &[&str]| ViewColumns {
            name: name.to_owned(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        };
        QueryNames {
            views: vec![
                view("history_jobs", &["number", "name", "state", "exit_code"]),
                view("history_output", &["job", "text", "offset"]),
            ],
        }
    }

    /// Completes at `|`.
    fn at(text: &str) -> Vec<String> {
        let cursor = text.find('|').expect("a cursor");
        let text = text.replace('|', "");
        let (start, found) = complete(&text, cursor, &names());
        assert!(start <= cursor);
        found
    }

    #[test]
    fn behind_from_stand_views() {
        assert_eq!(at("select * from |"), ["history_jobs", "history_output"]);
        assert_eq!(at("select * from HISTORY_o|"), ["history_output"]);
        assert_eq!(
            at("select * from history_jobs join history_j|"),
            ["history_jobs"]
        );
    }

    #[test]
    fn columns_are_those_of_the_views_that_are_named() {
        assert_eq!(at("select exit| from history_jobs"), ["exit_code"]);
        assert_eq!(at("select te| from history_jobs"), Vec::<String>::new());
        assert_eq!(at("select off|"), ["offset"]);
        assert_eq!(
            at("select | from history_output"),
            ["job", "offset", "text"]
        );
    }

    #[test]
    fn an_alias_stands_for_its_view() {
        let text = "select o.| from history_jobs j join history_output AS o";
        assert_eq!(at(text), ["job", "offset", "text"]);
        assert_eq!(at("select j.n| from history_jobs j"), ["name", "number"]);
        assert_eq!(at("select history_jobs.st|"), ["state"]);
    }

    #[test]
    fn keywords_and_functions_follow_the_typing() {
        assert_eq!(at("sel|"), ["select"]);
        assert_eq!(at("SEL|"), ["SELECT"]);
        assert_eq!(at("select group_c|"), ["group_concat("]);
        assert_eq!(at("select * from history_jobs wher|"), ["where"]);
    }

    #[test]
    fn nothing_is_offered_inside_of_a_text() {
        assert_eq!(at("select 'sel|"), Vec::<String>::new());
        assert_eq!(at("select 1 -- sel|"), Vec::<String>::new());
        assert_eq!(at("select 'größe', exit|"), ["exit_code"]);
    }

    #[test]
    fn commands_and_their_words_are_offered() {
        assert_eq!(at("\\f|"), ["\\format"]);
        assert_eq!(at("\\format j|"), ["json"]);
        assert_eq!(at("\\d history_o|"), ["history_output"]);
        let (start, _) = complete(" \\d history_o", 13, &names());
        assert_eq!(start, 4);
    }
}
