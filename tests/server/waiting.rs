//! What a job waits for before it starts (other jobs, a time, its exclusive key), and its retries.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::harness::{Client, Server, until_true};

fn shell(line: &str, keys: Value) -> Value {
    let mut job = json!({"shell": line});
    for (key, value) in keys.as_object().expect("keys") {
        job[key] = value.clone();
    }
    job
}

fn after(jobs: &[&Value], on: &str) -> Value {
    let after = jobs.iter().map(|job| json!({"job": job["id"], "on": on}));
    json!({"after": after.collect::<Vec<_>>()})
}

fn state(client: &mut Client, job: &Value) -> Value {
    client.get(job)["state"].clone()
}

/// The states that a job has gone through.
fn states(client: &mut Client, job: &Value) -> Vec<String> {
    let sql = "SELECT to_state FROM history_events WHERE job = ?1 ORDER BY id";
    let answer = client.ok(
        "history.query",
        json!({"sql": sql, "params": [job["number"]]}),
    );
    let rows = answer["rows"].as_array().expect("rows").iter();
    rows.map(|row| row[0].as_str().expect("a state").to_owned())
        .collect()
}

fn stored(client: &mut Client) -> Value {
    let answer = client.ok(
        "history.query",
        json!({"sql": "SELECT count(*) FROM history_jobs"}),
    );
    answer["rows"][0][0].clone()
}

#[test]
fn jobs_start_when_the_ones_they_wait_for_have_ended_as_required() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let first = client.submit(shell(&wait, json!({})));
    let broken = client.submit(shell(&format!("{wait}; exit 3"), json!({"name": "broken"})));
    // Two wait for one, one for both of these: out and in again.
    let left = client.submit(shell("echo left", after(&[&first], "success")));
    let right = client.submit(shell("echo right", after(&[&first], "success")));
    let both = client.submit(shell(
        "echo both",
        after(&[&left, &right, &broken], "finish"),
    ));
    // One fails with what it waits for, and another one with that.
    let doomed = client.submit(shell("echo never", after(&[&broken, &first], "success")));
    let second = client.submit(shell("echo never", after(&[&doomed], "success")));
    let anyway = client.submit(shell("echo anyway", after(&[&second], "finish")));
    let cancelled = client.submit(shell("echo never", after(&[&first], "success")));
    for job in [&left, &right, &both, &doomed, &second, &anyway, &cancelled] {
        assert_eq!(job["state"], "blocked", "{job}");
        assert_eq!(
            job["after"][0]["job"].as_str().map(str::len),
            Some(36),
            "{job}"
        );
    }
    assert_eq!(client.control(&cancelled, "cancel")["state"], "cancelled");
    let on_cancelled = client.submit(shell("echo never", after(&[&cancelled], "success")));
    assert_eq!(
        on_cancelled["reason"], "dependency",
        "it had ended before: {on_cancelled}"
    );

    let tail = client.tail(json!({"job": second["id"]}));
    fs::write(&gate, "").expect("opens the gate");
    let mut transcript = Default::default();
    client.follow(tail, &mut transcript);
    for (job, text) in [
        (&left, "left\n"),
        (&right, "right\n"),
        (&both, "both\n"),
        (&anyway, "anyway\n"),
    ] {
        assert_eq!(client.finished(job)["state"], "succeeded");
        assert_eq!(client.whole(job).bytes, text.as_bytes());
    }
    assert_eq!(
        states(&mut client, &both),
        ["blocked", "queued", "running", "succeeded"]
    );
    let doomed = client.finished(&doomed);
    assert_eq!(
        (&doomed["state"], &doomed["reason"]),
        (&json!("failed"), &json!("dependency"))
    );
    let expected = json!({"job": broken["id"], "number": broken["number"], "name": "broken",
        "state": "failed", "reason": "exit_code"});
    assert_eq!(doomed["failed_dependency"], expected);
    assert_eq!(
        (&doomed["exit_code"], &doomed["started_at"]),
        (&json!(null), &json!(null))
    );
    let second = client.finished(&second);
    assert_eq!(second["failed_dependency"]["job"], doomed["id"]);
    assert_eq!(client.whole(&second).bytes, b"");
    let backwards = "SELECT count(*) FROM history_events AS e JOIN history_events AS l
        ON l.job = e.job AND l.id > e.id AND l.at < e.at";
    let backwards = client.ok("history.query", json!({"sql": backwards}));
    assert_eq!(
        backwards["rows"][0][0], 0,
        "no change is dated before the one before it"
    );
    // What has ended as required before the submission is no reason to wait.
    let ready = json!({"shell": "echo ready", "idempotency_key": "ready",
        "after": [{"job": left["id"]}, {"job": broken["number"], "on": "finish"}]});
    let submitted = client.submit(ready.clone());
    assert_eq!(submitted["state"], "queued");
    client.finished(&submitted);

    // The same submit is the same job, although a job that it names by its number is gone.
    client.ok("job.delete", json!({"job": broken["id"]}));
    let again = client.ok("job.submit", ready.clone());
    assert_eq!(
        (&again["created"], &again["job"]["id"]),
        (&json!(false), &submitted["id"])
    );
    let again = client.ok("job.submit_many", json!({"jobs": [ready.clone()]}));
    assert_eq!(again["jobs"][0]["created"], false);
    let mut other = ready.clone();
    other["after"][1]["on"] = json!("success");
    client.refused(-32004, "job.submit", other);
    let mut other = ready.clone();
    other["after"][1]["job"] = json!(7777);
    client.refused(-32004, "job.submit", other);
    let mut new = ready;
    new["idempotency_key"] = json!("another one");
    client.refused(-32003, "job.submit", new);
    // One that needed its success cannot have it any more; others have no need of it.
    client.ok("job.delete", json!({"job": first["id"]}));
    let error = client.refused(-32004, "job.retry", json!({"job": doomed["id"]}));
    let needed = format!("needs job {} to succeed", broken["number"]);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains(&needed)),
        "{error}"
    );
    let again = client.ok("job.retry", json!({"job": cancelled["id"]}));
    assert_eq!(
        client.finished(&again)["state"],
        "succeeded",
        "what it needed had succeeded before it was deleted"
    );
    let again = client.ok("job.retry", json!({"job": submitted["id"]}));
    assert_eq!(client.finished(&again)["state"], "succeeded");
}

#[test]
fn a_graph_is_stored_whole_or_not_at_all_and_survives_kills() {
    let mut server = Server::start();
    let mut client = server.connect();
    let log = server.scratch("log");
    let link = |nth: usize| {
        let line = format!("echo {nth} >> {}", log.display());
        let entries: Vec<_> = nth.checked_sub(1).into_iter().collect();
        let after: Vec<_> = entries
            .iter()
            .map(|entry| json!({"job": format!("#{entry}")}))
            .collect();
        shell(&line, json!({"after": after, "labels": {"graph": "chain"}}))
    };
    let chain: Vec<_> = (0..40).map(link).collect();
    for (code, wrong) in [
        (-32602, json!([{"job": "#0"}])),
        (-32602, json!([{"job": "#7"}])),
        (-32602, json!([{"job": "nightly"}])),
        (-32003, json!([{"job": 77}])),
        (
            -32003,
            json!([{"job": "01939b9e-0000-7000-8000-000000000000"}]),
        ),
    ] {
        let wrong = shell("true", json!({"after": wrong}));
        let error = client.refused(code, "job.submit", wrong.clone());
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with("after: "), "{error}");
        assert_eq!(error["data"]["key"], "after", "{error}");
        let jobs = [wrong, chain[0].clone()];
        let error = client.refused(code, "job.submit_many", json!({"jobs": jobs}));
        assert_eq!(
            (&error["data"]["index"], &error["data"]["key"]),
            (&json!(0), &json!("after")),
            "{error}"
        );
    }
    assert_eq!(stored(&mut client), 0);
    let jobs = client.ok("job.submit_many", json!({"jobs": chain}))["jobs"].clone();
    assert_eq!(
        (&jobs[0]["state"], &jobs[39]["state"]),
        (&json!("queued"), &json!("blocked"))
    );
    for lines in [3, 17, 30] {
        let written = || fs::read_to_string(&log).unwrap_or_default().lines().count();
        until_true("some of the chain to run", || written() >= lines);
        server.kill_9();
        server.restart();
    }
    let mut client = server.connect();
    assert_eq!(client.finished(&jobs[39])["state"], "succeeded");
    let expected: String = (0..40).map(|nth| format!("{nth}\n")).collect();
    assert_eq!(
        fs::read_to_string(&log).expect("a log"),
        expected,
        "each once and in order"
    );
}

#[test]
fn a_time_is_waited_for_and_can_be_changed() {
    let mut server = Server::start();
    let mut client = server.connect();
    for wrong in [
        json!({"run_at": "tomorrow"}),
        json!({"run_at": 5}),
        json!({"delay_s": -1}),
        json!({"delay_s": 1e12}),
        json!({"run_at": "2040-01-01T00:00:00Z", "delay_s": 1}),
    ] {
        client.refused(-32602, "job.submit", shell("true", wrong));
    }
    assert_eq!(stored(&mut client), 0);
    let past = client.submit(shell(
        "true",
        json!({"run_at": "2020-01-01T00:00:00+01:00"}),
    ));
    assert_eq!(
        (&past["state"], &past["run_at"]),
        (&json!("queued"), &json!("2019-12-31T23:00:00.000000Z"))
    );
    let far = json!({"run_at": "2040-01-01T00:00:00Z"});
    let far = client.submit(shell("echo far", far));
    assert_eq!(
        (&far["state"], &far["waits_until"]),
        (&json!("scheduled"), &far["run_at"])
    );
    let soon = client.submit(shell("true", json!({"delay_s": 0.3})));
    assert_eq!(soon["state"], "scheduled");
    let blocked = after(&[&far], "success");
    let blocked = client.submit(shell(
        "true",
        json!({"after": blocked["after"], "delay_s": 0.1}),
    ));
    let soon = client.finished(&soon);
    assert!(soon["started_at"].as_str() > soon["submitted_at"].as_str());
    assert_eq!(
        states(&mut client, &soon),
        ["scheduled", "queued", "running", "succeeded"]
    );
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(state(&mut client, &far), "scheduled");
    let change = |run_at: Value| json!({"job": far["id"], "run_at": run_at});
    let later = client.ok("job.update", change(json!("2041-01-01T00:00:00Z")));
    assert_eq!(later["waits_until"], "2041-01-01T00:00:00.000000Z");
    let now = client.ok("job.update", change(json!(null)));
    assert_eq!(
        (&now["run_at"], &now["waits_until"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(client.finished(&far)["state"], "succeeded");
    assert_eq!(client.finished(&blocked)["state"], "succeeded");
    client.refused(-32004, "job.update", change(json!("2041-01-01T00:00:00Z")));
    // Back to waiting, from the queue.
    client.ok("queue.set", json!({"queue": "q", "paused": true}));
    let queued = client.submit(shell("true", json!({"queue": "q"})));
    let change = json!({"job": queued["id"], "run_at": "2041-01-01T00:00:00Z"});
    assert_eq!(client.ok("job.update", change)["state"], "scheduled");
    let actors = "SELECT actor FROM history_events WHERE job = ?1 ORDER BY id";
    let actors = client.ok(
        "history.query",
        json!({"sql": actors, "params": [queued["number"]]}),
    );
    assert_eq!(
        actors["rows"][0], actors["rows"][1],
        "the session: {actors}"
    );
    assert_eq!(client.control(&queued, "cancel")["state"], "cancelled");
}

#[test]
fn failures_are_tried_again_and_every_attempt_is_in_the_log() {
    let mut server = Server::start();
    let mut client = server.connect();
    let count = server.scratch("count");
    let line = |succeeds_at: u32, code: u32| {
        let path = count.display();
        format!(
            "n=$(cat {path} 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {path}; echo try $n; \
             [ $n -ge {succeeds_at} ] || exit {code}"
        )
    };
    let retry = |keys: Value| json!({"retry": keys});
    let quick = json!({"max_attempts": 5, "backoff_s": 0.05});
    let flaky = client.submit(shell(&line(3, 7), retry(quick)));
    let flaky = client.finished(&flaky);
    assert_eq!(
        (&flaky["state"], &flaky["attempts"]),
        (&json!("succeeded"), &json!(3))
    );
    assert_eq!(client.whole(&flaky).bytes, b"try 1\ntry 2\ntry 3\n");
    let chunks = client.ok("job.read", json!({"job": flaky["id"], "from": 0}))["chunks"].clone();
    let attempts: Vec<_> = chunks
        .as_array()
        .expect("chunks")
        .iter()
        .map(|c| &c["attempt"])
        .collect();
    assert_eq!(attempts, [1, 2, 3]);
    let once = ["queued", "running", "scheduled"].map(String::from);
    assert_eq!(states(&mut client, &flaky)[..3], once);

    fs::remove_file(&count).expect("removed");
    let two = json!({"max_attempts": 2, "backoff_s": 0.01, "on": [7, "timeout"]});
    let gone = client.submit(shell(&line(9, 7), retry(two.clone())));
    let gone = client.finished(&gone);
    assert_eq!(
        (&gone["exit_code"], &gone["attempts"]),
        (&json!(7), &json!(2))
    );
    let other = client.submit(shell("exit 8", retry(two.clone())));
    assert_eq!(
        client.finished(&other)["attempts"],
        1,
        "another code is not named"
    );
    let mut slow = shell("sleep 1000", retry(two));
    slow["timeout_s"] = json!(0.1);
    let slow = client.submit(slow);
    let slow = client.finished(&slow);
    assert_eq!(
        (&slow["reason"], &slow["attempts"]),
        (&json!("timeout"), &json!(2))
    );

    // A cancel ends the pause, and a kill of the server does not.
    let long = json!({"max_attempts": 3, "backoff_s": 1000, "max_backoff_s": 1000});
    let pausing = client.submit(shell("exit 1", retry(long)));
    until_true("the pause", || state(&mut client, &pausing) == "scheduled");
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    let job = client.get(&pausing);
    assert_eq!(
        (&job["state"], &job["attempts"]),
        (&json!("scheduled"), &json!(1))
    );
    assert_eq!(
        (&job["exit_code"], &job["reason"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(client.control(&pausing, "cancel")["state"], "cancelled");
}

#[test]
fn retries_that_can_never_take_place_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = || {
        shell(
            "true",
            json!({"retry": {"max_attempts": 3, "on": ["timeout"]}}),
        )
    };
    let schedule = json!({"name": "n", "cron": "0 0 1 1 *", "job": job()});
    for (method, params, key) in [
        ("job.submit", job(), "retry.on"),
        ("job.submit_many", json!({"jobs": [job()]}), "retry.on"),
        ("schedule.set", schedule.clone(), "job.retry.on"),
    ] {
        let error = client.refused(-32602, method, params);
        assert_eq!(error["data"]["key"], key, "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("timeout needs timeout_s"), "{error}");
    }
    assert_eq!(stored(&mut client), 0);
    // The queue has what the job lacks; and as a default it suits those jobs that have a timeout.
    let defaults = |defaults: Value| json!({"queue": "default", "defaults": defaults});
    client.ok("queue.set", defaults(json!({"timeout_s": 100})));
    let fine = client.submit(job());
    assert_eq!(client.finished(&fine)["state"], "succeeded");
    client.ok("schedule.set", schedule);
    client.ok("queue.set", defaults(json!({"retry": job()["retry"]})));
    let fine = client.submit(shell("true", json!({})));
    assert_eq!(client.finished(&fine)["state"], "succeeded");
    // A schedule that was set before fires on.
    let run = client.ok("schedule.run", json!({"name": "n"}));
    assert_eq!(client.finished(&run["job"])["state"], "succeeded");
    client.ok("job.retry", json!({"job": fine["id"]}));
}

#[test]
fn one_job_of_an_exclusive_key_runs_at_a_time() {
    let mut server = Server::start();
    let mut client = server.connect();
    let log = server.scratch("log");
    for queue in ["a", "b", "held"] {
        let paused = queue == "held";
        client.ok(
            "queue.set",
            json!({"queue": queue, "concurrency": 8, "paused": paused}),
        );
    }
    let work = format!(
        "echo begin >> {0}; sleep 0.05; echo end >> {0}",
        log.display()
    );
    let job = |queue: &str, key: &str, priority: i64| {
        let keys = json!({"queue": queue, "exclusive": key, "priority": priority});
        shell(&work, keys)
    };
    client.refused(
        -32602,
        "job.submit",
        shell("true", json!({"exclusive": ""})),
    );
    // In a queue that starts nothing, and first of all: it holds up nobody.
    let held = client.submit(job("held", "gpu", 9));
    let mut jobs = Vec::new();
    for nth in 0..12 {
        jobs.push(client.submit(job(["a", "b"][nth % 2], "gpu", 0)));
    }
    let urgent = client.submit(job("b", "gpu", 5));
    let other = client.submit(shell("true", json!({"queue": "a", "exclusive": "other"})));
    assert_eq!(client.finished(&other)["state"], "succeeded");
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    for job in jobs.iter().chain([&urgent]) {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
    let written = fs::read_to_string(&log).expect("a log");
    let lines: Vec<_> = written.lines().collect();
    assert_eq!(lines.len(), 2 * 13);
    assert!(
        lines.chunks(2).all(|pair| pair == ["begin", "end"]),
        "{lines:?}"
    );
    assert_eq!(state(&mut client, &held), "queued");
    let queues = client.ok("queue.list", json!({}))["queues"].clone();
    let counts = queues.as_array().expect("queues").iter();
    let counts: BTreeMap<_, _> = counts
        .map(|q| (q["queue"].to_string(), q["queued"].clone()))
        .collect();
    assert_eq!(counts["\"held\""], 1);
    client.ok("queue.set", json!({"queue": "held", "paused": false}));
    assert_eq!(client.finished(&held)["state"], "succeeded");
}

fn kinds(explained: &Value) -> Vec<&str> {
    let facts = explained["facts"].as_array().expect("facts").iter();
    facts
        .map(|fact| fact["kind"].as_str().expect("a kind"))
        .collect()
}

#[test]
fn why_a_job_is_where_it_is_can_be_asked() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "q", "concurrency": 1}));
    let holder = server.marked(
        json!({"argv": ["sleep", "1000"], "queue": "q", "exclusive": "gpu", "name": "train"}),
    );
    let holder = client.submit(holder);
    client.started(&holder);
    let keyed = json!({"argv": ["true"], "queue": "q", "exclusive": "gpu"});
    client.submit(keyed.clone());
    let keyed = client.submit(keyed);
    let second = client.submit(json!({"argv": ["true"], "queue": "q"}));
    let third = client.submit(json!({"argv": ["true"], "queue": "q"}));
    let blocked = client.submit(shell("true", after(&[&holder, &third], "success")));
    let timed = client.submit(shell("true", json!({"run_at": "2040-01-01T00:00:00Z"})));
    let mut explain = |job: &Value| client.ok("job.explain", json!({"job": job["id"]}));
    let said = |explained: &Value| explained["summary"].as_str().expect("a text").to_owned();

    let why = explain(&keyed);
    assert_eq!(kinds(&why)[..3], ["state", "waits_for_key", "queue_full"]);
    assert_eq!(why["facts"][1]["held_by"]["number"], holder["number"]);
    assert!(said(&why).contains("(train), which is running"), "{why}");
    assert!(
        said(&why).contains("1 job with its key is ahead of it."),
        "{why}"
    );
    let why = explain(&third);
    assert_eq!(kinds(&why)[..3], ["state", "queue_full", "ahead"]);
    assert_eq!(why["facts"][2]["jobs"], 1, "{why}");
    let why = explain(&blocked);
    assert_eq!(
        kinds(&why)[..3],
        ["state", "waits_for_job", "waits_for_job"]
    );
    assert_eq!(why["facts"][2]["job"]["number"], third["number"]);
    let why = explain(&timed);
    assert_eq!(kinds(&why)[..2], ["state", "waits_for_time"]);
    assert!(said(&why).contains("2040-01-01T00:00:00"), "{why}");
    let why = explain(&holder);
    assert_eq!(kinds(&why), ["state", "attempt", "event", "event"]);

    client.ok("queue.set", json!({"queue": "q", "paused": true}));
    client.control(&holder, "kill");
    let ended = client.finished(&holder);
    let mut explain = |job: &Value| client.ok("job.explain", json!({"job": job["id"]}));
    let why = explain(&ended);
    assert_eq!(kinds(&why)[..3], ["state", "stop", "attempt"]);
    assert!(
        said(&why).contains("was cancelled") && said(&why).contains("SIGKILL"),
        "{why}"
    );
    assert_eq!(kinds(&explain(&second))[1], "queue_paused");
    let why = explain(&blocked);
    assert_eq!(kinds(&why)[1], "failed_dependency");
    assert!(
        said(&why).contains("(train) to succeed, which was cancelled."),
        "{why}"
    );
    client.refused(-32003, "job.explain", json!({"job": 77}));
    client.refused(-32602, "job.explain", json!({"job": 1, "why": 1}));
}

#[test]
fn a_retry_takes_its_dependants_along() {
    let server = Server::start();
    let mut client = server.connect();
    let flag = server.scratch("flag");
    let first = client.submit(shell(
        &format!("[ -e {} ]", flag.display()),
        json!({"name": "a"}),
    ));
    let second = client.submit(shell("true", after(&[&first], "success")));
    let third = client.submit(shell("true", after(&[&second, &first], "success")));
    let anyway = client.submit(shell("true", after(&[&first], "finish")));
    assert_eq!(client.finished(&third)["reason"], "dependency");
    assert_eq!(client.finished(&anyway)["state"], "succeeded");
    fs::write(&flag, "").expect("written");
    // By itself it waits for what has failed, and for its newest retry once there is one.
    let alone = client.ok("job.retry", json!({"job": second["id"]}));
    assert_eq!(alone["reason"], "dependency");
    client.refused(
        -32602,
        "job.retry",
        json!({"job": first["id"], "with_dependants": 1}),
    );
    let again = json!({"job": first["id"], "with_dependants": true});
    let jobs = client.ok("job.retry", again)["jobs"].clone();
    assert_eq!(
        jobs.as_array().map(Vec::len),
        Some(3),
        "not what has succeeded: {jobs}"
    );
    for (new, old) in [(0, &first), (1, &alone), (2, &third)] {
        let new = client.finished(&jobs[new]);
        assert_eq!(
            (&new["state"], &new["retry_of"]),
            (&json!("succeeded"), &old["id"])
        );
    }
    let new = client.get(&jobs[2]);
    let after: Vec<_> = new["after"]
        .as_array()
        .expect("after")
        .iter()
        .map(|one| &one["job"])
        .collect();
    assert_eq!(after, [&jobs[1]["id"], &jobs[0]["id"]]);
    let alone = client.ok("job.retry", json!({"job": second["id"]}));
    assert_eq!(alone["after"][0]["job"], jobs[0]["id"]);
    assert_eq!(client.finished(&alone)["state"], "succeeded");
}

/// The jobs that a retry with dependants submits, as `NUMBER retries NUMBER`.
fn retries_of(client: &mut Client, job: &Value) -> Vec<String> {
    let again = json!({"job": job["id"], "with_dependants": true});
    let jobs = client.ok("job.retry", again)["jobs"].clone();
    let jobs: Vec<_> = jobs.as_array().expect("jobs").to_vec();
    let ended = jobs.iter().map(|job| client.finished(job));
    let ended: Vec<_> = ended.collect();
    let sql = "SELECT r.number FROM history_jobs AS j JOIN history_jobs AS r ON r.id = j.retry_of
        WHERE j.number = ?1";
    let mut said = Vec::new();
    for job in ended {
        let params = json!({"sql": sql, "params": [job["number"]]});
        let old = client.ok("history.query", params)["rows"][0][0].clone();
        said.push(format!("{} retries {old}", job["number"]));
    }
    said
}

#[test]
fn dependants_come_along_each_time_and_whichever_retry_is_named() {
    let server = Server::start();
    let mut client = server.connect();
    let flag = server.scratch("flag");
    let broken = format!("[ -e {} ]", flag.display());
    let first = client.submit(shell(&broken, json!({"name": "a"})));
    let second = client.submit(shell("true", after(&[&first], "success")));
    let third = client.submit(shell("true", after(&[&second], "success")));
    client.finished(&third);
    // It fails again, and again: each time all of them are left to do.
    let again = ["4 retries 1", "5 retries 2", "6 retries 3"];
    assert_eq!(retries_of(&mut client, &first), again);
    let again = ["7 retries 1", "8 retries 5", "9 retries 6"];
    assert_eq!(retries_of(&mut client, &first), again);
    // By itself, whose retry nothing depends on.
    let alone = client.ok("job.retry", json!({"job": first["id"]}));
    client.finished(&alone);
    let again = ["11 retries 10", "12 retries 8", "13 retries 9"];
    assert_eq!(retries_of(&mut client, &alone), again);
    // A job that was submitted after a retry belongs to it as well.
    let late = client.submit(shell("true", after(&[&alone], "success")));
    assert_eq!(late["reason"], "dependency");
    fs::write(&flag, "").expect("written");
    let again = [
        "15 retries 1",
        "16 retries 12",
        "17 retries 13",
        "18 retries 14",
    ];
    assert_eq!(retries_of(&mut client, &first), again);
    let job = |number: u64| json!({"id": number.to_string()});
    let states = [15, 16, 17, 18].map(|number| state(&mut client, &job(number)));
    assert_eq!(states, ["succeeded"; 4]);
    assert_eq!(
        retries_of(&mut client, &first),
        ["19 retries 1"],
        "what has succeeded meanwhile is not tried again"
    );
}

#[test]
fn a_success_must_show_what_was_expected() {
    let mut server = Server::start();
    let mut client = server.connect();
    for wrong in [
        (json!([{"contains": ""}]), "expect"),
        (json!([{"sha256": "abc"}]), "expect"),
        (json!({"contains": "x"}), "expect"),
        (
            json!([{"contains": "x"}, {"regex": "("}]),
            "expect[1].regex",
        ),
    ] {
        let (wrong, key) = wrong;
        let error = client.refused(
            -32602,
            "job.submit",
            shell("true", json!({"expect": wrong})),
        );
        assert_eq!(error["data"]["key"], key, "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with(&format!("{key}: ")), "{error}");
    }
    assert_eq!(stored(&mut client), 0);
    let digest = "0123456789abcdef0123456789abcdef";
    let all = json!([{"contains": "ll o"}, {"regex": "(?m)^all \\w+$"}]);
    let fine = client.submit(shell("echo all ok", json!({"expect": all})));
    assert_eq!(fine["expect"], all);
    let fine = client.finished(&fine);
    assert_eq!(
        (&fine["state"], &fine["unmet_expectations"]),
        (&json!("succeeded"), &json!([]))
    );
    let whole = json!([{"sha256": fine["output_sha256"]}]);
    let whole = client.submit(shell("echo all ok", json!({"expect": whole})));
    assert_eq!(client.finished(&whole)["state"], "succeeded");

    let unmet = json!([{"contains": "0 failed"}, {"sha256": format!("{digest}{digest}")}]);
    let expect = json!([{"contains": "all"}, unmet[0], unmet[1]]);
    let hollow = client.submit(shell("echo all is well", json!({"expect": expect})));
    let hollow = client.finished(&hollow);
    assert_eq!(
        (&hollow["state"], &hollow["reason"]),
        (&json!("failed"), &json!("unverified"))
    );
    assert_eq!(
        (&hollow["exit_code"], &hollow["unmet_expectations"]),
        (&json!(0), &unmet)
    );
    let waiting = client.submit(shell("true", after(&[&hollow], "success")));
    assert_eq!(waiting["reason"], "dependency");

    // Of an attempt by itself: what an earlier one has written does not count.
    let count = server.scratch("count");
    let line = format!(
        "[ -e {0} ] && echo good || {{ touch {0}; echo half; }}",
        count.display()
    );
    let keys =
        json!({"expect": [{"contains": "good"}], "retry": {"max_attempts": 3, "backoff_s": 0.01}});
    let again = client.submit(shell(&line, keys));
    let again = client.finished(&again);
    assert_eq!(
        (&again["state"], &again["attempts"]),
        (&json!("succeeded"), &json!(2))
    );

    // In segments, at the end of a long output, over a kill of the server.
    let gate = server.scratch("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let long = format!("head -c 9000000 /dev/zero; {wait}; echo the end");
    let met = client.submit(shell(&long, json!({"expect": [{"regex": "the end\\n"}]})));
    let not = client.submit(shell(&long, json!({"expect": [{"contains": "no end"}]})));
    client.started(&met);
    client.started(&not);
    server.kill_9();
    fs::write(&gate, "").expect("written");
    server.restart();
    let mut client = server.connect();
    assert_eq!(client.finished(&met)["state"], "succeeded");
    assert_eq!(client.finished(&not)["reason"], "unverified");
}
