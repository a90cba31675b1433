//! `serve`: the composition root of the server. Builds its parts, prints the ready line, waits for
//! a reason to stop, and stops the parts in order.

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
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Principal,
    clean,
    cli::{
        connect::{autostart::was_autostarted, proc::ServerStart},
        render::{exit_code, print},
        serve::{
            claim::DataDirClaim, in_force::InForce, outside, settings::of_executor,
            socket::ServedSocket, starting::StartReport,
        },
    },
    config::{self, Listen, SettingOptions, Settings},
    escape,
    executor::{Ceased, Executor, ExecutorSettings, Failed},
    launch,
    protocol::{
        self, ServerState, SessionSlots,
        auth::{self, Token},
        listener,
        origin::Allowed,
        tokens::Tokens,
    },
    spool::Layout,
    sys::{descriptors, memory, shutdown, threads, waiting_io::WaitingIo},
    telemetry::Telemetry,
};

pub use crate::protocol::mcp::McpRoutes;

/// Longest time from the decision to stop to the end of the process, whatever the clients do; the
/// contract allows 5 s.
const STOP_LIMIT: Duration = Duration::from_millis(4500);
/// How long sessions may take to close before the executor stops.
const CLOSE_LIMIT: Duration = Duration::from_millis(1500);
/// Time between two counts of the live jobs while draining.
const DRAIN_POLL: Duration = Duration::from_millis(200);
/// Longest time between two checks whether the server is idle.
const IDLE_POLL_MAX: Duration = Duration::from_secs(5);

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Read this file instead of config.toml in the data directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: SettingOptions,
    /// The route of MCP.
    #[arg(skip)]
    pub mcp: McpRoutes,
}

/// The runtime of a server. Waits up to two seconds for the sockets and threads that it needs. If
/// it cannot get them, tokio panics and the runtime hangs after that; the panic hook ends the
/// process with a message instead.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    descriptors::retry_briefly(UnixStream::pair)?;
    descriptors::retry_briefly(threads::check_allowed)?;
    let before = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        let why = panic.payload_as_str().unwrap_or("the reason is unknown");
        print::line(&format!("the server cannot start: {why}"));
        std::process::exit(i32::from(exit_code::FAILURE));
    }));
    let runtime = threads::server_runtime();
    panic::set_hook(before);
    runtime
}

/// What the clean start could not put right. Logged later: there is no log yet when it is found.
static NOT_CLEANED: OnceLock<Vec<String>> = OnceLock::new();

/// Cleans what this process inherited from its starter. Inside of a job it starts the server
/// outside of the job instead, and returns when that server has ended.
pub fn prepare() -> Result<(), ExitCode> {
    if let Err(error) = clean::reexec_with_kept_environment(config::is_variable) {
        print::line(&format!(
            "the server's environment could not be cleaned: {error}"
        ));
    }
    if let Some(shim) = launch::shim_above() {
        return Err(outside::serve(&shim));
    }
    match clean::start() {
        Ok(left) => drop(NOT_CLEANED.set(left)),
        Err(error) => {
            print::line(&error.to_string());
            return Err(ExitCode::from(exit_code::FAILURE));
        }
    }
    clean::make_undumpable();
    Ok(())
}

/// Runs a server until it is asked to stop. Fails if it cannot start.
pub async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load(args.config.as_deref(), &args.settings.0)?.settings;
    settings.check_listen()?;
    // Only this user can read what the server creates.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let stop_signal = shutdown::on_signals().context("cannot wait for signals")?;
    let claim = DataDirClaim::take(&settings.data_dir).await?;
    let telemetry = Telemetry::start(&settings, &claim.directory)?;
    let served = run(settings, &claim, stop_signal, args.mcp).await;
    if let Err(error) = &served {
        tracing::error!(error = print::chain(error), "the server cannot go on");
    }
    telemetry.flush();
    served.map(|()| ExitCode::SUCCESS)
}

async fn run(
    mut settings: Settings,
    claim: &DataDirClaim,
    stop_signal: CancellationToken,
    mcp: McpRoutes,
) -> anyhow::Result<()> {
    for left in NOT_CLEANED.get().into_iter().flatten() {
        tracing::warn!(left, "the server could not be given a clean start");
    }
    memory::return_large_allocations();
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
            "the limit of open files is low; the server accepts fewer connections (raise it: ulimit -n)"
        );
    }
    let token = Token::load_or_create(&claim.directory).context("cannot get the token")?;
    let key = auth::root_key(&claim.directory).context("cannot get the key of the tokens")?;
    let last = InForce::of_last(&claim.directory)?;
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let is_taken_over = was_autostarted(&args) && last.complete(&mut settings)?;
    let ceased = last.ceased(&settings);
    let opened = open(&settings, ceased, claim).await.map_err(|error| {
        let error = claim.explain(error);
        match is_taken_over {
            true => last.explain(error),
            false => error,
        }
    });
    let (sockets, executor) = opened?;
    last.remember(&settings, &claim.directory)?;
    let tokens = Tokens::load(token, key, &executor).await?;
    let state = Arc::new(server_state(settings, claim, tokens, &sockets, executor)?);
    let socket = sockets.serve(claim, &state, mcp);
    reload_policy_on_signal(&state).context("cannot wait for SIGHUP")?;
    if let Err(error) = write_start(claim) {
        tracing::warn!(%error, "the server's start could not be written down for `restart`");
    }
    print_ready_line(&state, claim);
    notify_service_manager(NotifyState::Ready);
    tracing::info!(
        listen = state.addresses.listen,
        data_dir = %state.addresses.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "the server is ready"
    );
    let stopped = wait_for_stop(&state, socket, stop_signal).await;
    stop(&state, claim).await;
    stopped
}

/// Loads the policy again on every SIGHUP. Without a policy the signal ends the server, as it did before.
fn reload_policy_on_signal(state: &Arc<ServerState>) -> std::io::Result<()> {
    if state.settings.policy.is_none() {
        return Ok(());
    }
    let mut hangup = signal(SignalKind::hangup())?;
    let (executor, stopping) = (state.executor.clone(), state.stopping.clone());
    state.tasks.spawn(async move {
        let reloading = async {
            while hangup.recv().await.is_some() {
                // The log says what was wrong.
                let _ = executor.reload_policy().await;
            }
        };
        stopping.run_until_cancelled(reloading).await;
    });
    Ok(())
}

/// Opens what another process can have taken or damaged: the addresses, the database, the spool.
async fn open(
    settings: &Settings,
    ceased: Ceased,
    claim: &DataDirClaim,
) -> anyhow::Result<(Sockets, Executor)> {
    let sockets = Sockets::bind(settings, claim).await?;
    let report = StartReport::new(&claim.directory);
    let settings = ExecutorSettings {
        ceased,
        ..of_executor(settings)
    };
    let executor = Executor::start(claim.layout.clone(), settings, &|progress| {
        report.report(&progress);
    })
    .await?;
    Ok((sockets, executor))
}

/// The bound listeners. They accept only after the executor has started.
struct Sockets {
    unix: UnixListener,
    tcp: Option<(TcpListener, SocketAddr)>,
}

impl Sockets {
    async fn bind(settings: &Settings, claim: &DataDirClaim) -> anyhow::Result<Self> {
        let tcp = match settings.listen {
            Listen::None => None,
            Listen::Address(address) => Some(bind_tcp(address).await?),
        };
        let unix = listener::bind_unix(&claim.directory, Layout::SOCKET)
            .with_context(|| format!("cannot bind {}", claim.layout.socket().display()))?;
        Ok(Self { unix, tcp })
    }

    fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    fn serve<'a>(
        self,
        claim: &'a DataDirClaim,
        state: &Arc<ServerState>,
        mcp: McpRoutes,
    ) -> ServedSocket<'a> {
        let router = listener::routes(state, mcp);
        state.tasks.spawn({
            let state = state.clone();
            async move { state.refusals.report_counts(&state.stopping).await }
        });
        state.tasks.spawn({
            let state = state.clone();
            async move {
                let ServerState {
                    tokens, executor, ..
                } = &*state;
                tokens.end_expired(executor, &state.stopping).await;
            }
        });
        if let Some((listener, _)) = self.tcp {
            state
                .tasks
                .spawn(listener::serve_tcp(listener, state.clone(), router.clone()));
        }
        ServedSocket::serve(self.unix, claim, state, router)
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
            "listening beyond this machine, as insecure_listen says: a client that reaches this address and \
             has the token can run any command as this user, and token and output cross the network \
             unencrypted. Name the hosts that clients use in allowed_hosts."
        );
    }
    Ok((listener, bound))
}

fn server_state(
    settings: Settings,
    claim: &DataDirClaim,
    tokens: Tokens,
    sockets: &Sockets,
    executor: Executor,
) -> std::io::Result<ServerState> {
    let address = sockets.address();
    Ok(ServerState {
        executor,
        tokens,
        owner: Arc::new(Principal::admin(CancellationToken::new())),
        origins: Allowed::new(address, &settings.allowed_hosts, &settings.allowed_origins),
        sessions: SessionSlots::new(settings.sessions_max, settings.unauthenticated_sessions_max),
        refusals: protocol::RefusalLog::default(),
        fair_queue: protocol::FairQueue::new(&settings),
        memory_budget: protocol::MemoryBudget::new(settings.held_bytes_max),
        large_batches: Semaphore::new(protocol::LARGE_BATCHES_AT_ONCE),
        parser: protocol::ParserThread::start()?,
        mcp: protocol::mcp::McpShared::default(),
        addresses: protocol::ServerAddresses {
            data_dir: claim.layout.root().to_owned(),
            socket: claim.layout.socket(),
            listen: address.map(|address| address.to_string()),
        },
        started: Instant::now(),
        draining: CancellationToken::new(),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
        settings,
    })
}

/// Writes down how this server was started, for `restart`. The file is replaced as a whole, so that
/// a reader never sees half of it.
fn write_start(claim: &DataDirClaim) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(&ServerStart::of_this_process())?;
    let draft = format!("{}.draft", Layout::START);
    Ok(claim
        .directory
        .replace_file(Layout::START, &draft, &bytes)?)
}

/// Prints the one line on stdout. The server runs on even if nothing reads it.
fn print_ready_line(state: &ServerState, claim: &DataDirClaim) {
    let line = json!({
        "event": "ready",
        "listen": state.addresses.listen,
        "socket": state.addresses.socket.display().to_string(),
        "data_dir": state.addresses.data_dir.display().to_string(),
        "token_file": claim.layout.token().display().to_string(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let line = escape::visible_json(&line.to_string()) + "\n";
    let _ = WaitingIo(std::io::stdout()).write_all(line.as_bytes());
}

/// Notifies the service manager, if NOTIFY_SOCKET names one (sd_notify(3)).
fn notify_service_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}

/// Waits for a reason to stop: a signal, or `idle_exit_s`. An error means that the server cannot go
/// on: its directory is gone, a part panicked, or the database failed and nothing can be
/// acknowledged.
async fn wait_for_stop(
    state: &ServerState,
    socket: ServedSocket<'_>,
    stop_signal: CancellationToken,
) -> anyhow::Result<()> {
    let reason = tokio::select! {
        () = socket.maintain() => anyhow::bail!(
            "the data directory was moved, removed or replaced while the server ran; running jobs go \
             on under their shims; start a server where the directory is now"
        ),
        failed = state.executor.failed() => match failed {
            Failed::Ledger => anyhow::bail!(
                "the database failed, or was removed or replaced while the server ran; look at the \
                 data directory and start again: the server then verifies what was acknowledged"
            ),
            Failed::Task => anyhow::bail!(
                "a part of the server panicked (a bug: please report it with the log); start again: \
                 running jobs go on, and the new server does what that part had left"
            ),
        },
        () = stop_signal.cancelled() => "a signal asked for it",
        () = wait_for_idle(state) => "no session, no live job and no waiting notice for idle_exit_s",
    };
    tracing::info!(reason, "the server stops");
    if state.settings.drain {
        drain(state).await;
    }
    Ok(())
}

async fn wait_for_idle(state: &ServerState) {
    let Some(limit) = state.settings.idle_exit_s.map(Duration::from_secs) else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval((limit / 4).min(IDLE_POLL_MAX));
    let mut busy_at = Instant::now();
    loop {
        ticks.tick().await;
        // A session that came and went between two checks counts as well.
        let empty_since = state.sessions.empty_since();
        let idle = empty_since.is_some() && has_no_work(state).await;
        busy_at = if idle {
            empty_since.unwrap_or(busy_at).max(busy_at)
        } else {
            Instant::now()
        };
        if busy_at.elapsed() >= limit && stop_taking_jobs_if_idle(state).await {
            return;
        }
    }
}

async fn has_no_work(state: &ServerState) -> bool {
    matches!(state.executor.live_jobs().await, Ok(0))
        && state.executor.notice_totals().waiting == 0
        && !state.executor.expects_schedules().await
}

/// Decides for good: a client that comes meanwhile waits until it is decided, so that no job is taken by a
/// server which then exits.
async fn stop_taking_jobs_if_idle(state: &ServerState) -> bool {
    let Some(_held) = state.sessions.hold_if_empty() else {
        return false;
    };
    let is_idle = has_no_work(state).await;
    if is_idle {
        state.draining.cancel();
        state.stopping.cancel();
    }
    is_idle
}

/// Refuses new jobs and waits until all others have ended. Only a second signal ends the wait: the
/// process then exits at once.
async fn drain(state: &ServerState) {
    state.draining.cancel();
    state.executor.stop_schedules();
    let mut ticks = tokio::time::interval(DRAIN_POLL);
    let mut logged = None;
    loop {
        ticks.tick().await;
        match state.executor.live_jobs().await {
            Ok(0) => return,
            Ok(jobs) if logged != Some(jobs) => {
                tracing::info!(jobs, "waiting for jobs before the stop");
                logged = Some(jobs);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot wait for the jobs");
                return;
            }
        }
    }
}

async fn stop(state: &ServerState, claim: &DataDirClaim) {
    shutdown::exit_after(STOP_LIMIT);
    notify_service_manager(NotifyState::Stopping);
    state.draining.cancel();
    state.stopping.cancel();
    state.tasks.close();
    if tokio::time::timeout(CLOSE_LIMIT, state.tasks.wait())
        .await
        .is_err()
    {
        tracing::info!("some sessions did not close in time; their connections are dropped");
    }
    state.executor.stop().await;
    // Without the socket, clients see at once that no server runs.
    let _ = claim.directory.remove(Layout::SOCKET);
    tracing::info!("the server has stopped; running jobs go on under their shims");
}
