//! Properties of all policies: adding a deny rule never allows more, the order of allow rules changes no
//! decision, and no rule matches by accident.

use proptest::prelude::*;

use super::{
    rule::{Policy, RuleEffect},
    testing::{found, judged, policy},
};
use crate::job::Command;

const WORDS: [&str; 7] = ["", "a", "b", "-a", "--b=c", "a b", "*"];
const PROGRAMS: [&str; 5] = [
    "/usr/bin/git",
    "/bin/git",
    "/usr/bin/dash",
    "/bin/sh",
    "/tmp/git",
];

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(&WORDS[..]).prop_map(str::to_owned)
}

fn pattern() -> impl Strategy<Value = String> {
    prop::sample::select(&["\"a\"", "\"a*\"", "\"-*\"", "\"*\"", "\"b\"", "\"\""][..])
        .prop_map(str::to_owned)
}

fn patterns() -> impl Strategy<Value = String> {
    prop::collection::vec(pattern(), 1..3).prop_map(|list| format!("[{}]", list.join(", ")))
}

fn element() -> impl Strategy<Value = String> {
    prop_oneof![
        word().prop_map(|word| format!("{word:?}")),
        patterns().prop_map(|list| format!("{{ any = {list} }}")),
        patterns().prop_map(|list| format!("{{ not = {list} }}")),
        Just("{ any = true }".to_owned()),
    ]
}

fn args() -> impl Strategy<Value = String> {
    let rest = prop_oneof![
        Just(None),
        Just(Some("{ rest = \"any\" }".to_owned())),
        patterns().prop_map(|list| Some(format!("{{ rest = {{ not = {list} }} }}"))),
    ];
    (prop::collection::vec(element(), 0..3), rest).prop_map(|(mut each, rest)| {
        each.extend(rest);
        format!("args = [{}]", each.join(", "))
    })
}

fn what() -> impl Strategy<Value = String> {
    let program = prop::sample::select(&PROGRAMS[..]);
    prop_oneof![
        8 => (program, args()).prop_map(|(program, args)| format!("program = {program:?}\n{args}")),
        1 => args().prop_map(|args| format!("program = \"any\"\n{args}")),
        1 => Just("shell = \"any\"".to_owned()),
    ]
}

/// A rule without its name.
fn rule(effect: RuleEffect) -> impl Strategy<Value = String> {
    let who = prop::sample::select(&["", "who = \"admin\"\n", "who = \"uid:7\"\n"][..]);
    let cwd = prop::sample::select(&["", "cwd = \"/srv\"\n", "cwd = \"/etc\"\n"][..]);
    let env = prop::sample::select(&["", "env = [\"A\"]\n", "env = [\"*\"]\n"][..]);
    let queue = prop::sample::select(&["", "queue = \"default\"\n", "queue = \"q\"\n"][..]);
    (what(), who, cwd, env, queue).prop_map(move |(what, who, cwd, env, queue)| {
        format!(
            "decision = {:?}\n{what}\n{who}{cwd}{env}{queue}",
            effect.name()
        )
    })
}

fn any_rule() -> impl Strategy<Value = String> {
    prop_oneof![rule(RuleEffect::Allow), rule(RuleEffect::Deny)]
}

fn text(default: &str, rules: &[String]) -> String {
    let numbered = rules.iter().enumerate();
    let rules = numbered.map(|(nth, rule)| format!("[[rule]]\nid = \"r{nth}\"\n{rule}\n"));
    format!("default = {default:?}\n{}", rules.collect::<String>())
}

fn allows(policy: &Policy, job: &super::subject::Judged) -> bool {
    policy.judge(&found(job)).effect == RuleEffect::Allow
}

prop_compose! {
    fn job()(
        program in prop::sample::select(&PROGRAMS[..]),
        args in prop::collection::vec(word(), 0..4),
        shell in prop::bool::weighted(0.1),
        cwd in prop::sample::select(&["/srv/ci", "/etc", "/srv/ci/link", "/"][..]),
        names in prop::collection::vec(prop::sample::select(&["A", "LD_PRELOAD"][..]), 0..2),
        uid in prop::option::of(Just(7)),
    ) -> super::subject::Judged {
        let mut job = judged(&[program]);
        job.command = match shell {
            true => Command::Shell(args.join(" ")),
            false => Command::Argv([vec![program.to_owned()], args].concat()),
        };
        job.cwd = cwd.to_owned();
        job.names = names.into_iter().map(str::to_owned).collect();
        job.requester.uid = uid;
        job
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_deny_rule_never_allows_more(
        default in prop::sample::select(&["allow", "deny"][..]),
        rules in prop::collection::vec(any_rule(), 0..5),
        deny in rule(RuleEffect::Deny),
        at in 0_usize..6,
        jobs in prop::collection::vec(job(), 1..8),
    ) {
        let before = policy(&text(default, &rules));
        let mut more = rules;
        more.insert(at.min(more.len()), deny);
        let after = policy(&text(default, &more));
        for job in &jobs {
            prop_assert!(allows(&before, job) || !allows(&after, job), "{job:?}");
        }
    }

    #[test]
    fn the_order_of_rules_changes_no_decision(
        rules in prop::collection::vec(any_rule(), 0..5),
        jobs in prop::collection::vec(job(), 1..8),
    ) {
        let before = policy(&text("deny", &rules));
        let turned: Vec<String> = rules.into_iter().rev().collect();
        let after = policy(&text("deny", &turned));
        for job in &jobs {
            prop_assert_eq!(allows(&before, job), allows(&after, job), "{:?}", job);
        }
    }

    #[test]
    fn a_decision_agrees_with_its_explanation(
        rules in prop::collection::vec(any_rule(), 0..5),
        job in job(),
    ) {
        let policy = policy(&text("deny", &rules));
        let subject = found(&job);
        let reports = policy.explain(&subject);
        let matching = |effect| reports.iter().any(|one| one.effect == effect && one.failure.is_none());
        let expected = !matching(RuleEffect::Deny) && matching(RuleEffect::Allow);
        let verdict = policy.judge(&subject);
        prop_assert_eq!(verdict.effect == RuleEffect::Allow, expected);
        let decided = reports.iter().find(|one| one.rule == verdict.rule);
        prop_assert!(decided.is_none_or(|one| one.failure.is_none()));
    }
}
