//! `job.control`: pause, resume, cancel, kill, signal.

use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::Action,
    job::signal,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

/// Longest `actor`, bytes.
const ACTOR_BYTES_MAX: usize = 256;

const KEYS: [&str; 4] = ["job", "action", "signal", "actor"];

fn action(params: &Params<'_>) -> Result<Action, Refusal> {
    /// Stands for the action `signal`; its number is read from the key `signal`.
    const SIGNAL: Action = Action::Signal(0);
    let words = [
        ("pause", Action::Pause),
        ("resume", Action::Resume),
        ("cancel", Action::Cancel),
        ("kill", Action::Kill),
        ("signal", SIGNAL),
    ];
    let action = params.one_of("action", &words)?;
    let action = action.ok_or_else(|| params.wrong("action", "missing"))?;
    match (action, params.get("signal")) {
        (SIGNAL, Some(signal)) => number(signal).map(Action::Signal).ok_or_else(|| {
            params.wrong(
                "signal",
                "must be a name such as SIGUSR1 or a number from 1 to 64",
            )
        }),
        (SIGNAL, None) => Err(params.wrong("signal", "missing; the action signal needs it")),
        (_, Some(_)) => Err(params.wrong("signal", "allowed only with the action signal")),
        (action, None) => Ok(action),
    }
}

/// Whether a control with these parameters waits until its job's shim has done what it asks for.
pub fn waits_for_shim(params: &Map<String, Value>) -> bool {
    let action = params.get("action").and_then(Value::as_str);
    action.is_some_and(|action| ["pause", "resume", "signal"].contains(&action))
}

fn number(value: &Value) -> Option<i32> {
    match value {
        Value::String(text) => signal::number(text),
        Value::Number(_) => signal::number(&value.as_u64()?.to_string()),
        _ => None,
    }
}

fn actor(params: &Params<'_>) -> Result<Option<String>, Refusal> {
    let Some(actor) = params.text("actor")? else {
        return Ok(None);
    };
    if actor.is_empty() || actor.len() > ACTOR_BYTES_MAX {
        return Err(params.wrong("actor", &format!("must have 1 to {ACTOR_BYTES_MAX} bytes")));
    }
    Ok(Some(actor.to_owned()))
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let job = params.job()?;
    let action = action(&params)?;
    let actor = actor(&params)?.unwrap_or_else(|| caller.actor().to_string());
    let job = caller.executor().control(job, action, &actor).await?;
    Ok(to_raw(&job))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Option<Action> {
        action(&Params::new(value.as_object()?, &KEYS).ok()?).ok()
    }

    #[test]
    fn actions_are_read() {
        assert_eq!(parse(json!({"action": "pause"})), Some(Action::Pause));
        assert_eq!(parse(json!({"action": "kill"})), Some(Action::Kill));
        for signal in [json!("SIGUSR1"), json!("usr1"), json!("10"), json!(10)] {
            let asked = json!({"action": "signal", "signal": signal});
            assert_eq!(parse(asked), Some(Action::Signal(10)));
        }
    }

    #[test]
    fn wrong_actions_are_refused() {
        for wrong in [
            json!({}),
            json!({"action": "stop"}),
            json!({"action": "signal"}),
            json!({"action": "signal", "signal": 0}),
            json!({"action": "signal", "signal": 65}),
            json!({"action": "signal", "signal": 1.0}),
            json!({"action": "signal", "signal": "SIGFOO"}),
            json!({"action": "cancel", "signal": "SIGTERM"}),
        ] {
            assert_eq!(parse(wrong.clone()), None, "{wrong}");
        }
    }
}
