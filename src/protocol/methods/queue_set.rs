//! `queue.set`: creates a queue or changes it. `job::queue` decides what a default may be.

use serde_json::{Map, Value, value::RawValue};

use crate::{
    job::{Queue, QueueChange},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

const KEYS: [&str; 8] = [
    "queue",
    "concurrency",
    "paused",
    "pause_reason",
    "drain",
    "starts_per_minute",
    "weight",
    "defaults",
];

fn change(params: &Params<'_>) -> Result<QueueChange, Refusal> {
    let number = |key, max: u32| -> Result<Option<u32>, Refusal> {
        let number = params.number(key, 1, max.into())?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    };
    Ok(QueueChange {
        name: name(params)?,
        concurrency: number("concurrency", Queue::CONCURRENCY_MAX)?,
        paused: params.flag("paused")?,
        pause_reason: pause_reason(params)?,
        drain: params.flag("drain")?,
        starts_per_minute: match params.is_null("starts_per_minute") {
            true => Some(None),
            false => number("starts_per_minute", Queue::STARTS_PER_MINUTE_MAX)?.map(Some),
        },
        weight: number("weight", Queue::WEIGHT_MAX)?,
        defaults: defaults(params)?,
    })
}

/// The key `queue`, which is required.
pub fn name(params: &Params<'_>) -> Result<String, Refusal> {
    let name = params.text("queue")?;
    let name = name.ok_or_else(|| params.wrong("queue", "missing"))?;
    Queue::check_name(name)?;
    Ok(name.to_owned())
}

/// A reason belongs to the request that pauses.
fn pause_reason(params: &Params<'_>) -> Result<Option<String>, Refusal> {
    let Some(reason) = params.text("pause_reason")? else {
        return Ok(None);
    };
    if params.flag("paused")? != Some(true) {
        let message = "is the reason of a pause: say \"paused\": true in the same request";
        return Err(params.wrong("pause_reason", message));
    }
    Queue::check_pause_reason(reason)?;
    Ok(Some(reason.to_owned()))
}

fn defaults(params: &Params<'_>) -> Result<Option<Map<String, Value>>, Refusal> {
    let Some(value) = params.get("defaults") else {
        return Ok(None);
    };
    let wrong = || params.wrong("defaults", "must be an object of NewJob keys");
    let defaults = value.as_object().ok_or_else(wrong)?;
    Ok(Some(Queue::read_defaults(defaults)?))
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let change = change(&Params::new(&params, &KEYS)?)?;
    let queue = caller.executor().set_queue(change, &caller.actor()).await?;
    // Other clients may have set variables of this queue: their values are not shown.
    Ok(to_raw(&queue.without_values()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<QueueChange, Refusal> {
        change(&Params::new(value.as_object().expect("an object"), &KEYS)?)
    }

    #[test]
    fn what_is_not_named_stays() {
        let nothing = QueueChange {
            name: "q".to_owned(),
            ..QueueChange::default()
        };
        assert_eq!(parse(json!({"queue": "q"})), Ok(nothing.clone()));
        let nulls = json!({"queue": "q", "concurrency": null, "defaults": null});
        assert_eq!(parse(nulls), Ok(nothing));
        let all = parse(json!({
            "queue": "q", "concurrency": 1024, "paused": true, "weight": 1000, "defaults": {},
        }));
        let all = all.expect("valid");
        assert_eq!(
            (all.concurrency, all.weight, all.paused),
            (Some(1024), Some(1000), Some(true))
        );
        let rate = |value: Value| {
            let change = parse(json!({"queue": "q", "starts_per_minute": value}));
            change.expect("valid").starts_per_minute
        };
        assert_eq!(
            (rate(json!(5)), rate(json!(null))),
            (Some(Some(5)), Some(None))
        );
        let why = json!({"queue": "q", "paused": true, "pause_reason": "a disk is replaced"});
        let why = parse(why).expect("valid").pause_reason;
        assert_eq!(why.as_deref(), Some("a disk is replaced"));
        assert_eq!(all.defaults, Some(Map::new()));
    }

    #[test]
    fn wrong_changes_are_refused() {
        for wrong in [
            json!({}),
            json!({"queue": ""}),
            json!({"queue": 1}),
            json!({"queue": "a\u{7}"}),
            json!({"queue": "q", "concurrency": 0}),
            json!({"queue": "q", "concurrency": 1025}),
            json!({"queue": "q", "concurrency": 1.5}),
            json!({"queue": "q", "weight": 0}),
            json!({"queue": "q", "weight": 1001}),
            json!({"queue": "q", "paused": 1}),
            json!({"queue": "q", "defaults": []}),
            json!({"queue": "q", "defaults": {"argv": ["x"]}}),
            json!({"queue": "q", "drain": "yes"}),
            json!({"queue": "q", "starts_per_minute": 0}),
            json!({"queue": "q", "starts_per_minute": 6001}),
            json!({"queue": "q", "pause_reason": "why"}),
            json!({"queue": "q", "pause_reason": "why", "paused": false}),
            json!({"queue": "q", "pause_reason": "", "paused": true}),
            json!({"queue": "q", "pause_reason": "x".repeat(1025), "paused": true}),
            json!({"queue": "q", "colour": 1}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
