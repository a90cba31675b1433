//! Hostile bytes and hostile connections: what a client may send, hold back or refuse to read, and
//! that nobody else notices. The table is docs/hostile.md.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame as WireFrame,
        coding::{Data, OpCode},
    },
};

use crate::harness::{
    CEILING, Client, Frame, Horde, Server, Target, Transcript, memory, text_frame, until,
    until_true,
};

const MIB: u64 = 1 << 20;

/// Reads until the other side closes, or fails.
fn drain(stream: &mut (impl Read + ?Sized)) -> Vec<u8> {
    let (mut all, mut scratch) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => return all,
            Ok(length) => all.extend(&scratch[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("not closed within the ceiling: {error}"),
        }
    }
}

fn tcp(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.listen()).expect("connect");
    stream.set_read_timeout(Some(CEILING)).expect("a timeout");
    stream
}

fn unix(server: &Server) -> UnixStream {
    let stream = UnixStream::connect(server.socket()).expect("connect");
    stream.set_read_timeout(Some(CEILING)).expect("a timeout");
    stream
}

/// An upgraded connection that nobody reads: requests are bytes.
fn upgraded(server: &Server) -> TcpStream {
    let mut stream = tcp(server);
    let (host, token) = (server.listen(), server.token());
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("send");
    stream
}

/// Whether the other side has closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a mode");
    let read = stream.read(&mut [0; 1]);
    stream.set_nonblocking(false).expect("a mode");
    match read {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

fn rss(server: &Server) -> u64 {
    memory(server.pid(), "VmRSS")
}

/// A final job with so much output.
fn job_with(client: &mut Client, bytes: u64) -> Value {
    let line = format!("yes some line of output | head -c {bytes}");
    let job = client.submit(json!({ "shell": line }));
    client.finished(&job)
}

#[test]
fn a_number_of_ten_megabytes_closes() {
    let server = Server::start();
    let mut client = server.connect();
    let digits = "9".repeat(10_000_000);
    let text = format!(r#"{{"jsonrpc":"2.0","id":{digits},"method":"server.info"}}"#);
    client.send_to_closing(Message::text(text));
    assert_eq!(client.closed(), Some(1009));
    server.connect().still_works();
}

#[test]
fn utf_16_is_not_taken_for_json() {
    let server = Server::start();
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"server.info"}"#;
    let wide = |order: fn(u16) -> [u8; 2]| request.encode_utf16().flat_map(order).collect();
    // Without a byte order mark it is UTF-8 with a NUL between the letters.
    for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes)] {
        let mut client = server.connect();
        let bytes: Vec<u8> = bytes;
        client.send(String::from_utf8(bytes).expect("ASCII and NUL"));
        let Frame::Json(reply) = client.frame() else {
            panic!("no reply")
        };
        assert_eq!(reply["error"]["code"], -32700);
        client.still_works();
    }
    let mut client = server.connect();
    let marked = [vec![0xff, 0xfe], wide(u16::to_le_bytes)].concat();
    let code = OpCode::Data(Data::Text);
    client.send_to_closing(Message::Frame(WireFrame::message(marked, code, true)));
    assert_eq!(client.closed(), Some(1007));
}

#[test]
fn a_request_in_fragments_of_one_byte_is_a_request() {
    let server = Server::start();
    let mut client = server.connect();
    let text = r#"{"jsonrpc":"2.0","id":"é","method":"server.info"}"#;
    for (at, byte) in text.bytes().enumerate() {
        let code = match at {
            0 => OpCode::Data(Data::Text),
            _ => OpCode::Data(Data::Continue),
        };
        let last = at + 1 == text.len();
        client.send_message(Message::Frame(WireFrame::message(vec![byte], code, last)));
        if at % 10 == 0 {
            client.send_message(Message::Ping("between".into()));
        }
    }
    assert!(client.reply_to(&json!("é")).is_ok());
}

#[test]
fn frames_that_break_the_protocol_close() {
    let server = Server::start();
    for (what, bytes) in [
        ("an unmasked frame", vec![0x81, 0x02, b'{', b'}']),
        ("a reserved bit", vec![0xc1, 0x80, 0, 0, 0, 0]),
        ("an unknown opcode", vec![0x83, 0x80, 0, 0, 0, 0]),
        ("a fragmented ping", vec![0x09, 0x80, 0, 0, 0, 0]),
        ("a continuation of nothing", vec![0x80, 0x80, 0, 0, 0, 0]),
        (
            "a ping of 126 bytes",
            [vec![0x89, 0xfe, 0, 126], vec![0; 130]].concat(),
        ),
    ] {
        let mut client = server.connect();
        client.send_raw(&bytes);
        assert_eq!(client.closed(), Some(1002), "{what}");
    }
    server.connect().still_works();
}

#[test]
fn a_flood_of_pings_harms_nobody() {
    let server = Server::start();
    let (mut reading, mut deaf) = (server.connect(), server.connect());
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(50_000);
    reading.send_raw(&pings);
    deaf.send_raw(&pings);
    assert_eq!(reading.frame(), Frame::Pong(Vec::new()));
    server.connect().still_works();
    reading.still_works();
    deaf.still_works();
}

#[test]
fn a_head_that_does_not_come_is_waited_for_only_so_long() {
    let server = Server::with(&[], &[("CC_EXECUTOR_HANDSHAKE_TIMEOUT_S", "1")]);
    let mut silent = tcp(&server);
    assert_eq!(drain(&mut silent), b"", "who says nothing is told nothing");
    drain(&mut unix(&server));
    let mut slow = tcp(&server);
    slow.write_all(b"GET /ws HTTP/1.1\r\nHo").expect("send");
    drain(&mut slow);
    // A byte now and then does not buy more time.
    let mut dripping = tcp(&server);
    let every = Duration::from_millis(20);
    dripping.set_read_timeout(Some(every)).expect("a timeout");
    let mut left = "GET /ws HTTP/1.1\r\nX-Long: "
        .bytes()
        .chain(std::iter::repeat(b'x'));
    until_true("a slow head to be given up", || {
        let byte = [left.next().expect("endless")];
        if dripping.write_all(&byte).is_err() {
            return true;
        }
        match dripping.read(&mut [0; 256]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    });
    server.connect().still_works();
}

#[test]
fn heads_that_are_no_requests_are_refused() {
    let server = Server::start();
    let host = server.listen();
    let long = format!(
        "GET /health HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let many = format!(
        "GET /health HTTP/1.1\r\nHost: {host}\r\n{}\r\n",
        "X: y\r\n".repeat(500)
    );
    let tls = "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}";
    for junk in [
        long.as_str(),
        many.as_str(),
        tls,
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "\r\n\r\n\r\n\r\nX",
    ] {
        let mut stream = tcp(&server);
        // It may hang up before all of it is sent.
        let _ = stream.write_all(junk.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = String::from_utf8_lossy(&drain(&mut stream)).into_owned();
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{junk:.40}: {answer}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn half_open_connections_give_way_to_honest_ones() {
    let bounds = [
        ("CC_EXECUTOR_TCP_CONNECTIONS_MAX", "8"),
        ("CC_EXECUTOR_UNIX_CONNECTIONS_MAX", "8"),
    ];
    let server = Server::with(&[], &bounds);
    let mut honest = server.connect();
    let mut half_open: Vec<TcpStream> = (0..50).map(|_| tcp(&server)).collect();
    let _silent: Vec<UnixStream> = (0..50).map(|_| unix(&server)).collect();
    server.connect().still_works();
    Client::unix(&server.socket()).still_works();
    honest.still_works();
    // The first ones went, the last ones are still waited for.
    until_true("the first to be closed", || {
        half_open[..40].iter_mut().all(is_closed)
    });
    assert!(!is_closed(&mut half_open[49]));
    drop(half_open);
    // Sessions that have just left may keep their places for a moment.
    let again = || Client::try_tcp(server.listen(), Some(&server.token())).ok();
    let mut sessions: Vec<Client> = (0..7).map(|_| until("a place", again)).collect();
    let full = server.http("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(full.status, 503, "known ones give way to nobody");
    sessions.iter_mut().for_each(Client::still_works);
    drop((sessions, honest));
    until("a place", again);
}

#[test]
fn a_server_without_a_free_descriptor_goes_on_when_there_are_some_again() {
    let server = Server::start();
    let mut honest = server.connect();
    let pid = Pid::from_raw(server.pid()).expect("a process");
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .expect("descriptors")
        .count();
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    let few = Rlimit {
        current: Some(open as u64 + 4),
        ..before
    };
    prlimit(Some(pid), Resource::Nofile, few).expect("a lower limit");
    let many: Vec<TcpStream> = (0..50).map(|_| tcp(&server)).collect();
    until_true("the descriptors to be used up", || {
        server.said().contains("could not accept a connection")
    });
    honest.still_works();
    drop(many);
    server.connect().still_works();
    prlimit(Some(pid), Resource::Nofile, raised).expect("the limit of before");
}

/// The lowest number that no descriptor of a process has: a limit that lets it open nothing more.
fn lowest_free(pid: i32) -> u64 {
    let is_open = |number: &u64| Path::new(&format!("/proc/{pid}/fd/{number}")).exists();
    (0..).find(|number| !is_open(number)).expect("a number")
}

#[test]
fn a_tail_without_a_descriptor_for_its_segment_goes_on_when_there_is_one() {
    let server = Server::start();
    let gate = server.scratch("gate");
    let script = format!(
        "echo one; until [ -e {} ]; do sleep 0.05; done; echo two",
        gate.display()
    );
    let mut client = server.connect();
    let mut other = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["/bin/sh", "-c", script]})));
    let tail = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    while transcript.bytes.is_empty() {
        client.step(tail, &mut transcript);
    }
    let pid = Pid::from_raw(server.pid()).expect("a process");
    let before = getrlimit(Resource::Nofile);
    let limit = |current| {
        let limit = Rlimit { current, ..before };
        prlimit(Some(pid), Resource::Nofile, limit).expect("a limit");
    };
    limit(Some(lowest_free(server.pid())));
    let read = json!({"job": job["id"], "from": 0});
    other.refused(-32006, "job.read", read);
    fs::write(&gate, "").expect("a gate");
    until_true("the tail to meet the shortage", || {
        // Once for the read, then for the tail.
        let said = server.said();
        said.matches("a segment cannot be read now").count() > 1
    });
    limit(before.maximum);
    client.follow(tail, &mut transcript);
    assert_eq!(transcript.bytes, b"one\ntwo\n");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn a_stranger_may_send_only_a_little() {
    let server = Server::start();
    let before = rss(&server);
    let mut strangers: Vec<Client> = (0..16)
        .map(|_| Client::tcp(server.listen(), None))
        .collect();
    let long = text_frame(&vec![b' '; 1_000_000]);
    for stranger in &mut strangers {
        // All but the end of a long message; the server may hang up before it is out.
        stranger.send_to_closing(Message::text(" ".repeat(1000)));
        let _ = stranger.try_send_raw(&long[..900_000]);
    }
    for stranger in &mut strangers {
        assert_eq!(stranger.closed(), Some(1008));
    }
    let grown = rss(&server).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes");
    let mut pinging = Client::tcp(server.listen(), None);
    let _ = pinging.try_send_raw(&[0x89, 0x80, 0, 0, 0, 0].repeat(100_000));
    assert_eq!(pinging.closed(), Some(1008), "pings count too");
    let mut friend = Client::tcp(server.listen(), None);
    friend.ok("session.authenticate", json!({"token": server.token()}));
    friend.send(format!("{{}}{}", " ".repeat(500_000)));
    friend.still_works();
}

#[test]
fn a_client_that_says_nothing_and_answers_no_ping_is_left() {
    let every_second = [
        ("CC_EXECUTOR_PING_INTERVAL_S", "1"),
        ("CC_EXECUTOR_PINGS_UNANSWERED_MAX", "2"),
    ];
    let server = Server::with(&[], &every_second);
    let mut stream = upgraded(&server);
    // A frame that never ends, a byte at a time, is no sign of life.
    stream
        .write_all(&text_frame(&[b' '; 1000])[..20])
        .expect("send");
    let every = Duration::from_millis(50);
    stream.set_read_timeout(Some(every)).expect("a timeout");
    until_true("the silent session to be left", || {
        stream.write_all(b" ").is_err() || stream.read(&mut [0; 512]).is_ok_and(|n| n == 0)
    });
    server.connect().still_works();
}

#[test]
fn hundreds_of_unread_tails_cost_little() {
    let server = Server::start();
    let mut client = server.connect();
    let job = job_with(&mut client, 20_000_000);
    let before = rss(&server);
    let mut deaf: Vec<Client> = (0..4).map(|_| Client::unix(&server.socket())).collect();
    for session in &mut deaf {
        for _ in 0..256 {
            session.begin("job.tail", json!({"job": job["id"]}));
        }
    }
    // They have taken what they take once an honest tail beside them is through.
    client.whole(&job).verified();
    let grown = rss(&server).saturating_sub(before);
    assert!(
        grown < 40 * MIB,
        "{grown} bytes for 1024 tails that nobody reads"
    );
}

#[test]
fn waits_for_long_jobs_do_not_hold_them() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    let long = json!({"argv": ["true", "x".repeat(800 << 10)], "queue": "closed"});
    let job = client.submit(long);
    let before = rss(&server);
    let jobs = vec![job["number"].clone(); 200];
    let waits: Vec<i64> = (0..4)
        .map(|_| client.begin("job.wait", json!({"jobs": jobs, "mode": "all"})))
        .collect();
    let told = client.ok("job.wait", json!({"jobs": jobs, "timeout_s": 0}));
    assert_eq!(
        (&told["met"], &told["truncated"]),
        (&json!(false), &json!(true))
    );
    // Whole, they would be 160 MiB for each wait.
    let grown = rss(&server).saturating_sub(before);
    assert!(grown < 100 * MIB, "{grown} bytes");
    client.control(&job, "cancel");
    for wait in waits {
        let told = client.reply(wait).expect("answered");
        assert_eq!(told["met"], json!(true));
    }
}

#[test]
fn answers_to_waits_that_nobody_reads_cost_little() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    let long = json!({"argv": ["true", "x".repeat(800 << 10)], "queue": "closed"});
    let job = client.submit(long);
    let before = rss(&server);
    let mut deaf = Client::unix(&server.socket());
    for _ in 0..64 {
        deaf.begin(
            "job.wait",
            json!({"jobs": [job["number"]], "until": "final"}),
        );
    }
    client.control(&job, "cancel");
    let told = client.ok("job.wait", json!({"jobs": [job["number"]]}));
    assert_eq!(told["met"], json!(true));
    client.ok("job.list", json!({}));
    let grown = rss(&server).saturating_sub(before);
    assert!(grown < 40 * MIB, "{grown} bytes for 64 answers of 800 KB");
}

#[test]
fn long_requests_ahead_of_unread_replies_cost_little() {
    let server = Server::start();
    let mut client = server.connect();
    let job = job_with(&mut client, 2_000_000);
    let before = rss(&server);
    let flood = |request: Value| {
        let frame = text_frame(request.to_string().as_bytes());
        let mut stream = upgraded(&server);
        let stuck = Duration::from_secs(1);
        stream.set_write_timeout(Some(stuck)).expect("a timeout");
        // Until nothing more is taken, or more than all buffers on the way hold.
        let mut sent = 0;
        while sent < 6_000_000 && stream.write_all(&frame).is_ok() {
            sent += frame.len();
        }
        stream
    };
    let read = json!({"job": job["id"], "from": 0, "max_bytes": 512 << 10});
    let argv = ["true".to_owned(), "x".repeat(800_000)];
    let many = json!({"jsonrpc": "2.0", "id": 1, "method": "job.get", "params":
        {"job": vec![json!({"a": 0}); 100_000]}});
    let _streams: Vec<_> = (0..2)
        .flat_map(|_| {
            [
                flood(json!({"jsonrpc": "2.0", "id": 1, "method": "job.read", "params": read})),
                flood(
                    json!({"jsonrpc": "2.0", "id": 1, "method": "job.submit", "params":
                    {"argv": argv, "colour": 1}}),
                ),
                flood(many.clone()),
            ]
        })
        .collect();
    client.still_works();
    let grown = rss(&server).saturating_sub(before);
    assert!(
        grown < 80 * MIB,
        "{grown} bytes for 12 sessions that nobody reads"
    );
}

/// Each of these sessions is within its own bounds; all of them together are not.
#[test]
fn whose_clients_do_nothing_let_go_when_all_hold_too_much() {
    let small = [("CC_EXECUTOR_HELD_BYTES_MAX", "4194304")];
    let server = Server::with(&[], &small);
    let mut honest = server.connect();
    let job = job_with(&mut honest, 2_000_000);
    let long = text_frame(&vec![b' '; 1_000_000]);
    let read = json!({"job": job["id"], "from": 0, "max_bytes": 512 << 10});
    let mut endless: Vec<Client> = Vec::new();
    let mut deaf: Vec<Client> = Vec::new();
    for round in 0..12 {
        let mut session = Client::unix(&server.socket());
        session.send_raw(&long[..600_000]);
        endless.push(session);
        let mut session = Client::unix(&server.socket());
        for _ in 0..4 {
            session.begin("job.read", read.clone());
        }
        deaf.push(session);
        // It pauses between the two for as long as it likes.
        let stdin = "x".repeat(900_000);
        let params = json!({"argv": ["true"], "stdin": stdin, "name": round.to_string()});
        honest.submit(params);
        let told = honest.ok("job.read", read.clone());
        assert_eq!(told["next_offset"], 512 << 10);
    }
    assert_eq!(endless[0].closed(), Some(1013));
    // It gets what was on its way, and nothing more.
    let mut replies = 0;
    while let Frame::Json(_) = deaf[0].frame_or_closed() {
        replies += 1;
    }
    assert!(replies < 4, "nothing was held for it");
    until_true("the log to say so", || {
        server.said().contains("held_bytes_max")
    });
    honest.still_works();
    let limits = honest.ok("server.info", json!({}))["limits"].clone();
    assert_eq!(limits["held_bytes_max"], 4 << 20);
}

/// The bounds that `config` shows as numbers are those that `server.info` tells.
#[test]
fn every_bound_is_told() {
    let server = Server::with(&[], &[("CC_EXECUTOR_SUBSCRIPTIONS_MAX", "7")]);
    let mut client = server.connect();
    let limits = client.ok("server.info", json!({}))["limits"].clone();
    assert_eq!(limits["subscriptions_max"], 7);
    assert_eq!(client.hello["params"]["limits"]["subscriptions_max"], 7);
    let all = server.cli("config").args(["--json"]).run().json();
    let rows = all.as_object().expect("rows").iter();
    let numbers = rows.filter(|(_, row)| row["value"].is_u64());
    let names: Vec<&String> = numbers.map(|(name, _)| name).collect();
    assert!(names.len() > 15, "{all}");
    for name in names {
        assert!(
            limits[name.as_str()].is_u64(),
            "{name} is not told: {limits}"
        );
    }
    for name in [
        "spool_bytes_max",
        "free_bytes_min",
        "read_bytes_max",
        "wait_jobs_max",
    ] {
        assert!(limits.get(name).is_some(), "{name} is not told: {limits}");
    }
    for (name, value) in client.hello["params"]["limits"]
        .as_object()
        .expect("limits")
    {
        assert_eq!(limits[name.as_str()], *value, "{name} in the greeting");
    }
}

/// The short version of `just bench-hostile`: no clocks, only bytes.
#[test]
fn two_hundred_hostile_connections_leave_honest_ones_unharmed() {
    let server = Server::start();
    let mut client = server.connect();
    let bait = job_with(&mut client, 16 << 20);
    let before = rss(&server);
    let target = Target {
        listen: server.listen().to_owned(),
        token: server.token(),
        socket: server.socket(),
        job: bait,
    };
    let horde = Horde::send(&target, 200);
    until_true("all of them to have begun", || horde.rounds() > 100);
    let line = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done";
    let job = client.submit(server.marked(json!({ "shell": line })));
    let expected: String = (0..200).map(|i| format!("line {i}\n")).collect();
    for n in 0..4 {
        let mut honest = match n % 2 {
            0 => server.connect(),
            _ => Client::unix(&server.socket()),
        };
        let transcript = honest.whole(&job);
        assert_eq!(String::from_utf8_lossy(&transcript.bytes), expected);
        transcript.verified();
    }
    assert_eq!(server.get("/health").status, 200);
    let grown = rss(&server).saturating_sub(before);
    drop(horde);
    assert!(grown < 100 * MIB, "{grown} bytes");
}
