//! A raw JSON-RPC client over one WebSocket: blocking, with a ceiling on every wait.
//! Written from the contract; knows no type of the product.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Error, HandshakeError, Message, WebSocket,
    client::IntoClientRequest,
    handshake::client::{Request, Response},
    protocol::frame::coding::CloseCode,
};

use super::{BinaryFrame, CEILING, Transcript};

/// A connection of either kind.
pub trait Wire: Read + Write + Send {
    /// Bounds the next reads.
    fn read_within(&self, limit: Duration);
}

impl Wire for TcpStream {
    fn read_within(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).expect("a read timeout");
    }
}

impl Wire for UnixStream {
    fn read_within(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).expect("a read timeout");
    }
}

/// What can arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Json(Value),
    Binary(BinaryFrame),
    Pong(Vec<u8>),
    /// The connection is closed, with this code if one was given.
    Closed(Option<u16>),
}

/// A session.
pub struct Client {
    socket: WebSocket<Box<dyn Wire>>,
    /// The greeting.
    pub hello: Value,
    inbox: VecDeque<Frame>,
    next_id: i64,
}

impl Client {
    /// Connects over TCP; `token` goes into the upgrade.
    #[track_caller]
    pub fn tcp(listen: &str, token: Option<&str>) -> Self {
        match Self::try_tcp(listen, token) {
            Ok(client) => client,
            Err(error) => panic!("connecting to {listen}: {error}"),
        }
    }

    /// Connects over TCP, or says why not.
    pub fn try_tcp(listen: &str, token: Option<&str>) -> Result<Self, Error> {
        let wire = TcpStream::connect(listen)?;
        wire.set_nodelay(true)?;
        Self::upgrade(Box::new(wire), upgrade_request(listen, token, "/ws"))
    }

    /// Connects over TCP with this list of sub-protocols.
    #[track_caller]
    pub fn offering(listen: &str, sub_protocols: &str) -> Self {
        let wire = TcpStream::connect(listen).expect("connect");
        let mut request = upgrade_request(listen, None, "/ws");
        let list = sub_protocols.parse().expect("a header");
        request.headers_mut().insert("sec-websocket-protocol", list);
        Self::upgrade(Box::new(wire), request).expect("an upgrade")
    }

    /// Connects over the Unix socket.
    #[track_caller]
    pub fn unix(path: &Path) -> Self {
        let wire = UnixStream::connect(path).expect("the Unix socket");
        Self::upgrade(Box::new(wire), upgrade_request("localhost", None, "/ws"))
            .expect("an upgrade over the Unix socket")
    }

    /// Connects over the Unix socket, or says why not.
    pub fn try_unix(path: &Path) -> Result<Self, Error> {
        let wire = UnixStream::connect(path)?;
        Self::upgrade(Box::new(wire), upgrade_request("localhost", None, "/ws"))
    }

    fn upgrade(wire: Box<dyn Wire>, request: Request) -> Result<Self, Error> {
        wire.read_within(CEILING);
        let (socket, response) = handshake(wire, request)?;
        let mut client = Self {
            socket,
            hello: Value::Null,
            inbox: VecDeque::new(),
            next_id: 1,
        };
        let selected = response.headers().get("sec-websocket-protocol");
        if selected.is_some_and(|name| name == "mcp") {
            return Ok(client);
        }
        match client.try_frame(CEILING)? {
            Some(Frame::Json(hello)) if hello["method"] == "server.hello" => client.hello = hello,
            Some(Frame::Closed(_)) => return Err(Error::ConnectionClosed),
            other => panic!("the greeting comes first, not {other:?}"),
        }
        Ok(client)
    }

    /// Sends a text message as it is.
    #[track_caller]
    pub fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into()));
    }

    /// Sends any message.
    #[track_caller]
    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("send");
    }

    /// Sends any message to a server that may hang up while it arrives.
    pub fn send_to_closing(&mut self, message: Message) {
        let _ = self.socket.send(message);
    }

    /// Sends bytes past the protocol.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("send");
    }

    /// Sends bytes past the protocol to a server that may hang up while they arrive.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.get_mut().write_all(bytes)
    }

    /// Sends a request and returns its id without waiting.
    #[track_caller]
    pub fn begin(&mut self, method: &str, params: Value) -> i64 {
        self.begin_with(method, &params)
    }

    #[track_caller]
    fn begin_with(&mut self, method: &str, params: &Value) -> i64 {
        let (id, request) = self.next_request(method, params);
        self.send(request);
        id
    }

    /// The next request and its id. Written around the text of `params`, which is not copied as a
    /// value first.
    fn next_request(&mut self, method: &str, params: &Value) -> (i64, String) {
        let (id, method) = (self.next_id, json!(method));
        self.next_id += 1;
        let text = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":{method},"params":{params}}}"#);
        (id, text)
    }

    /// Waits for the reply to a request; what arrives before it stays for later.
    #[track_caller]
    pub fn reply(&mut self, id: i64) -> Result<Value, Value> {
        self.reply_to(&json!(id))
    }

    /// Waits for the reply with this id.
    #[track_caller]
    pub fn reply_to(&mut self, id: &Value) -> Result<Value, Value> {
        match self.try_reply(id) {
            Ok(reply) => reply,
            Err(why) => panic!("no reply to {id}: {why}"),
        }
    }

    fn try_reply(&mut self, id: &Value) -> Result<Result<Value, Value>, String> {
        let is_it = |frame: &Frame| matches!(frame, Frame::Json(v) if v.get("method").is_none() && v["id"] == *id);
        let kept = self.inbox.iter().position(is_it);
        if let Some(Frame::Json(found)) = kept.and_then(|at| self.inbox.remove(at)) {
            return Ok(split(found));
        }
        loop {
            match self.try_frame(CEILING).map_err(|e| e.to_string())? {
                None => return Err("the ceiling is reached".to_owned()),
                Some(Frame::Closed(code)) => return Err(format!("closed with {code:?}")),
                Some(Frame::Json(found)) if is_it(&Frame::Json(found.clone())) => {
                    return Ok(split(found));
                }
                Some(other) => self.inbox.push_back(other),
            }
        }
    }

    /// Calls a method.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.begin(method, params);
        self.reply(id)
    }

    /// Calls a method on a connection that may break.
    pub fn try_call(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<Result<Value, Value>, String> {
        let (id, request) = self.next_request(method, &params);
        let sent = self.socket.send(Message::text(request));
        sent.map_err(|error| error.to_string())?;
        self.try_reply(&json!(id))
    }

    /// Calls a method that must succeed.
    #[track_caller]
    pub fn ok(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin_with(method, &params);
        match self.reply(id) {
            Ok(result) => result,
            Err(error) => panic!("{method} {:.300}: {error}", params.to_string()),
        }
    }

    /// Calls a method that must be refused with this code; returns the error.
    #[track_caller]
    pub fn refused(&mut self, code: i64, method: &str, params: Value) -> Value {
        let id = self.begin_with(method, &params);
        let shown = || params.to_string();
        match self.reply(id) {
            Ok(result) => panic!("{method} {:.300} was accepted: {result}", shown()),
            Err(error) => {
                assert_eq!(error["code"], code, "{method} {:.300}: {error}", shown());
                error
            }
        }
    }

    /// The next thing that is no awaited reply; fails at the ceiling.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.frame_within(CEILING)
            .unwrap_or_else(|| panic!("nothing arrived within {CEILING:?}"))
    }

    /// The next thing, or `None` when nothing arrives for so long.
    #[track_caller]
    pub fn frame_within(&mut self, limit: Duration) -> Option<Frame> {
        match self.inbox.pop_front() {
            Some(frame) => Some(frame),
            None => self.try_frame(limit).unwrap_or_else(|e| panic!("{e}")),
        }
    }

    /// The next thing on a connection that may break: `Closed` then.
    pub fn frame_or_closed(&mut self) -> Frame {
        match self.inbox.pop_front() {
            Some(frame) => frame,
            None => match self.try_frame(CEILING) {
                Ok(Some(frame)) => frame,
                Ok(None) => panic!("nothing arrived within {CEILING:?}"),
                Err(_) => Frame::Closed(None),
            },
        }
    }

    /// The next thing on a connection that may break, or `None` when nothing arrives for so long.
    pub fn frame_or_closed_within(&mut self, limit: Duration) -> Option<Frame> {
        match self.inbox.pop_front() {
            Some(frame) => Some(frame),
            None => self.try_frame(limit).unwrap_or(Some(Frame::Closed(None))),
        }
    }

    /// Reads until the connection is closed; returns the code.
    #[track_caller]
    pub fn closed(&mut self) -> Option<u16> {
        loop {
            if let Frame::Closed(code) = self.frame_or_closed() {
                return code;
            }
        }
    }

    fn try_frame(&mut self, limit: Duration) -> Result<Option<Frame>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.get_ref().read_within(left);
            match self.socket.read() {
                Ok(message) => {
                    if let Some(frame) = frame_of(message) {
                        return Ok(Some(frame));
                    }
                }
                Err(Error::Io(e)) if is_timeout(e.kind()) => return Ok(None),
                // A read with a timeout is not restarted by the kernel (signal(7)), and any thread may
                // be told of a child that ended while its parent blocked signals to start another.
                Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Ok(Some(Frame::Closed(None)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next JSON notification.
    #[track_caller]
    pub fn notification(&mut self) -> Value {
        match self.frame() {
            Frame::Json(value) if value.get("method").is_some() => value,
            other => panic!("expected a notification, got {other:?}"),
        }
    }

    /// Submits a job that must be accepted; marks its processes for the harness.
    #[track_caller]
    pub fn submit(&mut self, job: Value) -> Value {
        self.ok("job.submit", job)["job"].clone()
    }

    /// Begins a tail; returns the subscription.
    #[track_caller]
    pub fn tail(&mut self, params: Value) -> u64 {
        let reply = self.ok("job.tail", params);
        assert!(reply["job"].is_object(), "{reply}");
        reply["subscription"].as_u64().expect("an integer")
    }

    /// Takes notifications of this subscription until its last one.
    #[track_caller]
    pub fn follow(&mut self, subscription: u64, transcript: &mut Transcript) {
        while transcript.end.is_none() {
            self.step(subscription, transcript);
        }
    }

    /// Takes one notification of this subscription; others are an error.
    #[track_caller]
    pub fn step(&mut self, subscription: u64, transcript: &mut Transcript) {
        match self.frame() {
            Frame::Json(value) => {
                assert_eq!(value["params"]["subscription"], subscription, "{value}");
                transcript.take(&value);
            }
            Frame::Binary(frame) => {
                assert_eq!(u64::from(frame.subscription), subscription);
                transcript.take_binary(&frame);
            }
            other => panic!("expected output, got {other:?}"),
        }
    }

    /// Tails a job from 0 to its end.
    #[track_caller]
    pub fn whole(&mut self, job: &Value) -> Transcript {
        let subscription = self.tail(json!({"job": job["id"]}));
        let mut transcript = Transcript::default();
        self.follow(subscription, &mut transcript);
        transcript
    }

    /// Waits until a job is final; returns it.
    #[track_caller]
    pub fn finished(&mut self, job: &Value) -> Value {
        let seconds = CEILING.as_secs();
        let params = json!({"jobs": [job["id"]], "timeout_s": seconds});
        let reply = self.ok("job.wait", params);
        assert_eq!(reply["met"], true, "{reply}");
        reply["job"].clone()
    }

    /// Waits until a process of the job has started.
    #[track_caller]
    pub fn started(&mut self, job: &Value) -> Value {
        let seconds = CEILING.as_secs();
        let params = json!({"jobs": [job["id"]], "until": "running", "timeout_s": seconds});
        let reply = self.ok("job.wait", params);
        assert_eq!(reply["met"], true, "{reply}");
        reply["job"].clone()
    }

    /// The job as it is now.
    #[track_caller]
    pub fn get(&mut self, job: &Value) -> Value {
        self.ok("job.get", json!({"job": job["id"]}))
    }

    /// Does something to a job.
    #[track_caller]
    pub fn control(&mut self, job: &Value, action: &str) -> Value {
        self.ok("job.control", json!({"job": job["id"], "action": action}))
    }

    /// Downloads all stored output with `job.read`.
    #[track_caller]
    pub fn download(&mut self, job: &Value, max_bytes: u64) -> Vec<u8> {
        let mut transcript = Transcript::default();
        loop {
            let params = json!({"job": job["id"], "from": transcript.next_offset,
                                "max_bytes": max_bytes, "wait_ms": 1000});
            let reply = self.ok("job.read", params);
            for chunk in reply["chunks"].as_array().expect("chunks") {
                transcript.take(&json!({"method": "job.output", "params": chunk}));
            }
            assert_eq!(reply["next_offset"], transcript.next_offset, "{reply}");
            if reply["end"].is_object() {
                return transcript.bytes;
            }
        }
    }

    /// Proves that the session still works.
    #[track_caller]
    pub fn still_works(&mut self) {
        assert!(self.ok("server.info", json!({}))["version"].is_string());
    }
}

/// The status with which an upgrade is refused.
#[track_caller]
pub fn connect_refused(listen: &str, token: Option<&str>) -> (u16, Option<String>) {
    match Client::try_tcp(listen, token) {
        Ok(_) => panic!("the upgrade was accepted"),
        Err(Error::Http(response)) => {
            let header = response.headers().get("retry-after");
            let text = header.and_then(|value| value.to_str().ok());
            (response.status().as_u16(), text.map(str::to_owned))
        }
        Err(error) => panic!("not an HTTP answer: {error}"),
    }
}

fn upgrade_request(host: &str, token: Option<&str>, path: &str) -> Request {
    let mut request = format!("ws://{host}{path}")
        .into_client_request()
        .expect("a request");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    request
}

fn handshake(
    wire: Box<dyn Wire>,
    request: Request,
) -> Result<(WebSocket<Box<dyn Wire>>, Response), Error> {
    tokio_tungstenite::tungstenite::client(request, wire).map_err(|error| match error {
        HandshakeError::Failure(error) => error,
        HandshakeError::Interrupted(_) => panic!("the upgrade took longer than the ceiling"),
    })
}

fn frame_of(message: Message) -> Option<Frame> {
    match message {
        Message::Text(text) => {
            assert!(text.len() <= 1 << 20, "a message of {} bytes", text.len());
            // Not `from_str`, which is compiled into this crate, and so without optimisation.
            let value = text.parse().expect("every text message is JSON");
            Some(Frame::Json(value))
        }
        Message::Binary(bytes) => {
            assert!(bytes.len() <= 1 << 20, "a message of {} bytes", bytes.len());
            Some(Frame::Binary(BinaryFrame::parse(&bytes)))
        }
        Message::Close(close) => Some(Frame::Closed(close.map(|c| code_of(c.code)))),
        Message::Pong(bytes) => Some(Frame::Pong(bytes.to_vec())),
        Message::Ping(_) | Message::Frame(_) => None,
    }
}

fn code_of(code: CloseCode) -> u16 {
    code.into()
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn split(mut reply: Value) -> Result<Value, Value> {
    assert_eq!(reply["jsonrpc"], "2.0", "{reply}");
    let error = reply["error"].take();
    if error.is_null() {
        return Ok(reply["result"].take());
    }
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    assert!(error["data"]["kind"].is_string(), "no kind: {error}");
    Err(error)
}
