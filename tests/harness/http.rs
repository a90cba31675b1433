//! Raw HTTP/1.1 over a connection of its own, so that a test can send what no library would.
//! Knows nothing of the routes.

use std::io::{Read, Write};

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.eq_ignore_ascii_case(name)).then_some(value.trim())
        })
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }
}

/// Sends these bytes and reads until the other side closes.
#[track_caller]
pub fn request(mut stream: impl Read + Write, bytes: &str) -> Response {
    stream.write_all(bytes.as_bytes()).expect("send a request");
    let mut all = Vec::new();
    // A reset after the answer is still an answer.
    let mut buffer = [0; 4096];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..length]);
    }
    parse(&String::from_utf8_lossy(&all))
}

#[track_caller]
fn parse(text: &str) -> Response {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer, only {text:?}"));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Response {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
