//! Sessions: greeting, authentication, limits, and the planned stop.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Cli, Client, Frame, Server, connect_refused, until, until_true};

/// Sessions of a server by default.
const SESSIONS_MAX: usize = 100;
/// How many of them may be unauthenticated.
const UNAUTHENTICATED_MAX: usize = 16;

#[test]
fn the_greeting_comes_first() {
    let server = Server::start();
    let hello = server.connect().hello;
    assert_eq!(hello["jsonrpc"], "2.0");
    let params = &hello["params"];
    assert_eq!(params["protocol"], 1);
    assert_eq!(params["auth"], "ok");
    assert_eq!(params["version"], server.ready["version"]);
    assert!(params["limits"].is_object(), "{hello}");
    let other = server.connect().hello;
    assert!(params["session_id"].is_string());
    assert_ne!(params["session_id"], other["params"]["session_id"]);
}

/// A client that takes another first word for ours would not know what it talks to.
#[test]
fn the_greeting_comes_first_also_where_the_server_stops_at_that_moment() {
    let mut server = Server::start();
    let (listen, token) = (server.listen().to_owned(), server.token());
    let (began, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Anything else as the first word is a panic; there may be no seat for a moment.
    let knock = || match Client::try_tcp(&listen, Some(&token)) {
        Ok(_) => began.fetch_add(1, Ordering::SeqCst) < usize::MAX,
        Err(_) => !over.load(Ordering::SeqCst),
    };
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| while knock() {});
        }
        until_true("sessions to begin and end", || {
            began.load(Ordering::SeqCst) > 100
        });
        server.terminate();
        over.store(true, Ordering::SeqCst);
    });
    assert!(server.ended().success());
}

#[test]
fn without_a_token_everything_but_authentication_is_refused() {
    let server = Server::start();
    let mut client = Client::tcp(server.listen(), None);
    assert_eq!(client.hello["params"]["auth"], "required");
    for method in ["server.info", "job.list", "job.submit", "no.such.method"] {
        let error = client.refused(-32001, method, json!({}));
        assert_eq!(error["data"]["kind"], "unauthenticated");
    }
    let token = server.token();
    for wrong in ["", "x", &token[1..], &format!("{token}x")] {
        client.refused(-32001, "session.authenticate", json!({"token": wrong}));
    }
    let reply = client.ok("session.authenticate", json!({"token": token}));
    assert_eq!(reply, json!({}));
    client.still_works();
}

#[test]
fn a_wrong_bearer_is_401() {
    let server = Server::start();
    let wrong = format!("{}x", server.token());
    assert_eq!(connect_refused(server.listen(), Some(&wrong)).0, 401);
    assert_eq!(connect_refused(server.listen(), Some("")).0, 401);
}

#[test]
fn a_token_in_the_query_string_is_no_token() {
    let server = Server::start();
    let (host, token) = (server.listen(), server.token());
    let answer = server.http(&format!(
        "GET /ws?token={token}&access_token={token} HTTP/1.1\r\nHost: {host}\r\n\
         Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Authorization: Bearer wrong\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ));
    assert_eq!(answer.status, 401);
}

#[test]
fn the_unix_socket_needs_no_token() {
    let server = Server::start();
    let mut client = Client::unix(&server.socket());
    assert_eq!(client.hello["params"]["auth"], "ok");
    let job = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

#[test]
fn the_session_behind_the_last_is_refused_with_503() {
    let server = Server::start();
    let mut sessions: Vec<Client> = (0..SESSIONS_MAX).map(|_| server.connect()).collect();
    let (status, retry_after) = connect_refused(server.listen(), Some(&server.token()));
    assert_eq!(status, 503);
    assert!(retry_after.is_some_and(|s| s.parse::<u32>().is_ok()));
    sessions[0].still_works();
    drop(sessions.pop());
    until("room for another session", || {
        Client::try_tcp(server.listen(), Some(&server.token())).ok()
    })
    .still_works();
}

#[test]
fn the_oldest_unauthenticated_session_gives_way_to_the_next_one() {
    let server = Server::start();
    let stranger = || Client::tcp(server.listen(), None);
    let mut strangers: Vec<Client> = (0..UNAUTHENTICATED_MAX).map(|_| stranger()).collect();
    server.connect().still_works();
    let mut newest = stranger();
    assert_eq!(strangers[0].closed(), Some(1013));
    newest.ok("session.authenticate", json!({"token": server.token()}));
    newest.still_works();
    // Its seat is free again, and nobody else had to leave.
    for stranger in &mut strangers[1..] {
        stranger.refused(-32001, "server.info", json!({}));
    }
    let _next = stranger();
    strangers[1].refused(-32001, "server.info", json!({}));
}

/// They come faster than they leave, say nothing, and read nothing.
#[test]
fn a_flood_of_strangers_keeps_nobody_out() {
    let server = Server::with(&[], &[("CC_EXECUTOR_TCP_CONNECTIONS_MAX", "40")]);
    let _flood: Vec<Client> = (0..400)
        .filter_map(|_| Client::try_tcp(server.listen(), None).ok())
        .collect();
    let mut late = Client::tcp(server.listen(), None);
    late.ok("session.authenticate", json!({"token": server.token()}));
    let _more: Vec<Client> = (0..100)
        .filter_map(|_| Client::try_tcp(server.listen(), None).ok())
        .collect();
    late.still_works();
    server.connect().still_works();
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn one_that_has_shown_the_token_takes_the_seat_of_one_that_has_not() {
    let server = Server::with(&[], &[("CC_EXECUTOR_SESSIONS_MAX", "3")]);
    let mut strangers: Vec<Client> = (0..3).map(|_| Client::tcp(server.listen(), None)).collect();
    let mut known: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for stranger in &mut strangers {
        assert_eq!(stranger.closed(), Some(1013));
    }
    known.iter_mut().for_each(Client::still_works);
    assert_eq!(connect_refused(server.listen(), None).0, 503);
}

/// An upgrade with this list of sub-protocols: the status, and what was selected.
fn offering(server: &Server, offered: &str) -> (u16, Option<String>) {
    let host = server.listen();
    let mut stream = std::net::TcpStream::connect(host).expect("connect");
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: {offered}\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
    let mut head = lines.by_ref().map(|line| line.expect("a line"));
    let head: Vec<String> = head.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(!head.iter().any(|line| line.contains(&server.token())));
    let status = head[0].split(' ').nth(1).expect("a status");
    let selected = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_it = name.eq_ignore_ascii_case("sec-websocket-protocol");
        is_it.then(|| value.to_owned())
    });
    (status.parse().expect("a number"), selected)
}

/// Browsers let a page set no header.
#[test]
fn the_token_can_be_shown_as_a_sub_protocol_and_is_never_sent_back() {
    let server = Server::start();
    let (token, ours) = (server.token(), Some("cc-executor".to_owned()));
    let right = format!("cc-executor.bearer.{token}");
    assert_eq!(
        offering(&server, &format!("cc-executor, {right}")),
        (101, ours.clone())
    );
    assert_eq!(
        offering(&server, &format!("{right},cc-executor")),
        (101, ours.clone())
    );
    assert_eq!(offering(&server, "cc-executor"), (101, ours));
    // MCP has no message for the token.
    assert_eq!(offering(&server, "mcp"), (401, None));
    assert_eq!(
        offering(&server, &format!("mcp, {right}")),
        (101, Some("mcp".to_owned()))
    );
    assert_eq!(offering(&server, &right), (400, None));
    for wrong in [
        "cc-executor.bearer.wrong, cc-executor".to_owned(),
        "cc-executor, cc-executor.bearer.".to_owned(),
        format!("cc-executor, {right}x"),
        format!("cc-executor, {right}, cc-executor.bearer.wrong"),
        format!("cc-executor, {right}, {right}"),
    ] {
        assert_eq!(offering(&server, &wrong), (401, None), "{wrong}");
    }
    let mut client = Client::offering(server.listen(), &format!("cc-executor, {right}"));
    assert_eq!(client.hello["params"]["auth"], "ok");
    client.still_works();
}

#[test]
fn pings_are_answered() {
    let server = Server::start();
    let mut client = server.connect();
    client.send_message(Message::Ping("are you there".into()));
    assert_eq!(client.frame(), Frame::Pong(b"are you there".to_vec()));
}

#[test]
fn a_second_server_on_the_data_directory_refuses() {
    let server = Server::start();
    let second = Cli::new(&server.data_dir(), "serve")
        .args(["--listen", "127.0.0.1:0"])
        .run();
    assert_ne!(second.code(), 0);
    assert_eq!(second.stdout, b"", "no ready line");
    assert!(!second.err().trim().is_empty());
    server.connect().still_works();
}

#[test]
fn a_missing_database_beside_output_is_not_replaced_by_an_empty_one() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "yes | head -c 1000000"}));
    client.finished(&job);
    server.stop();
    let database = server.data_dir().join("cc-executor.db");
    let aside = server.scratch("aside.db");
    fs::rename(&database, &aside).expect("move it away");
    let refused = Cli::new(&server.data_dir(), "serve")
        .args(["--listen", "127.0.0.1:0"])
        .run();
    assert_ne!(refused.code(), 0);
    assert!(
        refused.err().contains("cc-executor.db"),
        "{}",
        refused.err()
    );
    assert!(!database.exists(), "nothing was created in its place");
    fs::rename(&aside, &database).expect("put it back");
    server.restart();
    server.connect().whole(&job).verified();
}

#[test]
fn a_planned_stop_tells_the_sessions_and_waits_for_no_client() {
    let mut server = Server::start();
    let mut deaf = server.connect();
    let flood = deaf.submit(server.marked(json!({"shell": "yes | head -c 50000000"})));
    deaf.finished(&flood);
    deaf.begin("job.tail", json!({"job": flood["id"]}));
    let mut client = server.connect();

    let (status, took) = server.stop();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "the stop took {took:?}");

    let going_away = client.notification();
    assert_eq!(going_away["method"], "server.going_away");
    assert!(going_away["params"]["reason"].is_string());
    assert_eq!(client.closed(), Some(1001));
}

#[test]
fn a_planned_stop_leaves_running_jobs_alone() {
    let mut server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after",
        gate.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    assert!(server.stop().0.success());
    assert!(!server.job_processes().is_empty(), "it runs on");
    fs::write(&gate, "").expect("the gate");
    server.restart();
    let transcript = server.connect().whole(&job);
    assert_eq!(transcript.bytes, b"before\nafter\n");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn a_session_that_does_not_authenticate_is_closed() {
    let server = Server::with(&[], &[("CC_EXECUTOR_AUTH_TIMEOUT_S", "1")]);
    let mut client = Client::tcp(server.listen(), None);
    assert_eq!(client.closed(), Some(1008));
    let mut other = Client::tcp(server.listen(), None);
    other.ok("session.authenticate", json!({"token": server.token()}));
    assert_eq!(other.frame_within(Duration::from_secs(2)), None);
    other.still_works();
}

#[test]
fn no_notification_overtakes_the_reply_to_the_request_that_causes_it() {
    let server = Server::start();
    let mut client = server.connect();
    let next = |client: &mut Client| match client.frame() {
        Frame::Json(frame) => frame,
        other => panic!("{other:?}"),
    };
    let answered_first = |client: &mut Client, method: &str, params, caused: &str| {
        let id = client.begin(method, params);
        let first = next(client);
        assert_eq!(first["id"], id, "{method} was overtaken by {first}");
        assert!(first["result"].is_object(), "{first}");
        while next(client)["method"] != caused {}
    };
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    for _ in 0..200 {
        let job = json!({"argv": ["true"], "queue": "closed", "tail": {}});
        let job = client.ok("job.submit", job)["job"]["id"].clone();
        assert_eq!(client.notification()["method"], "job.caught_up");
        let cancel = json!({"job": job, "action": "cancel"});
        answered_first(&mut client, "job.control", cancel, "job.end");
    }
    let job = json!({"argv": ["cat"], "interactive": true, "tail": {}});
    let job = client.ok("job.submit", job)["job"]["id"].clone();
    client.ok("job.input", json!({"job": job, "data": "x\n"}));
    while client.notification()["method"] != "job.output" {}
    for _ in 0..200 {
        let input = json!({"job": job, "data": "x\n"});
        answered_first(&mut client, "job.input", input, "job.output");
    }
    client.ok("job.control", json!({"job": job, "action": "kill"}));
}

/// Some submits look at the database before they are handed to the store.
#[test]
fn submits_take_effect_in_their_order_whatever_they_have_to_look_up() {
    let server = Server::start();
    let mut client = server.connect();
    let known = client.submit(json!({"argv": ["true"]}));
    let begin = |nth: i64| {
        let mut job = json!({"argv": ["true"], "delay_s": 1e6});
        match nth % 3 {
            0 => job["after"] = json!([{"job": known["number"], "on": "finish"}]),
            1 => job["expect"] = json!([{"regex": "a{1000}b"}]),
            _ => {}
        }
        client.begin("job.submit", job)
    };
    let asked: Vec<_> = (0..30).map(begin).collect();
    let first = known["number"].as_i64().expect("a number") + 1;
    for (nth, id) in asked.into_iter().enumerate() {
        let job = client.reply(id).expect("submitted")["job"].clone();
        assert_eq!(job["number"], first + nth as i64);
    }
}

/// Its submits read the database, and their replies do not fit into what the kernel holds for it.
#[test]
fn a_client_that_does_not_read_its_replies_to_submits_keeps_nobody_from_the_database() {
    let server = Server::start();
    let mut honest = server.connect();
    let many = vec![json!({"argv": ["true"], "delay_s": 1e6}); 1000];
    honest.ok("job.submit_many", json!({"jobs": many}));
    let mut deaf = Client::unix(&server.socket());
    let after: Vec<_> = (1..=1000).map(|number| json!({"job": number})).collect();
    let job = json!({"argv": ["true"], "after": after});
    let asked: Vec<_> = (0..24)
        .map(|_| deaf.begin("job.submit", job.clone()))
        .collect();
    until_true("some of them", || {
        let info = honest.ok("server.info", json!({}));
        info["counts"]["blocked"].as_u64() > Some(5)
    });
    for _ in 0..200 {
        honest.ok("job.get", json!({"job": 1}));
    }
    for id in asked {
        deaf.reply(id).expect("submitted");
    }
}

/// While its own requests are as many bytes as may wait, its pings are answered; after one more request the
/// server reads no further, and so not its answers to pings.
#[test]
fn a_client_that_answers_pings_is_not_silent_while_its_requests_are_worked_on() {
    let bounds = [
        ["--in-flight-bytes-max", "200"],
        ["--ping-interval-s", "1"],
        ["--pings-unanswered-max", "1"],
    ];
    let server = Server::with(bounds.as_flattened(), &[]);
    let mut client = server.connect();
    let params = json!({"argv": ["sh", "-c", "sleep 5", "x".repeat(200)]});
    for one_more in [false, true] {
        let tested = client.begin("notice.test", params.clone());
        let more = one_more.then(|| client.begin("server.info", json!({})));
        client.send_message(Message::Ping("alive".into()));
        let Frame::Json(mut first) = (match one_more {
            false => {
                assert_eq!(client.frame(), Frame::Pong("alive".into()));
                client.frame()
            }
            true => client.frame(),
        }) else {
            panic!("a reply");
        };
        assert_eq!(first["id"], tested, "{first}");
        let tested = first["result"]["results"][0].take();
        assert_eq!(tested["delivered"], true, "{first}");
        if let Some(more) = more {
            assert!(client.reply(more).expect("a reply")["version"].is_string());
            assert_eq!(client.frame(), Frame::Pong("alive".into()));
        }
    }
    client.still_works();
}
