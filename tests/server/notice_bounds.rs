//! Notices at their bounds: more wait than may, and the disk is full.

use std::fs;

use serde_json::{Value, json};

use crate::{
    full_disk::MIB,
    harness::{Client, Disk, FileSystem, Receiver, Server, until, until_true},
};

fn told(receiver: &Receiver, argv: &[&str]) -> Value {
    json!({"argv": argv, "notify": [{"on": ["succeeded"], "url": receiver.url("/")}]})
}

fn waiting(client: &mut Client) -> u64 {
    let info = client.ok("server.info", json!({}));
    info["notices"]["waiting"].as_u64().expect("a number")
}

/// A receiver that is down must not fill the disk: jobs with `notify` are refused, others are not.
#[test]
fn where_too_many_notices_wait_only_jobs_without_notify_are_taken() {
    let receiver = Receiver::new();
    let (port, notified) = (receiver.port(), told(&receiver, &["true"]));
    drop(receiver);
    // No second attempt comes by itself in this test.
    let settings = [
        "--notices-waiting-max",
        "3",
        "--notice-backoff-ms",
        "600000",
    ];
    let mut server = Server::with(&settings, &[]);
    let mut client = server.connect();
    let defaults = json!({"queue": "told", "defaults": {"notify": notified["notify"]}});
    client.ok("queue.set", defaults);
    let gate = server.scratch("gate");
    let line = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let late = client.submit(server.marked(told_shell(&notified, &line)));
    client.started(&late);
    let jobs = vec![notified.clone(); 3];
    let submitted = client.ok("job.submit_many", json!({"jobs": jobs}));
    until_true("three to wait", || waiting(&mut client) == 3);

    let before = client.ok("job.list", json!({}))["jobs"].clone();
    let in_told = json!({"argv": ["true"], "queue": "told"});
    let last = &submitted["jobs"][2];
    client.finished(last);
    for (method, params) in [
        ("job.submit", notified.clone()),
        ("job.submit", in_told.clone()),
        (
            "job.submit_many",
            json!({"jobs": [{"argv": ["true"]}, notified]}),
        ),
        ("job.retry", json!({"job": last["id"]})),
    ] {
        let refused = client.refused(-32005, method, params);
        assert_eq!(refused["data"]["limit"], "notices_waiting_max", "{refused}");
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains("3 notices wait"), "{message}");
    }
    let after = client.ok("job.list", json!({}))["jobs"].clone();
    assert_eq!(after, before, "nothing was stored");
    let plain = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&plain)["state"], "succeeded");

    // What runs is notified of all the same, and the bound holds after a kill.
    fs::write(&gate, "").expect("the gate");
    assert_eq!(client.finished(&late)["state"], "succeeded");
    until_true("its notice", || waiting(&mut client) == 4);
    drop(client);
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    client.refused(-32005, "job.submit", notified.clone());

    let receiver = Receiver::answering(port, |_, _| "204 No Content\r\n".to_owned());
    let listed = client.ok("notice.list", json!({"state": "waiting"}));
    let notices = listed["notices"].as_array().expect("notices").clone();
    assert_eq!(notices.len(), 4);
    for notice in &notices {
        client.ok("notice.retry", json!({"notice": notice["number"]}));
    }
    receiver.wait_for(4);
    until_true("all to be delivered", || waiting(&mut client) == 0);
    let job = client.submit(in_told);
    assert_eq!(client.finished(&job)["state"], "succeeded");
    receiver.wait_for(5);
}

fn told_shell(notified: &Value, line: &str) -> Value {
    json!({"shell": line, "notify": notified["notify"]})
}

/// An end that the ballast makes possible has its notice with it; it is sent, and what became of it is
/// stored as soon as there is room, without a request for each attempt to store it.
#[test]
fn on_a_full_disk_the_notice_of_an_end_comes_and_is_not_repeated_without_end() {
    let Some(disk) = Disk::mount(FileSystem::Tmpfs, 64 * MIB) else {
        return;
    };
    let settings = ["--free-bytes-min", "0", "--notice-backoff-ms", "20"];
    let mut server = Server::stopped(&settings, &[]).within(disk.path("data"));
    server.restart();
    let mut client = server.connect();
    let receiver = Receiver::new();
    let gate = server.scratch("gate");
    let line = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let notified = told(&receiver, &["true"]);
    let jobs: Vec<Value> = (0..3)
        .map(|_| client.submit(server.marked(told_shell(&notified, &line))))
        .collect();
    for job in &jobs {
        client.started(job);
    }
    let ballast = disk.fill();
    until("the disk to be full", || {
        client.call("job.submit", notified.clone()).err()
    });
    fs::write(&gate, "").expect("the gate, which lies elsewhere");
    for job in &jobs {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
    let is_told = |job: &Value| {
        let received = receiver.received();
        let ids = received
            .iter()
            .map(|one| one.json()["data"]["job"]["id"].clone());
        ids.filter(|id| *id == job["id"]).count()
    };
    until_true("each to be told", || {
        jobs.iter().all(|job| is_told(job) > 0)
    });
    server.kill_9();
    server.restart();
    fs::remove_file(ballast).expect("removed");
    disk.grow(128 * MIB);
    let mut client = server.connect();
    until_true("all to be delivered", || waiting(&mut client) == 0);
    // Once, and once more where the kill came before it was stored.
    for job in &jobs {
        assert!(is_told(job) <= 2, "{:?}", receiver.received().len());
    }
    let after = until("there is room again", || {
        client.call("job.submit", notified.clone()).ok()
    });
    assert_eq!(client.finished(&after["job"])["state"], "succeeded");
    until_true("it is told", || is_told(&after["job"]) == 1);
}
