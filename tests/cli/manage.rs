//! `queue`, `retry`, `update`, `rm` and `submit --many`: what people do to what is there.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Finished, Server, until};

fn call(server: &Server, verb: &str, words: &[&str]) -> Finished {
    server.cli(verb).args(words).run()
}

fn fine(done: Finished) -> String {
    assert_eq!(done.code(), 0, "{}", done.err());
    done.out()
}

fn show(server: &Server, job: &str) -> Value {
    call(server, "show", &[job, "--json"]).json()
}

/// Submits a command and waits for its end; its number.
fn finished(server: &Server, words: &[&str]) -> String {
    let id = fine(call(server, "submit", words)).trim().to_owned();
    call(server, "wait", &[&id]);
    show(server, &id)["number"].to_string()
}

#[test]
fn queues_are_listed_made_changed_and_taken_away() {
    let server = Server::start();
    let page = fine(call(&server, "queue", &[]));
    assert_eq!(page, fine(call(&server, "queue", &["ls"])));
    assert!(
        page.starts_with("QUEUE") || page.trim_start().starts_with("QUEUE"),
        "{page}"
    );
    assert_eq!(page.lines().count(), 3, "{page}");
    let words = [
        "set",
        "builds",
        "--concurrency",
        "2",
        "--pause",
        "a disk is replaced",
        "--weight",
        "5",
        "--drain",
        "--starts-per-minute",
        "600",
        "--default",
        "timeout_s=600",
        "--json",
    ];
    let made = call(&server, "queue", &words).json();
    let expected = json!({"queue": "builds", "concurrency": 2, "paused": true, "weight": 5,
                          "pause_reason": "a disk is replaced", "drain": true,
                          "starts_per_minute": 600, "defaults": {"timeout_s": 600}, "running": 0, "queued": 0});
    assert_eq!(made, expected);
    let closed = call(&server, "submit", &["--queue", "builds", "--", "true"]);
    assert_eq!(closed.code(), 1, "it drains");
    fine(call(&server, "queue", &["set", "builds", "--no-drain"]));
    fine(call(
        &server,
        "submit",
        &["--queue", "builds", "--", "true"],
    ));
    let page = fine(call(&server, "queue", &[]));
    assert!(
        page.contains("paused") && page.contains("timeout_s"),
        "{page}"
    );
    let jobs = fine(call(&server, "ls", &[]));
    assert!(jobs.contains("queue paused: a disk is replaced"), "{jobs}");
    let kept = call(&server, "queue", &["delete", "builds"]);
    assert_eq!(kept.code(), 1);
    assert_eq!(kept.err().trim().lines().count(), 1, "{}", kept.err());
    fine(call(
        &server,
        "queue",
        &["set", "builds", "--resume", "--no-defaults"],
    ));
    fine(call(&server, "wait", &["last"]));
    fine(call(&server, "queue", &["rm", "builds"]));
    let some = call(&server, "queue", &["rm", "builds", "default"]);
    assert_eq!(
        (some.code(), some.err().trim().lines().count()),
        (1, 2),
        "{}",
        some.err()
    );
    let list = call(&server, "queue", &["ls", "--json"]).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_job_is_tried_again_and_followed() {
    let server = Server::start();
    let first = finished(
        &server,
        &["--name", "n", "--", "sh", "-c", "echo text; exit 4"],
    );
    let id = fine(call(&server, "retry", &[&first])).trim().to_owned();
    let again = show(&server, &id);
    assert_eq!(again["retry_of"], show(&server, &first)["id"]);
    assert_eq!(call(&server, "wait", &[&id]).code(), 4);
    assert_eq!(fine(call(&server, "retry", &[&id, "--tail"])), "text\n");
    let both = call(&server, "retry", &[&first, "77", &id]);
    assert_eq!(both.code(), 1);
    assert_eq!(both.out().lines().count(), 2, "the others are tried");
    assert_eq!(both.err().trim().lines().count(), 1, "{}", both.err());
    assert_eq!(call(&server, "retry", &[&first, &id, "--tail"]).code(), 1);
}

#[test]
fn jobs_that_wait_are_changed() {
    let server = Server::start();
    fine(call(&server, "queue", &["set", "closed", "--pause"]));
    for _ in 0..2 {
        fine(call(
            &server,
            "submit",
            &["--queue", "closed", "--", "true"],
        ));
    }
    let words = [
        "1",
        "2",
        "--priority",
        "-3",
        "--name",
        "n",
        "--label",
        "a=b",
    ];
    assert_eq!(fine(call(&server, "update", &words)).lines().count(), 2);
    for job in ["1", "2"] {
        let job = show(&server, job);
        assert_eq!((&job["priority"], &job["name"]), (&json!(-3), &json!("n")));
        assert_eq!(job["labels"], json!({"a": "b"}));
    }
    fine(call(
        &server,
        "update",
        &["1", "--no-name", "--no-labels", "--queue", "default"],
    ));
    assert_eq!(call(&server, "wait", &["1"]).code(), 0);
    let job = show(&server, "1");
    assert_eq!((&job["name"], &job["labels"]), (&json!(null), &json!({})));
    let late = call(&server, "update", &["1", "--priority", "1"]);
    assert_eq!(
        (late.code(), late.err().trim().lines().count()),
        (1, 1),
        "{}",
        late.err()
    );
    assert_eq!(
        call(&server, "update", &["1"]).code(),
        2,
        "nothing to change"
    );
}

#[test]
fn final_jobs_are_deleted_one_by_one() {
    let server = Server::start();
    let first = finished(&server, &["--", "true"]);
    fine(call(&server, "queue", &["set", "closed", "--pause"]));
    fine(call(
        &server,
        "submit",
        &["--queue", "closed", "--", "true"],
    ));
    let third = finished(&server, &["--", "true"]);
    let done = call(&server, "rm", &[&first, "2", &third]);
    assert_eq!((done.code(), done.out()), (1, String::new()));
    assert!(
        done.err().contains("cancel"),
        "it says what to do: {}",
        done.err()
    );
    let left = call(&server, "ls", &["--json"]).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!(left[0]["number"], 2);
    fine(call(&server, "cancel", &["2"]));
    fine(call(&server, "rm", &["2"]));
}

#[test]
fn a_file_of_jobs_is_submitted() {
    let server = Server::start();
    let place = server.scratch("jobs");
    std::fs::create_dir(&place).expect("a directory");
    let lines = [
        json!({"argv": ["sh", "-c", "pwd; echo $A $B"], "env": {"A": "line"}}),
        json!({"shell": "exit 3", "cwd": "/", "labels": {"own": "yes"}}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    let file = place.join("jobs.jsonl");
    std::fs::write(&file, text).expect("the file");
    let path = file.to_str().expect("UTF-8");
    let done = server
        .cli("submit")
        .args(["--many", path, "--label", "all=yes"])
        .env("B", "shell")
        .cwd(&place)
        .run();
    assert_eq!(fine(done), "1\n2\n");
    assert_eq!(call(&server, "wait", &["1"]).code(), 0);
    let printed = fine(call(&server, "tail", &["1"]));
    assert_eq!(printed, format!("{}\nline shell\n", place.display()));
    assert_eq!(show(&server, "1")["labels"], json!({"all": "yes"}));
    assert_eq!(call(&server, "wait", &["2"]).code(), 3);
    let second = show(&server, "2");
    assert_eq!(
        (&second["cwd"], &second["labels"]),
        (&json!("/"), &json!({"all": "yes", "own": "yes"}))
    );

    std::fs::write(&file, "{\"shell\":\":\"}\n\n{\"argv\":[]}\n").expect("the file");
    let refused = call(&server, "submit", &["--many", path]);
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("line 3"), "{}", refused.err());
    std::fs::write(&file, "{\"shell\":\":\"}\nnonsense\n").expect("the file");
    let refused = call(&server, "submit", &["--many", path]);
    assert!(refused.err().contains("line 2"), "{}", refused.err());
    assert_eq!(
        call(&server, "ls", &["--all", "--json"])
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(
        call(&server, "submit", &["--many", path, "--", "true"]).code(),
        2,
        "one or the other"
    );
    let json = call(&server, "submit", &["--many", "/dev/null", "--json"]).json();
    assert_eq!(json, json!([]));

    // A file for three messages, whose lines name each other across them.
    let padding = "x".repeat(100 << 10);
    let line = |nth: usize| {
        let after: Vec<_> = [0, nth - 1]
            .map(|on| json!({"job": format!("#{on}")}))
            .into();
        json!({"shell": format!(": {padding}"), "after": after}).to_string()
    };
    let first = json!({"shell": ":", "delay_s": 1e6, "name": "first"}).to_string();
    let lines: Vec<_> = std::iter::once(first).chain((1..25).map(line)).collect();
    std::fs::write(&file, lines.join("\n")).expect("the file");
    let numbers = fine(call(&server, "submit", &["--many", path, "--clean-env"]));
    let numbers: Vec<_> = numbers.lines().collect();
    assert_eq!(numbers.len(), 25);
    let ids: Vec<_> = numbers
        .iter()
        .map(|job| show(&server, job)["id"].clone())
        .collect();
    for nth in [1, 9, 12, 24] {
        let after = &show(&server, numbers[nth])["after"];
        assert_eq!(
            (&after[0]["job"], &after[1]["job"]),
            (&ids[0], &ids[nth - 1]),
            "{nth}"
        );
    }
    // A name does for an option.
    let words = [
        "--after",
        "first:finish",
        "--after",
        "last",
        "--json",
        "--",
        "true",
    ];
    let named = call(&server, "submit", &words).json();
    let after = &named["job"]["after"];
    assert_eq!(
        (&after[0]["job"], &after[0]["on"]),
        (&ids[0], &json!("finish"))
    );
    assert_eq!(after[1]["job"], ids[24]);
    assert_eq!(
        call(&server, "submit", &["--after", "nobody", "--", "true"]).code(),
        1
    );
}

#[test]
fn a_graph_is_submitted_drawn_waited_for_explained_and_tried_again() {
    let server = Server::start();
    let flag = server.scratch("flag");
    let build = format!("[ -e {} ]", flag.display());
    let submit = |words: &[&str]| fine(call(&server, "submit", words)).trim().to_owned();
    let build = submit(&[
        "--name", "build", "--label", "g=1", "--delay", "1h", "--shell", &build,
    ]);
    let test = submit(&[
        "--name", "test", "--label", "g=1", "--after", &build, "--", "true",
    ]);
    let report = format!("{test}:finish");
    let report = submit(&["--label", "g=1", "--after", &report, "--", "echo", "report"]);
    let wrong = call(&server, "submit", &["--after", "99", "--", "true"]);
    assert_eq!(wrong.code(), 1, "{}", wrong.err());
    assert!(
        wrong.err().contains("no job 99 to wait for"),
        "{}",
        wrong.err()
    );

    let drawn = fine(call(&server, "ls", &["--graph"]));
    let begins: Vec<_> = drawn.lines().map(|line| line.split(':').next()).collect();
    let expected = ["1 build", "└─ 2 test", "   └─ 3 echo report"].map(Some);
    assert_eq!(begins, expected, "{drawn}");
    let why = fine(call(&server, "explain", &["build"]));
    assert!(
        why.contains("does not start before") && why.contains("What has happened"),
        "{why}"
    );
    let why = call(&server, "explain", &["test", "--json"]).json();
    assert_eq!(why["facts"][1]["job"]["number"], 1);

    let changed = fine(call(&server, "update", &["build", "--no-at"]));
    assert!(changed.starts_with("1 "), "{changed}");
    let waited = call(&server, "wait", &["--label", "g=1"]);
    assert_eq!(
        waited.code(),
        1,
        "the code of the first that failed: {}",
        waited.err()
    );
    assert_eq!(show(&server, &test)["reason"], "dependency");
    let told = fine(call(&server, "show", &["test"]));
    assert!(
        told.contains("job 1, which it waited for, failed"),
        "{told}"
    );
    assert_eq!(show(&server, &report)["state"], "succeeded");
    std::fs::write(&flag, "").expect("written");
    let again = fine(call(&server, "retry", &["--with-dependants", "1"]));
    assert_eq!(
        again.lines().count(),
        2,
        "not the report, which has succeeded: {again}"
    );
    for job in again.lines() {
        assert_eq!(call(&server, "wait", &[job]).code(), 0);
    }
    let none = call(&server, "wait", &["--label", "g=2"]);
    assert!(
        none.code() == 1 && none.err().contains("no job has these labels"),
        "{}",
        none.err()
    );
}

#[test]
fn schedules_are_tried_set_listed_run_and_taken_away() {
    let server = Server::start();
    let zone = |words: &[&str]| {
        server
            .cli("schedule")
            .args(words)
            .env("TZ", "Asia/Kathmandu")
            .run()
    };
    let next = fine(zone(&["next", "0 6 29 2 *"]));
    assert!(next.starts_with("in Asia/Kathmandu:"), "{next}");
    assert_eq!(next.matches("-02-29T06:00:00+05:45").count(), 5, "{next}");
    let never = zone(&["next", "0 0 30 2 *"]);
    assert_ne!(never.code(), 0);
    assert!(never.err().contains("never fires"), "{}", never.err());
    let set = ["set", "leap", "--cron", "0 6 29 2 *", "--overlap", "queue"];
    let dry = fine(zone(
        &[&set[..], &["--dry-run", "--", "echo", "leap"]].concat(),
    ));
    assert_eq!(call(&server, "schedule", &["--json"]).json(), json!([]));
    let made = fine(zone(&[&set[..], &["--", "echo", "leap"]].concat()));
    assert_eq!(made, dry);
    assert_eq!(made.matches("+05:45  ").count(), 5, "{made}");
    let page = fine(call(&server, "schedule", &["pause", "leap"]));
    assert!(page.contains("paused"), "{page}");
    fine(call(&server, "schedule", &["resume", "leap"]));
    let page = fine(call(&server, "schedule", &[]));
    assert!(
        page.contains("leap") && page.contains("Asia/Kathmandu"),
        "{page}"
    );
    let job = fine(call(&server, "schedule", &["run", "leap"]))
        .trim()
        .to_owned();
    assert_eq!(call(&server, "wait", &[&job]).code(), 0);
    assert_eq!(show(&server, &job)["schedule"]["name"], "leap");
    assert_eq!(call(&server, "schedule", &["pause", "nothing"]).code(), 1);
    fine(call(&server, "schedule", &["rm", "leap"]));
    assert_eq!(call(&server, "schedule", &["rm", "leap"]).code(), 1);
}

/// The environment of the shell counts once, and what is longer than a message goes in parts: so a refused
/// last line means that no line was submitted.
#[test]
fn a_long_file_is_submitted_as_a_whole_or_not_at_all() {
    let server = Server::start();
    fine(call(&server, "queue", &["set", "held", "--pause"]));
    let place = server.scratch("jobs");
    std::fs::create_dir(&place).expect("a directory");
    let file = place.join("jobs.jsonl");
    let path = file.to_str().expect("UTF-8");
    let line = |nth: usize| {
        let name = format!("{nth} {}", "x".repeat(500));
        json!({"shell": ":", "name": name, "after": [{"job": "#0"}]}).to_string()
    };
    let first = json!({"shell": ":"}).to_string();
    let mut lines: Vec<_> = std::iter::once(first).chain((1..3000).map(line)).collect();
    let submit = |lines: &[String]| {
        std::fs::write(&file, lines.join("\n")).expect("the file");
        let submit = server
            .cli("submit")
            .args(["--many", path, "--queue", "held", "--json"]);
        submit.env("LONG", "x".repeat(5_000)).run()
    };
    lines.push(json!({"shell": ":", "queue": "nowhere"}).to_string());
    let refused = submit(&lines);
    assert_eq!(refused.code(), 1);
    let error = refused.err();
    assert!(
        error.contains("line 3001") && error.contains("nothing was submitted"),
        "{error}"
    );
    assert_eq!(call(&server, "ls", &["--all", "--json"]).json(), json!([]));
    lines.pop();
    let jobs = submit(&lines).json();
    assert_eq!(jobs.as_array().map(Vec::len), Some(3000));
    let last = show(&server, "3000");
    assert_eq!(last["after"][0]["job"], jobs[0]["id"]);
    assert!(
        last["env_names"]
            .as_array()
            .is_some_and(|names| names.contains(&json!("LONG")))
    );
}

/// The connection of the command that submits it is lost as soon as the command has ended.
#[test]
fn no_job_is_cancelled_by_the_end_of_the_command_that_submitted_it() {
    let server = Server::start();
    let mut client = server.connect();
    let tied = json!({"shell": "exec sleep 1000", "grace_s": 0, "on_disconnect": "cancel",
        "disconnect_delay_s": 0});
    let old = client.submit(server.marked(tied.clone()));
    client.started(&old);
    client.control(&old, "kill");
    let old = client.finished(&old)["number"].to_string();
    client.ok(
        "queue.set",
        json!({"queue": "tied", "concurrency": 64, "defaults":
        {"on_disconnect": "cancel", "disconnect_delay_s": 0, "grace_s": 0}}),
    );
    let file = server.scratch("jobs");
    std::fs::write(&file, "{\"argv\":[\"sleep\",\"1000\"]}\n").expect("a file");
    let file = file.display().to_string();
    let calls: [(&str, &[&str]); 5] = [
        ("retry", &[&old]),
        ("retry", &["--with-dependants", &old]),
        ("submit", &["--queue", "tied", "--", "sleep", "1000"]),
        ("submit", &["--queue", "tied", "--many", &file]),
        (
            "run",
            &["--queue", "tied", "--detach", "--", "sleep", "1000"],
        ),
    ];
    let mut jobs = Vec::new();
    for (verb, words) in calls {
        let done = server.cli(verb).args(words).run();
        assert_eq!(done.code(), 0, "{verb}: {}", done.err());
        jobs.push(done.out().trim().to_owned());
    }
    let tail = server.cli("retry").args(["--tail", &old]).spawn();
    let newest = until("the retry", || {
        let newest = client.ok("job.list", json!({"limit": 1}))["jobs"][0].clone();
        (newest["retry_of"].is_string() && !jobs.contains(&newest["id"].as_str()?.to_owned()))
            .then_some(newest)
    });
    jobs.push(newest["id"].as_str().expect("an id").to_owned());
    tail.signal(Signal::SIGTERM);
    tail.finish();
    // A connection that is lost later, and has taken its job along.
    let mut leaving = server.connect();
    let last = leaving.submit(server.marked(tied));
    drop(leaving);
    assert_eq!(client.finished(&last)["stop"]["by"], "disconnect");
    for job in jobs {
        let job = match job.parse::<u64>() {
            Ok(number) => json!({"id": number}),
            Err(_) => json!({"id": job}),
        };
        assert_eq!(client.get(&job)["stop"], Value::Null, "{job}");
    }
}
