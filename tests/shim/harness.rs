//! Starts a shim in a directory of its own and plays the server: sends messages, waits for
//! answers, reads what was stored. What is asserted is the tests' business.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cc_executor::{
    job::{
        Exit, ExitFacts, JobId, JobNumber, Leftover, Offset, StopCause, StopRequest, Stream,
        WhenFull,
    },
    spool::{
        AttemptRef, DroppedRange, FromShim, Layout, Position, Record, RecordKind, RunSpec,
        SegmentName, SegmentReader, ShimKey, ShimState, ToShim, dropped_range,
        message::{self, MessageBuffer},
        reader::NextRecord,
    },
};

/// How long anything may take before a test gives up.
pub const CEILING: Duration = Duration::from_secs(60);

/// A data directory with a shim; both are gone when it is dropped.
pub struct Shim {
    pub dir: tempfile::TempDir,
    pub layout: Layout,
    pub id: String,
    pub process: Child,
}

impl Shim {
    /// A shim whose socket is there.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("spool")).expect("spool");
        Self::start_in(dir)
    }

    /// A shim in a directory that has a spool already.
    pub fn start_in(dir: tempfile::TempDir) -> Self {
        Self::begin(dir, None)
    }

    /// A shim that is given this key, as a server gives it.
    pub fn with_key(key: &ShimKey) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("spool")).expect("spool");
        Self::begin(dir, Some(key))
    }

    fn begin(dir: tempfile::TempDir, key: Option<&ShimKey>) -> Self {
        let layout = Layout::new(dir.path());
        fs::create_dir_all(layout.shims()).expect("shims");
        let id = "s1".to_owned();
        let mut process = Command::new(env!("CARGO_BIN_EXE_cc-executor"))
            .args(["shim", "--data-dir"])
            .arg(dir.path())
            .args(["--id", &id])
            .stdin(key.map_or_else(Stdio::null, |_| Stdio::piped()))
            .stdout(Stdio::null())
            .spawn()
            .expect("start the shim");
        if let (Some(key), Some(mut stdin)) = (key, process.stdin.take()) {
            stdin.write_all(key.bytes()).expect("handed over");
        }
        let shim = Self {
            dir,
            layout,
            id,
            process,
        };
        until("the socket is there", || shim.socket().exists());
        shim
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.layout.shims().join(Layout::shim_socket_name(&self.id))
    }

    /// The path of its lock.
    pub fn lock(&self) -> PathBuf {
        self.layout.shims().join(Layout::shim_lock_name(&self.id))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// A connection on which nothing has been said.
    pub fn connect(&self) -> Server {
        // A path within /proc is short, whatever the directory is called.
        let directory = fs::File::open(self.layout.shims()).expect("open shims");
        let fd = directory.as_raw_fd();
        let name = Layout::shim_socket_name(&self.id);
        let path = format!("/proc/self/fd/{fd}/{name}");
        let deadline = Instant::now() + CEILING;
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < deadline, "connect: {e}"),
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "between two looks at what nobody announces"
            )]
            std::thread::sleep(Duration::from_millis(2));
        };
        Server {
            stream,
            inbox: MessageBuffer::default(),
            unread: VecDeque::new(),
        }
    }

    /// A connection that has said hello, and the state that it was told.
    pub fn hello(&self, epoch: u64) -> (Server, ShimState) {
        let mut server = self.connect();
        let state = server.hello(epoch);
        (server, state)
    }

    /// Sends a signal to the shim.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("kill");
    }

    /// Waits until the shim has left.
    pub fn wait(&mut self) {
        let process = &mut self.process;
        until("the shim has left", || {
            process.try_wait().expect("wait").is_some()
        });
    }

    /// All records of an attempt, through all its segments.
    pub fn records(&self, job: JobNumber, attempt: u32) -> Vec<Record> {
        self.records_from(SegmentName {
            job,
            attempt,
            first_offset: 0,
        })
    }

    /// All records from this segment on; behind a hole they go on where it ends.
    pub fn records_from(&self, first: SegmentName) -> Vec<Record> {
        let hole = self.hole(first.job, first.attempt);
        let mut name = first;
        let mut records = Vec::new();
        loop {
            let position = Position::first(name);
            let mut reader = SegmentReader::open(&self.layout.spool(), position).expect("segment");
            let mut next = None;
            loop {
                match reader.next_record().expect("read") {
                    NextRecord::Record(header, payload) => {
                        if header.kind == RecordKind::Seal {
                            let offset = header.offset;
                            next = Some(hole.map_or(offset, |hole| hole.skip_past(offset)));
                        }
                        records.push(Record {
                            header,
                            payload: payload.to_vec(),
                        });
                    }
                    NextRecord::End => break,
                    NextRecord::Damaged => panic!("{name} is damaged"),
                }
            }
            match next {
                Some(first_offset) => {
                    name = SegmentName {
                        first_offset,
                        ..name
                    }
                }
                None => return records,
            }
        }
    }

    /// What was dropped in the middle of an attempt's output.
    pub fn hole(&self, job: JobNumber, attempt: u32) -> Option<DroppedRange> {
        dropped_range::read(&self.layout.spool(), job, attempt).expect("the hole")
    }

    /// What was stored of one stream of job 1.
    pub fn output(&self, stream: Stream) -> Vec<u8> {
        self.records(1, 1)
            .into_iter()
            .filter(|r| r.header.kind == RecordKind::Output && r.header.stream == stream)
            .fold(Vec::new(), |mut all, r| {
                all.extend_from_slice(&r.payload);
                all
            })
    }

    /// The facts of the exit record of job 1, which must be the last record.
    pub fn exit_record(&self) -> Option<ExitFacts> {
        let records = self.records(1, 1);
        let last = records
            .last()
            .filter(|r| r.header.kind == RecordKind::Exit)?;
        Some(serde_json::from_slice(&last.payload).expect("facts"))
    }

    /// Runs one job to its end with a server that is there all the time.
    pub fn run_to_end(&self, spec: RunSpec) -> ExitFacts {
        let (mut server, _) = self.hello(1);
        server.run(spec);
        let facts = server.exited();
        server.send(&ToShim::Release { job: 1, attempt: 1 });
        facts
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's end of a connection.
pub struct Server {
    stream: UnixStream,
    inbox: MessageBuffer,
    unread: VecDeque<FromShim>,
}

impl Server {
    pub fn send(&mut self, message: &ToShim) {
        self.stream
            .write_all(&message::encode(message))
            .expect("send");
    }

    /// Sends bytes that may be no message.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// The same, unless the shim has closed the connection.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a run.
    pub fn run(&mut self, spec: RunSpec) {
        self.send(&ToShim::Run(Box::new(spec)));
    }

    /// Says hello and returns the state of the welcome.
    pub fn hello(&mut self, epoch: u64) -> ShimState {
        self.send(&ToShim::Hello {
            epoch,
            instance: "instance".into(),
        });
        self.wait_for("welcome", |message| match message {
            FromShim::Welcome { state, .. } => Some(state.clone()),
            _ => None,
        })
    }

    /// The next message; `None` when the shim has closed the connection.
    pub fn receive(&mut self) -> Option<FromShim> {
        self.receive_within(CEILING).expect("a message in time")
    }

    /// The next message; `Err` when none came in time.
    pub fn receive_within(&mut self, time: Duration) -> Result<Option<FromShim>, ()> {
        if let Some(message) = self.unread.pop_front() {
            return Ok(Some(message));
        }
        self.stream
            .set_read_timeout(Some(time))
            .expect("set the timeout");
        let mut bytes = vec![0; 65536];
        loop {
            if let Some(json) = self.inbox.next_message().expect("short") {
                return Ok(Some(serde_json::from_slice(json).expect("a message")));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(n) => self.inbox.extend(&bytes[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Err(()),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads on until `pick` takes a message; the others are forgotten.
    pub fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&FromShim) -> Option<T>) -> T {
        let mut before = Vec::new();
        loop {
            let Some(message) = self.receive() else {
                panic!("closed while waiting for {what}; before: {before:?}");
            };
            if let Some(picked) = pick(&message) {
                return picked;
            }
            before.push(message);
        }
    }

    /// Waits for the start; the leader's pid.
    pub fn started(&mut self) -> i32 {
        self.wait_for("started", |message| match message {
            FromShim::Started { pid, .. } => Some(*pid),
            _ => None,
        })
    }

    /// Waits for the end.
    pub fn exited(&mut self) -> ExitFacts {
        self.exited_synced().0
    }

    /// Waits for the end; whether it was synced.
    pub fn exited_synced(&mut self) -> (ExitFacts, bool) {
        self.wait_for("exited", |message| match message {
            FromShim::Exited { facts, synced, .. } => Some(((**facts).clone(), *synced)),
            FromShim::Refused { why, .. } => panic!("refused: {why}"),
            _ => None,
        })
    }
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Waits for something to be there.
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + CEILING;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        #[expect(
            clippy::disallowed_methods,
            reason = "between two looks at what nobody announces"
        )]
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Job 1, attempt 1, with all defaults.
pub fn spec(argv: &[&str]) -> RunSpec {
    RunSpec {
        job: 1,
        job_id: JobId(uuid::Uuid::from_u128(7)),
        attempt: 1,
        start_offset: 0,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        cwd: "/".into(),
        env: vec![("PATH".into(), std::env::var("PATH").expect("PATH"))],
        secret_env: Vec::new(),
        redact: true,
        umask: 0o077,
        limits: cc_executor::job::Limits::default(),
        stdin: None,
        interactive: false,
        inputs: Vec::new(),
        timeout_ms: None,
        stall_timeout_ms: None,
        grace_ms: 10_000,
        leftover: Leftover::Kill,
        output_bytes_max: None,
        output_lines_max: None,
        when_full: WhenFull::Fail,
        segment_bytes: 4 << 20,
        inline_bytes_max: 256 << 10,
        spool_bytes_max: None,
        free_bytes_min: 0,
        stop: None,
        paused: false,
        cgroup: None,
        pinned: None,
        refusal: None,
    }
}

/// The same for a line of shell.
pub fn shell(line: &str) -> RunSpec {
    spec(&["/bin/sh", "-c", line])
}

/// A wish to stop.
pub fn cancel(grace_ms: u64) -> ToShim {
    let wish = StopRequest {
        by: "test".into(),
        cause: StopCause::Cancel,
        asked_at_us: 1,
        grace_ms,
    };
    let about = AttemptRef::default();
    ToShim::Stop {
        about,
        request: wish,
    }
}

/// A wish to kill.
pub fn kill() -> ToShim {
    let wish = StopRequest {
        by: "test".into(),
        cause: StopCause::Kill,
        asked_at_us: 1,
        grace_ms: 0,
    };
    let about = AttemptRef::default();
    ToShim::Stop {
        about,
        request: wish,
    }
}

/// A wish to be woken behind this offset.
pub fn arm(offset: Offset) -> ToShim {
    let about = AttemptRef::default();
    ToShim::Arm { about, offset }
}

/// A pause of whatever runs.
pub fn pause() -> ToShim {
    let about = AttemptRef::default();
    ToShim::Pause { about }
}

/// Its end.
pub fn resume() -> ToShim {
    let about = AttemptRef::default();
    ToShim::Resume { about }
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The state letter of a process.
pub fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// A process id that a job has written into a file, once it is there.
pub fn pid_in(file: &Path) -> i32 {
    let mut pid = None;
    until("a pid is in the file", || {
        let text = fs::read_to_string(file).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        pid.is_some()
    });
    pid.expect("a pid")
}

/// The exit of a process that returned this code.
pub fn code(code: i32) -> Exit {
    Exit::Code(code)
}

/// The descriptors that a process may have.
pub fn descriptors(pid: i32, limit: &str) {
    let words = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    let done = Command::new("prlimit").args(words).status();
    assert!(done.expect("prlimit runs").success());
}
