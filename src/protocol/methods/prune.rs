//! `job.prune`: removes the final jobs that a filter and bounds choose, or their output alone; or says
//! what would be removed. It runs beside the session's other requests.

use std::time::Instant;

use serde_json::{Map, Value, json, value::RawValue};

use super::{list, retention_set};
use crate::{
    executor::{PruneOptions, Pruned},
    job::RetentionScope,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

/// The keys besides those that say which jobs and how many of them stay.
const OWN_KEYS: [&str; 2] = ["outputs", "dry_run"];

fn options(params: &Map<String, Value>) -> Result<PruneOptions, Refusal> {
    let keys: Vec<&str> = OWN_KEYS
        .into_iter()
        .chain(list::FILTER_KEYS)
        .chain(retention_set::BOUND_KEYS)
        .collect();
    let params = Params::new(params, &keys)?;
    let (filter, since) = retention_set::filter(&params)?;
    let bounds = retention_set::bounds(&params)?;
    if bounds.is_empty() && since.is_none() && filter == Default::default() {
        let message = "missing; say which jobs go, by a filter or a bound; 0 is all final ones";
        return Err(params.wrong("older_than_s", message));
    }
    let dry_run = params.flag("dry_run")?.ok_or_else(|| {
        params.wrong(
            "dry_run",
            "missing; true says what would be removed, false removes it",
        )
    })?;
    Ok(PruneOptions {
        scope: match params.flag("outputs")? {
            Some(true) => RetentionScope::Outputs,
            _ => RetentionScope::Jobs,
        },
        filter,
        since,
        bounds,
        dry_run,
    })
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let options = options(&params)?;
    let began = Instant::now();
    let (outputs, dry_run) = (options.scope == RetentionScope::Outputs, options.dry_run);
    let pruned = caller.executor().prune(options).await?;
    let listed = pruned.listed.iter();
    let listed: Vec<Value> = listed
        .map(|(number, bytes)| json!({"number": number, "bytes": bytes}))
        .collect();
    Ok(to_raw(&json!({
        "dry_run": dry_run,
        "outputs": outputs,
        "jobs": pruned.jobs,
        "bytes": pruned.bytes,
        "more": pruned.jobs.saturating_sub(Pruned::LISTED_MAX as u64),
        "listed": listed,
        "elapsed_ms": began.elapsed().as_millis() as u64,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobState, Micros, RetentionBounds};

    fn parse(value: Value) -> Result<PruneOptions, Refusal> {
        options(value.as_object().expect("an object"))
    }

    #[test]
    fn options_are_read() {
        let all = parse(json!({
            "state": "failed", "queue": "q", "labels": {"a": "b"}, "name": "n",
            "since": "1970-01-01T00:00:00.000001Z", "older_than_s": 5, "keep_newest": 0,
            "keep_bytes": 7, "outputs": true, "dry_run": false,
        }));
        let all = all.expect("valid");
        assert_eq!((all.scope, all.dry_run), (RetentionScope::Outputs, false));
        assert_eq!(all.filter.states, [JobState::Failed]);
        assert_eq!(all.since, Some(Micros(1)));
        let bounds = RetentionBounds {
            older_than_s: Some(5),
            keep_newest: Some(0),
            keep_bytes: Some(7),
        };
        assert_eq!(all.bounds, bounds);
        let few = parse(json!({"older_than_s": 0, "dry_run": true})).expect("valid");
        assert_eq!((few.scope, few.dry_run), (RetentionScope::Jobs, true));
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [
            json!({}),
            json!({"dry_run": true}),
            json!({"older_than_s": 1}),
            json!({"older_than_s": 1, "dry_run": "yes"}),
            json!({"older_than_s": 1.5, "dry_run": true}),
            json!({"older_than_s": -1, "dry_run": true}),
            json!({"older_than_s": 315_360_001, "dry_run": true}),
            json!({"keep_newest": "all", "dry_run": true}),
            json!({"keep_bytes": -5, "dry_run": true}),
            json!({"state": "running", "dry_run": true}),
            json!({"state": ["failed", "queued"], "dry_run": true}),
            json!({"outputs": 1, "older_than_s": 1, "dry_run": true}),
            json!({"limit": 1, "older_than_s": 1, "dry_run": true}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
