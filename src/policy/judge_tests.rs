//! Policies as an author writes them: what is read, what is refused with which line, what decides and
//! how that is explained.

use super::{
    predicate::Predicate,
    rule::{RuleEffect, sha256_hex},
    subject::Judged,
    testing::{found, judged, mistake, policy},
};
use crate::job::{Command, EnvValue, JobSpec, Requester, SecretName};

const GIT: &str = r#"
[[rule]]
id = "git-read"
decision = "allow"
who = ["admin", "ci"]
program = "/usr/bin/git"
args = [{ any = ["status", "log"] }, { rest = { not = ["-*"] } }]
cwd = "/srv/ci"
env = ["LANG", "LC_*"]
timeout_s = 600
output_bytes = 1_000_000
queue = ["default", "ci"]
priority = 5
match = [["git", "status"], { argv = ["git", "log", "main"], cwd = "/srv/ci/a", env = ["LC_ALL"] }]
not_match = [["git", "-c", "a=b", "status"], { argv = ["git", "status"], cwd = "/srv/cider" }]

[[rule]]
id = "no-master"
decision = "deny"
args = [{ any = true }, "master"]
"#;

/// The predicate that fails first.
fn fails(change: impl FnOnce(&mut Judged)) -> Option<Predicate> {
    let mut job = judged(&["git", "status"]);
    (job.bounds.timeout_s, job.bounds.output_bytes) = (Some(600.0), Some(1000));
    change(&mut job);
    let policy = policy(GIT);
    let subject = found(&job);
    let reports = policy.explain(&subject);
    let failure = reports[0].failure.clone();
    let verdict = policy.judge(&subject);
    assert_eq!(
        verdict.effect == RuleEffect::Allow,
        failure.is_none(),
        "{verdict:?}"
    );
    failure.map(|failure| failure.predicate)
}

#[test]
fn a_secret_is_allowed_by_its_whole_name_and_is_never_an_unchanged_variable() {
    const RULES: &str = r#"
        default = "allow"
        [[rule]]
        id = "deploy"
        decision = "allow"
        program = "any"
        args = [{ rest = "any" }]
        env = ["HOME", "TOKEN"]
        secrets = ["gh-token", "home"]
        [[rule]]
        id = "no-root"
        decision = "deny"
        secrets = ["root-key"]
    "#;
    let decides = |env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, secret)| {
            let secret = SecretName::read(secret).expect("a name");
            ((*name).to_owned(), EnvValue::Secret(secret))
        });
        let spec = JobSpec {
            env: env.collect(),
            ..JobSpec::new(Command::Argv(vec!["/usr/bin/git".to_owned()]))
        };
        let base = [("HOME".to_owned(), "home".to_owned())];
        let job = Judged::of(&spec, &Requester::admin(None), &base, "/home");
        let verdict = policy(RULES).judge(&found(&job));
        (job.names.len(), verdict.rule)
    };
    assert_eq!(decides(&[("TOKEN", "gh-token")]), (1, "deploy".to_owned()));
    assert_eq!(decides(&[("HOME", "home")]), (1, "deploy".to_owned()));
    assert_eq!(decides(&[("OTHER", "gh-token")]), (1, "default".to_owned()));
    assert_eq!(
        decides(&[("TOKEN", "gh-token2")]),
        (1, "default".to_owned())
    );
    let both = [("TOKEN", "gh-token"), ("HOME", "root-key")];
    assert_eq!(decides(&both), (2, "no-root".to_owned()));
    let wrong = RULES.replace("\"root-key\"", "\"root-*\"");
    assert!(
        mistake(&wrong).contains("name of a secret"),
        "{}",
        mistake(&wrong)
    );
}

#[test]
fn each_predicate_is_examined_in_its_turn() {
    assert_eq!(fails(|_| {}), None);
    assert_eq!(
        fails(|job| job.requester.name = "eve".into()),
        Some(Predicate::Who)
    );
    assert_eq!(
        fails(|job| job.command = Command::Shell("git status".into())),
        Some(Predicate::Shell)
    );
    let argv = |words: &[&str]| Command::Argv(words.iter().map(|&word| word.into()).collect());
    assert_eq!(
        fails(|job| job.command = argv(&["/tmp/git", "status"])),
        Some(Predicate::Program)
    );
    assert_eq!(
        fails(|job| job.command = argv(&["git", "status", "-s"])),
        Some(Predicate::Args)
    );
    assert_eq!(
        fails(|job| job.cwd = "/srv/cider".into()),
        Some(Predicate::Cwd)
    );
    assert_eq!(
        fails(|job| job.cwd = "/srv/ci/../x".into()),
        Some(Predicate::Cwd)
    );
    assert_eq!(
        fails(|job| job.cwd = "/srv/ci/link".into()),
        Some(Predicate::Cwd)
    );
    assert_eq!(fails(|job| job.cwd = "/srv/ci/deep/er".into()), None);
    assert_eq!(
        fails(|job| job.names = vec!["LC_ALL".into(), "LD_PRELOAD".into()]),
        Some(Predicate::Env)
    );
    assert_eq!(
        fails(|job| job.secrets = vec!["gh-token".into()]),
        Some(Predicate::Secrets)
    );
    assert_eq!(
        fails(|job| job.bounds.queue = "prod".into()),
        Some(Predicate::Queue)
    );
    assert_eq!(
        fails(|job| job.bounds.priority = 6),
        Some(Predicate::Priority)
    );
    assert_eq!(
        fails(|job| job.bounds.timeout_s = None),
        Some(Predicate::TimeoutS)
    );
    assert_eq!(
        fails(|job| job.bounds.timeout_s = Some(600.1)),
        Some(Predicate::TimeoutS)
    );
    assert_eq!(
        fails(|job| job.bounds.output_bytes = None),
        Some(Predicate::OutputBytes)
    );
}

#[test]
fn a_deny_rule_wins_wherever_it_stands() {
    let policy = policy(GIT);
    let mut job = judged(&["git", "log", "master"]);
    (job.bounds.timeout_s, job.bounds.output_bytes) = (Some(1.0), Some(1));
    let verdict = policy.judge(&found(&job));
    assert_eq!(
        (verdict.effect, verdict.rule.as_str()),
        (RuleEffect::Deny, "no-master")
    );
    assert_eq!(verdict.why, "the rule \"no-master\" denies it");
}

#[test]
fn a_refusal_names_the_nearest_rule_and_what_does_not_fit() {
    let policy = policy(GIT);
    let why = |argv: &[&str]| policy.judge(&found(&judged(argv))).why;
    assert_eq!(
        why(&["git", "push"]),
        "no rule allows it; the nearest is \"git-read\", whose args does not fit: argv[1] is \"push\"; it must be \
         one of \"status\", \"log\""
    );
    assert_eq!(
        why(&["/bin/rm", "-rf"]),
        "no rule allows the program /bin/rm, which leads to /usr/bin/rm"
    );
    let mut text = judged(&["x"]);
    text.command = Command::Shell("git status".into());
    let why = policy.judge(&found(&text)).why;
    assert!(why.contains("no rule allows this shell text"), "{why}");
}

#[test]
fn shell_text_is_known_by_its_digest_alone() {
    let text = "make test && git status";
    let digest = sha256_hex(text.as_bytes());
    let policy = policy(&format!(
        "[[rule]]\nid = \"t\"\ndecision = \"allow\"\nshell = {digest:?}"
    ));
    let allows = |text: &str| {
        let mut job = judged(&["x"]);
        job.command = Command::Shell(text.to_owned());
        policy.judge(&found(&job)).effect == RuleEffect::Allow
    };
    assert!(allows(text));
    for other in [
        "make test && git status ",
        "make test && git status\n",
        "make test",
        "",
    ] {
        assert!(!allows(other), "{other:?}");
    }
    let argv = judged(&["/bin/sh", "-c", text]);
    assert_eq!(policy.judge(&found(&argv)).effect, RuleEffect::Deny);
}

#[test]
fn a_denied_shell_runs_no_text_either() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\nid = \"s\"\ndecision = \"deny\"\nprogram = \"/bin/sh\"",
    );
    let mut job = judged(&["/bin/ls"]);
    assert_eq!(policy.judge(&found(&job)).effect, RuleEffect::Allow);
    job.command = Command::Shell("ls".into());
    assert_eq!(policy.judge(&found(&job)).effect, RuleEffect::Deny);
    for other in ["/usr/bin/dash", "/usr/bin/../bin/sh", "sh", "dash"] {
        assert_eq!(
            policy.judge(&found(&judged(&[other]))).effect,
            RuleEffect::Deny,
            "{other}"
        );
    }
}

#[test]
fn who_is_a_name_or_a_user() {
    let policy = policy(
        "[[rule]]\nid = \"w\"\ndecision = \"allow\"\nwho = [\"ci\", \"uid:7\"]\nprogram = \"/bin/ls\"\nargs = []",
    );
    let allows = |requester: Requester| {
        let mut job = judged(&["/bin/ls"]);
        job.requester = requester;
        policy.judge(&found(&job)).effect == RuleEffect::Allow
    };
    assert!(allows(Requester::admin(Some(7))));
    assert!(!allows(Requester::admin(Some(8))));
    assert!(!allows(Requester::admin(None)));
    let ci = Requester {
        name: "ci".into(),
        uid: None,
    };
    assert!(allows(ci));
}

/// Files with a mistake, and what is said about it.
const WRONG_FILES: &[(&str, &str)] = &[
    (
        "rules = []",
        "line 1: rules: unknown key; known keys are default, rule",
    ),
    (
        "default = \"no\"",
        "line 1: default: must be \"allow\" or \"deny\", and is \"no\"",
    ),
    (
        "\n[[rule]]\n",
        "line 2: rule[0].id: missing; every rule has a name of its own",
    ),
    (
        "[[rule]]\nid = \"default\"",
        "line 2: rule[0].id: this name stands for",
    ),
    (
        "[[rule]]\nid = \"r\"",
        "line 1: rule[0].decision: missing; \"allow\" or \"deny\"",
    ),
    (
        "[[rule]]\nid = \"d\"\ndecision = \"deny\"\npriority = 1",
        "priority: a bound is for allow rules",
    ),
    (
        "[[rule]]\nid = \"d\"\ndecision = \"deny\"\n[[rule]]\nid = \"d\"\ndecision = \"deny\"",
        "line 4: rule[1].id: the rule of line 1 has the same id",
    ),
    ("a = ", "line 1: "),
    ("\n\n\"x", "line 3: "),
];

/// The same for the keys of an allow rule, from line 4 on.
const WRONG_RULES: &[(&str, &str)] = &[
    (
        "",
        "line 1: rule \"r\": program: missing; an allow rule has an absolute path",
    ),
    (
        "program = \"git\"\nargs = []",
        "line 4: rule \"r\": program: must be an absolute path",
    ),
    (
        "program = \"/a/../git\"\nargs = []",
        "line 4: rule \"r\": program: must be an absolute path",
    ),
    (
        "program = \"/git\"",
        "line 1: rule \"r\": args: missing; an allow rule has the words",
    ),
    (
        "program = \"/git\"\nargs = [\n  \"a\",\n  3,\n]",
        "line 7: rule \"r\": args[1]: must be a table",
    ),
    (
        "program = \"/git\"\nargs = [{ rest = \"any\" }, \"a\"]",
        "args[1]: follows a rest",
    ),
    (
        "program = \"/git\"\nargs = [{ any = [\"a*b\"] }]",
        "args[0].any[0]: \"a*b\": a star can only",
    ),
    (
        "program = \"/git\"\nargs = [{ some = 1 }]",
        "args[0].some: unknown key; known keys are any, not, rest",
    ),
    (
        "shell = \"ls\"",
        "line 4: rule \"r\": shell: must be \"any\", or the SHA-256",
    ),
    (
        "shell = \"any\"\nargs = []",
        "rule \"r\": args: a rule is for shell text or for a program",
    ),
    (
        "program = \"/git\"\nargs = []\nprograms = 1",
        "line 6: rule[0].programs: unknown key",
    ),
    (
        "program = \"/git\"\nargs = []\ntimeout_s = 0",
        "timeout_s: must be a number above 0",
    ),
    (
        "program = \"/git\"\nargs = []\nwho = []",
        "who: must not be empty",
    ),
    (
        "program = \"/git\"\nargs = []\nwho = \"uid:x\"",
        "who: must be \"uid:NUMBER\"",
    ),
    (
        "program = \"/git\"\nargs = []\nmatch = [[\"git\", \"a\"]]",
        "line 6: rule \"r\": the example [\"git\", \"a\"] must match and does not: args: argv[1] is \"a\"",
    ),
    (
        "program = \"/git\"\nargs = []\nnot_match = [\n[\"git\"]]",
        "line 7: rule \"r\": the example [\"git\"] must not match and does",
    ),
];

#[test]
fn a_mistake_is_told_with_its_line() {
    let files = WRONG_FILES
        .iter()
        .map(|(text, expected)| (mistake(text), expected));
    let of_rule = |keys: &str| {
        mistake(&format!(
            "[[rule]]\nid = \"r\"\ndecision = \"allow\"\n{keys}"
        ))
    };
    let rules = WRONG_RULES
        .iter()
        .map(|(keys, expected)| (of_rule(keys), expected));
    for (found, expected) in files.chain(rules) {
        assert!(found.contains(expected), "{found}\n  and not: {expected}");
    }
}

#[test]
fn an_example_is_a_program_by_name_by_path_or_a_text() {
    policy(
        r#"
[[rule]]
id = "all"
decision = "deny"
match = [["x"], { shell = "y" }, { argv = ["z"], who = "ci" }]

[[rule]]
id = "sh"
decision = "deny"
program = "/bin/sh"
match = [["sh"], ["/bin/sh"], ["/usr/bin/dash", "-c", "x"], { shell = "y" }]
not_match = [["/bin/ls"], ["bash"]]
"#,
    );
}
