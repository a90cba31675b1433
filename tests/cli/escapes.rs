//! What a terminal acts on, or shows nothing for: in no line that a verb prints by itself, whoever
//! chose the text; and files that verbs write.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use serde_json::{Value, json};

use crate::harness::Server;

/// One of each kind: C0, DEL, C1, marks and turns of direction, nothing at all, tags.
const EVIL: &str = "a\u{1b}]0;x\u{7}\u{7f}\u{9b}2J\u{200e}\u{200f}\u{61c}\u{200b}\u{feff}\u{202e}\
                    \u{2066}\u{2028}\u{ad}\u{180e}\u{2060}\u{fff9}\u{e0001}\u{e0041}\u{e007f}z";

fn acts(c: char) -> bool {
    let code = u32::from(c);
    (c.is_control() && c != '\n')
        || EVIL.chars().any(|evil| evil == c && !c.is_ascii_graphic())
        || (0xe0000..=0xe0fff).contains(&code)
}

#[track_caller]
fn is_harmless(what: &str, text: &str) {
    let found: Vec<char> = text.chars().filter(|c| acts(*c)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
}

#[test]
fn no_verb_prints_what_a_terminal_acts_on() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok(
        "queue.set",
        json!({"queue": "q\u{200f}\u{e0041}", "paused": false}),
    );
    let job = json!({
        "argv": ["printf", "%s", EVIL], "name": EVIL, "labels": {EVIL: EVIL}, "cwd": "/",
        "env": {"EVIL": EVIL}, "queue": "q\u{200f}\u{e0041}",
    });
    let job = client.submit(job);
    let job = client.finished(&job);
    let sql = format!(
        "SELECT name, labels, '{}' AS \"b\u{202e}\" FROM history_jobs",
        EVIL
    );
    let number = job["number"].to_string();
    for words in [
        &["ls"][..],
        &["ls", "--json"],
        &["show", &number],
        &["show", &number, "--json"],
        &["wait", &number],
        &["wait", &number, "--json"],
        &["queue"],
        &["queue", "--json"],
        &["status"],
        &["status", "--json"],
        &["config"],
        &["verify", &number, "--contains", EVIL],
        &["verify", &number, "--json"],
        &["tail", &number, "--json"],
        &["export", &number, "--format", "json"],
        &["export", &number, "--format", "asciicast"],
        &["search", "z"],
        &["search", "z", "--json"],
        &["sql", &sql],
        &["sql", "--format", "json", &sql],
        // Errors that quote what they are about.
        &["tail", "nobody\u{200f}\u{e0041}\u{9b}"],
        &["show", "nobody\u{200f}\u{e0041}"],
        &["ls", "--label", EVIL],
        &["ls", "--state", EVIL],
        &["ls", "--nothing\u{9b}\u{e0041}"],
        &["nothing\u{9b}\u{200f}\u{e0041}"],
        &["queue", "rm", EVIL],
        &["search", EVIL, EVIL],
        &["search", "--regex", "(\u{200f}\u{e0041}"],
        &["signal", &number, EVIL],
        &["sql", EVIL],
        &["backup", "/nonexistent/\u{200f}\u{e0041}\u{1b}[2J"],
        &[
            "export",
            &number,
            "--format",
            "text",
            "-o",
            "/nonexistent/\u{9b}\u{e0041}",
        ],
        &[
            "submit",
            "--cwd",
            "/nonexistent\u{200f}\u{1b}",
            "--timeout",
            EVIL,
            "--",
            "true",
        ],
        &["wait", &number, "--until", "regex:(\u{200f}\u{e0041}"],
    ] {
        let said = server.cli(words[0]).args(words[1..].iter()).run();
        is_harmless(&format!("{words:?}"), &said.out());
        is_harmless(&format!("{words:?}"), &said.err());
    }
}

#[test]
fn an_exported_recording_is_the_same_value_and_does_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["printf", "%s", EVIL], "name": EVIL}));
    let job = client.finished(&job);
    let export = |format: &str| server.cli("export").args(["--format", format]).run().out();
    let value: Value = serde_json::from_str(&export("json")).expect("JSON");
    assert_eq!(value["job"], job);
    assert_eq!(value["chunks"][0]["data"], EVIL);
    let cast = export("asciicast");
    let mut lines = cast
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert_eq!(lines.next().expect("a header")["title"], EVIL);
    assert_eq!(lines.next().expect("an event")[2], EVIL);
    assert_eq!(export("text"), EVIL, "a text is what it is");
}

#[test]
fn a_file_that_is_exported_follows_no_link_and_is_its_owners() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "new"]}));
    client.finished(&job);
    let (victim, link) = (server.scratch("victim"), server.scratch("link"));
    fs::write(&victim, "precious").expect("written");
    symlink(&victim, &link).expect("a link");
    let export = |words: &[&str]| {
        let file = link.to_str().expect("UTF-8");
        let words = [&["--format", "text", "-o", file], words].concat();
        server.cli("export").args(words).run()
    };
    let done = export(&[]);
    assert_eq!(done.code(), 1);
    assert!(done.err().contains("--force"), "{}", done.err());
    assert_eq!(fs::read_to_string(&victim).expect("read"), "precious");
    let done = export(&["--force"]);
    assert_eq!(done.code(), 0, "{}", done.err());
    assert_eq!(fs::read_to_string(&victim).expect("read"), "precious");
    let meta = fs::symlink_metadata(&link).expect("a file");
    assert!(meta.is_file() && meta.mode() & 0o777 == 0o600, "{meta:?}");
    assert_eq!(fs::read_to_string(&link).expect("read"), "new\n");
    let left = fs::read_dir(link.parent().expect("a directory")).expect("read");
    let drafts = left.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with(".link")
    });
    assert_eq!(drafts.count(), 0);
}

#[test]
fn no_field_from_outside_makes_a_line_of_the_log() {
    let to = "/nonexistent/x\n2026-11-29T00:00:00.000000Z ERROR forged: \u{1b}[2J\u{9b}\u{200f}\u{e0041}";
    for format in ["text", "json"] {
        let mut server = Server::with(&["--log-format", format, "--log-level", "debug"], &[]);
        let mut client = server.connect();
        client
            .call("server.backup", json!({"to": to}))
            .expect_err("no such place");
        let queue = format!("q{}", &to[10..]);
        client
            .call("job.submit", json!({"argv": ["x"], "queue": queue}))
            .expect_err("none");
        let job = client.submit(json!({"argv": ["true"], "name": to}));
        client.finished(&job);
        // The last word of a server comes behind all that.
        server.stop();
        let said = server.said();
        is_harmless(format, &said);
        let forged = said.lines().filter(|line| line.contains("ERROR forged"));
        assert_eq!(
            forged
                .filter(|line| line.starts_with("2026-11-29T00:"))
                .count(),
            0,
            "{said}"
        );
    }
}
