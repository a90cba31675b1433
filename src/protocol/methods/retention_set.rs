//! `retention.set`: stores a rule, or replaces the one with its name. `job.prune` reads the same keys.

use serde_json::{Map, Value, value::RawValue};

use super::list;
use crate::{
    executor::ListFilter,
    job::{
        JobState, Micros, RetentionBounds, RetentionFilter, RetentionRule, RetentionScope,
        read::NAME_BYTES_MAX,
    },
    protocol::{
        caller::Caller,
        jsonrpc::{
            envelope::to_raw,
            error::Refusal,
            params::{OFFSET_MAX, Params},
        },
    },
};

/// The keys that say how many jobs stay.
pub const BOUND_KEYS: [&str; 3] = ["older_than_s", "keep_newest", "keep_bytes"];

const KEYS: [&str; 9] = [
    "rule",
    "scope",
    "state",
    "queue",
    "labels",
    "name",
    "older_than_s",
    "keep_newest",
    "keep_bytes",
];

/// Which final jobs: the keys of `job.list`. The time is `since`, which no rule has.
pub fn filter(params: &Params<'_>) -> Result<(RetentionFilter, Option<Micros>), Refusal> {
    let ListFilter {
        states,
        queue,
        labels,
        name,
        since,
        ..
    } = list::filter(params)?;
    if !states.iter().all(|state| state.is_final()) {
        let all: Vec<&str> = JobState::ALL
            .into_iter()
            .filter(|state| state.is_final())
            .map(JobState::name)
            .collect();
        let message = format!("must be one or several of {}", all.join(", "));
        return Err(params.wrong("state", &message));
    }
    let filter = RetentionFilter {
        states,
        queue,
        labels,
        name,
    };
    Ok((filter, since))
}

/// How many jobs stay.
pub fn bounds(params: &Params<'_>) -> Result<RetentionBounds, Refusal> {
    Ok(RetentionBounds {
        older_than_s: params.number("older_than_s", 0, RetentionBounds::OLDER_THAN_S_MAX)?,
        keep_newest: params.number("keep_newest", 0, OFFSET_MAX)?,
        keep_bytes: params.number("keep_bytes", 0, OFFSET_MAX)?,
    })
}

/// The key `rule`, which is required.
pub fn name(params: &Params<'_>) -> Result<String, Refusal> {
    let name = params.text("rule")?;
    let name = name.ok_or_else(|| params.wrong("rule", "missing"))?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
        return Err(params.wrong("rule", &message));
    }
    Ok(name.to_owned())
}

fn rule(params: &Params<'_>) -> Result<RetentionRule, Refusal> {
    let words = [
        ("jobs", RetentionScope::Jobs),
        ("outputs", RetentionScope::Outputs),
    ];
    let name = name(params)?;
    let scope = params.one_of("scope", &words)?;
    let bounds = bounds(params)?;
    if bounds.is_empty() {
        let message = "missing; give at least one of older_than_s, keep_newest and keep_bytes";
        return Err(params.wrong("older_than_s", message));
    }
    Ok(RetentionRule {
        name,
        scope: scope.unwrap_or(RetentionScope::Jobs),
        filter: filter(params)?.0,
        bounds,
    })
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let rule = rule(&Params::new(&params, &KEYS)?)?;
    caller.executor().set_retention_rule(rule.clone()).await?;
    Ok(to_raw(&rule))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<RetentionRule, Refusal> {
        rule(&Params::new(value.as_object().expect("an object"), &KEYS)?)
    }

    #[test]
    fn a_rule_is_shown_as_it_was_set() {
        let set = json!({"rule": "r", "scope": "outputs", "state": ["failed", "cancelled"],
            "queue": "q", "labels": {"k": "v"}, "name": "n", "older_than_s": 86400,
            "keep_newest": 10, "keep_bytes": 1000});
        let rule = parse(set.clone()).expect("valid");
        assert_eq!(serde_json::to_value(rule).ok(), Some(set));
        let short = parse(json!({"rule": "r", "keep_newest": 1})).expect("valid");
        assert_eq!(short.scope, RetentionScope::Jobs);
    }

    #[test]
    fn wrong_rules_are_refused() {
        for wrong in [
            json!({"keep_newest": 1}),
            json!({"rule": "", "keep_newest": 1}),
            json!({"rule": "a\u{1b}", "keep_newest": 1}),
            json!({"rule": "r"}),
            json!({"rule": "r", "queue": "q"}),
            json!({"rule": "r", "keep_newest": -1}),
            json!({"rule": "r", "keep_newest": 1.5}),
            json!({"rule": "r", "keep_newest": 1, "scope": "files"}),
            json!({"rule": "r", "keep_newest": 1, "state": "running"}),
            json!({"rule": "r", "keep_newest": 1, "since": "2026-01-01T00:00:00Z"}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
