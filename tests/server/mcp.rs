//! MCP over HTTP and WebSocket: what a client of the protocol sees of jobs, kills and wrong input. Other
//! people's clients are in `tests/mcp`.

use serde_json::{Value, json};

use crate::harness::{Client, Frame, Server, until};

/// Longest text of a result, characters.
const CHARS_MAX: usize = 9_500;

/// A client over HTTP, one connection for each request.
pub struct Agent {
    session: Option<String>,
    requests: i64,
}

/// The text of a result, and whether it is an error.
pub type Text = (String, bool);

impl Agent {
    pub fn new(server: &Server) -> Self {
        Self::with_capabilities(server, json!({}))
    }

    /// The same with these capabilities.
    pub fn with_capabilities(server: &Server, capabilities: Value) -> Self {
        let mut agent = Self {
            session: None,
            requests: 0,
        };
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "clientInfo": {"name": "agent", "version": "1"},
        });
        let (status, reply) = agent.request(server, "initialize", params);
        assert_eq!(status, 200, "{reply}");
        let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(agent.post(server, &begun.to_string()).0, 202);
        agent
    }

    fn post(&mut self, server: &Server, body: &str) -> (u16, Value) {
        let session = match &self.session {
            Some(session) => format!("Mcp-Session-Id: {session}\r\n"),
            None => String::new(),
        };
        let text = format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{session}Content-Type: \
             application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: \
             {}\r\nConnection: close\r\n\r\n{body}",
            server.listen(),
            server.token(),
            body.len()
        );
        let answer = server.http(&text);
        if let Some(session) = answer.header("mcp-session-id") {
            self.session = Some(session.to_owned());
        }
        let data = answer.body.lines().filter_map(|line| {
            let text = line.strip_prefix("data:").unwrap_or(line);
            serde_json::from_str(text.trim()).ok()
        });
        let mut messages = data.filter(|value: &Value| value.is_object());
        (answer.status, messages.next_back().unwrap_or(Value::Null))
    }

    /// Ends the session.
    fn end(&mut self, server: &Server) {
        let text = format!(
            "DELETE /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nMcp-Session-Id: \
             {}\r\nConnection: close\r\n\r\n",
            server.listen(),
            server.token(),
            self.session.as_deref().expect("a session")
        );
        assert_eq!(server.http(&text).status, 204);
    }

    pub fn request(&mut self, server: &Server, method: &str, params: Value) -> (u16, Value) {
        self.requests += 1;
        let id = self.requests;
        self.repeat(server, id, method, params)
    }

    /// A request with an id that may have been used before.
    fn repeat(&mut self, server: &Server, id: i64, method: &str, params: Value) -> (u16, Value) {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(server, &request.to_string())
    }

    pub fn tool(&mut self, server: &Server, name: &str, arguments: Value) -> Text {
        let params = json!({"name": name, "arguments": arguments});
        let (status, reply) = self.request(server, "tools/call", params);
        assert_eq!(status, 200, "{reply}");
        text_of(&reply)
    }
}

#[track_caller]
fn text_of(reply: &Value) -> Text {
    let result = &reply["result"];
    assert!(result["structuredContent"].is_null(), "{reply}");
    let text = result["content"][0]["text"].as_str();
    let text = text.unwrap_or_else(|| panic!("no text: {reply}"));
    assert!(
        text.chars().count() <= CHARS_MAX,
        "{} characters",
        text.len()
    );
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("next: "), "{text}");
    (text.to_owned(), result["isError"] == true)
}

fn jobs(server: &Server) -> usize {
    let listed = server.connect().ok("job.list", json!({}));
    listed["jobs"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_command_is_run_and_its_end_is_told() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    let (text, is_error) = agent.tool(&server, "run", json!({"command": "echo good; exit 0"}));
    assert!(
        !is_error && text.contains("exit code 0") && text.contains("\ngood\n"),
        "{text}"
    );
    let (text, is_error) = agent.tool(&server, "run", json!({"argv": ["false"]}));
    assert!(
        is_error && text.starts_with("job 2 failed: exit code 1"),
        "{text}"
    );
    let (text, is_error) = agent.tool(&server, "run", json!({"argv": ["no-such-program"]}));
    assert!(is_error && text.contains("no-such-program"), "{text}");
}

#[test]
fn a_job_says_where_it_came_from_and_goes_on_with_its_trace() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let params = json!({
        "name": "run",
        "arguments": {"command": "echo trace $TRACEPARENT", "name": "traced"},
        "_meta": {"callId": "call-1", "threadId": "thread-1", "traceparent": trace},
    });
    let (_, reply) = agent.request(&server, "tools/call", params);
    let (text, _) = text_of(&reply);
    assert!(text.contains(&format!("trace {trace}")), "{text}");
    let job = server.connect().ok("job.get", json!({"job": 1}));
    let labels = &job["labels"];
    assert_eq!(labels["mcp.client"], "agent", "{labels}");
    assert_eq!(labels["mcp.client_version"], "1", "{labels}");
    assert_eq!(labels["mcp.call"], "call-1", "{labels}");
    assert_eq!(labels["mcp.thread"], "thread-1", "{labels}");
    assert_eq!(labels["traceparent"], trace, "{labels}");
    // Every name of the job is understood.
    let id = job["id"].as_str().expect("an id");
    for name in [
        json!(1),
        json!("1"),
        json!(id),
        json!("traced"),
        json!("last"),
    ] {
        let (text, is_error) = agent.tool(&server, "read_output", json!({"job": name}));
        assert!(
            !is_error && text.starts_with("job 1 succeeded"),
            "{name}: {text}"
        );
    }
    let uri = format!("job://{id}");
    let (_, reply) = agent.request(&server, "resources/read", json!({"uri": uri}));
    let shown = reply["result"]["contents"][0]["text"]
        .as_str()
        .expect("a text");
    assert!(shown.contains("\"succeeded\""), "{reply}");
    let uri = json!({"uri": "job://1/output"});
    let (_, reply) = agent.request(&server, "resources/read", uri);
    let shown = reply["result"]["contents"][0]["text"]
        .as_str()
        .expect("a text");
    assert!(shown.contains(trace), "{reply}");
    let uri = json!({"uri": "history://schema"});
    let (_, reply) = agent.request(&server, "resources/read", uri);
    let shown = reply["result"]["contents"][0]["text"]
        .as_str()
        .expect("a text");
    assert!(shown.contains("history_attempts"), "{reply}");
    let (_, reply) = agent.request(&server, "resources/read", json!({"uri": "job://99"}));
    assert!(
        reply["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("job://99")),
        "{reply}"
    );
    let prompt = json!({"name": "why_did_it_fail", "arguments": {"job": "7"}});
    let (_, reply) = agent.request(&server, "prompts/get", prompt);
    assert!(reply.to_string().contains("job 7 failed"), "{reply}");
}

#[test]
fn a_reused_call_id_is_told() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    let run = |command: &str| json!({"name": "run", "arguments": {"command": command}});
    let (_, first) = agent.repeat(&server, 50, "tools/call", run("echo one"));
    assert!(text_of(&first).0.starts_with("job 1 "), "{first}");
    let (_, again) = agent.repeat(&server, 50, "tools/call", run("echo one"));
    let (text, _) = text_of(&again);
    assert!(
        text.starts_with("job 1 ") && text.contains("NOT started again"),
        "{text}"
    );
    let (_, other) = agent.repeat(&server, 50, "tools/call", run("echo two"));
    assert!(text_of(&other).0.starts_with("job 2 "), "{other}");
}

#[test]
fn a_longer_command_is_told_with_the_call_that_collects_its_end() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    let command = "echo first; read line; echo \"got $line\"";
    let arguments = json!({"command": command, "until": "first"});
    let (text, is_error) = agent.tool(&server, "run", arguments);
    assert!(!is_error && text.contains("running"), "{text}");
    assert!(
        text.ends_with("next: wait {\"from\":6,\"jobs\":[1]}"),
        "{text}"
    );
    let arguments = json!({"job": 1, "text": "word", "until": "got word"});
    let (text, _) = agent.tool(&server, "send_input", arguments);
    assert!(text.contains("got word"), "{text}");
    let (text, is_error) = agent.tool(&server, "wait", json!({"jobs": [1], "from": 6}));
    assert!(!is_error && text.contains("job 1 succeeded"), "{text}");
    assert!(
        !text.contains("first"),
        "only what follows the offset: {text}"
    );
}

#[test]
fn a_session_and_a_lost_run_survive_a_kill() {
    let mut server = Server::start();
    let mut agent = Agent::new(&server);
    let command = json!({"command": "read line", "wait_s": 0});
    let (text, _) = agent.tool(&server, "run", command);
    assert!(text.starts_with("job 1 "), "{text}");
    server.kill_9();
    server.restart();
    let (text, _) = agent.tool(&server, "list_jobs", json!({}));
    assert!(text.contains("\n1 running"), "{text}");
    // The same request arrives again: the same job.
    let params = json!({"name": "run", "arguments": {"command": "read line", "wait_s": 0}});
    let (_, reply) = agent.repeat(&server, 2, "tools/call", params);
    assert!(text_of(&reply).0.contains("job 1 running"), "{reply}");
    assert_eq!(jobs(&server), 1);
    // Another request runs the command again, because its first reply was taken.
    let again = json!({"command": "read line", "wait_s": 0});
    let (text, _) = agent.tool(&server, "run", again);
    assert!(text.starts_with("job 2 "), "{text}");
}

#[test]
fn a_command_whose_reply_was_lost_is_not_started_twice() {
    let mut server = Server::start();
    let mut agent = Agent::new(&server);
    let run = json!({"command": "read line", "wait_s": 40});
    std::thread::scope(|scope| {
        let lost = {
            let (listen, token) = (server.listen().to_owned(), server.token());
            let (session, run) = (agent.session.clone(), run.clone());
            scope.spawn(move || send_and_forget(&listen, &token, session.as_deref(), &run))
        };
        until("the job runs", || (jobs(&server) == 1).then_some(()));
        server.kill_9();
        drop(lost.join());
    });
    server.restart();
    let again = json!({"command": "read line", "wait_s": 0});
    let (text, _) = agent.tool(&server, "run", again.clone());
    let first = text.lines().next().unwrap_or_default();
    assert!(first.starts_with("job 1 "), "{text}");
    assert!(first.contains("NOT started again"), "{text}");
    let mut other = Agent::new(&server);
    let (text, _) = other.tool(&server, "run", again);
    assert!(
        text.starts_with("job 2 "),
        "the first reply was taken now: {text}"
    );
    let key = json!({"command": "read line", "wait_s": 0, "idempotency_key": "mine"});
    let (text, _) = other.tool(&server, "run", key.clone());
    assert!(text.starts_with("job 3 "), "{text}");
    let (text, _) = other.tool(&server, "run", key);
    assert!(text.contains("job 3 "), "{text}");
}

/// Sends a `run` and reads nothing but the end of the connection.
fn send_and_forget(listen: &str, token: &str, session: Option<&str>, run: &Value) {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };
    let params = json!({"name": "run", "arguments": run});
    let body = json!({"jsonrpc": "2.0", "id": 900, "method": "tools/call", "params": params});
    let body = body.to_string();
    let mut stream = TcpStream::connect(listen).expect("a connection");
    let session = session.unwrap_or_default();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {listen}\r\nAuthorization: Bearer {token}\r\nMcp-Session-Id: \
         {session}\r\nContent-Type: application/json\r\nAccept: application/json, \
         text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_planned_stop_answers_the_calls_that_wait() {
    let mut server = Server::start();
    let mut client = McpSocket::open(&server);
    let run = json!({"command": "read line", "wait_s": 0});
    client.call(2, "tools/call", json!({"name": "run", "arguments": run}));
    let wait = json!({"jobs": ["last"], "wait_s": 50});
    client.send(3, "tools/call", json!({"name": "wait", "arguments": wait}));
    // Messages are taken in order: the wait has arrived, too.
    client.call(4, "ping", json!({}));
    server.terminate();
    let (text, _) = text_of(&client.reply(3));
    assert!(text.contains("the server restarts"), "{text}");
    assert!(server.ended().success());
}

#[test]
fn wrong_calls_get_a_text_that_says_what_to_do() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    for (tool, arguments, named) in [
        ("run", json!({}), "command"),
        ("run", json!({"command": "true", "comand": 1}), "comand"),
        ("run", json!({"command": "true", "argv": ["true"]}), "argv"),
        ("run", json!({"command": "true", "until": "("}), "until"),
        ("run", json!({"command": "true", "wait_s": "x"}), "wait_s"),
        ("run", json!({"command": "true", "cwd": "relative"}), "cwd"),
        (
            "run",
            json!({"command": "true", "queue": "nobody"}),
            "leave queue out",
        ),
        ("wait", json!({"jobs": []}), "jobs"),
        ("wait", json!({"jobs": [99]}), "99"),
        ("wait", json!({"jobs": ["nobody"]}), "nobody"),
        ("read_output", json!({"job": "last"}), "no jobs"),
        ("control", json!({"job": 99, "action": "cancel"}), "99"),
        (
            "query_history",
            json!({"sql": "DELETE FROM jobs"}),
            "refused",
        ),
        ("verify_transcript", json!({"job": 99}), "99"),
    ] {
        let (text, is_error) = agent.tool(&server, tool, arguments);
        assert!(is_error && text.contains(named), "{tool}: {text}");
    }
    let params = json!({"name": "sudo", "arguments": {}});
    let (_, reply) = agent.request(&server, "tools/call", params);
    let message = reply["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("sudo") && message.contains("read_output"),
        "{reply}"
    );
    assert_eq!(jobs(&server), 0);
}

#[test]
fn a_message_that_is_too_long_is_refused_and_others_go_on() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    let command = "x".repeat(10 << 20);
    let params = json!({"name": "run", "arguments": {"command": command}});
    let (status, reply) = agent.request(&server, "tools/call", params);
    assert_eq!(status, 413);
    assert!(
        reply["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("file")),
        "{reply}"
    );
    let (text, _) = agent.tool(&server, "run", json!({"command": "echo fine"}));
    assert!(text.contains("fine"), "{text}");
    for body in ["", "{", "[]", "{\"jsonrpc\": \"1.0\"}"] {
        let (status, _) = agent.post(&server, body);
        assert!((400..500).contains(&status), "{body:?} got {status}");
    }
}

#[test]
fn the_interface_needs_the_token_and_has_the_bounds_of_the_others() {
    let server = Server::with(&["--sessions-max", "2"], &[]);
    let mut stranger = Agent {
        session: None,
        requests: 0,
    };
    let without = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.listen()
    );
    assert_eq!(server.http(&without).status, 401);
    let mut first = Agent::new(&server);
    let mut second = Agent::new(&server);
    let params = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "third", "version": "1"},
    });
    let (status, _) = stranger.request(&server, "initialize", params);
    assert_eq!(status, 503);
    second.end(&server);
    Agent::new(&server).end(&server);
    let (text, _) = first.tool(&server, "run", json!({"command": "echo fine"}));
    assert!(text.contains("fine"), "{text}");
    first.end(&server);
}

#[test]
fn a_web_socket_that_negotiates_mcp_speaks_nothing_else() {
    let server = Server::start();
    let mut client = McpSocket::open(&server);
    let arguments = json!({"command": "echo over a socket"});
    let reply = client.call(
        2,
        "tools/call",
        json!({"name": "run", "arguments": arguments}),
    );
    assert!(text_of(&reply).0.contains("over a socket"), "{reply}");
    let reply = client.call(3, "job.list", json!({}));
    assert_eq!(reply["error"]["code"], -32601, "{reply}");
    client.0.send("no JSON");
    let reply = client.next();
    assert_eq!(
        (&reply["error"]["code"], &reply["id"]),
        (&json!(-32700), &Value::Null)
    );
    let cancelled = json!({"requestId": 2});
    let notification = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled,
    });
    client.0.send(notification.to_string());
    let reply = client.call(4, "ping", json!({}));
    assert!(
        reply["result"].is_object(),
        "a cancel of an answered call is ignored: {reply}"
    );
}

/// A client over a WebSocket.
struct McpSocket(Client);

impl McpSocket {
    fn open(server: &Server) -> Self {
        let protocols = format!("mcp, cc-executor.bearer.{}", server.token());
        let mut client = Self(Client::offering(server.listen(), &protocols));
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "agent", "version": "1"},
        });
        let reply = client.call(1, "initialize", params);
        assert_eq!(
            reply["result"]["serverInfo"]["name"], "cc-executor",
            "{reply}"
        );
        let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        client.0.send(begun.to_string());
        client
    }

    fn send(&mut self, id: i64, method: &str, params: Value) {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.0.send(request.to_string());
    }

    fn next(&mut self) -> Value {
        match self.0.frame() {
            Frame::Json(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// The reply to this request; other messages are skipped.
    fn reply(&mut self, id: i64) -> Value {
        loop {
            let message = self.next();
            if message["id"] == id {
                return message;
            }
        }
    }

    fn call(&mut self, id: i64, method: &str, params: Value) -> Value {
        self.send(id, method, params);
        self.reply(id)
    }
}
