//! `token`: makes, lists, revokes, replaces and narrows tokens with scopes.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::harness::{BINARY, Cli, Finished, Server};

fn token(server: &Server, words: &[&str]) -> Finished {
    server.cli("token").args(words).run()
}

#[track_caller]
fn made(server: &Server, words: &[&str]) -> String {
    let done = token(server, words);
    assert_eq!((done.code(), done.err().as_str()), (0, ""), "{words:?}");
    let text = done.out();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("ccx_"), "{text}");
    text.trim().to_owned()
}

/// What a verb over TCP said.
struct Said(Output);

impl Said {
    fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

/// A verb over TCP with this token.
fn with(server: &Server, token: &str, verb: &str, words: &[&str]) -> Said {
    let url = format!("ws://{}", server.listen());
    let output = Command::new(BINARY)
        .args([verb, "--server", &url])
        .args(words)
        .env("CC_EXECUTOR_TOKEN", token)
        .stdin(Stdio::null())
        .output();
    Said(output.expect("the binary runs"))
}

#[test]
fn a_token_is_made_used_listed_replaced_and_revoked() {
    let server = Server::start();
    assert_eq!(server.cli("queue").args(["set", "ci"]).run().code(), 0);
    let create = [
        "create",
        "--name",
        "ci",
        "--scope",
        "submit,read",
        "--queue",
        "ci",
        "--expires",
        "30d",
    ];
    let text = made(&server, &create);
    let done = with(&server, &text, "submit", &["--queue", "ci", "--", "true"]);
    assert_eq!(done.code(), Some(0), "{}", done.err());
    let refused = with(&server, &text, "submit", &["--", "true"]);
    assert_ne!(refused.code(), Some(0));
    assert!(
        refused.err().contains("\"ci\" is for the queues ci"),
        "{}",
        refused.err()
    );
    let refused = with(
        &server,
        &text,
        "queue",
        &["set", "ci", "--concurrency", "2"],
    );
    assert!(
        refused.err().contains("does not have the scope queues"),
        "{}",
        refused.err()
    );

    let page = token(&server, &["ls"]).out();
    assert!(
        page.contains("ci") && page.contains("read,submit") && page.contains("queue ci"),
        "{page}"
    );
    assert!(!page.contains("ccx_"), "{page}");
    let listed = token(&server, &["ls", "--json"]).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]),
        (&Value::from("ci"), &Value::from("valid"))
    );

    let new = made(&server, &["rotate", "ci"]);
    let ls = |text: &str| with(&server, text, "ls", &[]);
    assert_ne!(ls(&text).code(), Some(0));
    assert_eq!(ls(&new).code(), Some(0), "{}", ls(&new).err());
    assert_eq!(token(&server, &["revoke", "ci"]).code(), 0);
    let refused = ls(&new);
    assert_ne!(refused.code(), Some(0));
    assert!(
        refused.err().contains("the token \"ci\" was revoked"),
        "{}",
        refused.err()
    );
    let again = token(&server, &["revoke", "ci"]);
    assert!(
        again.code() != 0 && again.err().contains("no token"),
        "{}",
        again.err()
    );
    assert_eq!(token(&server, &["ls"]).out(), "");
    assert!(token(&server, &["ls", "--all"]).out().contains("revoked"));
    // Alone it still prints the administrator's.
    assert_eq!(token(&server, &[]).out().trim(), server.token());
}

#[test]
fn a_holder_narrows_a_token_without_a_server() {
    let mut server = Server::start();
    let text = made(
        &server,
        &["create", "--name", "a", "--scope", "submit,read,control"],
    );
    let done = with(&server, &text, "submit", &["--name", "wide", "--", "true"]);
    assert_eq!(done.code(), Some(0), "{}", done.err());
    server.kill_9();
    let file = server.scratch("token");
    fs::write(&file, format!("{text}\n")).expect("written");
    let path = file.to_str().expect("UTF-8");
    let narrow = |words: &[&str]| {
        let all = ["narrow", "--token-file", path];
        let words: Vec<&str> = all.iter().chain(words).copied().collect();
        Cli::new(&server.scratch("nowhere"), "token")
            .args(words)
            .run()
    };
    let narrowed = narrow(&["--scope", "read", "--label", "a=b"]);
    assert_eq!(narrowed.code(), 0, "{}", narrowed.err());
    let narrowed = narrowed.out().trim().to_owned();
    assert_ne!(narrowed, text);
    let nothing = narrow(&[]);
    assert!(
        nothing.code() != 0 && nothing.err().contains("nothing is taken away"),
        "{}",
        nothing.err()
    );
    fs::write(&file, "0".repeat(64)).expect("written");
    let admin = narrow(&["--own"]);
    assert!(
        admin.code() != 0 && admin.err().contains("no token with scopes"),
        "{}",
        admin.err()
    );
    assert!(!server.scratch("nowhere").exists());

    server.restart();
    assert_eq!(
        with(&server, &narrowed, "ls", &[]).out(),
        with(&server, &narrowed, "ls", &["--name", "none"]).out()
    );
    let refused = with(&server, &narrowed, "submit", &["--", "true"]);
    assert!(
        refused.err().contains("the scope submit"),
        "{}",
        refused.err()
    );
    assert!(with(&server, &text, "ls", &[]).out().contains("wide"));
}
