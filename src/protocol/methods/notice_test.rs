//! `notice.test`: sends a test to the receivers of a job, of a queue's defaults, or to the given one.

use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    executor::TestReceivers,
    job::{JobSpec, JobState, NotifyEntry},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

const KEYS: [&str; 5] = ["job", "queue", "url", "secret", "argv"];

fn receivers(params: &Params<'_>) -> Result<TestReceivers, Refusal> {
    let given = |key: &&str| params.get(key).is_some();
    let ways = [
        ["job"].as_slice(),
        &["queue"],
        &["url", "secret"],
        &["argv"],
    ];
    let mut ways = ways.iter().filter(|keys| keys.iter().any(given));
    let (way, other) = (ways.next(), ways.next());
    match (way, other) {
        (Some(&["job"]), None) => params.job().map(TestReceivers::Job),
        (Some(&["queue"]), None) => {
            let queue = params.text("queue")?;
            Ok(TestReceivers::Queue(queue.unwrap_or_default().to_owned()))
        }
        (Some(_), None) => one(params).map(TestReceivers::One),
        _ => Err(params.wrong(
            "queue",
            "give one of job, queue, url (with secret, if its requests are signed) and argv",
        )),
    }
}

/// Read as an entry of a NewJob's `notify`, so that the same rules apply.
fn one(params: &Params<'_>) -> Result<NotifyEntry, Refusal> {
    let mut entry = json!({"on": [JobState::Failed]});
    for key in ["url", "secret", "argv"] {
        if let Some(value) = params.get(key) {
            entry[key] = value.clone();
        }
    }
    let job = json!({"argv": ["true"], "notify": [entry]});
    let job = JobSpec::read(job.as_object().cloned().unwrap_or_default())?;
    let entry = job.notify.into_iter().next();
    entry.ok_or_else(|| params.wrong("url", "missing"))
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let receivers = receivers(&Params::new(&params, &KEYS)?)?;
    let (executor, actor) = (&caller.executor(), caller.actor());
    let results = executor.test_receivers(receivers, &actor).await?;
    Ok(to_raw(&json!({ "results": results })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<TestReceivers, Refusal> {
        receivers(&Params::new(value.as_object().expect("an object"), &KEYS)?)
    }

    #[test]
    fn one_way_to_name_the_receivers_is_taken() {
        for fine in [
            json!({"job": 1}),
            json!({"queue": "q"}),
            json!({"url": "http://a/"}),
            json!({"url": "http://a/", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}),
            json!({"argv": ["true"], "url": null}),
        ] {
            assert!(read(fine.clone()).is_ok(), "{fine}");
        }
        for wrong in [
            json!({}),
            json!({"job": 1, "queue": "q"}),
            json!({"job": "x"}),
            json!({"url": "http://a/", "argv": ["true"]}),
            json!({"url": "ftp://a/"}),
            json!({"url": 1}),
            json!({"argv": []}),
            json!({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}),
            json!({"colour": 1}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
