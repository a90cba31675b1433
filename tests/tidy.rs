//! Rules about the source text itself: who may know whom, how files begin, where SQL lives.
//! They hold the map of ARCHITECTURE.md; a change here is a change there.

#[path = "tidy/words.rs"]
mod words;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Every module of the crate, and what it may know, in the order of `src/lib.rs`: a module may know
/// nothing that is listed after it.
const MAY_KNOW: [(&str, &[&str]); 25] = [
    ("job", &[]),
    ("sys", &["job"]),
    ("access", &["job", "sys"]),
    ("data_dir", &["sys"]),
    ("escape", &[]),
    ("config", &["job", "sys", "data_dir"]),
    ("telemetry", &["config", "sys", "data_dir", "escape"]),
    ("spool", &["job"]),
    ("launch", &["spool", "sys"]),
    ("clean", &["sys", "launch"]),
    ("shim", &["job", "spool", "sys", "escape"]),
    ("policy", &["job", "sys"]),
    ("audit", &["access", "job"]),
    ("secrets", &["job"]),
    ("store", &["access", "audit", "job", "sys"]),
    ("output", &["job", "spool", "store", "sys"]),
    (
        "supervisor",
        &[
            "job", "spool", "policy", "secrets", "store", "output", "sys",
        ],
    ),
    (
        "scheduler",
        &["job", "spool", "store", "output", "supervisor", "sys"],
    ),
    (
        "query",
        &["job", "spool", "store", "output", "clean", "sys"],
    ),
    (
        "notices",
        &[
            "job",
            "launch",
            "clean",
            "policy",
            // A command is executed as the program of a job is.
            "shim::exec_pinned",
            "spool::PinnedRun",
            "store",
            "supervisor",
            "sys",
        ],
    ),
    (
        "executor",
        &[
            "access",
            "audit",
            "query",
            "notices",
            "job",
            "spool",
            "policy",
            "secrets",
            "store",
            "output",
            "supervisor",
            "scheduler",
            "telemetry::EVENTS",
            "config",
            "data_dir",
            "sys",
        ],
    ),
    // Beside the three, the token's file, how a process ends, and which characters are shown.
    (
        "protocol",
        &[
            "access",
            "audit",
            "job",
            "escape",
            "executor",
            "config",
            "data_dir",
            "spool::Layout",
            "sys",
            "escape",
        ],
    ),
    ("init", &[]),
    // One verb per file; `serve` and what it needs may know everything, see below.
    ("cli", CLIENT_MAY_KNOW),
    (
        "role",
        &["cli", "init", "launch", "notices", "query", "shim", "sys"],
    ),
];

/// What a verb that is a client may know beside the public API.
const CLIENT_MAY_KNOW: &[&str] = &[
    // A token is narrowed without a server.
    "access",
    "job",
    "spool::layout",
    "spool::Layout",
    "config",
    "sys::cgroup_probe",
    "sys::clock",
    "sys::descriptors",
    "sys::proc",
    "sys::waiting_io",
    "clean",
    "data_dir",
    "escape",
    "launch",
    // An exported trail is verified without a server.
    "audit",
    // A policy is tried and checked without a server.
    "policy",
    // A flow's file is checked as the server would, before anything is submitted.
    "output::Pattern",
];

/// Files below `src/cli` that are the server's side: they may know everything.
const SERVER_VERBS: [&str; 4] = [
    // Compares a trail with a data directory that no server holds.
    "src/cli/audit/data_dir.rs",
    "src/cli/verbs/serve.rs",
    "src/cli/serve/",
    "src/cli/verbs/token.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below these directories, with paths relative to the package.
fn rust_files(directories: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for directory in directories {
        collect(&root().join(directory), &mut found);
    }
    found.sort();
    assert!(!found.is_empty());
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file");
            let relative = path.strip_prefix(root()).expect("below the package");
            (relative.display().to_string(), text)
        })
        .collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The text without comments: they may name whom they like.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| match line.trim_start().starts_with("//") {
            true => "",
            false => line.split(" // ").next().unwrap_or(line),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths behind every `crate::`, braces opened: `crate::{a, b::{C, d}}` is a, b::C, b::d.
fn known(text: &str) -> BTreeSet<String> {
    let text = code(text);
    let mut paths = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$') {
            open("", &text[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path at the beginning of `text`; returns how many bytes it took.
fn open(prefix: &str, text: &str, paths: &mut BTreeSet<String>) -> usize {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let length = text.find(|c| !is_path(c)).unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..length]);
    if !text[length..].starts_with('{') {
        paths.insert(path);
        return length;
    }
    let mut at = length + 1;
    while at < text.len() && !text[at..].starts_with('}') {
        let rest = &text[at..];
        let skip = rest.find(|c: char| !c.is_whitespace() && c != ',');
        at += skip.unwrap_or(rest.len());
        if text[at..].starts_with('}') {
            break;
        }
        at += open(&path, &text[at..], paths).max(1);
    }
    at + 1
}

fn module_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?;
    Some(name.strip_suffix(".rs").unwrap_or(name))
}

#[test]
fn paths_in_braces_are_read() {
    let text =
        "use crate::{job::{Job, id::JobId}, spool};\n// crate::store\nlet x = crate::store::f();";
    let expected = ["job::Job", "job::id::JobId", "spool", "store::f"];
    assert_eq!(known(text), expected.map(str::to_owned).into());
}

#[test]
fn modules_know_only_whom_they_may() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        let module = module_of(&path).expect("below src");
        let server = SERVER_VERBS.iter().any(|verb| path.starts_with(verb));
        if ["main", "lib"].contains(&module) || server {
            continue;
        }
        let row = MAY_KNOW.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = row else {
            wrong.push(format!("{path}: the table does not name {module}"));
            continue;
        };
        for known in known(&text) {
            let own = is_or_below(&known, module);
            if !own && !allowed.iter().any(|other| is_or_below(&known, other)) {
                wrong.push(format!("{path}: {module} may not know {known}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What `scripts/imports` prints, as lines, and whether it exits with 0.
fn imports(arguments: &[&str]) -> (Vec<String>, bool) {
    let output = Command::new("python3")
        .arg(root().join("scripts/imports"))
        .args(arguments)
        .output()
        .expect("python3");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().map(str::to_owned).collect();
    (lines, output.status.success())
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let (lines, _) = imports(&[]);
    let circles = lines.iter().filter(|line| line.starts_with("circle: "));
    assert_eq!(circles.count(), 0, "\n{}", lines.join("\n"));
}

#[test]
fn modules_import_from_those_above_them_in_the_list() {
    let (lines, _) = imports(&[]);
    let upward: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with("upward: "))
        .collect();
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn a_circle_and_an_upward_import_are_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("a directory");
        fs::write(path, text).expect("written");
    };
    write("lib.rs", "pub mod low;\npub mod high;\n");
    write(
        "low/mod.rs",
        "mod a;\nmod b;\nmod c;\n#[cfg(test)]\nmod tests;\npub use a::A;\npub struct Own;\n",
    );
    write(
        "low/a.rs",
        "use super::b::{self, B as Other};\npub struct A;\n",
    );
    // Through the re-export to the file that defines it.
    write(
        "low/b.rs",
        "use crate::low::A;\npub enum B {}\n#[cfg(test)]\nmod tests { use super::super::c::C; }\n",
    );
    write(
        "low/c.rs",
        "// use super::a::A;\nuse super::Own;\nimpl Own {}\nuse crate::high::High;\npub type C = u8;\n",
    );
    write("low/tests.rs", "use super::c::C;\n");
    write("high.rs", "use crate::low::Own;\npub struct High;\n");
    let (lines, is_free) = imports(&[dir.path().to_str().expect("UTF-8")]);
    let expected = [
        "circle: src/low/a.rs src/low/b.rs",
        "    src/low/a.rs -> src/low/b.rs: B, b",
        "    src/low/b.rs -> src/low/a.rs: A",
        "upward: src/low/c.rs -> src/high.rs: High",
    ];
    assert_eq!(lines, expected);
    assert!(!is_free);
}

/// The modules of `src/lib.rs`, in its order.
fn modules() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("a file");
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "));
    names
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect()
}

#[test]
fn the_table_goes_by_the_order_of_the_modules() {
    let modules = modules();
    let rows: Vec<&str> = MAY_KNOW.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        rows, modules,
        "one row for each module of src/lib.rs, in its order"
    );
    for (at, (name, allowed)) in MAY_KNOW.iter().enumerate() {
        for path in *allowed {
            let other = path.split("::").next().expect("a module");
            let floor = modules.iter().position(|module| module == other);
            assert!(
                floor.is_some_and(|floor| floor < at),
                "{name} may not know {path}"
            );
        }
    }
}

fn is_or_below(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn every_file_says_what_lives_in_it() {
    let wrong: Vec<String> = rust_files(&["src", "tests", "benches"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "files without a word: {wrong:?}");
}

/// Longest function, lines, from that with `fn` to that with its closing brace.
const LINES_MAX: usize = 70;

/// The functions in a text as rustfmt leaves it: name and length in lines.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let Some((before, after)) = start.split_once("fn ") else {
            continue;
        };
        let qualifiers = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
        let mut before = before.split_whitespace();
        if !before.all(|word| qualifiers.contains(&word) || word.starts_with("pub(")) {
            continue;
        }
        let name = after
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        let indent = &line[..line.len() - start.len()];
        // Its closing brace stands below its beginning; a function without a body ends in a semicolon.
        let is_end = |line: &str| {
            let own = line
                .strip_prefix(indent)
                .filter(|rest| !rest.starts_with(' '));
            own.is_some_and(|rest| rest == "}" || rest.ends_with(';'))
        };
        let length = match line.ends_with('}') || line.ends_with(';') {
            true => 1,
            false => {
                2 + lines[at + 1..]
                    .iter()
                    .position(|line| is_end(line))
                    .expect("its end")
            }
        };
        found.push((name.expect("its name"), length));
    }
    found
}

#[test]
fn functions_are_measured_from_their_first_line_to_their_last() {
    let text = "fn a() {}\nimpl X {\n    pub(super) async fn b(\n        x: u8,\n    ) -> u8 {\n        x\n    \
                }\n    fn c(&self);\n}\nlet f: fn (u8);\npub const fn d() {\n    if x {\n    }\n}\n";
    assert_eq!(functions(text), [("a", 1), ("b", 5), ("c", 1), ("d", 4)]);
}

#[test]
fn no_function_is_long() {
    let mut long = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        for (name, lines) in functions(&text) {
            if lines > LINES_MAX {
                long.push(format!("{path}: {name} has {lines} lines"));
            }
        }
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn only_the_store_and_queries_know_the_engine() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        if ["src/store/sqlite/", "src/query/"]
            .iter()
            .any(|place| path.starts_with(place))
        {
            continue;
        }
        let code = code(&text);
        for word in ["sqlx", "rusqlite", "libsqlite3_sys"] {
            let apart = |c: char| !c.is_alphanumeric() && c != '_';
            if code.split(apart).any(|each| each == word) {
                wrong.push(format!("{path}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn sql_lives_in_the_store() {
    let words = [
        "SELECT ",
        "INSERT INTO ",
        "INSERT OR ",
        "UPDATE jobs",
        "DELETE FROM ",
        "CREATE TABLE ",
        "PRAGMA ",
        "sqlx::",
        "rusqlite",
        "libsqlite3_sys",
    ];
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        // The process that runs users' SQL has a little of its own; the prompt asks the public API,
        // whose language is SQL, for the columns of its views, and knows its words.
        // So do the texts for models.
        let places = [
            "src/store/sqlite/",
            "src/query/",
            "src/cli/sql/",
            "src/protocol/mcp/",
        ];
        if places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        let code = code(&text);
        for word in words.iter().filter(|word| code.contains(**word)) {
            wrong.push(format!("{path}: {word}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let text = |name: &str| fs::read_to_string(root().join(name)).expect("a file");
    let toolchain = text("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = \""));
    let version = channel.expect("a channel").trim_end_matches('"');
    let from = format!("FROM rust:{version}-");
    assert!(text("Dockerfile").contains(&from), "{from}");
}

#[test]
fn only_processes_of_their_own_print() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        let module = module_of(&path).expect("below src");
        let code = code(&text);
        let prints = ["println!(", "print!(", "eprintln!(", "eprint!("];
        // A shim's stderr is its log.
        if !["cli", "main", "shim"].contains(&module)
            && prints.iter().any(|word| code.contains(word))
        {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn only_functions_that_queries_may_call_are_offered() {
    let text = |name: &str| fs::read_to_string(root().join(name)).expect("a file");
    // The text of a constant, without its quotes and commas.
    let words = |name: &str, constant: &str| -> BTreeSet<String> {
        let text = text(name);
        let from = text.find(constant).expect("the constant") + constant.len();
        let from = from + text[from..].find(" = ").expect("its value");
        let length = text[from..].find(';').expect("its end");
        let apart = |c: char| !c.is_alphanumeric() && c != '_';
        let words = text[from..from + length].split(apart);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let offered = words("src/cli/sql/words.rs", "const FUNCTIONS");
    let mut allowed = words("src/query/rules.rs", "const FUNCTIONS");
    allowed.extend(words("src/query/rules.rs", "const TABLE_FUNCTIONS"));
    assert!(
        offered.contains("count") && offered.contains("ago"),
        "{offered:?}"
    );
    let wrong: Vec<_> = offered.difference(&allowed).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_page_lists_every_function_that_queries_have() {
    let text = |name: &str| fs::read_to_string(root().join(name)).expect("a file");
    let rules = text("src/query/rules.rs");
    let list = rules.split("pub const FUNCTIONS").nth(1).expect("a list");
    let list = list.split("];").next().expect("its end");
    let page = text("docs/sql.md");
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(names.len() > 50);
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
