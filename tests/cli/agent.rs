//! An agent at the other end of `cc-executor mcp`: raw lines in both directions.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::harness::{BINARY, CEILING, MARK, Server, until};

/// What a client of the newest revision sends with every request.
fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// A running `cc-executor mcp`.
pub struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its stdout, until it is read.
    unread: Option<ChildStdout>,
    lines: Option<mpsc::Receiver<String>>,
    /// Answers that came before they were asked for.
    early: RefCell<HashMap<String, Value>>,
}

impl Agent {
    /// Starts one on a data directory; `more` changes how.
    #[track_caller]
    pub fn start(place: &Server, more: impl FnOnce(&mut Command)) -> Self {
        let mut agent = Self::that_does_not_read(&place.data_dir(), more);
        agent.read();
        agent
    }

    /// One that reads no answer before [`Self::read`].
    #[track_caller]
    pub fn that_does_not_read(data_dir: &Path, more: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("mcp").env(MARK, data_dir);
        command.env("CC_EXECUTOR_DATA_DIR", data_dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        more(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        Self {
            stdin: child.stdin.take(),
            unread: child.stdout.take(),
            child,
            lines: None,
            early: RefCell::default(),
        }
    }

    /// An agent of an older revision that has opened its session.
    #[track_caller]
    pub fn opened(place: &Server) -> Self {
        let mut agent = Self::start(place, |_| {});
        agent.open();
        agent
    }

    /// Opens a session.
    #[track_caller]
    pub fn open(&mut self) {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        self.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        let opened = self.answer(0);
        assert_eq!(
            opened["result"]["serverInfo"]["name"], "cc-executor",
            "{opened}"
        );
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    /// Begins to read what it prints.
    pub fn read(&mut self) {
        let stdout = self.unread.take().expect("not read yet");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.expect("UTF-8");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        self.lines = Some(lines);
    }

    /// Closes its end of stdout.
    pub fn close_stdout(&mut self) {
        drop(self.unread.take().expect("not read yet"));
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(bytes).expect("it reads");
    }

    /// Sends a message.
    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes());
    }

    /// Sends a request of the older revisions.
    #[track_caller]
    pub fn request(&mut self, id: i64, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    /// Calls a tool.
    #[track_caller]
    pub fn call(&mut self, id: i64, tool: &str, arguments: Value) {
        self.request(
            id,
            "tools/call",
            json!({"name": tool, "arguments": arguments}),
        );
    }

    /// Calls a tool as a client of the newest revision.
    #[track_caller]
    pub fn call_newest(&mut self, id: i64, tool: &str, arguments: Value) {
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta()});
        self.request(id, "tools/call", params);
    }

    /// The next line, which must be a message.
    #[track_caller]
    pub fn next(&self) -> Value {
        let lines = self.lines.as_ref().expect("it reads");
        let line = lines.recv_timeout(CEILING).expect("a line");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// The answer to a request; others are kept.
    #[track_caller]
    pub fn answer(&self, id: impl Into<Value>) -> Value {
        let id = id.into().to_string();
        loop {
            if let Some(answer) = self.early.borrow_mut().remove(&id) {
                return answer;
            }
            let message = self.next();
            let of = message["id"].to_string();
            assert!(message.get("method").is_none(), "{message}");
            let before = self.early.borrow_mut().insert(of, message);
            assert_eq!(before, None, "answered twice");
        }
    }

    /// The text of a tool's result, and whether it is an error.
    #[track_caller]
    pub fn told(&self, id: i64) -> (String, bool) {
        let answer = self.answer(id);
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str();
        let text = text.unwrap_or_else(|| panic!("no text: {answer}"));
        (text.to_owned(), result["isError"] == true)
    }

    /// Whether a line waits that nobody has asked for.
    pub fn has_more(&self) -> bool {
        let lines = self.lines.as_ref().expect("it reads");
        !self.early.borrow().is_empty() || lines.try_recv().is_ok()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("our child");
    }

    /// Closes stdin.
    pub fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits for its end: its exit code, and what it said if stderr is a pipe.
    #[track_caller]
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let status = until("the end of mcp", || {
            self.child.try_wait().expect("our child")
        });
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut said).expect("read");
        }
        (status.code(), said)
    }

    /// Closes stdin and waits for its end, which must be a good one.
    #[track_caller]
    pub fn leave(mut self) {
        self.close_stdin();
        assert_eq!(self.ended().0, Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
