//! The binary as a server on a data directory of its own: start, SIGKILL, restart, planned stop.
//! When it is dropped nothing of it may be left, neither process nor socket.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::TcpStream,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{BINARY, CEILING, Cli, Client, Response, processes, request, until, until_true};

/// A planned stop takes at most this long, whatever the clients do.
pub const STOP_CEILING: Duration = Duration::from_secs(5);

/// A server under test.
pub struct Server {
    /// Holds the data directory and, beside it, what the servers said.
    home: TempDir,
    data_dir: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Option<Child>,
    /// The ready line of the running server.
    pub ready: Value,
    /// Where the first line of a server comes that was launched.
    first: Option<Mutex<mpsc::Receiver<Option<io::Result<String>>>>>,
    starts: u32,
    /// What the binary is started by, where it is not by us.
    wrapper: Vec<String>,
    binary: String,
}

impl Server {
    /// Starts one with default settings.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[], &[])
    }

    /// Starts one with more arguments and variables, which also hold after a restart.
    #[track_caller]
    pub fn with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut server = Self::stopped(args, env);
        server.restart();
        server
    }

    /// Only the empty data directory.
    pub fn stopped(args: &[&str], env: &[(&str, &str)]) -> Self {
        let home = tempfile::Builder::new()
            .prefix("cc-executor-test-")
            .tempdir()
            .expect("a temporary directory");
        Self {
            data_dir: home.path().join("data"),
            home,
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            child: None,
            ready: Value::Null,
            first: None,
            starts: 0,
            wrapper: Vec::new(),
            binary: BINARY.to_owned(),
        }
    }

    /// Starts this binary from the next start on.
    pub fn runs(&mut self, binary: &str) {
        binary.clone_into(&mut self.binary);
    }

    /// Has these words before the binary from the next start on (`prlimit --nofile=40:40`); they
    /// must become the binary, so that its process is our child.
    pub fn under(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Has the data directory elsewhere below the test's place; before the first start.
    pub fn within(mut self, place: impl AsRef<Path>) -> Self {
        assert_eq!(self.starts, 0);
        self.data_dir = self.home.path().join(place);
        self
    }

    /// The data directory, absolute.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// A place for files of the test, outside the data directory.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Where it listens: `HOST:PORT`.
    #[track_caller]
    pub fn listen(&self) -> &str {
        self.ready["listen"].as_str().expect("listen")
    }

    /// The path of its Unix socket.
    #[track_caller]
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.ready["socket"].as_str().expect("socket"))
    }

    /// The process id of the running server.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("a running server").id() as i32
    }

    /// The token for TCP.
    #[track_caller]
    pub fn token(&self) -> String {
        let path = self.ready["token_file"].as_str().expect("token_file");
        let text = fs::read_to_string(path).expect("the token file");
        text.trim().to_owned()
    }

    /// An authenticated session.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::tcp(self.listen(), Some(&self.token()))
    }

    /// A raw HTTP request on a connection of its own.
    #[track_caller]
    pub fn http(&self, bytes: &str) -> Response {
        let stream = TcpStream::connect(self.listen()).expect("connect");
        stream
            .set_read_timeout(Some(CEILING))
            .expect("a read timeout");
        request(stream, bytes)
    }

    /// `GET` with a proper `Host`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        let host = self.listen();
        self.http(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
    }

    /// A command on this data directory.
    pub fn cli(&self, verb: &str) -> Cli {
        Cli::new(&self.data_dir(), verb)
    }

    /// Adds the mark by which the harness finds a job's processes.
    pub fn marked(&self, mut job: Value) -> Value {
        let data_dir = self.data_dir();
        job["env"][processes::MARK] = json!(data_dir.to_str().expect("a UTF-8 path"));
        job
    }

    /// Living processes of the jobs.
    pub fn job_processes(&self) -> Vec<i32> {
        let servers = processes::with_word(&self.data_dir().display().to_string());
        let mut marked = processes::with_mark(&self.data_dir());
        marked.retain(|pid| !servers.contains(pid));
        marked
    }

    /// Living shims: the data directory stands in their command lines.
    pub fn shims(&self) -> Vec<i32> {
        let server = self.child.as_ref().map(|child| child.id() as i32);
        let mut found = processes::with_word(&self.data_dir().display().to_string());
        found.retain(|pid| Some(*pid) != server);
        found
    }

    /// SIGKILL of the one shim that holds processes of a job; it is gone when this returns, idle
    /// ones live on.
    #[track_caller]
    pub fn kill_shim(&self) {
        let jobs = self.job_processes();
        let held: Vec<_> = jobs.into_iter().filter_map(processes::parent).collect();
        let mut shims = self.shims();
        shims.retain(|shim| held.contains(shim));
        assert_eq!(shims.len(), 1, "one job, one shim");
        let _ = kill(Pid::from_raw(shims[0]), Signal::SIGKILL);
        until_true("the shim to be gone", || !self.shims().contains(&shims[0]));
    }

    /// SIGKILL, and the server is gone when this returns.
    #[track_caller]
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("a running server");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// Starts a server on the data directory; it is ready when this returns.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        self.starts += 1;
        let mut child = self.command().spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        self.child = Some(child);
        let line = first_line(stdout);
        self.ready = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("no ready line but {line:?} ({e})"));
        assert_eq!(self.ready["event"], "ready", "{line}");
    }

    /// Starts a server and does not wait until it is ready.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "still running");
        self.starts += 1;
        let mut child = self.command().spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        self.child = Some(child);
        self.first = Some(Mutex::new(lines_of(stdout)));
    }

    /// Waits for the ready line of a server that was launched; what came instead is the error.
    pub fn readied(&mut self) -> Result<(), String> {
        let first = self.first.take().ok_or("no server was launched")?;
        let first = first.into_inner().map_err(|_| "a reader has panicked")?;
        let line = match first.recv_timeout(CEILING) {
            Ok(Some(Ok(line))) => line,
            Ok(other) => return Err(format!("it ended before it was ready: {other:?}")),
            Err(_) => return Err(format!("it was not ready within {CEILING:?}")),
        };
        self.ready = serde_json::from_str(&line).map_err(|e| format!("{line:?}: {e}"))?;
        match self.ready["event"] == "ready" {
            true => Ok(()),
            false => Err(format!("no ready line but {line:?}")),
        }
    }

    /// How it ended, if it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("our child")
    }

    /// What the newest server said on stderr.
    pub fn said_last(&self) -> String {
        let path = self.home.path().join(format!("stderr.{}", self.starts));
        fs::read_to_string(path).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let log = self.home.path().join(format!("stderr.{}", self.starts));
        let binary = self.binary.as_str();
        let mut words = self.wrapper.iter().map(String::as_str).chain([binary]);
        let mut command = Command::new(words.next().unwrap_or(binary));
        command
            .args(words)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.data_dir())
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log).expect("a log file"));
        command
    }

    /// SIGTERM; returns how it ended and how long that took.
    #[track_caller]
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().expect("a running server");
        let began = Instant::now();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("our child");
        let status = until("the server to stop", || child.try_wait().expect("ours"));
        (status, began.elapsed())
    }

    /// Sends a signal to the server's process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("our child");
    }

    /// SIGTERM, without waiting for anything.
    #[track_caller]
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("our child");
    }

    /// Waits until the server has ended by itself; returns how.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running server");
        until("the server to end", || child.try_wait().expect("ours"))
    }

    /// What the servers of this data directory said on stderr.
    pub fn said(&self) -> String {
        (1..=self.starts)
            .map(|start| {
                let path = self.home.path().join(format!("stderr.{start}"));
                let text = fs::read_to_string(path).unwrap_or_default();
                format!("--- server {start}\n{text}")
            })
            .collect()
    }

    /// Ends every job, then the server, and proves that nothing is left.
    fn finish(&mut self) {
        if self.starts == 0 {
            self.stop_self_started();
        } else {
            if self.child.is_none() {
                self.restart();
            }
            self.kill_jobs();
            let (status, took) = self.stop();
            assert!(status.success(), "a planned stop ended with {status}");
            assert!(took < STOP_CEILING, "a planned stop took {took:?}");
        }
        self.assert_nothing_left();
    }

    /// A server that the CLI started is nobody's child.
    fn stop_self_started(&self) {
        if !processes::with_word(&self.data_dir().display().to_string()).is_empty() {
            let stopped = self.cli("stop").run();
            assert_eq!(stopped.code(), 0, "{}", stopped.err());
        }
    }

    fn kill_jobs(&self) {
        // The test's own sessions may have left a moment ago.
        let mut client = until("a session to end the jobs in", || {
            Client::try_tcp(self.listen(), Some(&self.token())).ok()
        });
        let live = json!({"state": ["queued", "running", "paused"], "limit": 1000});
        let page = client.ok("job.list", live);
        let jobs = page["jobs"].as_array().expect("jobs").clone();
        for job in &jobs {
            client.control(job, "kill");
        }
        for job in &jobs {
            client.finished(job);
        }
    }

    fn assert_nothing_left(&self) {
        until_true(
            &format!("no process to be left: {}", self.leftovers()),
            || self.leftovers().is_empty(),
        );
        let sockets = sockets(&self.data_dir());
        assert!(sockets.is_empty(), "sockets are left: {sockets:?}");
    }

    fn leftovers(&self) -> String {
        let data_dir = self.data_dir();
        let mut pids = processes::with_word(&data_dir.display().to_string());
        pids.extend(processes::with_mark(&data_dir));
        pids.iter()
            .map(|pid| processes::describe(*pid) + "\n")
            .collect()
    }

    /// After a failure: no questions, only no litter.
    fn sweep(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A shim's death ends its leader; what it leaves behind carries the mark.
        for pid in processes::with_word(&self.data_dir().display().to_string()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for pid in processes::with_mark(&self.data_dir()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", last_lines(&self.said(), 120));
            self.sweep();
            return;
        }
        let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.finish()));
        if let Err(panic) = finished {
            eprintln!("{}", last_lines(&self.said(), 120));
            self.sweep();
            std::panic::resume_unwind(panic);
        }
    }
}

/// The first line of the output; what follows is read and thrown away.
fn lines_of(stdout: impl io::Read + Send + 'static) -> mpsc::Receiver<Option<io::Result<String>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        let _ = sender.send(lines.next());
        lines.for_each(drop);
    });
    receiver
}

#[track_caller]
fn first_line(stdout: impl io::Read + Send + 'static) -> String {
    match lines_of(stdout).recv_timeout(CEILING) {
        Ok(Some(Ok(line))) => line,
        Ok(other) => panic!("the server ended before it was ready: {other:?}"),
        Err(_) => panic!("the server was not ready within {CEILING:?}"),
    }
}

fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(_) => return Vec::new(),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
