//! The relay between a client that follows a script and a server that is lost at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Relay;
use crate::cli::mcp::{held::REQUESTS_MAX, limits::MessageLimits};

const LONG: Duration = Duration::from_secs(60);

fn value(text: &Utf8Bytes) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn request(id: i64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn call(id: i64, tool: &str, arguments: Value) -> Value {
    request(
        id,
        "tools/call",
        json!({"name": tool, "arguments": arguments}),
    )
}

fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn cancel(id: i64) -> Value {
    notification("notifications/cancelled", json!({"requestId": id}))
}

fn initialize() -> Value {
    request(0, "initialize", json!({"protocolVersion": "2025-11-25"}))
}

fn initialized() -> Value {
    notification("notifications/initialized", json!({}))
}

fn answer(id: i64) -> Utf8Bytes {
    json!({"jsonrpc": "2.0", "id": id, "result": {"from": "the server"}})
        .to_string()
        .into()
}

fn line(relay: &mut Relay, message: &Value) {
    relay.on_line(message.to_string().into_bytes());
}

/// All that waits for the client.
fn for_client(relay: &mut Relay) -> Vec<Value> {
    let messages = std::iter::from_fn(|| relay.take_for_client());
    messages.map(|text| value(&text)).collect()
}

/// All that waits for the server.
fn for_server(relay: &mut Relay) -> Vec<Value> {
    let messages = std::iter::from_fn(|| relay.take_for_server());
    messages.map(|text| value(&text)).collect()
}

fn ids(messages: &[Value]) -> Vec<&Value> {
    messages.iter().map(|message| &message["id"]).collect()
}

/// A relay whose session of an older revision is open.
fn opened() -> Relay {
    let mut relay = Relay::new(None);
    line(&mut relay, &initialize());
    relay.on_connected(MessageLimits::default());
    assert_eq!(for_server(&mut relay), [initialize()]);
    relay.on_server_message(answer(0)).expect("goes on");
    line(&mut relay, &initialized());
    assert_eq!(for_server(&mut relay), [initialized()]);
    assert_eq!(for_client(&mut relay).len(), 1);
    relay
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The client sends the next message of its script.
    Send,
    /// The client cancels request 1.
    Cancel,
    Connect,
    /// The server takes a message.
    Take,
    /// The server answers the oldest request that it has.
    Answer,
    /// The server answers the newest one.
    AnswerNewest,
    Lose,
}

const STEPS: [Step; 7] = [
    Step::Send,
    Step::Cancel,
    Step::Connect,
    Step::Take,
    Step::Answer,
    Step::AnswerNewest,
    Step::Lose,
];

/// The request that must not be done twice.
const SIGNAL: i64 = 2;

/// A client, a relay and a server, with what each has seen.
struct World {
    relay: Relay,
    script: Vec<Value>,
    is_connected: bool,
    /// What the server has on this connection.
    received: Vec<Value>,
    unanswered: Vec<i64>,
    is_open: bool,
    signals: u32,
    asked: BTreeSet<i64>,
    cancelled: BTreeSet<i64>,
    answers: BTreeMap<i64, u32>,
}

impl World {
    fn new(script: &[Value]) -> Self {
        Self {
            relay: Relay::new(Some(notification("caller", json!({})).to_string().into())),
            script: script.iter().rev().cloned().collect(),
            is_connected: false,
            received: Vec::new(),
            unanswered: Vec::new(),
            is_open: false,
            signals: 0,
            asked: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Takes a step; false if it is not possible now.
    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Send => {
                let Some(message) = self.script.pop() else {
                    return false;
                };
                self.asked.extend(message["id"].as_i64());
                line(&mut self.relay, &message);
            }
            Step::Cancel => {
                if !self.asked.contains(&1) || !self.cancelled.insert(1) {
                    return false;
                }
                line(&mut self.relay, &cancel(1));
            }
            Step::Connect => {
                if std::mem::replace(&mut self.is_connected, true) {
                    return false;
                }
                self.relay.on_connected(MessageLimits::default());
            }
            Step::Take => match self.relay.take_for_server() {
                Some(message) => self.serve(value(&message)),
                None => return false,
            },
            Step::Answer | Step::AnswerNewest if self.unanswered.is_empty() => return false,
            Step::Answer => self.answer(0),
            Step::AnswerNewest => self.answer(self.unanswered.len() - 1),
            Step::Lose => {
                if !std::mem::replace(&mut self.is_connected, false) {
                    return false;
                }
                self.received.clear();
                self.unanswered.clear();
                self.is_open = false;
                self.relay.on_lost(LONG, "a test");
            }
        }
        self.look_at_client();
        true
    }

    /// The server gets a message.
    fn serve(&mut self, message: Value) {
        assert!(self.is_connected, "nothing is sent without a connection");
        let is_first = self.received.is_empty();
        assert_eq!(is_first, message["method"] == "caller", "{message}");
        assert!(!self.received.contains(&message), "sent twice: {message}");
        let opens = |message: &Value| message["method"] == "initialize";
        let has_initialize = self.received.iter().any(opens);
        if message["method"] == "notifications/initialized" {
            assert!(self.is_open, "before the answer to initialize");
        }
        if let Some(id) = message["id"].as_i64() {
            assert!(
                id == 0 || !has_initialize || self.is_open,
                "{message} before the answer to initialize"
            );
            self.unanswered.push(id);
            self.signals += u32::from(id == SIGNAL);
            assert!(self.signals < 2, "the signal was sent twice");
        }
        self.received.push(message);
    }

    fn answer(&mut self, at: usize) {
        let id = self.unanswered.remove(at);
        self.is_open |= id == 0;
        self.relay.on_server_message(answer(id)).expect("goes on");
    }

    fn look_at_client(&mut self) {
        for message in for_client(&mut self.relay) {
            let id = message["id"].as_i64().expect("an answer");
            let count = self.answers.entry(id).or_default();
            *count += 1;
            assert_eq!(*count, 1, "answered twice: {message}");
        }
    }

    /// From here on nothing is lost: everything has to be answered.
    fn finish(&mut self) {
        let answered = self.answers.clone();
        while self.step(Step::Send) {}
        self.step(Step::Connect);
        while self.step(Step::Take) || self.step(Step::Answer) {}
        for id in &self.asked {
            let is_cancelled = self.cancelled.contains(id);
            let expected = match is_cancelled {
                true => answered.get(id).copied(),
                false => Some(1),
            };
            assert_eq!(self.answers.get(id).copied(), expected, "request {id}");
        }
        assert!(!self.relay.needs_server() && self.relay.is_idle());
    }
}

/// Takes every possible way of `length` steps, each from the beginning, and finishes it.
fn explore(script: &[Value], ways: &mut Vec<Vec<Step>>, way: &mut Vec<Step>, length: usize) {
    for step in STEPS {
        way.push(step);
        let mut world = World::new(script);
        if way.iter().all(|step| world.step(*step)) {
            let finished =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.finish()));
            assert!(finished.is_ok(), "after {way:?}");
            ways.push(way.clone());
            if way.len() < length {
                explore(script, ways, way, length);
            }
        }
        way.pop();
    }
}

fn calls() -> [Value; 3] {
    [
        call(1, "run", json!({"command": "make"})),
        call(
            SIGNAL,
            "control",
            json!({"job": 7, "action": "signal", "signal": "SIGUSR1"}),
        ),
        request(3, "tools/list", json!({})),
    ]
}

#[test]
fn every_order_of_answers_losses_and_cancels_ends_with_one_answer_each() {
    let [run, signal, _] = calls();
    let mut ways = Vec::new();
    let script = [initialize(), initialized(), run, signal];
    explore(&script, &mut ways, &mut Vec::new(), 9);
    assert!(ways.len() > 1000, "{}", ways.len());
}

#[test]
fn the_same_without_an_opening() {
    let mut ways = Vec::new();
    explore(&calls(), &mut ways, &mut Vec::new(), 8);
    assert!(ways.len() > 1000, "{}", ways.len());
}

#[test]
fn a_session_is_opened_again_before_what_waits_is_sent_again_unchanged() {
    let mut relay = opened();
    let [run, _, list] = calls();
    line(&mut relay, &run);
    line(&mut relay, &list);
    assert_eq!(for_server(&mut relay), [run.clone(), list.clone()]);
    relay.on_server_message(answer(3)).expect("goes on");
    assert_eq!(ids(&for_client(&mut relay)), [3]);
    relay.on_lost(LONG, "killed");
    assert!(relay.needs_server());
    relay.on_connected(MessageLimits::default());
    assert_eq!(for_server(&mut relay), [initialize()]);
    relay.on_server_message(answer(0)).expect("goes on");
    assert_eq!(for_server(&mut relay), [initialized(), run]);
    assert_eq!(
        for_client(&mut relay),
        Vec::<Value>::new(),
        "the answer is ours"
    );
    relay.on_server_message(answer(1)).expect("goes on");
    assert_eq!(ids(&for_client(&mut relay)), [1]);
    assert!(relay.is_idle());
}

#[test]
fn a_server_that_does_not_open_the_session_again_ends_the_waiting() {
    let mut relay = opened();
    let [run, ..] = calls();
    line(&mut relay, &run);
    for_server(&mut relay);
    relay.on_lost(LONG, "killed");
    relay.on_connected(MessageLimits::default());
    let refused = json!({"jsonrpc": "2.0", "id": 0, "error": {"code": -32602, "message": "old"}});
    let why = relay
        .on_server_message(refused.to_string().into())
        .expect_err("it cannot go on");
    relay.on_unreachable(&why);
    let told = for_client(&mut relay);
    assert_eq!(ids(&told), [1]);
    assert!(told[0]["result"]["isError"] == true && told[0].to_string().contains("old"));
}

#[test]
fn an_answer_after_a_cancel_and_a_cancel_after_an_answer_do_nothing() {
    let mut relay = opened();
    let [run, _, list] = calls();
    line(&mut relay, &run);
    line(&mut relay, &list);
    for_server(&mut relay);
    line(&mut relay, &cancel(1));
    assert_eq!(for_server(&mut relay), [cancel(1)]);
    relay.on_server_message(answer(1)).expect("goes on");
    assert_eq!(for_client(&mut relay), Vec::<Value>::new());
    relay.on_server_message(answer(3)).expect("goes on");
    assert_eq!(ids(&for_client(&mut relay)), [3]);
    line(&mut relay, &cancel(3));
    assert_eq!(for_server(&mut relay), Vec::<Value>::new());
    // What is cancelled while there is no connection is not sent again.
    line(&mut relay, &call(4, "wait", json!({"jobs": [1]})));
    for_server(&mut relay);
    relay.on_lost(LONG, "killed");
    line(&mut relay, &cancel(4));
    assert!(!relay.needs_server());
}

#[test]
fn questions_of_the_server_get_their_own_answers() {
    let mut relay = opened();
    let ask = request(0, "elicitation/create", json!({"message": "Password?"}));
    relay
        .on_server_message(ask.to_string().into())
        .expect("goes on");
    let first = for_client(&mut relay).remove(0);
    assert_eq!(first["params"], ask["params"]);
    assert!(!relay.is_idle(), "the server waits");
    relay.on_lost(LONG, "killed");
    let cancelled = for_client(&mut relay);
    assert_eq!(cancelled[0]["params"]["requestId"], first["id"]);

    relay.on_connected(MessageLimits::default());
    relay.on_server_message(answer(0)).expect("goes on");
    for_server(&mut relay);
    relay
        .on_server_message(ask.to_string().into())
        .expect("goes on");
    let second = for_client(&mut relay).remove(0);
    let reply = |id: &Value| json!({"jsonrpc": "2.0", "id": id, "result": {"action": "accept"}});
    line(&mut relay, &reply(&first["id"]));
    assert_eq!(for_server(&mut relay), Vec::<Value>::new(), "too late");
    line(&mut relay, &reply(&second["id"]));
    assert_eq!(for_server(&mut relay), [reply(&json!(0))]);
    assert!(relay.is_idle());
}

#[test]
fn progress_increases_over_a_loss() {
    let mut relay = opened();
    let params = json!({"name": "run", "_meta": {"progressToken": "t"}});
    line(&mut relay, &request(1, "tools/call", params));
    for_server(&mut relay);
    let told = |relay: &mut Relay, progress: u32| {
        let params = json!({"progressToken": "t", "progress": progress});
        let text = notification("notifications/progress", params).to_string();
        relay.on_server_message(text.into()).expect("goes on");
        let told = for_client(relay);
        told.first()
            .map(|message| message["params"]["progress"].as_f64())
    };
    assert_eq!(told(&mut relay, 15), Some(Some(15.0)));
    assert_eq!(told(&mut relay, 30), Some(Some(30.0)));
    relay.on_lost(LONG, "killed");
    relay.on_connected(MessageLimits::default());
    relay.on_server_message(answer(0)).expect("goes on");
    for_server(&mut relay);
    assert_eq!(told(&mut relay, 15), Some(Some(45.0)));
    assert_eq!(told(&mut relay, 15), None);
}

#[test]
fn bad_lines_are_answered_and_the_others_go_on() {
    let mut relay = opened();
    for (bad, code, id) in [
        (&b"garbage"[..], -32700, json!(null)),
        (b"\xff\xfe", -32700, json!(null)),
        (b"[]", -32600, json!(null)),
        (br#"{"jsonrpc":"2.0","id":8}"#, -32600, json!(8)),
    ] {
        relay.on_line(bad.to_vec());
        let told = for_client(&mut relay);
        assert_eq!(
            (&told[0]["error"]["code"], &told[0]["id"]),
            (&json!(code), &id)
        );
    }
    for blank in ["", " \r"] {
        relay.on_line(blank.into());
    }
    assert!(relay.is_idle() && !relay.has_for_client());
}

#[test]
fn an_id_that_is_in_use_is_refused_without_an_answer_to_the_first() {
    let mut relay = opened();
    let [run, ..] = calls();
    line(&mut relay, &run);
    line(&mut relay, &call(1, "wait", json!({})));
    relay.on_overlong_line(br#"{"id":1,"method":"tools/call","params":{"#, b"}}");
    relay.on_line(br#"{"id":1,"jsonrpc":"2.0"}"#.to_vec());
    let told = for_client(&mut relay);
    assert_eq!(ids(&told), [&Value::Null; 3]);
    assert_eq!(for_server(&mut relay), [run]);
}

#[test]
fn what_the_server_would_refuse_is_answered_here() {
    let mut relay = opened();
    relay.on_lost(LONG, "killed");
    let deep = json!({"a": [[[[[]]]]]});
    line(&mut relay, &call(1, "run", deep));
    line(
        &mut relay,
        &call(2, "run", json!({"stdin": "x".repeat(600)})),
    );
    line(&mut relay, &call(3, "run", json!({"stdin": "x"})));
    relay.on_connected(MessageLimits {
        bytes_max: 512,
        depth_max: 6,
    });
    assert_eq!(for_server(&mut relay), [initialize()]);
    relay.on_server_message(answer(0)).expect("goes on");
    let sent = for_server(&mut relay);
    assert_eq!(
        ids(&sent),
        [&json!(null), &json!(3)],
        "initialized, then the call"
    );
    let told = for_client(&mut relay);
    assert_eq!(ids(&told), [1, 2]);
    assert!(told[0]["error"]["message"].to_string().contains("6 levels"));
    assert!(told[1]["error"]["message"].to_string().contains("a file"));
}

#[test]
fn an_overlong_line_is_answered_with_what_to_do() {
    let mut relay = opened();
    relay.on_overlong_line(
        br#"{"jsonrpc":"2.0","id":"x","method":"tools/call","par"#,
        b"}}",
    );
    let told = for_client(&mut relay);
    assert_eq!(told[0]["id"], "x");
    assert!(told[0]["error"]["message"].to_string().contains("a file"));
    // The client's answer to a question is refused to the server.
    let ask = request(5, "elicitation/create", json!({}));
    relay
        .on_server_message(ask.to_string().into())
        .expect("goes on");
    let asked = for_client(&mut relay).remove(0);
    let head = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"a"#, asked["id"]);
    relay.on_overlong_line(head.as_bytes(), b"}}");
    let told = for_server(&mut relay);
    assert_eq!(
        (&told[0]["id"], &told[0]["error"]["code"]),
        (&json!(5), &json!(-32005))
    );
    assert!(!relay.has_for_client());
}

#[test]
fn requests_and_messages_are_bounded() {
    let mut relay = Relay::new(None);
    let max = i64::try_from(REQUESTS_MAX).expect("small");
    for id in 0..=max {
        line(&mut relay, &call(id, "wait", json!({})));
    }
    let told = for_client(&mut relay);
    assert_eq!(ids(&told), [max]);
    assert_eq!(told[0]["error"]["code"], -32005);
    relay.on_connected(MessageLimits::default());
    assert_eq!(for_server(&mut relay).len(), REQUESTS_MAX);
    for id in 0..max {
        if !relay.takes_from_server() {
            assert!(!relay.takes_from_client());
            return;
        }
        relay.on_server_message(answer(id)).expect("goes on");
    }
    panic!("the client does not read, and no bound was met");
}

#[test]
fn a_request_that_ends_every_server_is_answered_at_last() {
    let mut relay = opened();
    line(&mut relay, &call(1, "wait", json!({"jobs": [1]})));
    let mut losses = 0;
    while relay.needs_server() {
        relay.on_connected(MessageLimits::default());
        for_server(&mut relay);
        relay.on_server_message(answer(0)).ok();
        for_server(&mut relay);
        relay.on_lost(Duration::from_millis(30), "crashed");
        losses += 1;
        assert!(losses < 100, "for ever");
    }
    let told = for_client(&mut relay);
    assert!(told[0].to_string().contains("crashed"), "{told:?}");
    // Losses far apart are waited over.
    line(&mut relay, &call(2, "wait", json!({"jobs": [1]})));
    for _ in 0..100 {
        relay.on_connected(MessageLimits::default());
        relay.on_lost(LONG, "killed");
    }
    assert!(relay.needs_server());
}

#[test]
fn nothing_but_messages_of_the_protocol_reaches_the_client() {
    let mut relay = opened();
    for broken in ["hello", r#"{"jsonrpc":"2.0"}"#, "[1]"] {
        assert!(relay.on_server_message(broken.into()).is_err(), "{broken}");
    }
    assert!(!relay.has_for_client());
    let unknown = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "m"}});
    relay
        .on_server_message(unknown.to_string().into())
        .expect("goes on");
    assert_eq!(for_client(&mut relay), [unknown]);
}
