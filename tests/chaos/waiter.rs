//! Waits for some jobs at a time, until they are final, have started, or have written something or nothing.
//! Records what it is told and judges nothing but whether it is answered.

use std::{sync::Arc, thread, time::Duration};

use serde_json::json;

use crate::{
    link::{Link, NOT_FOUND, Reply, UNAVAILABLE},
    meddlers::{is_deleting, told},
    world::{Known, World},
};

/// Waits until the run is over.
pub fn work(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_over() {
        let count = link.random.within(1, 4);
        let jobs: Vec<Arc<Known>> = (0..count)
            .filter_map(|_| world.some(&mut link.random))
            .collect();
        if jobs.is_empty() {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        let until = match link.random.below(8) {
            0 => json!("running"),
            1 => json!({"bytes": link.random.below(3000)}),
            2 => json!({"idle_s": link.random.within(1, 1000) as f64 / 1000.0}),
            3 => json!({"regex": "[a-c]{3}", "stream": "stdout"}),
            4 => json!({"regex": "never written \\d+"}),
            _ => json!("final"),
        };
        let mode = if link.random.percent(50) {
            "any"
        } else {
            "all"
        };
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let timeout_s = link.random.within(0, 2000) as f64 / 1000.0;
        let params = json!({"jobs": ids, "mode": mode, "until": until, "timeout_s": timeout_s});
        let key = Some(jobs[0].plan.key);
        thread::sleep(link.random.millis(1, 50));
        let timeout = Duration::from_secs_f64(timeout_s);
        match link.call_within(timeout, key, "job.wait", &until.to_string(), params) {
            Reply::Done(_, reply) => {
                let told_jobs = reply["jobs"].as_array().cloned().unwrap_or_default();
                if told_jobs.len() != jobs.len() {
                    world.history.wrong(key, format!("job.wait: {reply:.300}"));
                }
                for (job, value) in jobs.iter().zip(&told_jobs) {
                    told(world, job, value);
                }
            }
            Reply::Refused(UNAVAILABLE, _) | Reply::Broken => {}
            Reply::Refused(NOT_FOUND, _) if jobs.iter().any(|job| is_deleting(job)) => {}
            Reply::Refused(_, error) => world.history.wrong(key, format!("job.wait: {error}")),
        }
    }
}
