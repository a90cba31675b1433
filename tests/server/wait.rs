//! `job.wait`: for the end or the start, of one, any or all, with a timeout.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Server;

fn sleeper(server: &Server) -> Value {
    server.marked(json!({"argv": ["sleep", "1000"]}))
}

#[test]
fn the_end_comes_with_the_last_output() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "head -c 10000 /dev/zero | tr '\\0' x; printf end; exit 5";
    let job = client.submit(json!({"shell": line}));
    let reply = client.ok("job.wait", json!({"jobs": [job["id"]]}));
    assert_eq!(reply["met"], true);
    assert_eq!(reply["job"]["exit_code"], 5);
    assert_eq!(reply["jobs"], json!([reply["job"]]));
    let last = &reply["last_output"];
    let data = last["data"].as_str().expect("text");
    assert_eq!(data.len(), 4096);
    assert!(data.ends_with("xend"));
    assert_eq!(last["next_offset"], 10_003);
    assert_eq!(last["offset"], 10_003 - 4096);
}

#[test]
fn a_job_without_output_has_no_last_output() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    let reply = client.ok("job.wait", json!({"jobs": [job["id"]]}));
    assert_eq!(reply.get("last_output"), Some(&Value::Null), "{reply}");
}

#[test]
fn a_timeout_is_not_met() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(sleeper(&server));
    let began = Instant::now();
    let params = json!({"jobs": [job["id"]], "timeout_s": 0.3});
    let reply = client.ok("job.wait", params);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(reply["met"], false);
    assert_eq!(reply["jobs"][0]["id"], job["id"]);
}

#[test]
fn until_running_is_met_by_the_start() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(sleeper(&server));
    let running = client.started(&job);
    assert_eq!(running["state"], "running");
    assert!(running["started_at"].is_string());
    let done = client.submit(json!({"argv": ["true"]}));
    client.finished(&done);
    let reply = client.ok(
        "job.wait",
        json!({"jobs": [done["id"]], "until": "running"}),
    );
    assert_eq!(reply["met"], true, "it has started");
}

#[test]
fn what_can_no_longer_come_true_is_not_met() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["no-such-program"]}));
    client.finished(&job);
    let params = json!({"jobs": [job["id"]], "until": "running"});
    assert_eq!(client.ok("job.wait", params)["met"], false);
}

#[test]
fn any_is_met_by_the_first_and_all_by_the_last() {
    let server = Server::start();
    let mut client = server.connect();
    let slow = client.submit(sleeper(&server));
    let fast = client.submit(json!({"argv": ["true"]}));
    let jobs = json!([slow["id"], fast["number"]]);
    let any = client.ok("job.wait", json!({"jobs": jobs}));
    assert_eq!(any["job"]["id"], fast["id"]);
    assert_eq!(any["jobs"][0]["id"], slow["id"], "in the order asked");
    assert_eq!(any["jobs"][1]["id"], fast["id"]);
    let all = client.begin("job.wait", json!({"jobs": jobs, "mode": "all"}));
    client.control(&slow, "kill");
    let all = client.reply(all).expect("a wait");
    assert_eq!(all["met"], true);
    assert_eq!(all["job"]["id"], slow["id"]);
    assert_eq!(all["jobs"][0]["state"], "cancelled");
}

#[test]
fn wrong_waits_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    for params in [
        json!({}),
        json!({"jobs": []}),
        json!({"jobs": job["id"]}),
        json!({"jobs": [job["id"]], "until": "sunrise"}),
        json!({"jobs": [job["id"]], "until": {"moon": 1}}),
        json!({"jobs": [job["id"]], "mode": "most"}),
        json!({"jobs": [job["id"]], "timeout_s": -1}),
        json!({"jobs": [job["id"]], "timeout_s": "1"}),
        json!({"jobs": [job["id"]], "colour": 1}),
    ] {
        client.refused(-32602, "job.wait", params);
    }
    client.refused(-32003, "job.wait", json!({"jobs": [999_999]}));
    for until in [
        json!({"regex": "x"}),
        json!({"idle_s": 1}),
        json!({"bytes": 1}),
    ] {
        let params = json!({"jobs": [job["id"]], "until": until});
        client.refused(-32007, "job.wait", params);
    }
}
