//! Tests of the envelope: what is a request, and how everything else is refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn request(text: &str) -> Request {
    match read(text, 64) {
        IncomingFrame::Request(request) => request,
        other => panic!("{text}: {other:?}"),
    }
}

/// The id that the error carries, and its code.
fn refusal(text: &str) -> (Option<String>, i64) {
    match read(text, 64) {
        IncomingFrame::Refused(id, refusal) => {
            (id.map(|id| id.get().to_owned()), refusal.kind.code())
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn ids_are_echoed_exactly() {
    for id in [
        "1",
        "0",
        "-7",
        "123456789012345678901234567890",
        r#""a""#,
        r#""""#,
        r#""\u0041\/é""#,
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
        let request = request(&text);
        let answer = error(Some(&request.id), &Refusal::new(ErrorKind::Conflict, "no"));
        assert!(answer.contains(&format!(r#""id":{id},"#)), "{answer}");
    }
}

#[test]
fn invalid_ids_are_refused_with_null() {
    for id in [
        "null",
        "1.5",
        "1.0",
        "1e3",
        "{}",
        "[]",
        "true",
        r#"{"a":1}"#,
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
        assert_eq!(refusal(&text), (None, -32600), "{id}");
    }
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#,
        "x".repeat(1 << 17)
    );
    assert_eq!(refusal(&long), (None, -32600));
}

#[test]
fn what_is_not_json_is_a_parse_error() {
    for text in [
        "",
        " ",
        "{",
        "nonsense",
        "{\"a\":}",
        "[1,]",
        "\u{feff}{}",
        "{}{}",
        "{} x",
        "'a'",
        "01",
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"#,
        "[[1],",
        r#"{"a":1,"a":1,}"#,
    ] {
        assert_eq!(refusal(text), (None, -32700), "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{open}{close}}}}}"#)
    };
    assert!(matches!(read(&nested(62), 64), IncomingFrame::Request(_)));
    assert_eq!(refusal(&nested(63)), (None, -32700));
    assert_eq!(refusal(&nested(100_000)), (None, -32700));
    assert_eq!(refusal(&"[".repeat(100_000)), (None, -32700));
}

#[test]
fn a_number_of_a_million_digits_is_survived() {
    let digits = "9".repeat(1_000_000);
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{digits}}}}}"#);
    assert_eq!(refusal(&text).1, -32700);
}

#[test]
fn a_batch_of_any_size_is_one_error() {
    let many = format!("[{}]", ["1"; 10_000].join(","));
    let real = r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#;
    for text in ["[]", "[1]", many.as_str(), real] {
        assert_eq!(refusal(text), (None, -32600));
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for (text, id) in [
        ("1", None),
        ("null", None),
        ("true", None),
        ("-1.5", None),
        (r#""text""#, None),
        ("{}", None),
        (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, Some("1")),
        (r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, Some("1")),
        (r#"{"id":"x","method":"m"}"#, Some(r#""x""#)),
        (r#"{"jsonrpc":"2.0","id":1}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"result":7}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","method":7}"#, None),
    ] {
        assert_eq!(refusal(text), (id.map(str::to_owned), -32600), "{text}");
    }
}

#[test]
fn repeated_keys_are_refused_anywhere() {
    for (text, id) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","method":"n"}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"m"}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{},"params":{}}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":1}}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":[{"a":1,"a":1}]}}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","x":1,"x":2}"#,
            Some("1"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"m"}"#, None),
        (
            r#"{"jsonrpc":"2.0","method":"m","params":{"a":1,"a":1}}"#,
            None,
        ),
    ] {
        assert_eq!(refusal(text), (id.map(str::to_owned), -32600), "{text}");
    }
}

#[test]
fn params_are_an_object_or_absent() {
    for params in ["[]", "[1]", "null", "1", r#""x""#] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#);
        assert_eq!(refusal(&text), (Some("1".into()), -32602), "{params}");
    }
    assert!(
        request(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#)
            .params()
            .is_empty()
    );
    let asked = request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[1,"x",null]}}"#);
    assert_eq!(
        (asked.method.as_str(), &asked.params()["a"]),
        ("m", &json!([1, "x", null]))
    );
}

#[test]
fn without_an_id_nothing_is_answered() {
    for text in [
        r#"{"jsonrpc":"2.0","method":"job.submit","params":{"argv":["true"]}}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":[1]}"#,
    ] {
        assert!(
            matches!(read(text, 64), IncomingFrame::Notification),
            "{text}"
        );
    }
}

#[test]
fn answers_have_the_shape_of_json_rpc() {
    let id: Id = serde_json::from_str("7").expect("valid");
    let result: Id = serde_json::from_str(r#"{"a":1}"#).expect("valid");
    assert_eq!(
        reply(&id, Ok(&result)),
        r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#
    );
    let refusal = Refusal::limit("in_flight_max", "too many");
    let answer: Value = serde_json::from_str(&error(None, &refusal)).expect("valid");
    let expected = json!({"jsonrpc": "2.0", "id": null, "error": {
        "code": -32005, "message": "too many",
        "data": {"kind": "limit_exceeded", "limit": "in_flight_max"},
    }});
    assert_eq!(answer, expected);
}

proptest! {
    #[test]
    fn no_text_panics(text in r#"[\[\]{}":,idmethoparms0-9.\\ -]{0,60}"#) {
        let _ = read(&text, 64);
    }
}

/// Text out of the pieces of requests, in any order, with anything between.
fn nearly_requests() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        8 => proptest::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"jsonrpc\":\"2.0\",", "\"id\":1,", "\"id\":\"\\u0041\",",
            "\"id\":null,", "\"id\":1e5,", "\"method\":\"m\",", "\"method\":\"m\"", "\"params\":{}",
            "\"params\":[]", "\"a\":1", "null", "true", "-0.0", "1e999", "\"\\ud800\"", "\u{feff}", "\\",
            "\"",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    proptest::collection::vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
}

/// A request with some of its bytes exchanged.
fn mutated_requests() -> impl Strategy<Value = String> {
    let whole = r#"{"jsonrpc":"2.0","id":"é7","method":"job.submit","params":{"argv":["a","\n"],"env":{"A":"1"}}}"#;
    let changes = proptest::collection::vec((0..whole.len(), any::<u8>()), 0..4);
    changes.prop_map(move |changes| {
        let mut bytes = whole.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    /// Whatever arrives is a request that can be read to its end, or is answered with an error that
    /// is JSON-RPC and carries the id exactly as it stood there, or null.
    #[test]
    fn fuzz_envelope(text in prop_oneof![nearly_requests(), mutated_requests(), any::<String>()]) {
        match read(&text, 64) {
            IncomingFrame::Notification => prop_assert!(serde_json::from_str::<Value>(&text).is_ok()),
            IncomingFrame::Request(request) => {
                let whole: Value = serde_json::from_str(&text).expect("a request is JSON");
                prop_assert!(text.contains(request.id.get()));
                prop_assert_eq!(whole["method"].as_str(), Some(request.method.as_str()));
                let params = whole["params"].as_object().cloned().unwrap_or_default();
                prop_assert_eq!(request.params(), params);
            }
            IncomingFrame::Refused(id, refusal) => {
                let answer = error(id.as_deref(), &refusal);
                let response: Value = serde_json::from_str(&answer).expect("our answer is JSON");
                prop_assert_eq!(&response["jsonrpc"], "2.0");
                prop_assert!(response["error"]["code"].is_i64() && response["error"]["message"].is_string());
                match id {
                    None => prop_assert!(response["id"].is_null()),
                    Some(id) => prop_assert!(text.contains(id.get()) && answer.contains(id.get())),
                }
            }
        }
    }
}
