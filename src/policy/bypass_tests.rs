//! Known bypasses of other tools' allow-lists, as a table: none of them is allowed. `tests/server/policy.rs`
//! sends the same table to a server.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    rule::{Policy, RuleEffect},
    subject::Judged,
    testing::{found, judged, policy},
};
use crate::job::Command;

const BYPASSES: &str = include_str!("../../tests/fixtures/policy/bypasses.json");
const POLICY: &str = include_str!("../../tests/fixtures/policy/ci.toml");

#[derive(Debug, Deserialize)]
struct Bypass {
    what: String,
    argv: Option<Vec<String>>,
    shell: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<String>,
}

impl Bypass {
    fn job(&self) -> Judged {
        let argv = self.argv.clone().map(Command::Argv);
        let shell = self.shell.clone().map(Command::Shell);
        Judged {
            command: argv.or(shell).expect("a command"),
            names: self.env.keys().cloned().collect(),
            path: self.env.get("PATH").cloned(),
            cwd: self.cwd.clone().unwrap_or_else(|| "/srv/ci".to_owned()),
            ..judged(&["x"])
        }
    }
}

fn ci() -> Policy {
    policy(&POLICY.replace("{ci}", "/srv/ci"))
}

#[test]
fn no_known_bypass_is_allowed() {
    let table = BYPASSES.replace("{ci}", "/srv/ci");
    let bypasses: Vec<Bypass> = serde_json::from_str(&table).expect("a table");
    assert!(bypasses.len() >= 150, "{}", bypasses.len());
    let policy = ci();
    let allowed = bypasses.iter().filter(|bypass| {
        let job = bypass.job();
        policy.judge(&found(&job)).effect == RuleEffect::Allow
    });
    let allowed: Vec<&Bypass> = allowed.collect();
    assert!(allowed.is_empty(), "{allowed:#?}");
    assert!(bypasses.iter().all(|bypass| !bypass.what.is_empty()));
}

#[test]
fn what_the_same_policy_is_for_is_allowed() {
    let policy = ci();
    for argv in [
        &["git", "status"] as &[&str],
        &["/usr/bin/git", "log", "main", "src"],
        &["/bin/git", "log"],
        &["make", "test"],
        &["python3", "/srv/ci/check.py"],
        // Words are words: nothing reads them.
        &["echo", "a; ls"],
        &["echo", "$(id)"],
        &["ls", "--color=never"],
        &["grep", "-n", "x", "a"],
    ] {
        let expected = match argv[0].starts_with("/bin") {
            // Written as /usr/bin/git: this is another path.
            true => RuleEffect::Deny,
            false => RuleEffect::Allow,
        };
        assert_eq!(
            policy.judge(&found(&judged(argv))).effect,
            expected,
            "{argv:?}"
        );
    }
    let mut job = judged(&["x"]);
    job.command = Command::Shell("make test && echo done".into());
    assert_eq!(policy.judge(&found(&job)).effect, RuleEffect::Allow);
    let mut job = judged(&["python3", "/srv/ci/check.py"]);
    job.names = vec!["CI".into(), "LC_ALL".into()];
    assert_eq!(policy.judge(&found(&job)).effect, RuleEffect::Allow);
}
