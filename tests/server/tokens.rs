//! Tokens with scopes: every method with every scope, own and foreign jobs; what ends a token; every door.
//! Which method needs what is read from docs/protocol.md, so the page is tested, too.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::harness::{Client, DAY_S, Frame, Server, WallClock, connect_refused, until_true};

const SCOPES: [&str; 7] = [
    "read",
    "read.secrets",
    "submit",
    "control",
    "input",
    "queues",
    "admin",
];

/// The table of methods in docs/protocol.md: the scope, and what a narrowed token gets.
fn table() -> BTreeMap<String, (String, String)> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md"));
    let page = page.expect("the page");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let plain = |cell: &str| cell.strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
        let (method, scope) = (plain(cells.next()?)?, plain(cells.next()?)?);
        let narrowed = cells.next()?.to_owned();
        let is_row = method.contains('.') && SCOPES.contains(&scope.as_str());
        is_row.then_some((method, (scope, narrowed)))
    });
    let table: BTreeMap<_, _> = rows.collect();
    assert!(table.len() > 30, "{table:?}");
    table
}

/// Makes a token; returns its text.
#[track_caller]
fn token(server: &Server, params: Value) -> String {
    let made = server.connect().ok("token.create", params);
    made["secret"].as_str().expect("a secret").to_owned()
}

#[track_caller]
fn session(server: &Server, token: &str) -> Client {
    Client::tcp(server.listen(), Some(token))
}

#[track_caller]
fn rule(client: &mut Client, method: &str, params: Value) -> String {
    let error = client.refused(-32002, method, params);
    error["data"]["rule"].as_str().expect("a rule").to_owned()
}

fn is_forbidden(reply: &Result<Value, Value>) -> bool {
    matches!(reply, Err(error) if error["code"] == -32002)
}

#[test]
fn the_page_names_every_method() {
    let server = Server::start();
    let error = server.connect().refused(-32601, "x.y", json!({}));
    let text = error["message"].as_str().expect("a message");
    let (_, known) = text.split_once("known methods are ").expect("a list");
    let mut known: Vec<&str> = known.split(", ").collect();
    known.retain(|method| *method != "session.authenticate");
    known.sort_unstable();
    assert_eq!(table().keys().collect::<Vec<_>>(), known);
}

/// An unknown key makes every call harmless: it is refused, after the scope was looked at.
#[test]
fn every_method_asks_for_its_scope_and_for_no_other() {
    let server = Server::start();
    for has in SCOPES {
        let text = token(
            &server,
            json!({"name": format!("only-{has}"), "scopes": [has]}),
        );
        let mut client = session(&server, &text);
        let hello = &client.hello["params"];
        assert_eq!(
            (&hello["auth"], &hello["principal"]["scopes"]),
            (&json!("ok"), &json!([has]))
        );
        for (method, (needs, _)) in table() {
            let reply = client.call(&method, json!({"no_such_key": 1}));
            let error = reply.expect_err("the key is unknown");
            if has == needs || has == "admin" {
                assert_eq!(error["code"], -32602, "{method} with {has}: {error}");
                continue;
            }
            assert_eq!(error["code"], -32002, "{method} with {has}: {error}");
            let data = &error["data"];
            assert_eq!(
                (&data["rule"], &data["scope"]),
                (&json!("token.scope"), &json!(needs))
            );
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains(&needs), "{message}");
        }
    }
}

/// A value can ask for a second scope.
#[test]
fn values_of_environments_and_tails_ask_for_more() {
    let server = Server::start();
    let job = server
        .connect()
        .submit(json!({"argv": ["true"], "env": {"A": "hush"}}));
    let id = job["id"].clone();
    let mut reader = session(
        &server,
        &token(&server, json!({"name": "r", "scopes": ["read"]})),
    );
    assert!(reader.ok("job.get", json!({"job": id}))["env"].is_null());
    for include in ["env", "stdin"] {
        let error = reader.refused(-32002, "job.get", json!({"job": id, "include": [include]}));
        assert_eq!(error["data"]["scope"], "read.secrets");
    }
    reader.refused(-32002, "queue.list", json!({"include": ["env"]}));
    let scopes = json!({"name": "s", "scopes": ["read", "read.secrets"]});
    let mut secrets = session(&server, &token(&server, scopes));
    let shown = secrets.ok("job.get", json!({"job": id, "include": ["env"]}));
    assert_eq!(shown["env"]["A"], "hush");
    let mut submitter = session(
        &server,
        &token(&server, json!({"name": "w", "scopes": ["submit"]})),
    );
    let error = submitter.refused(-32002, "job.submit", json!({"argv": ["true"], "tail": {}}));
    assert_eq!(error["data"]["scope"], "read");
    submitter.ok("job.submit", json!({"argv": ["true"]}));
}

/// What names the job of another client is refused; the same about an own one is not.
#[test]
fn every_method_is_held_to_own_jobs() {
    let server = Server::start();
    let mut admin = server.connect();
    let foreign = admin.submit(json!({"argv": ["true"], "name": "foreign"}));
    admin.finished(&foreign);
    let all = json!(SCOPES);
    let text = token(&server, json!({"name": "own", "scopes": all, "own": true}));
    let mut client = session(&server, &text);
    for (method, (_, narrowed)) in table() {
        match narrowed.as_str() {
            "jobs" => {
                for job in [
                    &foreign["id"],
                    &foreign["number"],
                    &json!(foreign["number"].to_string()),
                ] {
                    let named = match method.as_str() {
                        "job.wait" => json!({"jobs": [job]}),
                        _ => json!({"job": job}),
                    };
                    assert_eq!(rule(&mut client, &method, named), "token.own", "{method}");
                }
                let own = client.submit(json!({"argv": ["true"]}));
                client.finished(&own);
                let named = match method.as_str() {
                    "job.wait" => json!({"jobs": [own["id"]]}),
                    _ => json!({"job": own["id"]}),
                };
                let reply = client.call(&method, named);
                assert!(!is_forbidden(&reply), "{method}: {reply:?}");
            }
            "whole" | "queue" => {
                let reply = rule(&mut client, &method, json!({"queue": "default"}));
                assert_eq!(reply, "token.narrowed", "{method}");
            }
            "filtered" | "free" => {
                let reply = client.call(&method, json!({"no_such_key": 1}));
                assert!(!is_forbidden(&reply), "{method}: {reply:?}");
            }
            other => panic!("{method}: {other}"),
        }
    }
    let both = json!({"jobs": [foreign["id"], 999_999]});
    assert_eq!(rule(&mut client, "job.wait", both), "token.own");
    client.refused(-32003, "job.get", json!({"job": 999_999}));
    assert_eq!(admin.get(&foreign)["state"], "succeeded");
}

#[test]
fn lists_and_searches_show_only_what_is_reached() {
    let server = Server::start();
    let mut admin = server.connect();
    let text = token(
        &server,
        json!({"name": "a", "scopes": ["read", "submit"], "own": true}),
    );
    let mut client = session(&server, &text);
    let mut own = Vec::new();
    let mut foreign = Vec::new();
    for _ in 0..3 {
        foreign.push(admin.submit(json!({"argv": ["echo", "needle"], "name": "n"})));
        own.push(client.submit(json!({"argv": ["echo", "needle"], "name": "n"})));
    }
    own.iter()
        .chain(&foreign)
        .for_each(|job| drop(admin.finished(job)));
    let mine: Vec<&Value> = own.iter().rev().map(|job| &job["number"]).collect();
    for filter in [
        json!({}),
        json!({"name": "n"}),
        json!({"queue": "default"}),
        json!({"state": "succeeded"}),
        json!({"since": "2000-01-01T00:00:00Z"}),
        json!({"limit": 1000, "cursor": "1000000"}),
    ] {
        let page = client.ok("job.list", filter.clone());
        let jobs = page["jobs"].as_array().expect("jobs");
        let numbers: Vec<&Value> = jobs.iter().map(|job| &job["number"]).collect();
        assert_eq!(numbers, mine, "{filter}");
    }
    let found = client.ok("history.search", json!({"text": "needle"}));
    let hits = found["hits"].as_array().expect("hits");
    let numbers: Vec<&Value> = hits.iter().map(|hit| &hit["number"]).collect();
    assert_eq!(numbers, mine);
    // A cursor and a job are the client's word.
    let number = &foreign[2]["number"];
    let cursor = format!("{number}.0.0.0.0.0");
    assert_eq!(
        rule(
            &mut client,
            "history.search",
            json!({"text": "needle", "cursor": cursor})
        ),
        "token.own"
    );
    assert_eq!(
        rule(
            &mut client,
            "history.search",
            json!({"text": "needle", "job": number})
        ),
        "token.own"
    );
    assert_eq!(
        rule(&mut client, "history.query", json!({"sql": "SELECT 1"})),
        "token.narrowed"
    );
}

/// Ways to a foreign job, or out of the token's queues, by way of a new job.
#[test]
fn new_jobs_are_no_detour() {
    let server = Server::start();
    let mut admin = server.connect();
    admin.ok("queue.set", json!({"queue": "ci"}));
    let key = json!({"argv": ["true"], "queue": "ci", "idempotency_key": "k"});
    let foreign = admin.submit(key.clone());
    let all = json!(["read", "submit", "control"]);
    let text = token(&server, json!({"name": "own", "scopes": all, "own": true}));
    let mut own = session(&server, &text);
    let after = json!([{"job": foreign["id"]}]);
    let number = json!([{"job": foreign["number"]}]);
    for job in [
        json!({"argv": ["true"], "after": after}),
        json!({"argv": ["true"], "after": number}),
    ] {
        assert_eq!(rule(&mut own, "job.submit", job.clone()), "token.own");
        assert_eq!(
            rule(&mut own, "job.submit_many", json!({"jobs": [job]})),
            "token.own"
        );
    }
    let signed = json!({"jobs": [{"argv": ["true"], "secrets_of": foreign["number"]}]});
    assert_eq!(rule(&mut own, "job.submit_many", signed), "token.own");
    for (method, params) in [
        ("job.submit", key.clone()),
        ("job.submit_many", json!({"jobs": [key]})),
    ] {
        let error = own.refused(-32004, method, params);
        assert!(
            !error
                .to_string()
                .contains(foreign["id"].as_str().expect("an id")),
            "{error}"
        );
    }

    let text = token(
        &server,
        json!({"name": "ci", "scopes": all, "queues": ["ci"]}),
    );
    let mut ci = session(&server, &text);
    let waiting = json!({"argv": ["true"], "queue": "ci", "run_at": "2100-01-01T00:00:00Z"});
    let job = ci.submit(waiting);
    for queue in [
        Value::Null,
        json!("default"),
        json!("interactive"),
        json!("none"),
    ] {
        let new = json!({"argv": ["true"], "queue": queue});
        assert_eq!(rule(&mut ci, "job.submit", new.clone()), "token.queues");
        assert_eq!(
            rule(&mut ci, "job.submit_many", json!({"jobs": [new]})),
            "token.queues"
        );
    }
    let moved = json!({"job": job["id"], "queue": "default"});
    assert_eq!(rule(&mut ci, "job.update", moved), "token.queues");
    let other = admin.submit(json!({"argv": ["true"]}));
    admin.finished(&other);
    assert_eq!(
        rule(&mut ci, "job.retry", json!({"job": other["id"]})),
        "token.queues"
    );
    let names: Vec<Value> = ci.ok("queue.list", json!({}))["queues"]
        .as_array()
        .expect("queues")
        .iter()
        .map(|queue| queue["queue"].clone())
        .collect();
    assert_eq!(names, ["ci"]);
    ci.control(&job, "cancel");
}

#[test]
fn labels_are_added_and_kept() {
    let server = Server::start();
    let mut admin = server.connect();
    let other = admin.submit(json!({"argv": ["true"], "labels": {"team": "b"}}));
    let all = json!(["read", "submit", "control"]);
    let text = token(
        &server,
        json!({"name": "a", "scopes": all, "labels": {"team": "a"}}),
    );
    let mut client = session(&server, &text);
    let waiting = json!({"argv": ["true"], "run_at": "2100-01-01T00:00:00Z", "labels": {"x": "y"}});
    let job = client.submit(waiting);
    assert_eq!(job["labels"], json!({"team": "a", "x": "y"}));
    let wrong = json!({"argv": ["true"], "labels": {"team": "b"}});
    assert_eq!(rule(&mut client, "job.submit", wrong), "token.labels");
    for labels in [json!({}), json!({"team": "b"}), Value::Null] {
        let change = json!({"job": job["id"], "labels": labels});
        assert_eq!(rule(&mut client, "job.update", change), "token.labels");
    }
    client.ok(
        "job.update",
        json!({"job": job["id"], "labels": {"team": "a"}}),
    );
    assert_eq!(
        rule(&mut client, "job.get", json!({"job": other["id"]})),
        "token.labels"
    );
    assert_eq!(
        client.ok("job.list", json!({}))["jobs"]
            .as_array()
            .expect("jobs")
            .len(),
        1
    );
    client.control(&job, "cancel");
}

#[test]
fn a_rate_bounds_new_jobs_over_all_sessions() {
    let server = Server::start();
    let text = token(
        &server,
        json!({"name": "a", "scopes": ["submit"], "rate": "3/d"}),
    );
    let (mut one, mut two) = (session(&server, &text), session(&server, &text));
    let job = json!({"argv": ["true"]});
    let five = json!({"jobs": [job, job, job, job, job]});
    let error = one.refused(-32005, "job.submit_many", five);
    assert_eq!(error["data"]["limit"], "token_rate");
    one.ok("job.submit_many", json!({"jobs": [job, job]}));
    two.ok("job.submit", job.clone());
    for client in [&mut one, &mut two] {
        let error = client.refused(-32005, "job.submit", job.clone());
        assert_eq!(error["data"]["limit"], "token_rate");
    }
    server.connect().ok("job.submit", job);
}

#[test]
fn a_revocation_closes_sessions_and_the_token_stays_wrong() {
    let mut server = Server::start();
    let text = token(&server, json!({"name": "a", "scopes": ["read", "submit"]}));
    let other = token(&server, json!({"name": "b", "scopes": ["read"]}));
    let (mut client, mut bystander) = (session(&server, &text), session(&server, &other));
    let mut late = Client::tcp(server.listen(), None);
    late.ok("session.authenticate", json!({"token": text}));
    let job = client.submit(json!({"argv": ["sleep", "1000"]}));
    client.tail(json!({"job": job["id"]}));
    late.begin("job.wait", json!({"jobs": [job["id"]]}));
    let mut admin = server.connect();
    let revoked = admin.ok("token.revoke", json!({"name": "a"}));
    assert_eq!(revoked["state"], "revoked");
    assert_eq!(client.closed(), Some(1008));
    assert_eq!(late.closed(), Some(1008));
    bystander.still_works();
    assert_eq!(connect_refused(server.listen(), Some(&text)).0, 401);
    let mut late = Client::tcp(server.listen(), None);
    let error = late.refused(-32001, "session.authenticate", json!({"token": text}));
    assert!(
        error["message"].as_str().expect("text").contains("revoked"),
        "{error}"
    );
    // Its jobs go on, and the name is free.
    assert_eq!(admin.get(&job)["state"], "running");
    admin.control(&job, "kill");
    admin.refused(-32003, "token.revoke", json!({"name": "a"}));
    token(&server, json!({"name": "a", "scopes": ["read"]}));
    admin.refused(
        -32004,
        "token.create",
        json!({"name": "a", "scopes": ["read"]}),
    );
    server.kill_9();
    server.restart();
    assert_eq!(connect_refused(server.listen(), Some(&text)).0, 401);
    session(&server, &other).still_works();
    let listed = server.connect().ok("token.list", json!({"all": true}));
    let states: Vec<&Value> = listed["tokens"]
        .as_array()
        .expect("tokens")
        .iter()
        .map(|t| &t["state"])
        .collect();
    assert_eq!(states, ["revoked", "valid", "valid"]);
}

#[test]
fn a_rotation_replaces_the_text_and_keeps_the_jobs() {
    let server = Server::start();
    let old = token(
        &server,
        json!({"name": "a", "scopes": ["read", "submit"], "own": true}),
    );
    let mut client = session(&server, &old);
    let job = client.submit(json!({"argv": ["true"]}));
    let new = server.connect().ok("token.rotate", json!({"name": "a"}));
    assert_eq!(client.closed(), Some(1008));
    assert_eq!(connect_refused(server.listen(), Some(&old)).0, 401);
    let mut client = session(&server, new["secret"].as_str().expect("a secret"));
    assert_eq!(client.get(&job)["number"], job["number"]);
}

#[test]
fn the_administrators_token_can_be_replaced() {
    let server = Server::start();
    let old = server.token();
    let mut client = server.connect();
    let mut unix = Client::unix(&server.socket());
    let new = unix.ok("token.rotate", json!({"name": "admin"}));
    assert_eq!(client.closed(), Some(1008));
    assert_eq!(connect_refused(server.listen(), Some(&old)).0, 401);
    assert_eq!(new["secret"].as_str(), Some(server.token().as_str()));
    server.connect().still_works();
    unix.still_works();
}

#[test]
fn a_client_that_replaces_or_revokes_its_own_token_gets_the_answer() {
    let server = Server::start();
    let mut text = token(&server, json!({"name": "ops", "scopes": ["admin"]}));
    for _ in 0..20 {
        let mut client = session(&server, &text);
        // What is sent behind it does not begin.
        let rotated = client.begin("token.rotate", json!({"name": "ops"}));
        let behind = client.begin("job.submit", json!({"argv": ["true"], "name": "behind"}));
        let new = client.reply(rotated).expect("the new token");
        // It may be refused, or the session may have ended before it was read.
        loop {
            match client.frame_or_closed() {
                Frame::Json(reply) => {
                    let code = &reply["error"]["code"];
                    assert_eq!(
                        (&reply["id"], code),
                        (&json!(behind), &json!(-32001)),
                        "{reply}"
                    );
                }
                closed => {
                    assert_eq!(closed, Frame::Closed(Some(1008)));
                    break;
                }
            }
        }
        text = new["secret"].as_str().expect("a secret").to_owned();
        session(&server, &text).still_works();

        let mut client = server.connect();
        let new = client.ok("token.rotate", json!({"name": "admin"}));
        assert_eq!(new["secret"].as_str(), Some(server.token().as_str()));
        assert_eq!(client.closed(), Some(1008));
    }
    let mut client = session(&server, &text);
    let revoked = client.ok("token.revoke", json!({"name": "ops"}));
    assert_eq!(revoked["state"], "revoked");
    assert_eq!(client.closed(), Some(1008));
    let listed = server.connect().ok("job.list", json!({}));
    assert_eq!(listed["jobs"], json!([]));
}

#[test]
fn an_explanation_tells_a_narrowed_token_of_other_jobs_the_numbers() {
    let server = Server::start();
    let mut admin = server.connect();
    admin.ok("queue.set", json!({"queue": "ci"}));
    let secret = json!({"name": "secret-name", "argv": ["sleep", "1000"]});
    let holder = admin.submit(
        json!({"exclusive": "key", "name": "secret-name", "queue": "ci",
        "argv": ["sleep", "1000"]}),
    );
    admin.started(&holder);
    let before = admin.submit(secret);
    admin.started(&before);
    let own = token(
        &server,
        json!({"name": "own", "scopes": ["read", "submit"], "own": true}),
    );
    let of_queue = token(
        &server,
        json!({"name": "queue", "scopes": ["read", "submit"], "queues": ["ci"]}),
    );
    let waiting = |what: Value| {
        let mut job = json!({"argv": ["true"], "queue": "ci"});
        let keys = what.as_object().expect("keys").clone();
        job.as_object_mut().expect("an object").extend(keys);
        job
    };
    let mut client = session(&server, &own);
    let on_key = client.submit(waiting(json!({"exclusive": "key"})));
    let on_job = admin.submit(waiting(json!({"after": [{"job": before["id"]}]})));
    let explained = |client: &mut Client, job: &Value| {
        let explained = client.ok("job.explain", json!({"job": job["id"]}));
        let facts = explained["facts"].as_array().expect("facts").clone();
        (explained.to_string(), facts)
    };
    let hidden = |text: &str, of: &Value| {
        assert!(!text.contains("secret-name"), "{text}");
        assert!(!text.contains(of["id"].as_str().expect("an id")), "{text}");
        assert!(text.contains(&format!("job {}", of["number"])), "{text}");
    };
    let (text, facts) = explained(&mut client, &on_key);
    hidden(&text, &holder);
    let held_by = facts.iter().find(|fact| fact["kind"] == "waits_for_key");
    assert_eq!(
        held_by.expect("the key")["held_by"],
        json!({"number": holder["number"]})
    );
    let mut client = session(&server, &of_queue);
    let (text, facts) = explained(&mut client, &on_job);
    hidden(&text, &before);
    let waits = facts.iter().find(|fact| fact["kind"] == "waits_for_job");
    assert_eq!(
        waits.expect("the job")["job"],
        json!({"number": before["number"]})
    );
    // The holder of the key is in its queue, so this token is told of it.
    let (text, _) = explained(&mut client, &on_key);
    assert!(text.contains("secret-name"), "{text}");
    admin.control(&before, "kill");
    let failed = admin.finished(&on_job);
    assert_eq!(failed["reason"], "dependency");
    let (text, _) = explained(&mut client, &on_job);
    hidden(&text, &before);
    let (text, _) = explained(&mut admin, &on_job);
    assert!(text.contains("secret-name"), "{text}");
}

#[test]
fn an_expiry_ends_sessions_and_survives_a_restart() {
    let mut server = Server::start();
    let text = token(
        &server,
        json!({"name": "a", "scopes": ["read"], "expires_s": 10}),
    );
    let mut client = session(&server, &text);
    assert_eq!(client.closed(), Some(1008));
    assert_eq!(connect_refused(server.listen(), Some(&text)).0, 401);
    server.kill_9();
    server.restart();
    assert_eq!(connect_refused(server.listen(), Some(&text)).0, 401);
    let mut admin = server.connect();
    assert_eq!(
        admin.ok("token.list", json!({}))["tokens"][0]["state"],
        "expired"
    );
    admin.refused(-32004, "token.rotate", json!({"name": "a"}));
    let again = admin.ok("token.rotate", json!({"name": "a", "expires_s": 1000}));
    session(&server, again["secret"].as_str().expect("a secret")).still_works();
}

/// On the Unix socket a token is what its client has shown, not less than that and not more.
#[test]
fn a_token_counts_on_the_unix_socket() {
    let server = Server::start();
    let text = token(&server, json!({"name": "a", "scopes": ["read"]}));
    let mut client = Client::unix(&server.socket());
    client.ok("token.list", json!({}));
    client.ok("session.authenticate", json!({"token": text}));
    client.refused(-32002, "token.list", json!({}));
    // Back to more rights it does not come in this session.
    client.refused(
        -32004,
        "session.authenticate",
        json!({"token": server.token()}),
    );
    client.refused(-32002, "token.list", json!({}));
    server.connect().ok("token.revoke", json!({"name": "a"}));
    assert_eq!(client.closed(), Some(1008));
}

#[test]
fn the_text_is_stored_nowhere() {
    let server = Server::start();
    let text = token(&server, json!({"name": "a", "scopes": ["read"]}));
    session(&server, &text).still_works();
    connect_refused(server.listen(), Some(&format!("{text}x")));
    let mut files = vec![server.data_dir()];
    let secret = text.trim_start_matches("ccx_").as_bytes().to_vec();
    let mut looked = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("a directory");
            files.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(bytes) = fs::read(&path) {
            looked += 1;
            let found = bytes.windows(20).any(|window| window == &secret[20..40]);
            assert!(!found, "{}", path.display());
        }
    }
    assert!(looked > 3);
    assert!(!server.said_last().contains(&text[..40]), "in the log");
    let listed = server.connect().ok("token.list", json!({}));
    assert!(!listed.to_string().contains(&text[4..40]));
}

#[test]
fn changed_and_cut_tokens_are_wrong() {
    let server = Server::start();
    let text = token(&server, json!({"name": "a", "scopes": ["read"]}));
    let flipped = |at: usize| {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    for wrong in [
        &text[..text.len() - 1],
        &text[4..],
        "ccx_",
        &flipped(5),
        &flipped(40),
        &flipped(text.len() - 1),
    ] {
        assert_eq!(
            connect_refused(server.listen(), Some(wrong)).0,
            401,
            "{wrong}"
        );
    }
    let page = Client::offering(
        server.listen(),
        &format!("cc-executor, cc-executor.bearer.{text}"),
    );
    assert_eq!(page.hello["params"]["principal"]["name"], "a");
}

/// A request of MCP over HTTP: status, session and the last message.
fn mcp(
    server: &Server,
    token: &str,
    session: Option<&str>,
    body: &Value,
) -> (u16, Option<String>, Value) {
    let session = session.map_or_else(String::new, |id| format!("Mcp-Session-Id: {id}\r\n"));
    let body = body.to_string();
    let answer = server.http(&format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{session}Content-Type: \
         application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        server.listen(),
        body.len()
    ));
    let data = answer.body.lines().filter_map(|line| {
        let text = line.strip_prefix("data:").unwrap_or(line);
        serde_json::from_str(text.trim()).ok()
    });
    let mut messages = data.filter(|value: &Value| value.is_object());
    let id = answer.header("mcp-session-id").map(str::to_owned);
    (
        answer.status,
        id,
        messages.next_back().unwrap_or(Value::Null),
    )
}

fn tool(server: &Server, token: &str, session: &str, name: &str, arguments: Value) -> Value {
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": name, "arguments": arguments}});
    let (status, _, reply) = mcp(server, token, Some(session), &call);
    assert_eq!(status, 200, "{reply}");
    reply["result"].clone()
}

#[track_caller]
fn open_mcp(server: &Server, token: &str) -> String {
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}});
    let (status, session, reply) = mcp(server, token, None, &open);
    assert_eq!(status, 200, "{reply}");
    let session = session.expect("a session");
    let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(mcp(server, token, Some(&session), &begun).0, 202);
    session
}

#[test]
fn mcp_is_held_to_the_same_rights() {
    let server = Server::start();
    let mut admin = server.connect();
    let foreign = admin.submit(json!({"argv": ["echo", "foreign"], "name": "n"}));
    admin.finished(&foreign);
    let reader = token(&server, json!({"name": "reader", "scopes": ["read"]}));
    let scopes = json!(["read", "submit", "control", "input"]);
    let own = token(
        &server,
        json!({"name": "own", "scopes": scopes, "own": true}),
    );
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let names = |token: &str, session: &str| {
        let (_, _, reply) = mcp(&server, token, Some(session), &list);
        let tools = reply["result"]["tools"].as_array().expect("tools").clone();
        tools
            .iter()
            .map(|tool| tool["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    let read_session = open_mcp(&server, &reader);
    let expected = [
        "wait",
        "read_output",
        "list_jobs",
        "search_output",
        "query_history",
        "verify_transcript",
    ];
    assert_eq!(names(&reader, &read_session), expected);
    for (name, arguments, scope) in [
        ("run", json!({"command": "true"}), "submit"),
        (
            "control",
            json!({"job": foreign["number"], "action": "cancel"}),
            "control",
        ),
        (
            "send_input",
            json!({"job": foreign["number"], "text": "x"}),
            "input",
        ),
    ] {
        let result = tool(&server, &reader, &read_session, name, arguments);
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert!(
            result["isError"] == true && text.contains(&format!("the scope {scope}")),
            "{text}"
        );
    }
    assert_eq!(
        admin.ok("job.list", json!({}))["jobs"]
            .as_array()
            .expect("jobs")
            .len(),
        1
    );

    let session = open_mcp(&server, &own);
    assert!(!names(&own, &session).contains(&"query_history".to_owned()));
    let number = &foreign["number"];
    let task = format!("{number}-{}", foreign["id"].as_str().expect("an id"));
    for (name, arguments) in [
        ("read_output", json!({"job": number})),
        ("read_output", json!({"job": foreign["id"]})),
        ("read_output", json!({"job": task})),
        ("read_output", json!({"job": "n"})),
        ("read_output", json!({"job": "last"})),
        ("wait", json!({"jobs": [number]})),
        ("control", json!({"job": number, "action": "kill"})),
        ("send_input", json!({"job": number, "text": "x"})),
        ("verify_transcript", json!({"job": number})),
        (
            "search_output",
            json!({"job": number, "pattern": "foreign"}),
        ),
        ("query_history", json!({"sql": "SELECT 1"})),
    ] {
        let result = tool(&server, &own, &session, name, arguments.clone());
        assert_eq!(result["isError"], true, "{name} {arguments}: {result}");
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert!(!text.contains("echo"), "{name} {arguments}: {text}");
    }
    let listed = tool(&server, &own, &session, "list_jobs", json!({}));
    assert!(
        listed["content"][0]["text"]
            .as_str()
            .expect("a text")
            .starts_with("no jobs match")
    );
    let ran = tool(
        &server,
        &own,
        &session,
        "run",
        json!({"command": "echo mine"}),
    );
    assert_ne!(ran["isError"], true, "{ran}");
    let last = tool(
        &server,
        &own,
        &session,
        "read_output",
        json!({"job": "last"}),
    );
    assert!(
        last["content"][0]["text"]
            .as_str()
            .expect("a text")
            .contains("mine"),
        "{last}"
    );
    for (method, params) in [
        (
            "resources/read",
            json!({"uri": format!("job://{number}/output")}),
        ),
        ("tasks/get", json!({"taskId": task})),
        ("tasks/cancel", json!({"taskId": task})),
    ] {
        let ask = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": params});
        let (_, _, reply) = mcp(&server, &own, Some(&session), &ask);
        assert!(
            reply["error"].is_object() && !reply.to_string().contains("echo"),
            "{method}: {reply}"
        );
    }
}

#[test]
fn a_session_of_mcp_belongs_to_its_token() {
    let mut server = Server::start();
    let one = token(&server, json!({"name": "one", "scopes": ["read"]}));
    let two = token(&server, json!({"name": "two", "scopes": ["read"]}));
    let session = open_mcp(&server, &one);
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let admin = server.token();
    for other in [&two, &admin] {
        assert_eq!(mcp(&server, other, Some(&session), &list).0, 404);
    }
    assert_eq!(mcp(&server, &one, Some(&session), &list).0, 200);
    server.kill_9();
    server.restart();
    assert_eq!(mcp(&server, &two, Some(&session), &list).0, 404);
    assert_eq!(mcp(&server, &one, Some(&session), &list).0, 200);
    server.connect().ok("token.revoke", json!({"name": "one"}));
    assert_eq!(mcp(&server, &one, Some(&session), &list).0, 401);
}

/// A call that waits over HTTP, and a session over a WebSocket, end with the token.
#[test]
fn a_revocation_ends_what_waits_over_mcp() {
    let server = Server::start();
    let text = token(&server, json!({"name": "a", "scopes": ["read", "submit"]}));
    let job = server.connect().submit(json!({"argv": ["sleep", "1000"]}));
    let session = open_mcp(&server, &text);
    let mut socket = Client::offering(server.listen(), &format!("mcp, cc-executor.bearer.{text}"));
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| {
            let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "wait",
                "arguments": {"jobs": [job["number"]], "wait_s": 50}}});
            mcp(&server, &text, Some(&session), &call)
        });
        until_true("the wait to be there", || !wait.is_finished());
        server.connect().ok("token.revoke", json!({"name": "a"}));
        let (_, _, reply) = wait.join().expect("no panic");
        assert!(reply["result"].is_null(), "{reply}");
    });
    while !matches!(socket.frame_or_closed(), Frame::Closed(_)) {}
    server.connect().control(&job, "kill");
}

/// A clock that jumps ahead ends a token for good; one that is set back lets none live longer.
#[test]
fn a_jump_of_the_clock_revives_no_token() {
    let clock = WallClock::new();
    let env = clock.env();
    let env: Vec<(&str, &str)> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut server = Server::with(&[], &env);
    clock.moves(server.pid());
    let long = token(
        &server,
        json!({"name": "long", "scopes": ["read"], "expires_s": 3600}),
    );
    let mut client = session(&server, &long);
    clock.jump_to(DAY_S);
    // The clock of this test has no timer that tells of a jump.
    client.begin("server.info", json!({}));
    assert_eq!(client.closed(), Some(1008));
    until_true("the expiry to be stored", || {
        server.said_last().contains("a token has expired")
    });
    clock.jump_to(0);
    assert_eq!(connect_refused(server.listen(), Some(&long)).0, 401);
    assert!(server_says_expired(&server, "long"));
    let short = token(
        &server,
        json!({"name": "short", "scopes": ["read"], "expires_s": 10}),
    );
    let mut client = session(&server, &short);
    clock.jump_to(-DAY_S);
    assert_eq!(client.closed(), Some(1008));
    assert_eq!(connect_refused(server.listen(), Some(&short)).0, 401);
    until_true("the second expiry to be stored", || {
        server.said_last().matches("a token has expired").count() == 2
    });
    server.kill_9();
    server.restart();
    for replayed in [&long, &short] {
        assert_eq!(connect_refused(server.listen(), Some(replayed)).0, 401);
    }
}

fn server_says_expired(server: &Server, name: &str) -> bool {
    let listed = server.connect().ok("token.list", json!({}));
    let tokens = listed["tokens"].as_array().expect("tokens");
    tokens
        .iter()
        .any(|token| token["name"] == name && token["state"] == "expired")
}

#[test]
fn what_a_receiver_of_notices_answers_is_for_the_administrator() {
    let server = Server::start();
    let mut admin = server.connect();
    let command = ["/bin/sh", "-c", "echo an-answer >&2; exit 3"];
    let notify = json!([{"on": ["succeeded"], "argv": command}]);
    let job = admin.submit(json!({"argv": ["true"], "notify": notify}));
    admin.finished(&job);
    let error = |client: &mut Client| {
        let listed = client.ok("notice.list", json!({}));
        listed["notices"][0]["error"].as_str().map(str::to_owned)
    };
    until_true("an attempt", || error(&mut admin).is_some());
    assert_eq!(
        error(&mut admin).as_deref(),
        Some("it exited with 3: an-answer")
    );
    let reader = token(&server, json!({"name": "reader", "scopes": ["read"]}));
    let shown = error(&mut session(&server, &reader));
    assert_eq!(shown.as_deref(), Some("it exited with 3"));
}
