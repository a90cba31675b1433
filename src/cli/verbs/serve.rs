//! `serve`: puts the server together, says that it is ready, and takes it apart again.
//!
//! The composition root: it knows every part and does none of their work.

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::net::UnixStream,
    panic,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clean,
    cli::{
        connect::proc::ServerStart,
        render::{exit_code, print},
        serve::{keeping::ServedSocket, outside, place::DataDirClaim},
    },
    config::{self, Listen, SettingOptions, Settings},
    escape,
    executor::{Executor, Failed},
    launch,
    protocol::{self, ServerState, SessionSlots, auth::Token, listener, origin::Allowed},
    spool::Layout,
    sys::{descriptors, memory, shutdown, threads},
    telemetry::Telemetry,
};

/// From the decision to stop to the end of the process, whatever the clients do; the contract
/// allows 5 s.
const STOP_LIMIT: Duration = Duration::from_millis(4500);
/// How long sessions may need to say goodbye before the executor stops.
const GOODBYE_LIMIT: Duration = Duration::from_millis(1500);
/// Between two looks at the jobs while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// Longest time between two looks at whether the server is idle.
const IDLE_LOOK_MAX: Duration = Duration::from_secs(5);

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Read this file instead of config.toml in the data directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: SettingOptions,
}

/// The runtime of a server. Waits two seconds for the sockets and threads that it needs; where it gets
/// none all the same it panics, and would hang after that: the process ends instead, and says why.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    descriptors::patiently(UnixStream::pair)?;
    descriptors::patiently(threads::are_allowed)?;
    let before = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        let why = panic.payload_as_str().unwrap_or("nobody knows why");
        print::line(&format!("the server cannot start: {why}"));
        std::process::exit(i32::from(exit_code::FAILURE));
    }));
    let runtime = threads::server_runtime();
    panic::set_hook(before);
    runtime
}

/// What could not be put right at the start, for the log.
static LEFT: OnceLock<Vec<String>> = OnceLock::new();

/// A clean start, whoever starts the server; or a start outside of the job that this is a part of.
pub fn prepare() -> Result<(), ExitCode> {
    if let Err(error) = clean::environment_of_this_process(config::is_variable) {
        print::line(&format!(
            "the server's environment could not be cleaned: {error}"
        ));
    }
    if let Some(shim) = launch::shim_above() {
        return Err(outside::serve(&shim));
    }
    match clean::start() {
        Ok(left) => drop(LEFT.set(left)),
        Err(error) => {
            print::line(&error.to_string());
            return Err(ExitCode::from(exit_code::FAILURE));
        }
    }
    clean::seal();
    Ok(())
}

/// Runs a server until it is asked to stop. Fails where it cannot start.
pub async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load(args.config.as_deref(), &args.settings.0)?.settings;
    settings.check_listen()?;
    // Everything that we create is ours alone.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let asked = shutdown::on_signals().context("cannot wait for signals")?;
    let place = DataDirClaim::take(&settings.data_dir).await?;
    let telemetry = Telemetry::start(&settings, &place.directory)?;
    let served = run(settings, &place, asked).await;
    if let Err(error) = &served {
        tracing::error!(error = format!("{error:#}"), "the server cannot go on");
    }
    telemetry.flush();
    served.map(|()| ExitCode::SUCCESS)
}

async fn run(
    mut settings: Settings,
    place: &DataDirClaim,
    asked: CancellationToken,
) -> anyhow::Result<()> {
    for left in LEFT.get().into_iter().flatten() {
        tracing::warn!(left, "the server could not be given a clean start");
    }
    memory::give_back_what_is_large();
    // Many sessions and many tails need many descriptors.
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
    if let Some(open_files_max) = descriptors::open_files_max()
        && protocol::limits::connection_slots::fit_open_files(&mut settings, open_files_max)
    {
        tracing::warn!(
            open_files_max,
            tcp_connections_max = settings.tcp_connections_max,
            unix_connections_max = settings.unix_connections_max,
            "the limit of open files is low; fewer connections are taken (raise it: ulimit -n)"
        );
    }
    let token = Token::load_or_create(&place.directory).context("cannot get the token")?;
    let (sockets, executor) = open(&settings, place)
        .await
        .map_err(|error| place.explain(error))?;
    let door = Arc::new(door(settings, place, token, &sockets, executor)?);
    let kept = sockets.serve(place, &door);
    if let Err(error) = write_start(place) {
        tracing::warn!(%error, "the server's start could not be written down for `restart`");
    }
    say_ready(&door, place);
    tell_manager(NotifyState::Ready);
    tracing::info!(
        listen = door.addresses.listen,
        data_dir = %door.addresses.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "the server is ready"
    );
    let trusted = until_stop(&door, kept, asked).await;
    stop(&door, place).await;
    trusted
}

/// What a server needs and others can have taken.
async fn open(settings: &Settings, place: &DataDirClaim) -> anyhow::Result<(Sockets, Executor)> {
    let sockets = Sockets::bind(settings, place).await?;
    let executor = Executor::start(place.layout.clone(), settings.executor()).await?;
    Ok((sockets, executor))
}

/// The bound listeners; nobody is answered before the executor has started.
struct Sockets {
    unix: UnixListener,
    tcp: Option<(TcpListener, SocketAddr)>,
}

impl Sockets {
    async fn bind(settings: &Settings, place: &DataDirClaim) -> anyhow::Result<Self> {
        let tcp = match settings.listen {
            Listen::None => None,
            Listen::Address(address) => Some(bind_tcp(address).await?),
        };
        let unix = listener::bind_unix(&place.directory, Layout::SOCKET)
            .with_context(|| format!("cannot bind {}", place.layout.socket().display()))?;
        Ok(Self { unix, tcp })
    }

    fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    fn serve<'a>(self, place: &'a DataDirClaim, door: &Arc<ServerState>) -> ServedSocket<'a> {
        door.tasks.spawn({
            let door = door.clone();
            async move { protocol::RefusalLog::report_counts(&door).await }
        });
        if let Some((listener, _)) = self.tcp {
            door.tasks
                .spawn(listener::serve_tcp(listener, door.clone()));
        }
        ServedSocket::serve(self.unix, place, door)
    }
}

async fn bind_tcp(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another with --listen, or --listen none")
    })?;
    let bound = listener.local_addr()?;
    if !bound.ip().to_canonical().is_loopback() {
        tracing::warn!(
            listen = %bound,
            "listening beyond this machine, as insecure_listen says: whoever reaches this address and \
             has the token can run any command as this user, and token and output cross the network \
             unencrypted. Name the hosts that clients use in allowed_hosts."
        );
    }
    Ok((listener, bound))
}

fn door(
    settings: Settings,
    place: &DataDirClaim,
    token: Token,
    sockets: &Sockets,
    executor: Executor,
) -> std::io::Result<ServerState> {
    let address = sockets.address();
    Ok(ServerState {
        executor,
        token,
        origins: Allowed::new(address, &settings.allowed_hosts, &settings.allowed_origins),
        sessions: SessionSlots::new(settings.sessions_max, settings.unauthenticated_sessions_max),
        refusals: protocol::RefusalLog::default(),
        fair_queue: protocol::FairQueue::new(&settings),
        memory_budget: protocol::MemoryBudget::new(settings.held_bytes_max),
        parser: protocol::ParserThread::start()?,
        addresses: protocol::ServerAddresses {
            data_dir: place.layout.root().to_owned(),
            socket: place.layout.socket(),
            listen: address.map(|address| address.to_string()),
        },
        started: Instant::now(),
        draining: CancellationToken::new(),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
        settings,
    })
}

/// Replaced as a whole, so that nobody reads half of it.
fn write_start(place: &DataDirClaim) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(&ServerStart::of_this_process()?)?;
    let draft = format!("{}.draft", Layout::START);
    Ok(place
        .directory
        .replace_file(Layout::START, &draft, &bytes)?)
}

/// The one line on stdout. Nobody may be reading it any more; we serve all the same.
fn say_ready(door: &ServerState, place: &DataDirClaim) {
    let line = json!({
        "event": "ready",
        "listen": door.addresses.listen,
        "socket": door.addresses.socket.display().to_string(),
        "data_dir": door.addresses.data_dir.display().to_string(),
        "token_file": place.layout.token().display().to_string(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut stdout = std::io::stdout().lock();
    let line = escape::visible_json(&line.to_string());
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Tells a service manager, where one wants to know (sd_notify(3)).
fn tell_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Until somebody asks, or nobody has needed us for long enough; an error where the ledger has
/// failed, so that nothing can be acknowledged any more.
async fn until_stop(
    door: &ServerState,
    kept: ServedSocket<'_>,
    asked: CancellationToken,
) -> anyhow::Result<()> {
    let reason = tokio::select! {
        () = kept.look_after() => anyhow::bail!(
            "the data directory was moved, removed or replaced while the server ran; running jobs go \
             on under their shims, start again where it is now"
        ),
        failed = door.executor.failed() => match failed {
            Failed::Ledger => anyhow::bail!(
                "the database failed, or was removed or replaced while the server ran; look at the \
                 data directory and start again: what was acknowledged is verified then"
            ),
            Failed::Task => anyhow::bail!(
                "a part of the server panicked (a bug: please report it with the log); start again: \
                 running jobs go on, and what that part had to do is done then"
            ),
        },
        () = asked.cancelled() => "a signal asked for it",
        () = idle_long_enough(door) => "nobody has needed it for idle_exit_s",
    };
    tracing::info!(reason, "the server stops");
    if door.settings.drain {
        drain(door).await;
    }
    Ok(())
}

async fn idle_long_enough(door: &ServerState) {
    let Some(limit) = door.settings.idle_exit_s.map(Duration::from_secs) else {
        return std::future::pending().await;
    };
    let mut look = tokio::time::interval((limit / 4).min(IDLE_LOOK_MAX));
    let mut busy_at = Instant::now();
    loop {
        look.tick().await;
        // A session that came and went between two looks counts as well.
        let empty_since = door.sessions.empty_since();
        let idle = empty_since.is_some() && matches!(door.executor.live_jobs().await, Ok(0));
        busy_at = if idle {
            empty_since.unwrap_or(busy_at).max(busy_at)
        } else {
            Instant::now()
        };
        if busy_at.elapsed() >= limit {
            return;
        }
    }
}

/// No new jobs, and those that there are come to their end. Only a second signal hurries it.
async fn drain(door: &ServerState) {
    door.draining.cancel();
    let mut look = tokio::time::interval(DRAIN_LOOK);
    let mut told = None;
    loop {
        look.tick().await;
        match door.executor.live_jobs().await {
            Ok(0) => return,
            Ok(jobs) if told != Some(jobs) => {
                tracing::info!(jobs, "waiting for jobs before the stop");
                told = Some(jobs);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot wait for the jobs");
                return;
            }
        }
    }
}

async fn stop(door: &ServerState, place: &DataDirClaim) {
    shutdown::not_later_than(STOP_LIMIT);
    tell_manager(NotifyState::Stopping);
    door.draining.cancel();
    door.stopping.cancel();
    door.tasks.close();
    if tokio::time::timeout(GOODBYE_LIMIT, door.tasks.wait())
        .await
        .is_err()
    {
        tracing::info!("some clients do not take their goodbye; they are left");
    }
    door.executor.stop().await;
    // A socket that nobody answers only makes clients wait.
    let _ = place.directory.remove(Layout::SOCKET);
    tracing::info!("the server has stopped; running jobs go on under their shims");
}
