//! A server under the fixture `strike`: started, listened to, read the report of.
//! Does not know what the server is asked.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    harness::{BINARY, CEILING, Server, until},
    point::Point,
};

/// After how long a server that lives is asked again to stop.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Who is struck, and where.
#[derive(Debug, Clone, Copy)]
pub struct Aim<'a> {
    /// `server` or `shim`.
    pub target: &'a str,
    /// `lasting` or `fallible`: which calls are told and counted.
    pub calls: &'a str,
    /// The point; without one all calls are told.
    pub point: Option<&'a Point>,
}

/// A traced server.
pub struct Struck {
    child: Child,
    report: PathBuf,
    ready: Option<Value>,
    point: Option<Point>,
    log: PathBuf,
}

impl Struck {
    /// Starts one on the data directory of `server`, whose process is not running; returns when
    /// it is ready or dead.
    pub fn start(server: &Server, args: &[&str], aim: Aim<'_>) -> Self {
        let Aim {
            target,
            calls,
            point,
        } = aim;
        let report = server.scratch("report");
        let mut command = Command::new(fixture());
        command.args(["--of", target, "--calls", calls]);
        command.arg("--root").arg(server.data_dir());
        command.arg("--report").arg(&report);
        if let Some(Point { call, nth, how }) = point {
            let [nth, times] = [*nth, how.times()].map(|number| number.to_string());
            command.args(["--at", call, "--nth", &nth, "--how", &how.word()]);
            command.args(["--times", &times]);
        }
        command.args(["--", BINARY, "serve", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(server.data_dir()).args(args);
        let log = server.scratch("log");
        let said = File::create(&log).expect("a log file");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said);
        let mut child = command.spawn().expect("the fixture starts");
        let ready = first_line(child.stdout.take().expect("piped"));
        Self {
            child,
            report,
            ready,
            point: point.cloned(),
            log,
        }
    }

    /// Where it listens and its token, if it became ready.
    pub fn door(&self) -> Option<(String, String)> {
        let ready = self.ready.as_ref()?;
        let listen = ready["listen"].as_str().expect("listen").to_owned();
        let file = ready["token_file"].as_str().expect("token_file");
        let token = fs::read_to_string(file).expect("the token file");
        Some((listen, token.trim().to_owned()))
    }

    /// Asks it to stop, if it lives.
    pub fn terminate(&self) {
        if let Some(pid) = self.ready.as_ref().and_then(|ready| ready["pid"].as_i64()) {
            // It may be dead already.
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
        }
    }

    /// Waits for its end; returns the exit code: 137 for one that was killed.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        let mut asked = Instant::now();
        let status = until("a traced server to end", || {
            // The wake-up of the first signal can be what found no memory.
            if asked.elapsed() > ASK_AGAIN && !self.kills() {
                self.terminate();
                asked = Instant::now();
            }
            self.child.try_wait().expect("our child")
        });
        status.code().expect("the fixture is not killed")
    }

    fn kills(&self) -> bool {
        self.point.as_ref().is_none_or(|point| point.how.kills())
    }

    /// Whether it lives.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Holds its end to what was done to it: killed by a blow, stopped as planned, or by its own
    /// decision after an error: a start that is refused, or a write or a sync that is not to be
    /// trusted.
    #[track_caller]
    pub fn assert_rightly_ended(&self, code: i32) {
        let said = fs::read_to_string(&self.log).expect("a log");
        let starved = self.point.as_ref().is_some_and(Point::takes_memory);
        let panicked = said.contains("panicked at");
        assert!(starved || !panicked, "the server panicked");
        let met = self.is_struck();
        let right = match self.point.as_ref() {
            _ if code == 0 => true,
            Some(point) if point.how.kills() => code == 137 && met,
            Some(point) => {
                let refused = self.ready.is_none() && !said.is_empty();
                let chose = code == 1 && (refused || point.is_of_storage());
                // Rust ends a process that gets no memory for a thread's own needs.
                met && (chose || starved && code == 134)
            }
            None => false,
        };
        assert!(right, "ended with {code}");
    }

    /// The calls that were made so far.
    pub fn report(&self) -> String {
        fs::read_to_string(&self.report).expect("a report")
    }

    /// Whether the point was reached.
    pub fn is_struck(&self) -> bool {
        self.report().lines().any(|line| line.starts_with("struck"))
    }
}

impl Drop for Struck {
    /// After a failure: the fixture's death is that of all whom it traces.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ready line; `None` if the server ended without it.
#[track_caller]
fn first_line(stdout: impl std::io::Read + Send + 'static) -> Option<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        let _ = sender.send(lines.next());
        lines.for_each(drop);
    });
    let line = receiver.recv_timeout(CEILING).expect("ready or dead");
    // A torn line is that of a dead server.
    serde_json::from_str(&line?.ok()?).ok()
}

/// Why no child may be traced here, if that is so.
pub fn refusal() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the tracer reads the registers of x86_64 only".to_owned());
    }
    let mut command = Command::new(fixture());
    command.args(["--of", "server", "--root", "/", "--report", "/dev/null"]);
    let output = command.args(["--", "/bin/true"]).output();
    let output = output.expect("the fixture starts");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let refused = said.contains("Operation not permitted") || said.contains("EPERM");
    assert!(output.status.success() || refused, "{said}");
    refused.then_some(said)
}

/// The path of the fixture, built if need be.
pub fn fixture() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let directory = Path::new(BINARY).parent().expect("a directory");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--example", "strike"]);
        let target = directory.parent().expect("a directory of builds");
        cargo.arg("--target-dir").arg(target);
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo runs").success());
        directory.join("examples/strike")
    })
}
