//! `on_disconnect`: what the loss of the submitting connection does to a job, and what calls it off.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Server, until_true};

/// A job that is cancelled so long after its connection is lost.
fn tied(server: &Server, delay_s: f64) -> Value {
    server.marked(json!({"argv": ["sleep", "1000"], "grace_s": 0,
                         "on_disconnect": "cancel", "disconnect_delay_s": delay_s}))
}

fn sessions(server: &Server) -> u64 {
    let health = server.get("/health").json();
    health["sessions"].as_u64().expect("a number")
}

/// Submits a job, and loses the connection; returns when the server knows that.
fn lost(server: &Server, job: Value) -> Value {
    let others = sessions(server);
    let mut client = server.connect();
    let job = client.submit(job);
    drop(client);
    until_true("the loss is noticed", || sessions(server) <= others);
    job
}

#[track_caller]
fn cancelled(client: &mut Client, job: &Value) -> Value {
    let job = client.finished(job);
    assert_eq!(job["state"], "cancelled");
    assert_eq!(job["stop"]["by"], "disconnect");
    job
}

/// Proves that time has passed for a delay that began before: a later loss has taken effect.
#[track_caller]
fn a_later_loss_takes_effect(server: &Server, client: &mut Client, delay_s: f64) {
    let later = lost(server, tied(server, delay_s));
    cancelled(client, &later);
}

#[test]
fn a_lost_connection_cancels_its_jobs_and_no_others() {
    let server = Server::start();
    let mut client = server.connect();
    let other = client.submit(tied(&server, 0.0));
    let mut leaving = server.connect();
    let queued = leaving.submit(json!({"argv": ["true"], "on_disconnect": "cancel"}));
    leaving.finished(&queued);
    let loose = leaving.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    let job = leaving.submit(tied(&server, 0.0));
    leaving.started(&job);
    drop(leaving);
    let job = cancelled(&mut client, &job);
    assert_eq!(job["stop"]["cause"], "cancel");
    assert_eq!(client.get(&queued)["state"], "succeeded");
    assert_eq!(client.get(&other)["stop"], Value::Null);
    assert_eq!(client.get(&loose)["stop"], Value::Null);
}

#[test]
fn the_delay_passes_first() {
    let server = Server::start();
    let mut client = server.connect();
    let mut leaving = server.connect();
    let job = leaving.submit(tied(&server, 1.0));
    let left = Instant::now();
    drop(leaving);
    cancelled(&mut client, &job);
    assert!(left.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_job_that_was_never_started_is_cancelled_too() {
    let server = Server::start();
    let mut client = server.connect();
    let blocker = || json!({"argv": ["sleep", "1000"], "queue": "interactive", "grace_s": 0});
    for _ in 0..64 {
        client.submit(server.marked(blocker()));
    }
    let mut job = tied(&server, 0.0);
    job["queue"] = json!("interactive");
    let job = lost(&server, job);
    assert_eq!(cancelled(&mut client, &job)["started_at"], Value::Null);
}

#[test]
fn whoever_asks_in_time_calls_it_off() {
    let server = Server::start();
    let mut client = server.connect();
    let got = lost(&server, tied(&server, 5.0));
    client.get(&got);
    let tailed = lost(&server, tied(&server, 5.0));
    client.tail(json!({"job": tailed["id"], "follow": false}));
    // Only waiting for it does not.
    let waited = lost(&server, tied(&server, 5.0));
    let params = json!({"jobs": [waited["id"]], "timeout_s": 0});
    client.ok("job.wait", params);
    cancelled(&mut client, &waited);
    a_later_loss_takes_effect(&server, &mut client, 5.0);
    for job in [got, tailed] {
        let job = client.get(&job);
        assert_eq!(
            (&job["state"], &job["stop"]),
            (&json!("running"), &Value::Null)
        );
    }
}

/// Its client has gone on over another connection before anybody could know that the first one
/// was dead.
#[test]
fn a_loss_that_is_noticed_late_is_called_off_by_what_came_before() {
    let server = Server::with(&["--ping-interval-s", "1"], &[]);
    let others = sessions(&server);
    // From here on it reads nothing, so it answers no ping.
    let mut dead = server.connect();
    let job = dead.submit(tied(&server, 0.5));
    let mut client = server.connect();
    client.get(&job);
    drop(client);
    until_true("the dead client is given up", || {
        sessions(&server) == others
    });
    let mut client = server.connect();
    a_later_loss_takes_effect(&server, &mut client, 0.5);
    assert_eq!(client.get(&job)["stop"], Value::Null);
    drop(dead);
}

#[test]
fn the_last_connection_that_submitted_it_counts() {
    let server = Server::start();
    let mut client = server.connect();
    let mut job = tied(&server, 0.0);
    job["idempotency_key"] = json!("once");
    let mut first = server.connect();
    let submitted = first.submit(job.clone());
    let mut second = server.connect();
    assert_eq!(second.submit(job)["id"], submitted["id"]);
    drop(first);
    a_later_loss_takes_effect(&server, &mut client, 0.0);
    assert_eq!(client.get(&submitted)["stop"], Value::Null);
    drop(second);
    cancelled(&mut client, &submitted);
}

#[test]
fn a_batch_is_tied_as_a_single_job_is() {
    let server = Server::start();
    let mut client = server.connect();
    let mut leaving = server.connect();
    let mut loose = tied(&server, 0.0);
    loose["on_disconnect"] = json!("continue");
    let jobs = [tied(&server, 0.0), loose, tied(&server, 0.0)];
    let jobs = leaving.ok("job.submit_many", json!({"jobs": jobs}))["jobs"].clone();
    drop(leaving);
    cancelled(&mut client, &jobs[0]);
    cancelled(&mut client, &jobs[2]);
    assert_eq!(client.get(&jobs[1])["stop"], Value::Null);
}

#[test]
fn a_killed_server_is_no_loss() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(tied(&server, 0.0));
    client.started(&job);
    server.kill_9();
    drop(client);
    server.restart();
    let mut client = server.connect();
    a_later_loss_takes_effect(&server, &mut client, 0.0);
    let job = client.get(&job);
    assert_eq!(
        (&job["state"], &job["stop"]),
        (&json!("running"), &Value::Null)
    );
}

#[test]
fn a_planned_stop_is_no_loss() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(tied(&server, 0.0));
    client.started(&job);
    assert!(server.stop().0.success());
    client.closed();
    server.restart();
    let mut client = server.connect();
    a_later_loss_takes_effect(&server, &mut client, 0.0);
    let job = client.get(&job);
    assert_eq!(
        (&job["state"], &job["stop"]),
        (&json!("running"), &Value::Null)
    );
}

/// The log once said of such jobs that they were cancelled.
#[test]
fn a_job_that_ends_before_the_delay_has_passed_is_not_called_cancelled() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let mut job = tied(&server, 1.0);
    let line = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    job["argv"] = json!(["sh", "-c", line]);
    let job = lost(&server, job);
    std::fs::write(&gate, "").expect("the gate");
    // `job.get` would call the cancel off.
    let succeeded = json!({"state": "succeeded"});
    until_true("its end", || {
        client.ok("job.list", succeeded.clone())["jobs"][0] != Value::Null
    });
    a_later_loss_takes_effect(&server, &mut client, 1.0);
    assert_eq!(client.get(&job)["stop"], Value::Null);
    until_true("the log", || {
        server.said().contains("its connection is lost")
    });
    assert_eq!(server.said().matches("its connection is lost").count(), 1);
}

/// `on_disconnect` of a retry is that of the old job, or of the request.
#[test]
fn a_retry_is_tied_as_its_request_says() {
    let server = Server::start();
    let mut client = server.connect();
    let old = client.submit(tied(&server, 0.0));
    let mut waiting = tied(&server, 0.0);
    waiting["after"] = json!([{"job": old["id"], "on": "finish"}]);
    let dependant = client.submit(waiting);
    for job in [&dependant, &old] {
        client.control(job, "kill");
        client.finished(job);
    }
    let params = json!({"job": old["id"], "on_disconnect": "maybe"});
    let error = client.refused(-32602, "job.retry", params);
    assert_eq!(error["data"]["key"], "on_disconnect");
    let retried = |on_disconnect: Value| {
        let mut leaving = server.connect();
        let params = json!({"job": dependant["id"], "on_disconnect": on_disconnect});
        leaving.ok("job.retry", params)
    };
    let with_dependants = |on_disconnect: Value| {
        let mut leaving = server.connect();
        let params =
            json!({"job": old["id"], "with_dependants": true, "on_disconnect": on_disconnect});
        leaving.ok("job.retry", params)["jobs"].clone()
    };
    cancelled(&mut client, &retried(Value::Null));
    for job in with_dependants(json!("cancel")).as_array().expect("jobs") {
        cancelled(&mut client, job);
    }
    let kept = with_dependants(json!("continue"));
    let again = retried(json!("continue"));
    // A loss that comes later has taken effect.
    cancelled(&mut client, &lost(&server, tied(&server, 0.0)));
    // Those that wait for others first.
    for job in [&again, &kept[1], &kept[0]] {
        let job = client.get(job);
        assert_eq!(
            (&job["stop"], &job["on_disconnect"]),
            (&Value::Null, &json!("continue"))
        );
        client.control(&job, "kill");
    }
}
