//! Submits jobs under keys, again and again until each is acknowledged.

use std::{path::Path, sync::mpsc::SyncSender};

use serde_json::Value;

use crate::{Acknowledged, Door, harness::mix, plan::Plan};

/// Unavailable: the server is stopping, or the disk is full.
const UNAVAILABLE: i64 = -32006;

/// Makes jobs until the door closes; waits while too many are unread.
pub(crate) fn work(
    door: &Door,
    seed: u64,
    number: u64,
    ledger: &Path,
    env: &Value,
    acknowledged: &SyncSender<Acknowledged>,
) {
    let mut client = door.connect();
    for job in 0.. {
        if door.is_closing() {
            return;
        }
        // 53 bits: the seed passes through JSON and a command line unchanged.
        let plan = Plan::new(mix(seed ^ mix(number << 32 | job)) >> 11);
        let new_job = plan.new_job(ledger, env);
        let mut id = submit(door, &mut client, &new_job);
        if job % 3 == 0 {
            let again = submit(door, &mut client, &new_job);
            assert_eq!(again, id, "one key, one job");
            id = again;
        }
        if acknowledged.send(Acknowledged { id, plan }).is_err() {
            return;
        }
    }
}

fn submit(door: &Door, client: &mut crate::harness::Client, new_job: &Value) -> Value {
    loop {
        match client.try_call("job.submit", new_job.clone()) {
            Ok(Ok(reply)) => return reply["job"]["id"].clone(),
            Ok(Err(error)) => assert_eq!(error["code"], UNAVAILABLE, "{error}"),
            Err(_broken) => {}
        }
        *client = door.connect();
    }
}
