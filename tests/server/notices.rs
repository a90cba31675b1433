//! Notices: what their receivers get, how often, and who never sees a secret.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Client, Receiver, Server, until, until_true};

const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtMTIzNDU2Nzg=";
/// Retries come at once.
const QUICK: [&str; 2] = ["--notice-backoff-ms", "20"];

/// The notices of a job, the oldest first, once none of them waits.
fn ended(client: &mut Client, job: &Value) -> Vec<Value> {
    until("the notices of a job to end", || {
        let list = client.ok("notice.list", json!({"job": job["id"]}));
        let mut notices = list["notices"].as_array().expect("notices").clone();
        notices.reverse();
        let waits = |notice: &Value| notice["state"] == "waiting";
        (!notices.is_empty() && !notices.iter().any(waits)).then_some(notices)
    })
}

fn stderr(server: &Server) -> String {
    server.said()
}

#[test]
fn receivers_get_signed_notices_of_the_states_that_they_chose() {
    let receiver = Receiver::new();
    let server = Server::with(&QUICK, &[]);
    let mut client = server.connect();
    let job = client.submit(
        json!({"shell": "exit 3", "name": "n", "env": {"PASSWORD": "hush"},
        "notify": [
            {"on": ["failed", "cancelled"], "url": receiver.url("/signed?x=1"), "secret": SECRET},
            {"on": ["running", "queued"], "url": receiver.url("/plain")},
            {"on": ["succeeded", "paused"], "url": receiver.url("/never")},
        ]}),
    );
    let finished = client.finished(&job);
    let notices = ended(&mut client, &job);
    let told = |notice: &Value| (notice["on"].clone(), notice["entry"].clone());
    let expected = [
        (json!("queued"), json!(1)),
        (json!("running"), json!(1)),
        (json!("failed"), json!(0)),
    ];
    assert_eq!(notices.iter().map(told).collect::<Vec<_>>(), expected);
    let received = receiver.received();
    assert_eq!(received.len(), 3, "{received:?}");

    let of = |kind: &str| received.iter().find(|one| one.json()["type"] == kind);
    let failed = of("job.failed").expect("told");
    assert_eq!(failed.line, "POST /signed?x=1 HTTP/1.1");
    assert_eq!(failed.header("content-type"), "application/json");
    assert_eq!(
        failed.header("host"),
        format!("127.0.0.1:{}", receiver.port())
    );
    assert_eq!(
        failed.header("webhook-signature"),
        failed.signed_with(SECRET)
    );
    let body = failed.json();
    assert_eq!(
        body["data"]["job"], finished,
        "the job as every client sees it"
    );
    assert_eq!(body["data"]["id"], failed.header("webhook-id"));
    assert_eq!(body["timestamp"], notices[2]["at"]);
    assert!(!failed.body.contains("hush"));
    for (kind, state) in [("job.queued", "queued"), ("job.running", "running")] {
        let plain = of(kind).expect("told");
        assert_eq!(plain.json()["data"]["job"]["state"], state);
        assert!(!plain.has("webhook-signature"));
    }

    // A retry has the same receivers with the same secret.
    let again = client.ok("job.retry", json!({"job": job["id"]}));
    let notices = ended(&mut client, &client_finished(&server, &again));
    assert_eq!(notices.len(), 3);
    let received = receiver.received();
    let failed: Vec<_> = received
        .iter()
        .filter(|one| one.has("webhook-signature"))
        .collect();
    assert_eq!(failed.len(), 2);
    assert_eq!(
        failed[1].header("webhook-signature"),
        failed[1].signed_with(SECRET)
    );
    assert_ne!(
        failed[0].header("webhook-id"),
        failed[1].header("webhook-id")
    );

    secrets_are_copied_for_the_same_receiver_alone(&receiver, &mut client, &job);
    secret_is_nowhere(&server, &mut client, &job);
}

/// A client that submits a job once more with changes does not know its secrets, and need not.
fn secrets_are_copied_for_the_same_receiver_alone(
    receiver: &Receiver,
    client: &mut Client,
    job: &Value,
) {
    let entry = |path: &str| json!([{"on": ["failed", "cancelled"], "url": receiver.url(path)}]);
    for (path, is_signed) in [("/signed?x=1", true), ("/signed?x=2", false)] {
        let copy = json!({"shell": "exit 4", "secrets_of": job["id"], "notify": entry(path)});
        let stored = client.ok("job.submit_many", json!({"jobs": [copy]}));
        ended(client, &stored["jobs"][0]);
        let last = receiver.received().pop().expect("told");
        assert_eq!(last.json()["data"]["job"]["exit_code"], 4);
        assert_eq!(last.has("webhook-signature"), is_signed, "{path}");
        if is_signed {
            assert_eq!(last.header("webhook-signature"), last.signed_with(SECRET));
        }
    }
    for (of, code) in [(json!("x y"), -32602), (json!(999_999), -32003)] {
        let copy = json!({"argv": ["true"], "secrets_of": of, "notify": entry("/")});
        let both = json!({"jobs": [{"argv": ["true"]}, copy]});
        let refused = client.refused(code, "job.submit_many", both);
        assert_eq!(refused["data"]["index"], 1, "{refused}");
    }
    let alone = json!({"argv": ["true"], "secrets_of": job["id"]});
    client.refused(-32602, "job.submit", alone);
}

fn client_finished(server: &Server, job: &Value) -> Value {
    server.connect().finished(job)
}

/// Neither in what any interface shows nor in the log.
fn secret_is_nowhere(server: &Server, client: &mut Client, job: &Value) {
    let shown = client.ok(
        "job.get",
        json!({"job": job["id"], "include": ["env", "stdin"]}),
    );
    assert_eq!(shown["notify"][0]["has_secret"], true);
    assert_eq!(shown["notify"][1]["has_secret"], false);
    assert_eq!(shown["notify"][0]["on"], json!(["failed", "cancelled"]));
    let defaults = json!({"notify": [{"on": ["failed"], "url": "http://h/", "secret": SECRET}]});
    let set = client.ok("queue.set", json!({"queue": "q", "defaults": defaults}));
    assert_eq!(set["defaults"]["notify"][0]["has_secret"], true);
    let mut said = vec![shown, set];
    for (method, params) in [
        ("job.list", json!({})),
        ("queue.list", json!({})),
        ("queue.list", json!({"include": ["env"]})),
        ("notice.list", json!({})),
        (
            "history.query",
            json!({"sql": "SELECT * FROM history_jobs"}),
        ),
        (
            "history.query",
            json!({"sql": "SELECT * FROM history_events"}),
        ),
    ] {
        said.push(client.ok(method, params));
    }
    let (code, refused) = (-32002, json!({"sql": "SELECT * FROM notices"}));
    client.refused(code, "history.query", refused);
    let number = job["number"].to_string();
    for words in [
        &["show", &number][..],
        &["show", "--json", &number],
        &["export", "--format", "json", &number],
        &["notify", "ls"],
        &["notify", "ls", "--json"],
        &["queue"],
        &["ls", "--all"],
    ] {
        let done = server.cli(words[0]).args(&words[1..]).run();
        assert_eq!(done.code(), 0, "{words:?}: {}", done.err());
        said.push(json!(done.out()));
    }
    said.push(json!(stderr(server)));
    for text in said {
        assert!(!text.to_string().contains(&SECRET[6..30]), "{text}");
    }
}

#[test]
fn a_notice_is_repeated_with_its_id_until_it_is_taken_or_given_up() {
    let receiver = Receiver::answering(0, |request, before| match request.line.as_str() {
        line if line.contains("/flaky") && before < 2 => "500 Oops\r\n".to_owned(),
        line if line.contains("/gone") => "410 Gone\r\n".to_owned(),
        line if line.contains("/moved") => "302 Found\r\nLocation: /elsewhere\r\n".to_owned(),
        _ => "200 OK\r\n".to_owned(),
    });
    let mut server = Server::with(&[&QUICK[..], &["--notice-attempts-max", "3"]].concat(), &[]);
    let mut client = server.connect();
    let notified = |path: &str| {
        json!({"argv": ["true"],
        "notify": [{"on": ["succeeded"], "url": receiver.url(path)}]})
    };

    let job = client.submit(notified("/flaky"));
    let notices = ended(&mut client, &job);
    assert_eq!(notices[0]["state"], "delivered");
    assert_eq!(notices[0]["attempts"], 3);
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    for other in &received[1..] {
        assert_eq!(other.header("webhook-id"), received[0].header("webhook-id"));
        assert_eq!(other.body, received[0].body);
    }
    let refused = client.refused(-32004, "notice.retry", json!({"notice": notices[0]["id"]}));
    assert_eq!(refused["data"]["kind"], "conflict");

    // 410 asks for no other attempt; a redirect is a failure, and is not followed.
    for (path, attempts, error) in [("/gone", 1, "HTTP 410"), ("/moved", 3, "HTTP 302")] {
        let before = receiver.received().len();
        let job = client.submit(notified(path));
        let notices = ended(&mut client, &job);
        assert_eq!(notices[0]["state"], "given_up", "{notices:?}");
        assert_eq!(notices[0]["attempts"], attempts);
        assert!(notices[0]["error"].as_str().expect("why").contains(error));
        assert_eq!(receiver.received().len(), before + attempts);
    }
    assert_eq!(
        client.ok("server.info", json!({}))["notices"],
        json!({"waiting": 0, "given_up": 2})
    );
    assert!(
        server
            .cli("status")
            .run()
            .out()
            .contains("0 waiting, 2 given up")
    );
    assert!(stderr(&server).contains("a notice is given up"));

    // It can be tried again, also after its job is gone and the server was killed.
    let given_up = client.ok("notice.list", json!({"state": "given_up", "limit": 1}));
    let notice = given_up["notices"][0].clone();
    let number = notice["number"].as_i64().expect("a number");
    assert_eq!(given_up["next_cursor"], number.to_string());
    client.ok("job.delete", json!({"job": notice["job"]}));
    drop(client);
    server.kill_9();
    let before = receiver.received();
    server.restart();
    let retried = server
        .cli("notify")
        .args(["retry", &number.to_string()])
        .run();
    assert_eq!(retried.code(), 0, "{}", retried.err());
    let after = receiver.wait_for(before.len() + 3);
    assert_eq!(after[before.len()].header("webhook-id"), notice["id"]);
    let mut client = server.connect();
    until_true("it to be given up again", || {
        let list = client.ok("notice.list", json!({"job": notice["job"]}));
        list["notices"][0]["state"] == "given_up"
    });
    let unknown = server.cli("notify").args(["retry", "999", "evt_x"]).run();
    assert_eq!(unknown.code(), 1);
    assert_eq!(unknown.err().lines().count(), 2, "{}", unknown.err());
}

#[test]
fn every_notice_comes_although_the_receiver_was_down_and_the_server_killed() {
    const JOBS: usize = 300;
    let receiver = Receiver::new();
    let port = receiver.port();
    let url = receiver.url("/");
    drop(receiver);
    let mut server = Server::with(&QUICK, &[]);
    let mut client = server.connect();
    client.ok(
        "queue.set",
        json!({"queue": "q", "concurrency": 8, "defaults":
        {"notify": [{"on": ["succeeded", "failed"], "url": url, "secret": SECRET}]}}),
    );
    let jobs: Vec<_> = (0..JOBS)
        .map(|_| json!({"argv": ["true"], "queue": "q"}))
        .collect();
    let submitted = client.ok("job.submit_many", json!({"jobs": jobs}));
    until_true("some of them to end", || {
        client.ok("server.info", json!({}))["notices"]["waiting"].as_u64() > Some(20)
    });
    drop(client);
    server.kill_9();
    server.restart();
    let receiver = Receiver::answering(port, |_, _| "202 Accepted\r\n".to_owned());
    // Once more while they come.
    receiver.wait_for(JOBS / 10);
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    until_true("every notice to be taken", || {
        let info = client.ok("server.info", json!({}));
        info["counts"]["succeeded"] == JOBS && info["notices"]["waiting"] == 0
    });
    let mut times: HashMap<String, usize> = HashMap::new();
    for one in receiver.received() {
        assert_eq!(one.header("webhook-signature"), one.signed_with(SECRET));
        let id = one.json()["data"]["job"]["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        *times.entry(id).or_default() += 1;
    }
    assert_eq!(times.len(), JOBS, "each at least once, and no other");
    for job in submitted["jobs"].as_array().expect("jobs") {
        assert!(
            times.contains_key(job["id"].as_str().expect("an id")),
            "{job}"
        );
    }
    assert_eq!(
        client.ok("server.info", json!({}))["notices"]["given_up"],
        0
    );
    // A list that is cut says so.
    let listed = |words: &[&str]| server.cli("notify").args([&["ls"], words].concat()).run();
    let newest = listed(&[]);
    assert_eq!(newest.out().lines().count(), 21, "{}", newest.out());
    assert!(newest.err().contains("--all lists all"), "{}", newest.err());
    let all = listed(&["--all", "--json"]);
    assert_eq!(all.json().as_array().map(Vec::len), Some(JOBS));
    assert_eq!(all.err(), "");
}

#[test]
fn commands_get_notices_on_stdin_and_cannot_hold_up_the_server() {
    let mut server = Server::with(
        &[
            &QUICK[..],
            &["--notice-attempts-max", "2", "--notice-timeout-s", "1"],
        ]
        .concat(),
        &[],
    );
    let mut client = server.connect();
    let place = server.scratch("told");
    let tell = format!(
        "cat > {0}; env > {0}.env; pwd > {0}.pwd; ls -l /proc/self/fd > {0}.fd",
        place.display()
    );
    let job = client.submit(json!({"shell": "exit 7", "name": "build", "notify": [
        {"on": ["failed"], "argv": ["sh", "-c", tell]},
        {"on": ["failed"], "argv": ["sh", "-c", "echo not today >&2; exit 9"]},
        {"on": ["failed"], "argv": ["sh", "-c", "sleep 1000 & sleep 1000"]},
        {"on": ["failed"], "argv": ["/no/such/program"]},
    ]}));
    let job = client.finished(&job);
    let notices = ended(&mut client, &job);
    let read = |end: &str| fs::read_to_string(format!("{}{end}", place.display())).expect("told");
    let body: Value = serde_json::from_str(&read("")).expect("JSON");
    assert_eq!(
        (&body["type"], &body["data"]["job"]),
        (&json!("job.failed"), &job)
    );
    let env = read(".env");
    for expected in [
        format!(
            "CC_EXECUTOR_EVENT_ID={}",
            notices[0]["id"].as_str().expect("an id")
        ),
        format!("CC_EXECUTOR_JOB={}", job["number"]),
        format!(
            "CC_EXECUTOR_JOB_UUID={}",
            job["id"].as_str().expect("an id")
        ),
        "CC_EXECUTOR_STATE=failed".to_owned(),
        "CC_EXECUTOR_REASON=exit_code".to_owned(),
        "CC_EXECUTOR_EXIT_CODE=7".to_owned(),
        "CC_EXECUTOR_NAME=build".to_owned(),
        format!("CC_EXECUTOR_DATA_DIR={}", server.data_dir().display()),
    ] {
        assert!(
            env.lines().any(|line| line == expected),
            "{expected} in {env}"
        );
    }
    assert_eq!(
        read(".fd")
            .lines()
            .filter(|line| line.contains("->"))
            .count(),
        4,
        "{}",
        read(".fd")
    );
    let expected = [
        ("delivered", None, 1),
        ("given_up", Some("it exited with 9: not today"), 2),
        ("given_up", Some("no success within 1 s"), 2),
        (
            "given_up",
            Some("it exited with 127: /no/such/program cannot be executed: No such file"),
            2,
        ),
    ];
    for (notice, (state, error, attempts)) in notices.iter().zip(expected) {
        assert_eq!(
            (&notice["state"], &notice["attempts"]),
            (&json!(state), &json!(attempts))
        );
        let text = notice["error"].as_str();
        assert!(
            text.unwrap_or_default()
                .starts_with(error.unwrap_or_default()),
            "{notice}"
        );
    }

    // A stop does not wait for a command, and the next server runs it again.
    let begun = server.scratch("begun");
    let hang = format!("echo x >> {}; exec sleep 1000", begun.display());
    client.submit(
        json!({"argv": ["true"], "notify": [{"on": ["succeeded"], "argv": ["sh", "-c", hang]}]}),
    );
    let runs = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    until_true("the command to run", || runs(&begun) > 0);
    let before = runs(&begun);
    drop(client);
    let (status, took) = server.stop();
    assert!(
        status.success() && took < Duration::from_secs(5),
        "{took:?}"
    );
    server.restart();
    until_true("the command to run again", || runs(&begun) > before);
}

#[test]
fn receivers_are_tested_with_and_without_tls_and_wrong_ones_are_refused() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let authority = tls.join("authority.pem");
    let server = Server::with(
        &QUICK,
        &[("SSL_CERT_FILE", authority.to_str().expect("UTF-8"))],
    );
    let mut client = server.connect();
    let (https, http) = (
        Receiver::with_tls(&tls),
        Receiver::answering(0, |_, _| "403 No\r\n".to_owned()),
    );
    let job = client.submit(json!({"argv": ["true"],
        "notify": [{"on": ["succeeded"], "url": https.url("/x"), "secret": SECRET}]}));
    assert_eq!(ended(&mut client, &job)[0]["state"], "delivered");
    let received = https.wait_for(1);
    assert_eq!(
        received[0].header("webhook-signature"),
        received[0].signed_with(SECRET)
    );

    let test = |words: &[&str]| server.cli("notify").args([&["test"], words].concat()).run();
    let taken = test(&["--url", &https.url("/"), "--secret", SECRET]);
    assert_eq!(taken.code(), 0, "{}{}", taken.out(), taken.err());
    let received = https.wait_for(2);
    assert_eq!(received[1].json()["type"], "test");
    assert_eq!(
        received[1].header("webhook-signature"),
        received[1].signed_with(SECRET)
    );
    // Its certificate is for another name.
    let other = https.url("/").replace("localhost", "127.0.0.2");
    let refused = test(&["--url", &other]);
    assert_eq!(
        (refused.code(), https.received().len()),
        (1, 2),
        "{}",
        refused.out()
    );
    client.ok(
        "queue.set",
        json!({"queue": "q", "defaults": {"notify": [
            {"on": ["failed"], "url": http.url("/"), "secret": SECRET},
            {"on": ["failed"], "argv": ["sh", "-c", "test \"$CC_EXECUTOR_EVENT_TYPE\" = test"]},
        ]}}),
    );
    let mixed = test(&["--queue", "q", "--json"]);
    assert_eq!(mixed.code(), 1);
    let results: Value = serde_json::from_slice(&mixed.stdout).expect("JSON");
    let delivered = |at: usize| results[at]["delivered"].clone();
    assert_eq!(
        (delivered(0), delivered(1)),
        (json!(false), json!(true)),
        "{}",
        mixed.out()
    );
    assert_eq!(http.received()[0].json()["data"]["queue"], "q");
    client.refused(-32004, "notice.test", json!({"queue": "default"}));
    client.refused(-32003, "notice.test", json!({"queue": "none"}));
    client.refused(-32602, "notice.test", json!({"url": "gopher://x"}));

    let before = client.ok("job.list", json!({}))["jobs"].clone();
    for (key, entries) in [
        ("notify", json!("x")),
        ("notify", json!([7])),
        ("notify[0]", json!([{"url": "http://h/"}])),
        (
            "notify[0].on",
            json!([{"on": ["ended"], "url": "http://h/"}]),
        ),
        (
            "notify[0].colour",
            json!([{"on": ["failed"], "url": "http://h/", "colour": 1}]),
        ),
        (
            "notify[0]",
            json!([{"on": ["failed"], "url": "http://h/", "argv": ["x"]}]),
        ),
        (
            "notify[0].url",
            json!([{"on": ["failed"], "url": "http://u:p@h/"}]),
        ),
        (
            "notify[0].secret",
            json!([{"on": ["failed"], "url": "http://h/", "secret": "whsec_eA=="}]),
        ),
        (
            "notify",
            json!(vec![json!({"on": ["failed"], "url": "http://h/"}); 9]),
        ),
    ] {
        let refused = client.refused(
            -32602,
            "job.submit",
            json!({"argv": ["true"], "notify": entries}),
        );
        assert_eq!(refused["data"]["key"].as_str(), Some(key), "{refused}");
        assert!(
            !refused["message"]
                .as_str()
                .expect("a message")
                .contains("whsec_eA")
        );
        let defaults = json!({"queue": "q", "defaults": {"notify": entries}});
        client.refused(-32602, "queue.set", defaults);
    }
    assert_eq!(client.ok("job.list", json!({}))["jobs"], before);
    // Another secret makes another job of the same key.
    let keyed = |secret: &str| {
        json!({"argv": ["true"], "idempotency_key": "k",
        "notify": [{"on": ["failed"], "url": "http://h/", "secret": secret}]})
    };
    let first = client.ok("job.submit", keyed(SECRET));
    assert_eq!(
        client.ok("job.submit", keyed(SECRET))["job"]["id"],
        first["job"]["id"]
    );
    client.refused(
        -32004,
        "job.submit",
        keyed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    );
}
