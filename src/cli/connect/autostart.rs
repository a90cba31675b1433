//! Starts a server for a data directory that has none, in a session of its own, and waits for it.
//!
//! Two command lines may do so at once: one server gets the data directory's lock, the other one
//! exits, and both command lines connect to the first.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::{
    client::Client,
    dial::ConnectError,
    holder::{is_locked, recorded_pid},
    starting::{self, StartNotice},
    target::Target,
};
use crate::{
    clean,
    cli::render::print,
    config,
    data_dir::{Access, OwnDir},
    launch::{self, Outside, program},
    spool::Layout,
    sys::descriptors,
};

/// First word of the command line of the role that detaches and becomes a server.
pub const LAUNCH_ROLE: &str = "launch-detached";
/// An autostarted server exits after this many idle seconds.
const IDLE_EXIT_S: &str = "600";
/// The place of that time among the words of an autostarted server.
const IDLE_EXIT_S_AT: usize = 6;
/// Names the socket of the service manager (sd_notify(3)).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// How long a server may take from its start to its first answer.
const START_MAX: Duration = Duration::from_secs(30);
/// Longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How much of the end of a log is read, bytes.
const LOG_TAIL_BYTES: u64 = 4096;
/// How many lines of a log an error quotes.
const LOG_TAIL_LINES: usize = 3;

/// Connects to the server of a data directory; starts one if there is none.
pub async fn connect_or_start(layout: &Layout) -> anyhow::Result<Client> {
    let target = Target::Local(layout.clone());
    let own = || ServerLaunch::default_for(layout);
    connect_or_launch(&target, layout, own).await
}

/// Starts a server and connects to it, or to another one that was started at the same time.
pub async fn start(layout: &Layout, launch: &ServerLaunch) -> anyhow::Result<Client> {
    let target = Target::Local(layout.clone());
    connect_or_launch(&target, layout, || launch.clone()).await
}

async fn connect_or_launch(
    target: &Target,
    layout: &Layout,
    launch: impl Fn() -> ServerLaunch,
) -> anyhow::Result<Client> {
    let mut give_up = Instant::now() + START_MAX;
    let mut notice = StartNotice::new();
    let mut pause = Duration::from_millis(2);
    let mut started: Option<StartedServer> = None;
    loop {
        let connected = notice.connect(target, layout).await;
        // A server that brings its database up to date gets the time that it needs.
        if connected.is_err() && starting::doing(layout).is_some() {
            give_up = Instant::now() + START_MAX;
        }
        match connected {
            Ok(client) => {
                if let Some(server) = started {
                    server.yield_to(&client).await;
                }
                return Ok(client);
            }
            Err(ConnectError::Refused(why)) => bail!(why),
            Err(ConnectError::Busy(why) | ConnectError::BrokenOff(why))
                if Instant::now() > give_up =>
            {
                bail!(why)
            }
            Err(ConnectError::Busy(_) | ConnectError::BrokenOff(_) | ConnectError::Absent(_)) => {}
        }
        match &mut started {
            None if !is_locked(layout) => {
                started = Some(StartedServer::spawn(layout, launch()).await?)
            }
            None => {}
            Some(server) => match server.ended()? {
                Some(status) if !is_locked(layout) => return Err(server.ended_early_error(&status)),
                // It ended because another server has the lock: connect to that one.
                Some(_) => started = None,
                None => {}
            },
        }
        if Instant::now() > give_up {
            bail!(
                "a server has locked {} but does not answer; its log is {}, and `cc-executor stop` ends it",
                layout.root().display(),
                layout.log().display()
            );
        }
        #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Whether a server with these words after the program's name was autostarted: then another one with the
/// same words takes its place, and nothing is lost. Every setting can be given by hand as well, so all words
/// count; only the idle time may be that of another version.
pub fn was_autostarted(args: &[OsString]) -> bool {
    let [_, _, _, _, root, _, idle_s, ..] = args else {
        return false;
    };
    let mut own = ServerLaunch::words(&Layout::new(root));
    own[IDLE_EXIT_S_AT].clone_from(idle_s);
    args == own
}

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerLaunch {
    /// The words after the program's name, `serve` first.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
}

impl ServerLaunch {
    /// The server that is started when a verb finds none.
    pub fn default_for(layout: &Layout) -> Self {
        Self {
            args: Self::words(layout).into(),
            // Only the settings' variables: the others belong to the shell that happens to start
            // it.
            env: clean::environment(std::env::vars_os(), false, config::is_variable),
            // A server in the background must not keep a mounted file system busy.
            cwd: PathBuf::from("/"),
        }
    }

    fn words(layout: &Layout) -> [OsString; 9] {
        let log = layout.log();
        let words: [&OsStr; 9] = [
            "serve".as_ref(),
            "--listen".as_ref(),
            "none".as_ref(),
            "--data-dir".as_ref(),
            layout.root().as_os_str(),
            "--idle-exit-s".as_ref(),
            IDLE_EXIT_S.as_ref(),
            "--log-file".as_ref(),
            log.as_os_str(),
        ];
        words.map(OsString::from)
    }
}

/// A server that this process started. Dropping this kills a server that does not hold the data
/// directory yet: it would wait for the lock, and outlive the server that is being stopped.
struct StartedServer {
    process: ServerChild,
    /// Whether the drop may kill it.
    kill_on_drop: bool,
    layout: Layout,
    /// Length of the log before the start, bytes: what follows is from this server.
    log_from: u64,
}

/// The process of a started server.
enum ServerChild {
    Child(tokio::process::Child),
    /// Started by the shim of the job that this process is part of: a server inside of a job would
    /// end with the job.
    Outside(Outside),
}

impl ServerChild {
    fn id(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.id(),
            Self::Outside(outside) => u32::try_from(outside.pid).ok(),
        }
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> std::io::Result<Option<String>> {
        match self {
            Self::Child(child) => Ok(child.try_wait()?.map(|status| status.to_string())),
            Self::Outside(outside) => Ok(outside
                .has_ended()
                .then(|| "outside of this job".to_owned())),
        }
    }

    /// An error means that it has ended by itself.
    fn kill(&mut self) {
        match self {
            Self::Child(child) => drop(child.start_kill()),
            Self::Outside(outside) => drop(pidfd_send_signal(&outside.process, Signal::KILL)),
        }
    }
}

impl Drop for StartedServer {
    fn drop(&mut self) {
        if self.kill_on_drop && !self.holds_data_dir() {
            self.process.kill();
        }
    }
}

impl StartedServer {
    async fn spawn(layout: &Layout, launch: ServerLaunch) -> anyhow::Result<Self> {
        let dir = OwnDir::make(layout.root())?;
        let stderr = dir.open_or_create_file(Layout::LOG, Access::Append)?;
        let log_from = stderr.metadata().map_or(0, |meta| meta.len());
        let process = match launch::shim_above() {
            Some(shim) => ServerChild::Outside(
                tokio::task::spawn_blocking(move || {
                    let mut words = vec![LAUNCH_ROLE.into()];
                    words.extend(launch.args);
                    shim.start(&words, &launch.env, &launch.cwd, &stderr)
                })
                .await??,
            ),
            None => {
                clean::check_open_files()?;
                ServerChild::Child(child(&launch, stderr)?)
            }
        };
        Ok(Self {
            process,
            kill_on_drop: true,
            layout: layout.clone(),
            log_from,
        })
    }

    fn ended(&mut self) -> anyhow::Result<Option<String>> {
        self.process
            .ended()
            .context("the server that was started cannot be watched")
    }

    /// Ends it if another server answers: it would only wait for the lock, and take over when that
    /// server is stopped. It has changed nothing yet.
    async fn yield_to(mut self, winner: &Client) {
        self.kill_on_drop = false;
        let own = self.process.id().and_then(|pid| i32::try_from(pid).ok());
        if winner.server_pid() != own {
            self.process.kill();
            if let ServerChild::Child(child) = &mut self.process {
                // An error means that it has ended by itself.
                let _ = child.wait().await;
            }
        }
    }

    /// Whether it holds the data directory: the holder writes its process id into the lock file.
    fn holds_data_dir(&self) -> bool {
        let holder = recorded_pid(&self.layout).and_then(|pid| u32::try_from(pid).ok());
        holder.is_some() && holder == self.process.id()
    }

    /// The error for a server that ended at its start, with the last lines of its log.
    fn ended_early_error(&self, status: &str) -> anyhow::Error {
        let words = last_lines(&self.layout, self.log_from).unwrap_or_default();
        let log = self.layout.log();
        let log = log.display();
        match words.is_empty() {
            true => {
                anyhow!("the server that was started ended at once ({status}); its log is {log}")
            }
            false => anyhow!(
                "the server that was started ended at once ({status}): {words} (log: {log})"
            ),
        }
    }
}

fn child(launch: &ServerLaunch, stderr: File) -> anyhow::Result<tokio::process::Child> {
    let mut command = Command::new(program());
    command
        .arg(LAUNCH_ROLE)
        .args(&launch.args)
        .current_dir(&launch.cwd)
        .env_clear()
        .envs(launch.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    tokio::process::Command::from(command)
        .spawn()
        .context("no server could be started")
}

/// The last lines of a log after `from`, joined into one.
fn last_lines(layout: &Layout, from: u64) -> std::io::Result<String> {
    let dir = OwnDir::open(layout.root())?.ok_or(ErrorKind::NotFound)?;
    let file = dir.open_file(Layout::LOG, Access::Read)?;
    let mut file = file.ok_or(ErrorKind::NotFound)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(
        from.max(length.saturating_sub(LOG_TAIL_BYTES)),
    ))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" | "))
}

/// The role between a command line and its server: leaves the terminal's session, closes every
/// inherited descriptor (a server must not keep another program's lock or pipe open), and execs the
/// server. Its process id stays the same; it prints it in a line on stdout.
pub fn launch(args: impl Iterator<Item = OsString>) -> ExitCode {
    // Fails only if this process already leads a process group (setsid(2)).
    if let Err(errno) = nix::unistd::setsid() {
        print::line(&format!("the server could not leave the session: {errno}"));
    }
    descriptors::close_all_but_standard();
    // If stdout is closed, nothing reads the id.
    let _ = writeln!(std::io::stdout(), "{}", std::process::id());
    // The service manager of the command line is not that of the server.
    let error = Command::new(program())
        .args(args)
        .env_remove(NOTIFY_SOCKET)
        .exec();
    print::line(&format!("the server could not be executed: {error}"));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_servers_are_known_by_their_command_line() {
        let own = ServerLaunch::default_for(&Layout::new("/data"));
        assert!(was_autostarted(&own.args));
        assert_eq!(own.args[0], "serve");
        let mut earlier = own.args.clone();
        earlier[IDLE_EXIT_S_AT] = "60".into();
        assert!(was_autostarted(&earlier));
        assert!(!was_autostarted(&["serve".into()]));
        for (at, other) in [
            (2, "127.0.0.1:0"),
            (8, "/elsewhere.log"),
            (5, "--sessions-max"),
        ] {
            let mut by_hand = own.args.clone();
            by_hand[at] = other.into();
            assert!(!was_autostarted(&by_hand), "{other}");
        }
        let more = [&own.args[..], &["--drain".into()]].concat();
        assert!(!was_autostarted(&more));
    }

    #[test]
    fn only_the_last_words_behind_the_start_are_quoted() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path());
        std::fs::write(layout.log(), "before\none\n\ntwo\nthree\nfour\n").expect("written");
        assert_eq!(last_lines(&layout, 7).expect("read"), "two | three | four");
        assert_eq!(last_lines(&layout, 22).expect("read"), "four");
    }
}
