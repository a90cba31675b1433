//! `job.wait`: for the end, the start, a match, silence or a length, of one, any or all.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    damaged::segments,
    harness::{CEILING, Client, Frozen, Server, emit, until_true},
};

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
        json!({"regex": "("}),
        json!({"regex": "[❯]"}),
        json!({"regex": 1}),
        json!({"regex": "x", "stream": "stdin"}),
        json!({"regex": "x", "from": -1}),
        json!({"regex": "x", "bytes": 1}),
        json!({"idle_s": "1"}),
        json!({"idle_s": 1e18}),
        json!({"bytes": -1}),
        json!({}),
    ] {
        let params = json!({"jobs": [job["id"]], "until": until});
        client.refused(-32602, "job.wait", params);
    }
    let long = json!({"regex": "x".repeat(5000)});
    let error = client.refused(
        -32005,
        "job.wait",
        json!({"jobs": [job["id"]], "until": long}),
    );
    assert_eq!(error["data"]["limit"], "pattern_bytes_max");
    client.finished(&job);
    let beyond = json!({"jobs": [job["id"]], "until": {"regex": "x", "from": 1}});
    let error = client.refused(-32602, "job.wait", beyond);
    assert_eq!(error["data"]["output_bytes"], 0);
}

/// Waits for a condition; the reply, met or not.
#[track_caller]
fn wait(client: &mut Client, jobs: &[&Value], until: Value) -> Value {
    let id = begin(client, jobs, until);
    client.reply(id).expect("a wait")
}

fn begin(client: &mut Client, jobs: &[&Value], until: Value) -> i64 {
    let jobs: Vec<&Value> = jobs.iter().map(|job| &job["id"]).collect();
    let params = json!({"jobs": jobs, "until": until, "timeout_s": CEILING.as_secs()});
    client.begin("job.wait", params)
}

/// The same question without patience.
#[track_caller]
fn check(client: &mut Client, job: &Value, until: Value) -> Value {
    let params = json!({"jobs": [job["id"]], "until": until, "timeout_s": 0});
    client.ok("job.wait", params)
}

/// A job that does what it is told, line by line.
fn obedient(server: &Server, client: &mut Client) -> Value {
    let line = "while read -r line; do eval \"$line\"; done";
    client.submit(server.marked(json!({"shell": line, "interactive": true})))
}

/// Has such a job do something, and waits until its output has so many bytes.
#[track_caller]
fn tell(client: &mut Client, job: &Value, line: &str, bytes: u64) {
    let data = format!("{line}\n");
    client.ok("job.input", json!({"job": job["id"], "data": data}));
    let reply = wait(client, &[job], json!({"bytes": bytes}));
    assert_eq!(reply["met"], true, "{reply}");
    assert_eq!(reply["job"]["output_bytes"], bytes);
}

#[test]
fn a_match_is_found_in_what_was_written_and_in_what_comes() {
    let server = Server::start();
    let mut client = server.connect();
    let job = obedient(&server, &mut client);
    let live = begin(&mut client, &[&job], json!({"regex": "r.ady"}));
    tell(&mut client, &job, "printf 'not rea'", 7);
    assert_eq!(
        check(&mut client, &job, json!({"regex": "r.ady"}))["met"],
        false
    );
    tell(&mut client, &job, "printf 'dy yet'", 13);
    let live = client.reply(live).expect("a wait");
    assert_eq!((&live["met"], &live["offset"]), (&json!(true), &json!(9)));
    assert_eq!(live["job"]["id"], job["id"]);
    assert_eq!(live["job"]["state"], "running");
    let replayed = check(&mut client, &job, json!({"regex": "r.ady"}));
    assert_eq!(
        (&replayed["met"], &replayed["offset"]),
        (&json!(true), &json!(9))
    );
    assert_eq!(replayed["last_output"]["data"], "not ready yet");
    // Behind the match there is none.
    let behind = check(&mut client, &job, json!({"regex": "r.ady", "from": 9}));
    assert_eq!(
        (&behind["met"], behind.get("offset")),
        (&json!(false), None)
    );
    assert_eq!(behind["job"], Value::Null);
}

#[test]
fn a_match_goes_across_a_killed_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = obedient(&server, &mut client);
    tell(&mut client, &job, "printf 'name> rea'", 9);
    assert_eq!(
        wait(&mut client, &[&job], json!({"regex": "^name> "}))["offset"],
        6
    );
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(
        wait(&mut client, &[&job], json!({"regex": "^name> "}))["offset"],
        6
    );
    let live = begin(&mut client, &[&job], json!({"regex": "ready$"}));
    tell(&mut client, &job, "printf 'dy'", 11);
    assert_eq!(
        check(&mut client, &job, json!({"regex": "ready"}))["offset"],
        11
    );
    tell(&mut client, &job, "echo", 12);
    assert_eq!(client.reply(live).expect("a wait")["offset"], 11);
}

#[test]
fn a_stream_is_searched_as_if_it_were_alone() {
    let server = Server::start();
    let mut client = server.connect();
    let job = obedient(&server, &mut client);
    tell(&mut client, &job, "printf rea", 3);
    tell(&mut client, &job, "printf '\\377' >&2", 4);
    tell(&mut client, &job, "printf dy", 6);
    let mut offset = |until| check(&mut client, &job, until)["offset"].clone();
    assert_eq!(offset(json!({"regex": "ready"})), Value::Null);
    assert_eq!(offset(json!({"regex": r"rea\xffdy"})), 6);
    assert_eq!(offset(json!({"regex": "ready", "stream": "stdout"})), 6);
    assert_eq!(offset(json!({"regex": r"^\xff", "stream": "stderr"})), 4);
    assert_eq!(
        offset(json!({"regex": "rea", "stream": "stderr"})),
        Value::Null
    );
}

#[test]
fn a_match_of_an_output_in_many_segments_is_where_it_is() {
    let server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let filler = "head -c 200000 /dev/zero | tr '\\0' x";
    let job = client.submit(json!({"shell": format!("{filler}; printf needle; {filler}")}));
    let found = wait(&mut client, &[&job], json!({"regex": "needle"}));
    assert_eq!(
        (&found["met"], &found["offset"]),
        (&json!(true), &json!(200_006))
    );
    client.finished(&job);
    let until = json!({"regex": "x{5}needlex{5}", "from": 150_000});
    assert_eq!(check(&mut client, &job, until)["offset"], 200_011);
    assert_eq!(
        check(&mut client, &job, json!({"regex": "needl$"}))["met"],
        false
    );
}

#[test]
fn a_gap_breaks_a_match_and_ends_a_line() {
    let server = Server::start();
    let mut client = server.connect();
    let output = json!({"max_bytes": 3, "when_full": "drop_newest"});
    let job = json!({"argv": ["printf", "ready"], "output": output});
    let job = client.submit(job);
    client.finished(&job);
    assert_eq!(
        check(&mut client, &job, json!({"regex": "ready"}))["met"],
        false
    );
    assert_eq!(
        check(&mut client, &job, json!({"regex": "rea$"}))["offset"],
        3
    );
}

#[test]
fn a_hard_pattern_holds_up_no_wait_that_looks_only_how_much_there_is() {
    let server = Server::start();
    let (mut hard, mut client) = (server.connect(), server.connect());
    let line = "head -c 2000000 /dev/zero | tr '\\0' a; exec sleep 300";
    let job = hard.submit(server.marked(json!({"shell": line})));
    wait(&mut hard, &[&job], json!({"bytes": 2_000_000}));
    for _ in 0..8 {
        begin(
            &mut hard,
            &[&job],
            json!({"regex": "(a{0,700}b|a{0,700}c){2}"}),
        );
    }
    hard.get(&job);
    for _ in 0..3 {
        let reply = check(&mut client, &job, json!({"bytes": 2_000_000}));
        assert_eq!(reply["met"], true);
    }
}

#[test]
fn what_a_final_job_did_not_write_never_comes() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "done"]}));
    client.finished(&job);
    for until in [
        json!({"regex": "ready"}),
        json!({"idle_s": 0}),
        json!({"bytes": 6}),
    ] {
        let reply = wait(&mut client, &[&job], until);
        assert_eq!(
            (&reply["met"], &reply["job"]["id"]),
            (&json!(false), &job["id"])
        );
    }
    for until in [json!({"regex": "done$"}), json!({"bytes": 5})] {
        assert_eq!(wait(&mut client, &[&job], until)["met"], true);
    }
    // One that ends while it is waited for.
    let slow = obedient(&server, &mut client);
    let begun = begin(&mut client, &[&slow], json!({"regex": "ready"}));
    client.control(&slow, "kill");
    assert_eq!(client.reply(begun).expect("a wait")["met"], false);
}

#[test]
fn any_outlives_a_job_that_cannot_and_all_does_not() {
    let server = Server::start();
    let mut client = server.connect();
    let silent = client.submit(json!({"argv": ["true"]}));
    client.finished(&silent);
    let job = obedient(&server, &mut client);
    let any = begin(&mut client, &[&silent, &job], json!({"regex": "ready"}));
    let jobs = json!([job["id"], silent["id"]]);
    let all = json!({"jobs": jobs, "until": {"regex": "ready"}, "mode": "all"});
    let all = client.ok("job.wait", all);
    assert_eq!(
        (&all["met"], &all["job"]["id"]),
        (&json!(false), &silent["id"])
    );
    tell(&mut client, &job, "printf ready", 5);
    let any = client.reply(any).expect("a wait");
    assert_eq!((&any["met"], &any["job"]["id"]), (&json!(true), &job["id"]));
    assert_eq!(any["offset"], 5);
}

#[test]
fn bytes_behind_the_bound_count_while_they_are_dropped() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "while read -r line; do eval \"$line\"; done";
    let output = json!({"max_bytes": 4, "when_full": "drop_newest"});
    let job = json!({"shell": line, "interactive": true, "output": output});
    let job = client.submit(server.marked(job));
    let ten = begin(&mut client, &[&job], json!({"bytes": 10}));
    for _ in 0..5 {
        client.ok("job.input", json!({"job": job["id"], "data": "echo\n"}));
    }
    wait(&mut client, &[&job], json!({"bytes": 5}));
    let eleven = json!({"jobs": [job["id"]], "until": {"bytes": 11}, "timeout_s": 0.2});
    assert_eq!(client.ok("job.wait", eleven)["met"], false);
    client.ok(
        "job.input",
        json!({"job": job["id"], "data": "echo 12345\n"}),
    );
    let ten = client.reply(ten).expect("a wait");
    assert_eq!(
        (&ten["met"], &ten["job"]["state"]),
        (&json!(true), &json!("running"))
    );
    assert_eq!(
        wait(&mut client, &[&job], json!({"bytes": 11}))["met"],
        true
    );
}

#[test]
fn silence_counts_from_the_last_sign_of_life() {
    let server = Server::start();
    let mut client = server.connect();
    let job = obedient(&server, &mut client);
    tell(&mut client, &job, "printf 'name> '", 6);
    let reply = wait(&mut client, &[&job], json!({"idle_s": 0.3}));
    assert_eq!(reply["met"], true);
    assert_eq!(reply["last_output"]["data"], "name> ");
    // It has been silent for so long already.
    assert_eq!(
        check(&mut client, &job, json!({"idle_s": 0.3}))["met"],
        true
    );
    assert_eq!(
        check(&mut client, &job, json!({"idle_s": 3600}))["met"],
        false
    );
    // Whoever has just spoken to it does not call it silent.
    let began = Instant::now();
    client.ok("job.input", json!({"job": job["id"], "data": "true\n"}));
    let reply = wait(&mut client, &[&job], json!({"idle_s": 1.5}));
    assert_eq!(reply["met"], true);
    assert!(began.elapsed() >= Duration::from_millis(1500));
}

#[test]
fn what_writes_behind_its_bound_is_not_silent() {
    let server = Server::start();
    let mut client = server.connect();
    let line =
        "while read -r line; do while sleep 0.02; do echo; done & read -r line; kill $!; done";
    let output = json!({"max_bytes": 4, "when_full": "drop_newest"});
    let job = json!({"shell": line, "interactive": true, "output": output});
    let job = client.submit(server.marked(job));
    client.ok("job.input", json!({"job": job["id"], "data": "go\n"}));
    wait(&mut client, &[&job], json!({"bytes": 10}));
    let silent = json!({"jobs": [job["id"]], "until": {"idle_s": 0.5}, "timeout_s": 3});
    assert_eq!(client.ok("job.wait", silent)["met"], false);
    client.ok("job.input", json!({"job": job["id"], "data": "stop\n"}));
    assert_eq!(
        wait(&mut client, &[&job], json!({"idle_s": 0.5}))["met"],
        true
    );
}

#[test]
fn what_does_not_run_is_not_silent() {
    let server = Server::start();
    let mut client = server.connect();
    let job = obedient(&server, &mut client);
    client.started(&job);
    client.control(&job, "pause");
    assert_eq!(check(&mut client, &job, json!({"idle_s": 0}))["met"], false);
    let begun = begin(&mut client, &[&job], json!({"idle_s": 0.5}));
    let resumed = Instant::now();
    client.control(&job, "resume");
    assert_eq!(client.reply(begun).expect("a wait")["met"], true);
    assert!(resumed.elapsed() >= Duration::from_millis(500));
}

#[test]
fn one_wait_takes_a_thousand_jobs() {
    let server = Server::start();
    let mut client = server.connect();
    let mut jobs = Vec::new();
    for n in 0..1000 {
        let job = json!({"argv": ["echo", format!("it is {n}.")], "queue": "interactive"});
        jobs.push(client.submit(job)["number"].clone());
    }
    let seconds = CEILING.as_secs();
    let any = json!({"jobs": jobs, "until": {"regex": r"is 777\."}, "timeout_s": seconds});
    let any = client.begin("job.wait", any);
    let until = json!({"regex": r"^it is \d+\.$"});
    let all = json!({"jobs": jobs, "mode": "all", "until": until, "timeout_s": seconds});
    let all = client.ok("job.wait", all);
    assert_eq!(
        (&all["met"], &all["jobs"][0]["state"]),
        (&json!(true), &json!("succeeded"))
    );
    let any = client.reply(any).expect("a wait");
    assert_eq!(
        (&any["met"], &any["job"]["number"]),
        (&json!(true), &jobs[777])
    );
    let ends = json!({"jobs": jobs, "mode": "all", "timeout_s": seconds});
    assert_eq!(client.ok("job.wait", ends)["met"], true);
    let error = client.refused(-32005, "job.wait", json!({"jobs": vec![1; 1001]}));
    assert_eq!(error["data"]["limit"], "wait_jobs_max");
}

/// Of a job that met it long before the others, its row as it is now.
#[test]
fn all_jobs_are_told_as_they_stand() {
    let server = Server::start();
    let mut client = server.connect();
    let first = obedient(&server, &mut client);
    client.started(&first);
    let later = obedient(&server, &mut client);
    let jobs = json!([first["id"], later["id"]]);
    let until = json!({"regex": "ready"});
    tell(&mut client, &first, "printf ready", 5);
    let all = json!({"jobs": jobs, "mode": "all", "until": until});
    let all = client.begin("job.wait", all);
    // The first is met by now, or will be met as a final one.
    client.control(&first, "kill");
    client.finished(&first);
    tell(&mut client, &later, "printf ready", 5);
    let all = client.reply(all).expect("a wait");
    assert_eq!(
        (&all["met"], &all["job"]["id"]),
        (&json!(true), &later["id"])
    );
    assert_eq!(all["jobs"][0]["state"], "cancelled");
}

/// The attempt is void: its shim was given nothing. Which part of the server tells that does not matter.
#[test]
fn the_end_of_a_job_whose_attempt_is_void_ends_the_wait() {
    let server = Server::with(&["--warm-shims", "1"], &[]);
    let mut client = server.connect();
    // Its shim is idle after it, and gets the next job.
    let first = client.submit(json!({"argv": ["true"]}));
    client.finished(&first);
    let shims = server.shims();
    let frozen: Option<Vec<_>> = shims.iter().map(|pid| Frozen::process(*pid)).collect();
    let Some(frozen) = frozen else {
        return;
    };
    let job = client.submit(sleeper(&server));
    let waits: Vec<i64> = ["any", "all"]
        .map(|mode| {
            let params = json!({"jobs": [job["id"]], "mode": mode});
            client.begin("job.wait", params)
        })
        .to_vec();
    // Its shim has not answered, so this is a wish that the rescue grants.
    until_true("its claim", || client.get(&job)["state"] == "running");
    let stopped = client.control(&job, "cancel");
    assert_eq!(stopped["stop"]["cause"], "cancel", "{stopped}");
    for shim in shims {
        kill(Pid::from_raw(shim), Signal::SIGKILL).expect("a shim");
    }
    drop(frozen);
    for wait in waits {
        let reply = client.reply(wait).expect("an end");
        assert_eq!(reply["met"], true);
        assert_eq!(reply["job"]["state"], "cancelled");
        assert_eq!(reply["job"]["attempts"], 0, "the attempt was not void");
    }
}

/// How a job ended is known, whatever has become of its output.
#[test]
fn a_wait_for_the_end_is_answered_where_the_output_cannot_be_read() {
    let server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "1", "--bytes", "2000000"]);
    let job = client.submit(json!({"argv": argv}));
    client.finished(&job);
    for (_, segment) in segments(&server, &job) {
        fs::remove_file(&segment).expect("removed");
        fs::create_dir(&segment).expect("in its place");
    }
    let reply = wait(&mut client, &[&job], json!("final"));
    assert_eq!(reply["met"], true);
    assert_eq!(reply["job"]["state"], "succeeded");
    assert_eq!(reply.get("last_output"), Some(&Value::Null), "{reply}");
    assert_eq!(client.get(&job)["exit_code"], 0);
}

/// A job that reads its stdin and writes nothing more.
fn listener(server: &Server, client: &mut Client) -> Value {
    let line = "printf ready; while read line; do :; done";
    let job = client.submit(server.marked(json!({"shell": line, "interactive": true})));
    let ready = json!({"bytes": 5});
    assert_eq!(wait(client, &[&job], ready)["met"], true);
    job
}

#[test]
fn silence_counts_from_the_last_input_also_after_a_restart() {
    const IDLE: Duration = Duration::from_secs(3);
    let idle = json!({"idle_s": 3});
    let mut server = Server::start();
    let mut client = server.connect();
    let job = listener(&server, &mut client);
    assert_eq!(wait(&mut client, &[&job], idle.clone())["met"], true);
    let began = Instant::now();
    client.ok(
        "job.input",
        json!({"job": job["id"], "data": "line\n", "write_id": "w"}),
    );
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(wait(&mut client, &[&job], idle.clone())["met"], true);
    assert!(began.elapsed() >= IDLE, "its last input was forgotten");
    // It is as silent after one more, and what was taken before is no input.
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    client.ok(
        "job.input",
        json!({"job": job["id"], "data": "line\n", "write_id": "w"}),
    );
    assert_eq!(check(&mut client, &job, idle.clone())["met"], true);
    let began = Instant::now();
    client.control(&job, "pause");
    client.control(&job, "resume");
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(wait(&mut client, &[&job], idle)["met"], true);
    assert!(began.elapsed() >= IDLE, "its resume was forgotten");
}

#[test]
fn an_input_that_is_refused_is_no_sign_of_life() {
    let server = Server::start();
    let mut client = server.connect();
    let job = json!({"argv": ["sleep", "1000"], "interactive": true});
    let job = client.submit(server.marked(job));
    client.started(&job);
    let mebibyte = "x".repeat(1 << 20);
    let input = json!({"job": job["id"], "data": &mebibyte[..900_000]});
    client.ok("job.input", input.clone());
    let idle = json!({"idle_s": 2});
    assert_eq!(wait(&mut client, &[&job], idle.clone())["met"], true);
    client.refused(-32005, "job.input", input);
    assert_eq!(check(&mut client, &job, idle)["met"], true);
}

/// Its time is known, although its bytes are not stored.
#[test]
fn what_has_come_to_rest_behind_its_bound_is_silent() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = json!({
        "shell": "head -c 200 /dev/zero; sleep 1000",
        "output": {"max_bytes": 100, "when_full": "drop_newest"},
    });
    let job = client.submit(server.marked(job));
    client.started(&job);
    let idle = json!({"idle_s": 2});
    assert_eq!(wait(&mut client, &[&job], idle.clone())["met"], true);
    assert_eq!(check(&mut client, &job, idle.clone())["met"], true);
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(check(&mut client, &job, idle)["met"], true);
}
