//! Names in the source: one name for one type, and the field's words instead of our own.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, rust_files};

/// Words that were ours alone, and what is said instead. They are looked for among the parts of
/// identifiers: `hunt` is found in `hunt_for` and in `HuntFor`, not in `shunt`.
const GONE: [(&str, &str); 32] = [
    ("nurse", "event loop"),
    ("keeper", "shim handle"),
    ("ward", "attempt watch"),
    ("obey", "on command"),
    ("hear", "on message"),
    ("hunt", "search for orphans"),
    ("hunter", "orphan searcher"),
    ("settle", "finalize"),
    ("settled", "finalized"),
    ("kit", "context"),
    ("desk", "context"),
    ("hole", "dropped range"),
    ("ring", "retention"),
    ("hoard", "memory budget"),
    ("pile", "buffered"),
    ("piles", "buffered"),
    ("pace", "rate limiter"),
    ("floods", "fair queue"),
    ("seat", "slot"),
    ("intake", "counting io"),
    ("farewell", "close message"),
    ("speaker", "sender"),
    ("standing", "snapshot"),
    ("wish", "request"),
    ("wished", "requested"),
    ("kick", "wakeup"),
    ("bell", "wakeup"),
    ("pulse", "wakeup"),
    ("stranger", "unauthenticated"),
    ("carrier", "copier"),
    ("rhythm", "pacing"),
    ("ballast", "disk reserve"),
];

/// Names with such a word that stay: a setting, what is on a disk or in a statement already, names
/// of other people's things.
const STAY: [&str; 5] = [
    "ring",
    "ballast_bytes",
    "BALLAST_BYTES_DEFAULT_MAX",
    "PUNCH_HOLE",
    "stop_wish",
];

/// Type names that more than one file defines, with the reason in a word.
const TWICE: [&str; 10] = [
    "Data",   // an associated type
    "Item",   // an associated type
    "Bound",  // an associated type
    "Target", // an associated type beside the command line's
    "Cursor", // a trait of SQLite's virtual tables asks for the second one
    "Params", // local to functions, for one notification each
    "Error",  // associated types of serde and of conversions
    "Value",  // associated types of serde
    "Err",    // an associated type
    "Writer", // an associated type beside the store's
];

/// The parts of an identifier, in lower case: `HuntFor` and `hunt_for` are hunt, for.
fn parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if c != '_' {
            let part = parts.last_mut().expect("there is one");
            part.extend(c.to_lowercase());
        }
        before = c;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The code of a text without its strings and without its tests.
fn names(text: &str) -> BTreeSet<String> {
    let text = code(text);
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut bare = String::new();
    let mut is_string = false;
    let mut is_escaped = false;
    for c in text.chars() {
        if c == '"' && !is_escaped {
            is_string = !is_string;
        }
        is_escaped = c == '\\' && !is_escaped;
        bare.push(if is_string { ' ' } else { c });
    }
    let apart = |c: char| !c.is_alphanumeric() && c != '_';
    bare.split(apart)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn is_test(path: &str) -> bool {
    path.ends_with("_tests.rs") || path.ends_with("testing.rs") || path.ends_with("/tests.rs")
}

#[test]
fn identifiers_are_taken_apart() {
    assert_eq!(parts("HuntFor"), ["hunt", "for"]);
    assert_eq!(parts("hunt_for"), ["hunt", "for"]);
    assert_eq!(parts("HUNT_FOR"), ["hunt", "for"]);
    assert_eq!(parts("shunt"), ["shunt"]);
    let found = names("let hole = \"ward\"; // kit\n#[cfg(test)]\nmod tests { let desk; }");
    assert_eq!(found, ["hole", "let"].map(str::to_owned).into());
}

#[test]
fn no_private_words_are_left() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        for name in names(&text) {
            if is_test(&path) || STAY.contains(&name.as_str()) {
                continue;
            }
            let parts = parts(&name);
            let gone = GONE
                .iter()
                .find(|(word, _)| parts.iter().any(|part| part == word));
            if let Some((_, instead)) = gone {
                wrong.push(format!("{path}: {name} (say {instead})"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_type_name_stands_once() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (path, text) in rust_files(&["src"]) {
        if is_test(&path) {
            continue;
        }
        let text = code(&text);
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            if !["struct", "enum", "trait", "type"].contains(&pair[0]) {
                continue;
            }
            let apart = |c: char| !c.is_alphanumeric() && c != '_';
            let name = pair[1].split(apart).next().unwrap_or_default();
            if name.starts_with(char::is_uppercase) {
                places
                    .entry(name.to_owned())
                    .or_default()
                    .push(path.clone());
            }
        }
    }
    // Those of a trait's implementations are one line for each.
    places.retain(|name, paths| paths.len() > 1 && !TWICE.contains(&name.as_str()));
    assert!(places.is_empty(), "{places:#?}");
}
