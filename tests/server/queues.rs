//! `queue.list`, `queue.set`, `queue.delete`: bounds, pause, weights and defaults.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Client, Server, until_true};

fn set(client: &mut Client, change: Value) -> Value {
    client.ok("queue.set", change)
}

fn queue(client: &mut Client, name: &str) -> Value {
    let queues = client.ok("queue.list", json!({}))["queues"].clone();
    let mut queues = queues.as_array().expect("queues").clone().into_iter();
    queues
        .find(|queue| queue["queue"] == name)
        .unwrap_or_default()
}

fn sleeper(server: &Server, queue: &str) -> Value {
    server.marked(json!({"argv": ["sleep", "1000"], "queue": queue}))
}

fn state(client: &mut Client, job: &Value) -> String {
    client.get(job)["state"]
        .as_str()
        .expect("a state")
        .to_owned()
}

#[test]
fn a_new_server_has_two_queues_and_tells_them_by_name() {
    let server = Server::start();
    let mut client = server.connect();
    let queues = client.ok("queue.list", json!({}))["queues"].clone();
    let names: Vec<_> = queues
        .as_array()
        .expect("queues")
        .iter()
        .map(|q| &q["queue"])
        .collect();
    assert_eq!(names, ["default", "interactive"]);
    let keys = [
        "concurrency",
        "defaults",
        "drain",
        "pause_reason",
        "paused",
        "queue",
        "queued",
        "running",
        "starts_per_minute",
        "weight",
    ];
    let found: Vec<_> = queues[0].as_object().expect("an object").keys().collect();
    assert_eq!(found, keys);
    assert_eq!(queues[1]["concurrency"], 64);
    let slots = queues[0]["concurrency"].clone();
    let expected = json!({"queue": "builds", "concurrency": slots, "paused": false, "weight": 1,
                          "pause_reason": null, "drain": false, "starts_per_minute": null,
                          "defaults": {}, "running": 0, "queued": 0});
    assert_eq!(set(&mut client, json!({"queue": "builds"})), expected);
    assert_eq!(queue(&mut client, "builds"), expected);
    client.refused(-32602, "queue.list", json!({"colour": 1}));
}

#[test]
fn what_is_not_named_stays_across_changes_and_restarts() {
    let mut server = Server::start();
    let mut client = server.connect();
    set(
        &mut client,
        json!({"queue": "q", "concurrency": 3, "weight": 9}),
    );
    set(
        &mut client,
        json!({"queue": "q", "paused": true, "pause_reason": "a disk is replaced",
               "starts_per_minute": 6, "defaults": {"priority": 4}}),
    );
    set(&mut client, json!({"queue": "default", "concurrency": 777}));
    let changed = set(&mut client, json!({"queue": "q", "concurrency": 5}));
    let expected = json!({"queue": "q", "concurrency": 5, "paused": true, "weight": 9,
                          "pause_reason": "a disk is replaced", "drain": false,
                          "starts_per_minute": 6,
                          "defaults": {"priority": 4}, "running": 0, "queued": 0});
    assert_eq!(changed, expected);
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(queue(&mut client, "q"), expected);
    assert_eq!(queue(&mut client, "default")["concurrency"], 777);
    let job = client.submit(json!({"argv": ["true"], "queue": "q"}));
    assert_eq!(job["priority"], 4, "defaults are known after a restart");
    let open = set(
        &mut client,
        json!({"queue": "q", "paused": false, "starts_per_minute": null}),
    );
    assert_eq!(
        (&open["pause_reason"], &open["starts_per_minute"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn slots_bound_what_runs_and_more_of_them_start_more() {
    let server = Server::start();
    let mut client = server.connect();
    set(&mut client, json!({"queue": "q", "concurrency": 1}));
    let jobs = [(); 3].map(|()| client.submit(sleeper(&server, "q")));
    client.started(&jobs[0]);
    until_true("the counts", || {
        let told = queue(&mut client, "q");
        (told["running"] == 1) && (told["queued"] == 2)
    });
    set(&mut client, json!({"queue": "q", "concurrency": 2}));
    client.started(&jobs[1]);
    assert_eq!(state(&mut client, &jobs[2]), "queued");
    // Fewer slots stop nothing.
    set(&mut client, json!({"queue": "q", "concurrency": 1}));
    client.control(&jobs[0], "pause");
    let told = queue(&mut client, "q");
    assert_eq!((&told["running"], &told["queued"]), (&json!(2), &json!(1)));
    client.control(&jobs[0], "kill");
    client.finished(&jobs[0]);
    assert_eq!(state(&mut client, &jobs[2]), "queued");
    client.control(&jobs[1], "kill");
    client.started(&jobs[2]);
}

#[test]
fn a_paused_queue_starts_nothing_new_and_lets_the_rest_go_on() {
    let server = Server::start();
    let mut client = server.connect();
    set(&mut client, json!({"queue": "q"}));
    let running = client.submit(server.marked(json!({
        "argv": ["sh", "-c", "read line; echo $line"], "stdin": "on\n", "queue": "q",
    })));
    client.finished(&running);
    let running = client.submit(sleeper(&server, "q"));
    client.started(&running);
    set(&mut client, json!({"queue": "q", "paused": true}));
    let waiting = client.submit(json!({"argv": ["true"], "queue": "q"}));
    // Somebody else's job goes through the same scheduler behind it.
    let other = client.submit(json!({"argv": ["true"]}));
    client.finished(&other);
    assert_eq!(state(&mut client, &waiting), "queued");
    assert_eq!(state(&mut client, &running), "running");
    set(&mut client, json!({"queue": "q", "paused": false}));
    assert_eq!(client.finished(&waiting)["state"], "succeeded");
}

#[test]
fn a_queue_is_deleted_once_its_jobs_are_final() {
    let server = Server::start();
    let mut client = server.connect();
    for built_in in ["default", "interactive"] {
        client.refused(-32004, "queue.delete", json!({"queue": built_in}));
    }
    client.refused(-32003, "queue.delete", json!({"queue": "nowhere"}));
    client.refused(-32602, "queue.delete", json!({}));
    set(
        &mut client,
        json!({"queue": "q", "paused": true, "defaults": {"priority": 4}}),
    );
    let waiting = client.submit(json!({"argv": ["true"], "queue": "q"}));
    client.refused(-32004, "queue.delete", json!({"queue": "q"}));
    set(&mut client, json!({"queue": "q", "paused": false}));
    client.finished(&waiting);
    let running = client.submit(sleeper(&server, "q"));
    client.started(&running);
    client.refused(-32004, "queue.delete", json!({"queue": "q"}));
    client.control(&running, "kill");
    client.finished(&running);
    assert_eq!(client.ok("queue.delete", json!({"queue": "q"})), json!({}));
    client.refused(-32003, "queue.delete", json!({"queue": "q"}));
    let error = client.refused(
        -32003,
        "job.submit",
        json!({"argv": ["true"], "queue": "q"}),
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("make it first")),
        "{error}"
    );
    assert_eq!(client.get(&running)["queue"], "q", "its jobs stay");
    set(&mut client, json!({"queue": "q"}));
    let fresh = client.submit(json!({"argv": ["true"], "queue": "q"}));
    assert_eq!(fresh["priority"], 0, "defaults went with the queue");
}

#[test]
fn a_job_gets_the_defaults_that_it_does_not_name() {
    let server = Server::start();
    let mut client = server.connect();
    let defaults = json!({
        "env": {"A": "queue", "B": "queue"}, "labels": {"team": "x"}, "timeout_s": 1000,
        "priority": 7, "cwd": "/usr", "grace_s": 1,
    });
    // One behind the other, without waiting for the replies.
    let set_first = client.begin("queue.set", json!({"queue": "q", "defaults": defaults}));
    let line = "echo $A $B; pwd";
    let job = client.submit(json!({
        "shell": line, "queue": "q", "env": {"A": "job"}, "grace_s": 2, "timeout_s": null,
        "labels": {"mine": "y"},
    }));
    assert!(client.reply(set_first).is_ok());
    let job = client.finished(&job);
    assert_eq!(client.whole(&job).bytes, b"job queue\n/usr\n");
    assert_eq!(job["labels"], json!({"mine": "y", "team": "x"}));
    assert_eq!(job["env_names"], json!(["A", "B"]));
    assert_eq!(
        (&job["priority"], job["grace_s"].as_f64()),
        (&json!(7), Some(2.0))
    );
    assert_eq!(job["timeout_s"], json!(null), "null switches a default off");
    let many = client.ok(
        "job.submit_many",
        json!({"jobs": [
            {"argv": ["true"], "queue": "q"}, {"argv": ["true"]},
        ]}),
    );
    assert_eq!(client.get(&many["jobs"][0])["priority"], 7);
    assert_eq!(client.get(&many["jobs"][1])["priority"], 0);
    // They are part of what a key stands for.
    let keyed = || json!({"argv": ["true"], "queue": "q", "idempotency_key": "k"});
    client.submit(keyed());
    assert_eq!(client.ok("job.submit", keyed())["created"], false);
    set(&mut client, json!({"queue": "q", "defaults": {}}));
    client.refused(-32004, "job.submit", keyed());
}

#[test]
fn wrong_queues_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    for wrong in [
        json!({}),
        json!({"queue": ""}),
        json!({"queue": "a\u{1b}b"}),
        json!({"queue": "x".repeat(1025)}),
        json!({"queue": "q", "concurrency": 0}),
        json!({"queue": "q", "concurrency": 1025}),
        json!({"queue": "q", "concurrency": "5"}),
        json!({"queue": "q", "weight": 0}),
        json!({"queue": "q", "weight": 1001}),
        json!({"queue": "q", "paused": "yes"}),
        json!({"queue": "q", "defaults": {"argv": ["true"]}}),
        json!({"queue": "q", "defaults": {"timeout_s": -1}}),
        json!({"queue": "q", "defaults": {"env": {"A": "x".repeat(20 << 10)}}}),
        json!({"queue": "q", "colour": 1}),
    ] {
        client.refused(-32602, "queue.set", wrong);
    }
    let later = json!({"queue": "q", "defaults": {"pty": true}});
    let error = client.refused(-32007, "queue.set", later);
    assert_eq!(error["data"]["key"], "defaults.pty");
    assert_eq!(queue(&mut client, "q"), json!(null));
}

#[test]
fn the_number_of_queues_has_a_bound_and_pages_tell_them_all() {
    let server = Server::start();
    let mut client = server.connect();
    // Long ones, so that they do not fit into one message.
    let name = |n: usize| format!("{n:04}-{}", "q".repeat(1000));
    for n in 2..1000 {
        set(&mut client, json!({"queue": name(n)}));
    }
    let error = client.refused(-32005, "queue.set", json!({"queue": "one more"}));
    assert_eq!(error["data"]["limit"], "queues_max");
    set(&mut client, json!({"queue": name(5), "weight": 3}));
    let (mut params, mut names, mut pages) = (json!({}), Vec::new(), 0);
    loop {
        let page = client.ok("queue.list", params.clone());
        let queues = page["queues"].as_array().expect("queues");
        names.extend(
            queues
                .iter()
                .map(|q| q["queue"].as_str().expect("a name").to_owned()),
        );
        pages += 1;
        match &page["next_cursor"] {
            Value::Null => break,
            cursor => params["cursor"] = cursor.clone(),
        }
    }
    assert!(names.is_sorted() && pages > 1);
    assert_eq!(names.len(), 1000);
    let job = client.submit(json!({"argv": ["true"], "queue": name(999)}));
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

/// The only cell of an answer.
fn one(client: &mut Client, sql: &str, params: Value) -> i64 {
    let answer = client.ok("history.query", json!({"sql": sql, "params": params}));
    answer["rows"][0][0].as_i64().expect("a number")
}

/// The newest event of all.
fn newest_event(client: &mut Client) -> i64 {
    one(client, "SELECT max(id) FROM history_events", json!([]))
}

/// How many other jobs were started after the event `since` and before this job.
fn started_before(client: &mut Client, since: i64, job: &Value) -> i64 {
    let sql = "SELECT count(*) FROM history_events WHERE \"to\" = 'running' AND id > ?2
               AND id < (SELECT min(id) FROM history_events WHERE job = ?1 AND \"to\" = 'running')";
    one(client, sql, json!([job["number"], since]))
}

fn crowd_queue(nth: usize) -> String {
    format!("crowd-{nth}")
}

/// Queues with one slot each.
fn crowd_queues(client: &mut Client, queues: usize, settings: &Value) {
    for nth in 0..queues {
        let mut change = settings.clone();
        change["queue"] = json!(crowd_queue(nth));
        change["concurrency"] = json!(1);
        client.ok("queue.set", change);
    }
}

/// Submits `jobs` short jobs to each of these queues.
fn crowd(client: &mut Client, queues: usize, jobs: usize) {
    let all = (0..jobs).flat_map(|_| 0..queues);
    let jobs = all.map(|nth| json!({"argv": ["true"], "queue": crowd_queue(nth)}));
    client.ok("job.submit_many", json!({"jobs": jobs.collect::<Vec<_>>()}));
}

/// Shims that end come with a next job of their own queue: a job of another queue got none for as long
/// as there were jobs, and tens of thousands were started before it.
#[test]
fn a_job_with_a_free_slot_does_not_wait_while_short_jobs_of_other_queues_come_and_go() {
    const QUEUES: usize = 30;
    // More than are done while one job of another queue is.
    const JOBS: usize = 200;
    for settings in [
        json!({}),
        json!({"weight": 1000, "defaults": {"priority": 1000}}),
    ] {
        let server = Server::start();
        let mut client = server.connect();
        crowd_queues(&mut client, QUEUES, &settings);
        crowd(&mut client, QUEUES, JOBS);
        let ended = "SELECT count(*) FROM history_jobs WHERE state = 'succeeded'";
        until_true("the crowd to be busy", || {
            one(&mut client, ended, json!([])) >= QUEUES as i64
        });
        let mut soon = |what: &str, begin: &dyn Fn(&mut Client) -> (i64, Value)| {
            let left = "SELECT count(*) FROM history_jobs WHERE state = 'queued'";
            if one(&mut client, left, json!([])) < (QUEUES * JOBS / 2) as i64 {
                crowd(&mut client, QUEUES, JOBS);
            }
            let (since, job) = begin(&mut client);
            client.finished(&job);
            let left = one(&mut client, left, json!([]));
            assert!(left > 0, "the others were done before it: no proof");
            // Some rounds of theirs for the start of a shim, and one for the turn.
            let before = started_before(&mut client, since, &job);
            assert!(
                before <= 10 * QUEUES as i64,
                "{what}: {before} others were started before it, with {settings}"
            );
        };
        soon("new", &|client| {
            let since = newest_event(client);
            let job = json!({"argv": ["true"], "queue": "interactive"});
            (since, client.submit(job))
        });
        soon("moved", &|client| {
            set(client, json!({"queue": "held", "paused": true}));
            let job = client.submit(json!({"argv": ["true"], "queue": "held"}));
            let since = newest_event(client);
            let change = json!({"job": job["number"], "queue": "interactive"});
            (since, client.ok("job.update", change))
        });
        soon("of a queue that goes on", &|client| {
            let job = client.submit(json!({"argv": ["true"], "queue": "held"}));
            let since = newest_event(client);
            set(client, json!({"queue": "held", "paused": false}));
            (since, job)
        });
        let shims = server.shims().len();
        // A process that is about to execute its job still looks like its shim.
        assert!(shims <= 2 * QUEUES + 10, "{shims} shims for {QUEUES} slots");
        // The rest need not run.
        crowd_queues(&mut client, QUEUES, &json!({"paused": true}));
    }
}

/// Short jobs in the slots of one queue are done by as many shims as there are slots.
#[test]
fn short_jobs_need_no_more_shims_than_slots() {
    let server = Server::start();
    let mut client = server.connect();
    set(&mut client, json!({"queue": "q", "concurrency": 3}));
    let jobs = vec![json!({"argv": ["true"], "queue": "q"}); 300];
    client.ok("job.submit_many", json!({"jobs": jobs}));
    let mut most = 0;
    until_true("all to be done", || {
        most = most.max(server.shims().len());
        queue(&mut client, "q")["queued"] == 0
    });
    // Two are kept warm, and a process that is about to execute its job still looks like its shim.
    assert!(most <= 2 * (3 + 2), "{most} shims");
}

/// By queue: jobs that run (or are paused), and that wait.
type ByQueue = BTreeMap<String, (u64, u64)>;

fn told(client: &mut Client) -> (ByQueue, BTreeMap<String, u64>) {
    let queues = client.ok("queue.list", json!({}))["queues"].clone();
    let queues = queues.as_array().expect("queues").iter().map(|queue| {
        let count = |key: &str| queue[key].as_u64().expect("a count");
        let name = queue["queue"].as_str().expect("a name").to_owned();
        (name, (count("running"), count("queued")))
    });
    let counts = client.ok("server.info", json!({}))["counts"].clone();
    let mut counts: BTreeMap<String, u64> = serde_json::from_value(counts).expect("counts");
    counts.retain(|_, jobs| *jobs > 0);
    (
        queues.filter(|(_, counts)| *counts != (0, 0)).collect(),
        counts,
    )
}

fn counted(client: &mut Client) -> (ByQueue, BTreeMap<String, u64>) {
    let sql = "SELECT queue, sum(state IN ('running', 'paused')) AS running,
                   sum(state = 'queued') AS queued FROM history_jobs GROUP BY queue";
    let answer = client.ok("history.query", json!({"sql": sql}));
    let rows: Vec<(String, u64, u64)> =
        serde_json::from_value(answer["rows"].clone()).expect("rows");
    let queues = rows
        .into_iter()
        .map(|(name, running, queued)| (name, (running, queued)));
    let sql = "SELECT state, count(*) FROM history_jobs GROUP BY state";
    let answer = client.ok("history.query", json!({"sql": sql}));
    let states: Vec<(String, u64)> = serde_json::from_value(answer["rows"].clone()).expect("rows");
    (
        queues.filter(|(_, counts)| *counts != (0, 0)).collect(),
        states.into_iter().collect(),
    )
}

#[test]
fn counts_agree_with_the_history_also_after_a_kill() {
    let mut server = Server::start();
    let mut client = server.connect();
    set(&mut client, json!({"queue": "a", "concurrency": 2}));
    set(&mut client, json!({"queue": "b", "paused": true}));
    let running = [(); 4].map(|()| client.submit(sleeper(&server, "a")));
    client.started(&running[1]);
    let waiting = [(); 5].map(|()| client.submit(json!({"argv": ["true"], "queue": "b"})));
    let done = [(); 3].map(|()| client.submit(json!({"argv": ["false"]})));
    done.iter().for_each(|job| {
        client.finished(job);
    });
    client.control(&running[0], "pause");
    client.control(&waiting[0], "cancel");
    client.ok(
        "job.update",
        json!({"job": waiting[1]["number"], "queue": "a"}),
    );
    client.ok(
        "job.update",
        json!({"job": waiting[2]["number"], "queue": "default"}),
    );
    client.finished(&waiting[2]);
    client.ok("job.delete", json!({"job": done[0]["number"]}));
    client.refused(
        -32003,
        "job.submit",
        json!({"argv": ["true"], "queue": "nowhere"}),
    );
    let expected = ByQueue::from([("a".into(), (2, 3)), ("b".into(), (0, 2))]);
    let first = told(&mut client);
    assert_eq!(first.0, expected);
    assert_eq!(first, counted(&mut client));
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(told(&mut client), first);
    assert_eq!(told(&mut client), counted(&mut client));
    // They go on from there.
    client.control(&running[0], "kill");
    client.finished(&running[0]);
    client.started(&running[2]);
    until_true("the same counts", || {
        told(&mut client) == counted(&mut client)
    });
    assert_eq!(told(&mut client).0["a"], (2, 2));
}

#[test]
fn a_queue_that_drains_takes_no_new_jobs_and_runs_those_that_it_has() {
    let server = Server::start();
    let mut client = server.connect();
    set(&mut client, json!({"queue": "q", "paused": true}));
    let key = json!({"argv": ["true"], "queue": "q", "idempotency_key": "k"});
    let queued = client.submit(key.clone());
    let elsewhere = client.submit(json!({"argv": ["true"]}));
    set(
        &mut client,
        json!({"queue": "q", "drain": true, "paused": false}),
    );
    let refused = client.refused(
        -32004,
        "job.submit",
        json!({"argv": ["true"], "queue": "q"}),
    );
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|m| m.contains("drains")),
        "{refused}"
    );
    let again = client.ok("job.submit", key);
    assert_eq!(again["created"], false, "a repeated submit is no new job");
    assert_eq!(client.finished(&queued)["state"], "succeeded");
    client.refused(-32004, "job.retry", json!({"job": queued["id"]}));
    set(&mut client, json!({"queue": "default", "paused": true}));
    client.finished(&elsewhere);
    let moved = client.submit(json!({"argv": ["true"]}));
    let to_q = json!({"job": moved["id"], "queue": "q"});
    client.refused(-32004, "job.update", to_q.clone());
    set(&mut client, json!({"queue": "q", "drain": false}));
    client.ok("job.update", to_q);
    client.finished(&moved);
}

#[test]
fn a_queue_starts_no_more_jobs_in_a_minute_than_it_may_across_a_kill() {
    let mut server = Server::start();
    let mut client = server.connect();
    set(
        &mut client,
        json!({"queue": "slow", "starts_per_minute": 2}),
    );
    let jobs = [(); 4].map(|()| client.submit(json!({"argv": ["true"], "queue": "slow"})));
    let other = client.submit(json!({"argv": ["true"]}));
    for job in [&jobs[0], &jobs[1], &other] {
        client.finished(job);
    }
    assert_eq!(state(&mut client, &jobs[2]), "queued");
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    let other = client.submit(json!({"argv": ["true"]}));
    client.finished(&other);
    assert_eq!(
        state(&mut client, &jobs[2]),
        "queued",
        "the starts are remembered"
    );
    set(
        &mut client,
        json!({"queue": "slow", "starts_per_minute": 3}),
    );
    client.finished(&jobs[2]);
    assert_eq!(state(&mut client, &jobs[3]), "queued");
    set(
        &mut client,
        json!({"queue": "slow", "starts_per_minute": null}),
    );
    client.finished(&jobs[3]);
}
