//! A horde of hostile connections: half-open, slow, deaf and flooding, mixed, on every door, in one
//! thread. What is closed on them they open again. They know the protocol's bytes and nothing else.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

/// Between two rounds over all connections.
const ROUND: Duration = Duration::from_millis(5);
/// A slow one sends a byte in so many rounds.
const SLOW_ROUNDS: u64 = 20;
/// One that was closed comes back after so many rounds.
const BACK_ROUNDS: u64 = 100;
/// Most bytes that a flooding one sends in a round.
const ROUND_BYTES: usize = 256 << 10;
/// So much at least of what is sent again and again goes into one write: a horde that spends its
/// time in system calls takes the processors from the honest instead of keeping the server busy.
const WRITE_BYTES: usize = 64 << 10;

/// Where they go.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub listen: String,
    /// What the insiders among them know.
    pub token: String,
    /// The Unix socket.
    pub socket: PathBuf,
    /// A job with much output.
    pub job: Value,
}

/// By which door one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Stranger,
    Insider,
    Unix,
}

/// What one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Connects and is silent.
    HalfOpen,
    /// Sends its head a byte at a time.
    SlowHead,
    /// Asks for `/health` without end and reads no answer.
    Health,
    /// The same with a foreign Host.
    Foreign,
    /// Tails that are never read.
    Deaf,
    /// Large reads that are never read.
    DeafReads,
    /// Requests as fast as they are taken.
    Requests,
    /// The same with what is no request.
    Garbage,
    /// Pings.
    Pings,
    /// Most of a long message at once, the rest a byte at a time.
    SlowFrame,
    /// Submits of nearly 1 MiB, one behind the other, replies unread.
    LongSubmits,
    /// Messages that are small as text and large as values.
    Values,
}

/// So many of a thousand.
const MIX: [(Door, Kind, usize); 23] = [
    (Door::Stranger, Kind::HalfOpen, 150),
    (Door::Stranger, Kind::SlowHead, 150),
    (Door::Stranger, Kind::Health, 30),
    (Door::Stranger, Kind::Foreign, 20),
    (Door::Stranger, Kind::Garbage, 30),
    (Door::Stranger, Kind::Pings, 20),
    (Door::Insider, Kind::Deaf, 15),
    (Door::Insider, Kind::DeafReads, 5),
    (Door::Insider, Kind::Requests, 10),
    (Door::Insider, Kind::Garbage, 5),
    (Door::Insider, Kind::Pings, 5),
    (Door::Insider, Kind::SlowFrame, 10),
    (Door::Insider, Kind::LongSubmits, 5),
    (Door::Insider, Kind::Values, 5),
    (Door::Unix, Kind::HalfOpen, 150),
    (Door::Unix, Kind::SlowHead, 90),
    (Door::Unix, Kind::Deaf, 150),
    (Door::Unix, Kind::DeafReads, 30),
    (Door::Unix, Kind::Requests, 30),
    (Door::Unix, Kind::Garbage, 20),
    (Door::Unix, Kind::Pings, 20),
    (Door::Unix, Kind::SlowFrame, 40),
    (Door::Unix, Kind::LongSubmits, 10),
];

/// The running horde; ends when it is dropped.
pub struct Horde {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Horde {
    /// Sends about so many.
    pub fn send(target: &Target, count: usize) -> Self {
        let (over, rounds) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<AtomicU64>::default(),
        );
        let mut all: Vec<Raider> = MIX
            .iter()
            .flat_map(|(door, kind, weight)| {
                let number = (weight * count).div_ceil(1000);
                (0..number).map(|_| Raider::new(target, *door, *kind))
            })
            .collect();
        let thread = thread::spawn({
            let (over, rounds) = (over.clone(), rounds.clone());
            move || {
                while !over.load(Ordering::SeqCst) {
                    let round = rounds.fetch_add(1, Ordering::SeqCst);
                    all.iter_mut().for_each(|one| one.step(round));
                    #[expect(clippy::disallowed_methods, reason = "paces the horde")]
                    thread::sleep(ROUND);
                }
            }
        });
        Self {
            over,
            rounds,
            thread: Some(thread),
        }
    }

    /// How often each of them has had its turn.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }
}

impl Drop for Horde {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Raider {
    target: Target,
    door: Door,
    /// Sent once.
    first: Vec<u8>,
    /// Sent again and again behind it.
    then: Vec<u8>,
    /// From this byte on one at a time.
    slow_from: usize,
    /// Whether it reads what it gets (and throws it away).
    reads: bool,
    sent: usize,
    stream: Option<Box<dyn Stream>>,
    back_at: u64,
}

impl Raider {
    fn new(target: &Target, door: Door, kind: Kind) -> Self {
        let head = head(target, door, kind);
        let (first, once) = words(kind, &head, &target.job);
        let then = match once.len() {
            0 => once,
            length => once.repeat(WRITE_BYTES.div_ceil(length)),
        };
        let slow_from = match kind {
            Kind::SlowHead => 0,
            Kind::SlowFrame => head.len() + (600 << 10),
            _ => usize::MAX,
        };
        Self {
            target: target.clone(),
            door,
            first,
            then,
            slow_from,
            reads: matches!(kind, Kind::Requests | Kind::Garbage | Kind::Values),
            sent: 0,
            stream: None,
            back_at: 0,
        }
    }

    fn step(&mut self, round: u64) {
        if self.stream.is_none() && round >= self.back_at {
            self.sent = 0;
            self.stream = self.connect();
            self.back_at = round + BACK_ROUNDS;
        }
        if self.try_step(round).is_err() {
            self.stream = None;
        }
    }

    fn connect(&self) -> Option<Box<dyn Stream>> {
        if self.door == Door::Unix {
            let stream = UnixStream::connect(&self.target.socket).ok()?;
            stream.set_nonblocking(true).ok()?;
            return Some(Box::new(stream));
        }
        let stream = TcpStream::connect(&self.target.listen).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Box::new(stream))
    }

    fn try_step(&mut self, round: u64) -> std::io::Result<()> {
        if self.reads {
            self.read()?;
        }
        if self.sent >= self.slow_from {
            return match round % SLOW_ROUNDS {
                0 => self.write(1),
                _ => Ok(()),
            };
        }
        self.write(ROUND_BYTES.min(self.slow_from - self.sent))
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut scratch = vec![0; 64 << 10];
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        loop {
            match stream.read(&mut scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, mut budget: usize) -> std::io::Result<()> {
        while budget > 0 {
            let bytes = self.first.get(self.sent..).filter(|rest| !rest.is_empty());
            let bytes = bytes.unwrap_or_else(|| {
                let behind = self.sent - self.first.len();
                &self.then[behind.checked_rem(self.then.len()).unwrap_or(0)..]
            });
            let bytes = &bytes[..bytes.len().min(budget)];
            let Some(stream) = self.stream.as_mut().filter(|_| !bytes.is_empty()) else {
                return Ok(());
            };
            match stream.write(bytes) {
                Ok(written) => {
                    self.sent += written;
                    budget -= written;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The head of its request.
fn head(target: &Target, door: Door, kind: Kind) -> Vec<u8> {
    let host = match (kind, door) {
        (Kind::Foreign, _) => "evil.example",
        (_, Door::Unix) => "localhost",
        _ => &target.listen,
    };
    match kind {
        Kind::HalfOpen => return Vec::new(),
        Kind::Health | Kind::Foreign => {
            return format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        }
        _ => {}
    }
    let bearer = match door {
        Door::Insider => format!("Authorization: Bearer {}\r\n", target.token),
        _ => String::new(),
    };
    format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// What it sends once, its head first, and what again and again.
fn words(kind: Kind, head: &[u8], job: &Value) -> (Vec<u8>, Vec<u8>) {
    let request = |method: &str, params: Value| {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        text_frame(request.to_string().as_bytes())
    };
    let begin = |behind: &[u8]| [head, behind].concat();
    match kind {
        Kind::HalfOpen | Kind::SlowHead => (head.to_vec(), Vec::new()),
        Kind::Health | Kind::Foreign => (head.to_vec(), head.to_vec()),
        Kind::Deaf => {
            let tail = request("job.tail", json!({"job": job["id"]}));
            (begin(&tail.repeat(60)), Vec::new())
        }
        Kind::DeafReads => {
            let read = json!({"job": job["id"], "from": 0, "max_bytes": 512 << 10});
            (head.to_vec(), request("job.read", read))
        }
        Kind::Requests => (head.to_vec(), request("server.info", json!({}))),
        Kind::Garbage => (head.to_vec(), text_frame(b"[1,2,{\"a\":")),
        Kind::Pings => (head.to_vec(), vec![0x89, 0x80, 0, 0, 0, 0]),
        Kind::SlowFrame => (begin(&text_frame(&vec![b' '; 1 << 20])), Vec::new()),
        Kind::LongSubmits => {
            let stdin = "x".repeat(1_000_000);
            let job = json!({"argv": ["true"], "stdin": stdin, "colour": "unknown"});
            (head.to_vec(), request("job.submit", job))
        }
        Kind::Values => {
            let values = vec![json!({"a": 0}); 100_000];
            (head.to_vec(), request("job.get", json!({"job": values})))
        }
    }
}

/// A masked text frame; the mask is zero.
pub fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
