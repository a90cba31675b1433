//! Messages that are wrong before any method is called, as a table; after each the session works.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame as WireFrame,
        coding::{Data, OpCode},
    },
};

use crate::harness::{Client, Frame, Server};

/// Longest message in either direction, bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Sends text and expects exactly one error with `id: null` and this code.
fn refused(client: &mut Client, code: i64, text: &str) {
    let shown: String = text.chars().take(80).collect();
    client.send(text);
    let Frame::Json(reply) = client.frame() else {
        panic!("{shown}: no reply")
    };
    assert_eq!(reply["error"]["code"], code, "{shown}: {reply}");
    assert!(reply["error"]["data"]["kind"].is_string(), "{reply}");
    assert_eq!(reply.get("id"), Some(&Value::Null), "{shown}: {reply}");
    client.still_works();
}

#[test]
fn what_is_no_json_is_a_parse_error() {
    let server = Server::start();
    let mut client = server.connect();
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":null,"method":"server.info","params":{open}{close}}}"#)
    };
    for text in [
        "".to_owned(),
        " ".to_owned(),
        "{".to_owned(),
        "nonsense".to_owned(),
        r#"{"jsonrpc":"2.0",}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"server.info"} x"#.to_owned(),
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server.info\"}".to_owned(),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}".to_owned(),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        deep(100_000),
        deep(65),
    ] {
        refused(&mut client, -32700, &text);
    }
}

#[test]
fn what_is_no_request_is_invalid() {
    let server = Server::start();
    let mut client = server.connect();
    for text in [
        "1",
        "null",
        "true",
        r#""server.info""#,
        "[]",
        "[1]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"server.info"}]"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"server.info"}"#,
    ] {
        refused(&mut client, -32600, text);
    }
    let many = format!("[{}1]", "1,".repeat(9_999));
    refused(&mut client, -32600, &many);
    let requests = r#"{"jsonrpc":"2.0","id":1,"method":"server.info"},"#.repeat(100);
    refused(&mut client, -32600, &format!("[{requests}1]"));
}

/// As above, where the contract leaves open whether the id could be read.
#[test]
fn a_wrong_envelope_around_a_valid_id_is_invalid_too() {
    let server = Server::start();
    let mut client = server.connect();
    for text in [
        r#"{"id":1,"method":"server.info"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"server.info"}"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"server.info","method":"job.list"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"job.submit","params":{"argv":["true"],"argv":["false"]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"job.submit","params":{"argv":["true"],"env":{"A":"1","A":"2"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"job.submit","params":{"argv":["true"],"\u0061rgv":["false"]}}"#,
    ] {
        client.send(text);
        let Frame::Json(reply) = client.frame() else {
            panic!("{text}: no reply")
        };
        assert_eq!(reply["error"]["code"], -32600, "{text}: {reply}");
        client.still_works();
    }
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));
}

#[test]
fn ids_come_back_as_they_were() {
    let server = Server::start();
    let mut client = server.connect();
    for id in [
        json!(0),
        json!(-7),
        json!("text"),
        json!(""),
        json!(9_007_199_254_740_991_i64),
    ] {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "server.info"});
        client.send(request.to_string());
        assert!(client.reply_to(&id).is_ok(), "{id}");
    }
}

#[test]
fn a_request_without_an_id_is_neither_executed_nor_answered() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(r#"{"jsonrpc":"2.0","method":"job.submit","params":{"argv":["true"]}}"#);
    client.send(r#"{"jsonrpc":"2.0","method":"no.such.method"}"#);
    let id = client.begin("job.list", json!({}));
    assert_eq!(client.reply(id).expect("a list")["jobs"], json!([]));
    let id = client.begin("server.info", json!({}));
    let Frame::Json(next) = client.frame() else {
        panic!("no reply")
    };
    assert_eq!(next["id"], id, "nothing came between");
}

#[test]
fn a_message_of_one_mebibyte_is_accepted_and_a_longer_one_closes() {
    let server = Server::start();
    let mut client = server.connect();
    let mut text = r#"{"jsonrpc":"2.0","id":"full","method":"server.info"}"#.to_owned();
    text += &" ".repeat(MESSAGE_BYTES_MAX - text.len());
    client.send(text.clone());
    assert!(client.reply_to(&json!("full")).is_ok());
    text.push(' ');
    client.send_to_closing(Message::text(text));
    assert_eq!(client.closed(), Some(1009));
    server.connect().still_works();
}

#[test]
fn a_number_of_a_million_digits_is_survived() {
    let server = Server::start();
    let mut client = server.connect();
    let digits = "9".repeat(1_000_000);
    client.send(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"job.get","params":{{"job":{digits}}}}}"#
    ));
    let Frame::Json(reply) = client.frame() else {
        panic!("no reply")
    };
    assert!(reply["error"]["code"].is_i64(), "{reply}");
    client.still_works();
}

#[test]
fn invalid_utf8_closes() {
    let server = Server::start();
    for bytes in [&b"\xff\xfe"[..], b"{\"a\":\"\xc3\"}", b"\xed\xa0\x80"] {
        let mut client = server.connect();
        let code = OpCode::Data(Data::Text);
        let frame = WireFrame::message(bytes.to_vec(), code, true);
        client.send_to_closing(Message::Frame(frame));
        assert_eq!(client.closed(), Some(1007));
    }
}

#[test]
fn a_header_that_announces_two_gigabytes_closes() {
    let server = Server::start();
    let mut client = server.connect();
    let mut header = vec![0x81, 0xff];
    header.extend(2_000_000_000_u64.to_be_bytes());
    header.extend([0; 4]);
    client.send_raw(&header);
    assert_eq!(client.closed(), Some(1009));
}

#[test]
fn the_bound_holds_over_fragments() {
    let server = Server::start();
    let mut client = server.connect();
    let half = vec![b' '; MESSAGE_BYTES_MAX + 1];
    let frame = WireFrame::message(half, OpCode::Data(Data::Text), false);
    client.send_to_closing(Message::Frame(frame));
    assert_eq!(client.closed(), Some(1009));
}

#[test]
fn unknown_methods_and_methods_that_come_later_are_told_apart() {
    let server = Server::start();
    let mut client = server.connect();
    for method in ["", "no.such.method", "job.Submit", "job", "server.hello"] {
        let error = client.refused(-32601, method, json!({}));
        assert!(error["data"]["kind"].is_string());
    }
    let error = client.refused(-32007, "job.resize", json!({}));
    assert_eq!(error["data"]["kind"], "unsupported");
    assert!(error["data"]["key"].is_string(), "{error}");
}

#[test]
fn params_are_an_object() {
    let server = Server::start();
    let mut client = server.connect();
    for params in [json!([]), json!([1]), json!("x"), json!(1), json!(true)] {
        let shown = params.to_string();
        let error = client.call("job.list", params).expect_err(&shown);
        let code = error["code"].as_i64();
        // A list is wrong as params; what is neither list nor object is no request at all.
        let allowed: &[i64] = if shown.starts_with('[') {
            &[-32602]
        } else {
            &[-32602, -32600]
        };
        assert!(
            code.is_some_and(|c| allowed.contains(&c)),
            "{shown}: {error}"
        );
    }
    client.still_works();
}

#[test]
fn the_65th_request_in_flight_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    let waits: Vec<i64> = (0..64)
        .map(|_| client.begin("job.wait", json!({"jobs": [job["id"]]})))
        .collect();
    let error = client.refused(-32005, "job.wait", json!({"jobs": [job["id"]]}));
    assert_eq!(error["data"]["kind"], "limit_exceeded");
    assert!(!error["data"]["limit"].is_null(), "{error}");
    server.connect().control(&job, "kill");
    for wait in waits {
        assert_eq!(client.reply(wait).expect("a wait")["met"], true);
    }
    client.still_works();
}
