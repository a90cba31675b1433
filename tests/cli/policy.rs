//! `policy`: a policy is tried and checked without a server, and loaded again by one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::harness::{Finished, Server};

const TEXT: &str = r#"
[[rule]]
id = "lists"
decision = "allow"
who = "ci"
program = "/bin/ls"
args = [{ rest = { not = ["-*"] } }]

[[rule]]
id = "no-root"
decision = "deny"
args = ["/"]

[[rule]]
id = "anything"
decision = "allow"
program = "/usr/bin/env"
args = [{ rest = "any" }]
match = [["env", "x"]]
not_match = [["ls"]]
"#;

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[test]
fn a_command_is_checked_without_a_server() {
    let place = Server::stopped(&[], &[]);
    let file = place.scratch("policy.toml");
    write(&file, TEXT);
    let check = |words: &[&str]| -> Finished {
        let file = file.to_str().expect("text");
        let words = [&["check", "--policy", file], words].concat();
        place.cli("policy").args(words).run()
    };
    let fine = check(&["--as", "ci", "--", "/bin/ls", "a"]);
    assert_eq!(fine.code(), 0, "{}", fine.err());
    let lines: Vec<String> = fine.out().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "allow \"lists\": matches");
    assert!(
        lines[1].starts_with("deny \"no-root\": args: argv[1] is \"a\""),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("allow \"anything\": program: "),
        "{lines:?}"
    );
    assert_eq!(lines[3], "allowed: the rule \"lists\" allows it");

    let denied = check(&["--as", "ci", "--json", "--", "/bin/ls", "/"]);
    assert_eq!(denied.code(), 1);
    let json: serde_json::Value = serde_json::from_str(&denied.out()).expect("JSON");
    assert_eq!(json["decision"], "deny");
    assert_eq!(json["rule"], "no-root");
    assert_eq!(
        check(&["--", "/bin/ls", "a"]).code(),
        1,
        "the admin is not ci"
    );
    assert_eq!(check(&["--shell", "ls a"]).code(), 1);
    assert_ne!(check(&[]).code(), 0);
}

#[test]
fn holes_and_mistakes_are_named_with_their_line() {
    let place = Server::stopped(&[], &[]);
    let file = place.scratch("policy.toml");
    let lint = || {
        let words = ["lint", "--policy", file.to_str().expect("text")];
        place.cli("policy").args(words).run()
    };
    write(&file, TEXT);
    let found = lint();
    assert_eq!(found.code(), 1);
    assert!(
        found
            .out()
            .contains("line 14: rule \"anything\": it allows /usr/bin/env with any words"),
        "{}",
        found.out()
    );
    write(&file, "[[rule]]\nid = \"x\"\ndecision = \"yes\"\n");
    let wrong = lint();
    assert_eq!(wrong.code(), 1);
    assert!(wrong.err().contains("policy.toml:3: "), "{}", wrong.err());
    write(&file, "");
    assert_eq!((lint().code(), lint().out()), (0, String::new()));
}

#[test]
fn the_policy_of_the_server_is_taken_and_loaded_again() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("policy.toml");
    write(&file, TEXT);
    let server = Server::with(&["--policy", file.to_str().expect("text")], &[]);
    let call = |words: &[&str]| server.cli("policy").args(words).run();
    assert_eq!(call(&["check", "--", "env", "x"]).code(), 0);
    write(&file, &TEXT.replace("/usr/bin/env", "/usr/bin/true"));
    let stale = call(&["check", "--", "env", "x"]);
    assert_eq!(stale.code(), 1, "its example does not match any more");
    let refused = server.cli("run").args(["--clean-env", "--", "false"]).run();
    assert_eq!(refused.code(), 125, "{}", refused.err());
    assert!(
        refused.err().contains("no rule allows the program"),
        "{}",
        refused.err()
    );
    write(&file, "rule = 1");
    let broken = call(&["reload"]);
    assert_eq!(broken.code(), 1);
    assert!(broken.err().contains("policy.toml:1: "), "{}", broken.err());
    write(&file, TEXT);
    let loaded = call(&["reload"]);
    assert_eq!(loaded.code(), 0, "{}", loaded.err());
    assert!(
        loaded.out().contains("is in force: 3 rules"),
        "{}",
        loaded.out()
    );
}
