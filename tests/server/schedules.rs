//! `schedule.set`, `schedule.list`, `schedule.delete`, `schedule.run`, and what fires: at its time, once,
//! whatever is killed and whatever the clock does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, DAY_S, Server, WallClock, until, until_true};

/// A cron that fires at every second, and one that does not fire in a test.
const EVERY_SECOND: &str = "* * * * * *";
const SELDOM: &str = "30 2 29 2 *";

fn schedules(client: &mut Client) -> Vec<Value> {
    let listed = client.ok("schedule.list", json!({}))["schedules"].clone();
    listed.as_array().expect("schedules").clone()
}

fn schedule(client: &mut Client, name: &str) -> Value {
    let all = schedules(client);
    let found = all.into_iter().find(|schedule| schedule["name"] == name);
    found.unwrap_or_default()
}

/// All jobs of this name, the oldest first.
fn jobs(client: &mut Client, name: &str) -> Vec<Value> {
    let page = client.ok("job.list", json!({"name": name, "limit": 1000}));
    let mut jobs = page["jobs"].as_array().expect("jobs").clone();
    jobs.reverse();
    jobs
}

/// The times of runs as seconds.
fn seconds(jobs: &[Value]) -> Vec<i64> {
    let at = |job: &Value| {
        let at = job["schedule"]["at"].as_str().expect("a time");
        chrono::DateTime::parse_from_rfc3339(at)
            .expect("RFC 3339")
            .timestamp()
    };
    jobs.iter().map(at).collect()
}

#[test]
fn a_schedule_is_set_shown_changed_tried_and_deleted() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = json!({"argv": ["sh", "-c", "echo $SECRET; cat"], "name": "n", "stdin": "s3cret\n",
                     "env": {"SECRET": "s3cret"}});
    let whole = json!({"name": "seldom", "cron": SELDOM, "timezone": "Europe/Berlin", "job": job});
    let mut dry = whole.clone();
    dry["dry_run"] = json!(true);
    let shown = client.ok("schedule.set", dry);
    assert_eq!(
        schedules(&mut client),
        [Value::Null; 0],
        "nothing is stored"
    );
    let set = client.ok("schedule.set", whole);
    assert_eq!(set["next"], shown["next"]);
    let next = set["next"].as_array().expect("times");
    assert_eq!(next.len(), 5);
    for time in next {
        let local = time["local"].as_str().expect("a time");
        assert!(local.ends_with("-02-29T02:30:00+01:00"), "{time}");
        assert!(
            time["at"]
                .as_str()
                .is_some_and(|at| at.contains("T01:30:00.0")),
            "{time}"
        );
    }
    let defaults = (
        &set["overlap"],
        &set["catch_up"],
        &set["paused"],
        &set["runs"],
    );
    assert_eq!(
        defaults,
        (&json!("skip"), &json!("last"), &json!(false), &json!(0))
    );
    assert!(!set.to_string().contains("s3cret"), "{set}");
    assert_eq!(set["job"]["env_names"], json!(["SECRET"]));

    server.kill_9();
    server.restart();
    let mut client = server.connect();
    assert_eq!(schedule(&mut client, "seldom"), set);
    // What is not named stays.
    let changed = client.ok(
        "schedule.set",
        json!({"name": "seldom", "overlap": "replace", "paused": true}),
    );
    assert_eq!(
        (&changed["cron"], &changed["overlap"]),
        (&json!(SELDOM), &json!("replace"))
    );
    assert_eq!(changed["next"], set["next"]);
    // A run at once, which a repeated request does not repeat.
    let run = json!({"name": "seldom", "key": "k"});
    let first = client.ok("schedule.run", run.clone());
    assert_eq!(
        (&first["created"], &first["job"]["schedule"]["name"]),
        (&json!(true), &json!("seldom"))
    );
    let again = client.ok("schedule.run", run);
    assert_eq!(
        (&again["created"], &again["job"]["id"]),
        (&json!(false), &first["job"]["id"])
    );
    client.finished(&first["job"]);
    assert_eq!(client.whole(&first["job"]).bytes, b"s3cret\ns3cret\n");
    let other = client.submit(json!({"argv": ["true"]}));
    assert_eq!(other["schedule"], Value::Null);

    assert_eq!(
        client.ok("schedule.delete", json!({"name": "seldom"})),
        json!({})
    );
    client.refused(-32003, "schedule.delete", json!({"name": "seldom"}));
    client.refused(-32003, "schedule.run", json!({"name": "seldom"}));
    assert_eq!(
        client.get(&first["job"])["schedule"]["name"],
        "seldom",
        "its jobs stay"
    );
}

#[test]
fn what_is_wrong_is_refused_and_nothing_is_stored() {
    let server = Server::start();
    let mut client = server.connect();
    let good = json!({"name": "n", "cron": SELDOM, "job": {"argv": ["true"]}});
    for (key, value, named) in [
        ("name", json!(""), "name"),
        ("cron", json!("* * * *"), "cron"),
        ("cron", json!("0 0 30 2 *"), "cron"),
        ("cron", json!("61 * * * *"), "cron"),
        ("cron", json!("MON * * * *"), "cron"),
        ("cron", json!(null), "cron"),
        ("timezone", json!("Mars/Olympus"), "timezone"),
        ("overlap", json!("both"), "overlap"),
        ("catch_up", json!("some"), "catch_up"),
        ("job", json!(null), "job"),
        ("job", json!([]), "job"),
        ("job", json!({}), "job.argv"),
        (
            "job",
            json!({"argv": ["x"], "timeout_s": 0}),
            "job.timeout_s",
        ),
        (
            "job",
            json!({"argv": ["x"], "idempotency_key": "k"}),
            "job.idempotency_key",
        ),
        (
            "job",
            json!({"argv": ["x"], "on_disconnect": "cancel"}),
            "job.on_disconnect",
        ),
        (
            "job",
            json!({"argv": ["x"], "run_at": "2030-01-01T00:00:00Z"}),
            "job.run_at",
        ),
        ("job", json!({"argv": ["x"], "colour": 1}), "job.colour"),
        ("colour", json!(1), "colour"),
    ] {
        let mut wrong = good.clone();
        wrong[key] = value;
        let error = client.refused(-32602, "schedule.set", wrong);
        assert_eq!(error["data"]["key"], named, "{error}");
    }
    let mut nowhere = good;
    nowhere["job"]["queue"] = json!("nowhere");
    client.refused(-32003, "schedule.set", nowhere);
    // Patterns are read later, and name their place as well.
    let mut unsearchable = json!({"name": "n", "cron": SELDOM, "job": {"argv": ["true"]}});
    unsearchable["job"]["expect"] = json!([{"regex": "("}]);
    let error = client.refused(-32602, "schedule.set", unsearchable);
    assert_eq!(error["data"]["key"], "job.expect[0].regex", "{error}");
    let defaults = json!({"queue": "q", "defaults": {"expect": [{"regex": "("}]}});
    let error = client.refused(-32602, "queue.set", defaults);
    assert_eq!(error["data"]["key"], "defaults.expect[0].regex", "{error}");
    assert!(schedules(&mut client).is_empty());
}

/// A watch over each run reads the database when that ends, and so does the task that fires; there are
/// fewer connections than runs.
#[test]
fn the_ends_of_many_awaited_runs_keep_nobody_from_the_database() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    for nth in 0..20 {
        let job = json!({"shell": wait, "queue": "interactive"});
        client.ok(
            "schedule.set",
            json!({"name": format!("s{nth}"), "cron": EVERY_SECOND, "overlap": "queue", "job": job}),
        );
    }
    let mut all = |what: &str, holds: fn(&Value) -> bool| {
        until_true(what, || schedules(&mut client).iter().all(holds));
    };
    all("a run of each to wait", |one| one["waiting"][0].is_string());
    std::fs::write(&gate, "").expect("opens the gate");
    all("runs that had waited", |one| one["runs"].as_u64() > Some(2));
}

#[test]
fn every_time_runs_once_whatever_is_killed() {
    let mut server = Server::start();
    let mut client = server.connect();
    client.ok(
        "schedule.set",
        json!({"name": "tick", "cron": EVERY_SECOND, "overlap": "queue", "catch_up": "all",
               "job": {"argv": ["true"], "name": "tick"}}),
    );
    for round in 0..5 {
        let before = jobs(&mut client, "tick").len();
        until_true("another run", || {
            jobs(&mut client, "tick").len() > before + round % 2
        });
        server.kill_9();
        server.restart();
        client = server.connect();
    }
    client.ok("schedule.set", json!({"name": "tick", "paused": true}));
    let left = until("the runs that wait", || {
        let left = schedule(&mut client, "tick");
        let live = jobs(&mut client, "tick");
        let ended = live.iter().all(|job| job["state"] == "succeeded");
        (left["waiting"] == json!([]) && ended).then_some(left)
    });
    let runs = jobs(&mut client, "tick");
    let times = seconds(&runs);
    let first = times[0];
    let expected: Vec<i64> = (first..first + times.len() as i64).collect();
    assert_eq!(times, expected, "in order, none twice and none missing");
    assert!(times.len() >= 6, "{times:?}");
    assert_eq!(
        (&left["skipped"], &left["runs"]),
        (&json!(0), &json!(times.len()))
    );
    let last = runs.last().expect("a run");
    assert_eq!(
        left["last"],
        json!({"at": last["schedule"]["at"], "job": last["number"]})
    );
}

#[test]
fn a_run_meets_the_one_before_it() {
    let server = Server::start();
    let mut client = server.connect();
    for overlap in ["skip", "queue", "replace"] {
        let job = server.marked(json!({"argv": ["sleep", "1000"], "name": overlap}));
        client.ok(
            "schedule.set",
            json!({"name": overlap, "cron": EVERY_SECOND, "overlap": overlap, "job": job}),
        );
    }
    until_true("skipped runs", || {
        schedule(&mut client, "skip")["skipped"].as_u64() > Some(1)
    });
    let skip = schedule(&mut client, "skip");
    assert_eq!(
        (jobs(&mut client, "skip").len(), &skip["runs"]),
        (1, &json!(1))
    );
    let reason = skip["last_skip"]["reason"].as_str().expect("a reason");
    let number = jobs(&mut client, "skip")[0]["number"].to_string();
    assert!(reason.contains(&format!("job {number}")), "{reason}");

    let waiting = until("runs that wait", || {
        let waiting = schedule(&mut client, "queue")["waiting"].clone();
        (waiting.as_array()?.len() > 1).then_some(waiting)
    });
    let first = jobs(&mut client, "queue");
    assert_eq!(first.len(), 1, "the one before it runs");
    client.control(&first[0], "kill");
    let second = until("the one that waited longest", || {
        jobs(&mut client, "queue").get(1).cloned()
    });
    assert_eq!(second["schedule"]["at"], waiting[0]);
    let ended = client.get(&first[0])["finished_at"].clone();
    assert!(
        ended.as_str() < second["submitted_at"].as_str(),
        "{ended} {second}"
    );

    until_true("replaced runs", || jobs(&mut client, "replace").len() > 2);
    let first = jobs(&mut client, "replace")[0].clone();
    let replaced = client.finished(&first);
    assert_eq!(
        (&replaced["state"], &replaced["stop"]["by"]),
        (&json!("cancelled"), &json!("schedule:replace"))
    );

    // A queue that drains gets no runs, and they are counted.
    client.ok("queue.set", json!({"queue": "closed", "drain": true}));
    client.ok(
        "schedule.set",
        json!({"name": "drained", "cron": EVERY_SECOND,
               "job": {"argv": ["true"], "name": "drained", "queue": "closed"}}),
    );
    until_true("skipped runs", || {
        let told = schedule(&mut client, "drained")["last_skip"]["reason"].to_string();
        told.contains("drains")
    });
    client.refused(-32004, "schedule.run", json!({"name": "drained"}));
    assert!(jobs(&mut client, "drained").is_empty());
    for name in ["skip", "queue", "replace", "drained"] {
        client.ok("schedule.delete", json!({"name": name}));
        for job in jobs(&mut client, name) {
            client.control(&job, "kill");
        }
    }
}

/// A change counts from its moment on.
#[test]
fn what_was_due_before_a_change_is_not_forgotten() {
    // Takes no jobs, so a time that has come stays due.
    let server = Server::with(&["--free-bytes-min", "9000000000000000"], &[]);
    let mut client = server.connect();
    let job = json!({"argv": ["true"]});
    let tick = json!({"name": "tick", "cron": EVERY_SECOND, "catch_up": "all", "job": job});
    let set = client.ok("schedule.set", tick);
    let another = json!({"name": "another", "cron": EVERY_SECOND, "job": job, "dry_run": true});
    until_true("a time that has come", || {
        let next = client.ok("schedule.set", another.clone());
        next["next"][0]["at"].as_str() > set["next"][0]["at"].as_str()
    });
    let paused = client.ok("schedule.set", json!({"name": "tick", "paused": true}));
    assert!(paused["skipped"].as_u64() >= Some(1), "{paused}");
    let told = paused["last_skip"]["reason"].as_str().expect("a reason");
    assert!(told.contains("full"), "{told}");
}

/// The server is down for a day, by its clock; then the clock is set back.
#[test]
fn missed_times_are_caught_up_by_policy_and_a_clock_set_back_repeats_none() {
    let clock = WallClock::new();
    let env = clock.env();
    let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut server = Server::with(&[], &env);
    let mut client = server.connect();
    for catch_up in ["none", "last", "all"] {
        client.ok(
            "schedule.set",
            json!({"name": catch_up, "cron": "30 * * * *", "overlap": "queue", "catch_up": catch_up,
                   "job": {"argv": ["true"], "name": catch_up}}),
        );
    }
    server.kill_9();
    clock.jump_to(DAY_S);
    server.restart();
    let mut client = server.connect();
    // 24, unless a time comes just now.
    let all = until("all runs", || {
        let all = jobs(&mut client, "all");
        (all.len() >= 24 && all.iter().all(|job| job["state"] == "succeeded")).then_some(all)
    });
    let times = seconds(&all);
    let distinct: BTreeSet<_> = times.iter().copied().collect();
    assert_eq!(distinct.len(), times.len());
    assert!(
        times.windows(2).all(|two| two[1] - two[0] == 3600),
        "{times:?}"
    );
    until_true("the newest", || !jobs(&mut client, "last").is_empty());
    let last = jobs(&mut client, "last");
    assert_eq!(last[0]["schedule"]["at"], all[23]["schedule"]["at"]);
    assert!(schedule(&mut client, "last")["skipped"].as_u64() >= Some(23));
    let none = schedule(&mut client, "none");
    assert!(none["skipped"].as_u64() >= Some(23), "{none}");
    let told = none["last_skip"]["reason"].as_str().expect("a reason");
    assert!(told.contains("no server looked"), "{told}");

    // Back by a day: all of its times have run.
    let ahead = schedule(&mut client, "all")["next"][0]["at"].clone();
    clock.jump_to(0);
    client.ok("schedule.set", json!({"name": "none", "overlap": "skip"}));
    until_true("the right time", || {
        let next = schedule(&mut client, "all")["next"][0]["at"].clone();
        next.as_str() < ahead.as_str()
    });
    assert_eq!(jobs(&mut client, "all").len(), times.len());
}
