//! The settings: every bound of the server with its unit, default, range and meaning. A value comes from an
//! option, else from the environment, else from a TOML file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

mod layers;
mod options;
mod value;

pub use layers::{ConfigError, Layers, Origin};
pub use options::SettingOptions;
pub use value::{CheckpointSink, IsolationSetting, Listen, LogFormat, SettingValue};

/// Prefix of the variables from which settings are read.
pub const ENV_PREFIX: &str = "CC_EXECUTOR_";

/// Name of the settings file in the data directory.
pub const FILE_NAME: &str = "config.toml";

/// The variable that names the settings file.
const CONFIG_VARIABLE: &str = "CC_EXECUTOR_CONFIG";

/// The highest value of `message_bytes_max`: no server sends a longer message.
pub const MESSAGE_BYTES_LIMIT: usize = 1 << 26;

/// One row of the settings table.
#[derive(Debug)]
pub struct SettingRow {
    /// The TOML key; the names of the variable and the option are derived from it.
    pub name: &'static str,
    /// Its help text, line by line.
    pub doc: &'static [&'static str],
    /// Whether the option may be given without a value.
    pub flag: bool,
}

impl SettingRow {
    /// The variable, such as `CC_EXECUTOR_SESSIONS_MAX`.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// The option of `serve` without its dashes, such as `sessions-max`.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its help text in one line.
    pub fn help(&self) -> String {
        self.doc
            .iter()
            .map(|line| line.trim())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A setting with the value that is in force, for display.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The TOML key.
    pub name: &'static str,
    /// The value, as it may be written into a settings file.
    pub value: serde_json::Value,
    /// The layer that the value comes from.
    pub origin: Origin,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $bound:expr;)+) => {
        /// Every setting, with the value that is in force.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        /// The settings table, in the order in which it is shown.
        pub static TABLE: &[SettingRow] = &[$(SettingRow {
            name: stringify!($name),
            doc: &[$($doc),+],
            flag: <$type as SettingValue>::FLAG,
        }),+];

        impl Settings {
            /// Picks every setting from the highest layer that has it.
            fn pick(layers: &Layers) -> Result<(Self, Vec<Shown>), ConfigError> {
                let mut shown = Vec::with_capacity(TABLE.len());
                $(
                    let ($name, origin) =
                        layers.pick::<$type>(stringify!($name), || $default, &$bound)?;
                    shown.push(Shown {
                        name: stringify!($name),
                        value: $name.show(),
                        origin,
                    });
                )+
                Ok((Self { $($name,)+ }, shown))
            }

            /// Every setting that bounds something, by name; null if there is no bound.
            pub fn bounds(&self) -> serde_json::Map<String, serde_json::Value> {
                let all = [$((stringify!($name), self.$name.bound())),+];
                let bounds = all.into_iter().filter_map(|(name, bound)| Some((name, bound?)));
                bounds.map(|(name, bound)| (name.to_owned(), bound)).collect()
            }
        }
    };
}

/// Any whole number that TOML and JSON can write.
const ANY: std::ops::RangeInclusive<u64> = 0..=i64::MAX as u64;

settings! {
    /// Directory in which the server keeps everything.
    data_dir: PathBuf = default_data_dir(), ();
    /// TCP address, HOST:PORT with a numeric host (port 0 takes a free one), or none. An address beyond
    /// this machine needs insecure_listen, because the token would cross the network in clear text.
    listen: Listen = Listen::default(), ();
    /// Allow listen to be an address beyond this machine, although nothing that crosses the network is
    /// encrypted, the token included.
    insecure_listen: bool = false, ();
    /// Further Host values that are answered on TCP, with or without a port.
    allowed_hosts: Vec<String> = Vec::new(), ();
    /// Further Origin values that are answered, complete, such as `https://example.com`.
    allowed_origins: Vec<String> = Vec::new(), ();
    /// Before a planned stop, take no new jobs and wait until all jobs are final.
    drain: bool = false, ();
    /// Exit after this many seconds without a session, a live job and a waiting notice, or none.
    idle_exit_s: Option<u64> = None, 1..=315_360_000;
    /// Most WebSocket sessions on TCP.
    sessions_max: u64 = 100, 1..=100_000;
    /// Most of these sessions that have not shown the token.
    unauthenticated_sessions_max: u64 = 16, 1..=100_000;
    /// Most bytes that such a session may send before it has shown the token.
    unauthenticated_bytes_max: u64 = 64 << 10, (8 << 10)..=(1 << 30);
    /// Most connections on the Unix socket; beyond it the oldest that has sent no request is closed.
    unix_connections_max: u64 = 1000, 1..=100_000;
    /// Most connections on TCP, of any kind; beyond it the oldest that has not shown the token is closed.
    tcp_connections_max: u64 = 2048, 1..=100_000;
    /// Seconds that a client has to send the head of a request.
    handshake_timeout_s: u64 = 10, 1..=3600;
    /// Seconds that a session has to authenticate.
    auth_timeout_s: u64 = 10, 1..=3600;
    /// Longest WebSocket message in either direction, bytes.
    message_bytes_max: u64 = 1 << 20, (1 << 20)..=(MESSAGE_BYTES_LIMIT as u64);
    /// Deepest nesting of a message, levels.
    json_depth_max: u64 = 64, 8..=100;
    /// Most requests of a session that wait for their reply.
    in_flight_max: u64 = 64, 1..=10_000;
    /// Bytes of a session's requests that wait to be executed; at this many nothing more is read from it.
    in_flight_bytes_max: u64 = 256 << 10, 1..=(1 << 30);
    /// Bytes of replies that wait for a slow session; at this many no further request of it is executed.
    replies_queued_bytes_max: u64 = 16 << 10, 1..=(1 << 30);
    /// Bytes of unfinished messages, requests and unread replies of all sessions together, beyond 64 KiB of
    /// each. If there are more, the session is closed whose client has not sent or read for the longest
    /// time. At least four times message_bytes_max.
    held_bytes_max: u64 = 16 << 20, (4 << 20)..=(1 << 40);
    /// Most jobs of one job.submit_many.
    submit_many_max: u64 = 10_000, 1..=10_000;
    /// Most bytes of the commands, environments, labels and stdin of these jobs; also at most half of
    /// wal_bytes_max, because they are stored in one commit.
    submit_many_bytes_max: u64 = 32 << 20, (1 << 20)..=(1 << 34);
    /// Requests that a session may send at once; sessions that send more take turns.
    requests_burst_max: u64 = 256, 1..=1_000_000;
    /// How many of these requests a session regains every second.
    requests_per_s: u64 = 10, 1..=1_000_000;
    /// Requests per second of all sessions that take turns; a session that is alone is not slowed down.
    flood_requests_per_s: u64 = 4000, 1..=1_000_000;
    /// Most tails of a session.
    subscriptions_max: u64 = 256, 1..=10_000;
    /// Seconds between the server's pings.
    ping_interval_s: u64 = 20, 1..=3600;
    /// Unanswered pings after which a session is closed.
    pings_unanswered_max: u64 = 3, 1..=100;
    /// Most notifications that wait for a slow session, and most of its tails that hold output for the next
    /// ones; each has up to about 50 KiB.
    notifications_queued_max: u64 = 1, 1..=1000;
    /// Size of the buffer in which small messages are collected before they are written, bytes.
    write_buffer_bytes: u64 = 16 << 10, 0..=(1 << 24);
    /// File with rules that say which jobs are taken, or none for every job. It is loaded again on SIGHUP.
    policy: Option<PathBuf> = None, ();
    /// Where signed checkpoints of the audit trail go: an absolute path of a file to which they are appended,
    /// journald, command:PROGRAM ARGUMENTS for a command that gets each on its stdin, or none.
    audit_checkpoints: CheckpointSink = CheckpointSink::None, ();
    /// Seconds between two checkpoints, if there are new entries; there is one more at a planned stop.
    audit_checkpoint_s: u64 = 60, 1..=86_400;
    /// Seconds after which checkpoints are signed with a new key, and the old private key is erased.
    audit_key_s: u64 = 3600, 1..=31_536_000;
    /// Days that entries of the audit trail are kept, or none for ever.
    audit_days: Option<u64> = Some(400), 1..=36_500;
    /// Kinds of refusals (client, method and rule) that are counted apart for the audit trail; further ones
    /// count together.
    audit_refusal_kinds_max: u64 = 1024, 1..=1_000_000;
    /// Directory with secrets, one file each that only its owner can read, or none. Jobs refer to them by name;
    /// the credentials of a systemd service are a second source.
    secrets_dir: Option<PathBuf> = None, ();
    /// Longest value of a secret, bytes.
    secret_bytes_max: u64 = 64 << 10, 1..=(64 << 10);
    /// Which log lines are written: a level (error, warn, info, debug, trace) or a filter.
    log_level: String = "info".to_owned(), ();
    /// Format of log lines: text, json, or auto (text on a terminal).
    log_format: LogFormat = LogFormat::Auto, ();
    /// Write log lines to this file instead of stderr, or none.
    log_file: Option<PathBuf> = None, ();
    /// Size at which a new log file is begun, bytes; one old file is kept.
    log_file_bytes_max: u64 = 8 << 20, (64 << 10)..=(1 << 40);
    /// Size at which segments of the output log are sealed, bytes.
    segment_bytes: u64 = 4 << 20, (64 << 10)..=(1 << 30);
    /// Output up to this size moves into the database when its job is final, bytes.
    inline_bytes_max: u64 = 256 << 10, 0..=(16 << 20);
    /// Most bytes of the output log in all, or none; beyond it processes wait.
    spool_bytes_max: Option<u64> = None, ANY;
    /// Bytes that stay free on the file system of the data directory, or none for the smaller of 256 MiB
    /// and 5 % of it; below it processes wait.
    free_bytes_min: Option<u64> = None, ANY;
    /// Bytes that a file of the data directory reserves, so that ends and cancels can still be stored on a
    /// full disk, or none for the smaller of 8 MiB and 5 % of the file system; 0: no reserve.
    ballast_bytes: Option<u64> = None, 0..=(1 << 30);
    /// How a job's processes are held together: A (a control group for each attempt), B (the process tree
    /// below a shim), or auto for the highest that is possible. A level that is not possible refuses the start.
    isolation: IsolationSetting = IsolationSetting::Auto, ();
    /// Idle shims that are kept ready.
    warm_shims: u64 = 2, 0..=1024;
    /// How long a shim may take to answer at the start before it is left as it is, milliseconds.
    shim_answer_ms: u64 = 1000, 1..=60_000;
    /// Databases up to this size are checked for damage before the server answers, bytes; larger ones
    /// are checked while it works.
    check_bytes_max: u64 = 128 << 20, ANY;
    /// How long the database's write-ahead log may become, bytes. Queries wait for a moment, or are stopped,
    /// where it would become longer.
    wal_bytes_max: u64 = 64 << 20, (8 << 20)..=(1 << 40);
    /// How long a query over the history may take, seconds.
    query_timeout_s: u64 = 5, 1..=3600;
    /// Memory of a query, bytes.
    query_memory_bytes: u64 = 256 << 20, (64 << 20)..=(1 << 40);
    /// Most rows of a query's answer.
    query_rows_max: u64 = 10_000, 1..=10_000_000;
    /// Most queries that run at a time.
    queries_max: u64 = 2, 1..=1000;
    /// Most queries that wait for those; more are refused.
    queries_waiting_max: u64 = 16, 0..=10_000;
    /// How long a verification may take, seconds, and as much again for each 4 GiB of the output.
    verify_timeout_s: u64 = 60, 1..=86_400;
    /// Most verifications that take turns, one for each session.
    verifies_max: u64 = 8, 1..=1000;
    /// Most verifications of other sessions that wait for those; more are refused.
    verifies_waiting_max: u64 = 64, 0..=10_000;
    /// How long the search of an output for the patterns that its job expects may compute, seconds, and as
    /// much again for each 4 GiB of it. A pattern that is not found by then counts as not shown.
    expect_timeout_s: u64 = 60, 1..=86_400;
    /// How long a search through outputs may take, seconds. It then answers with what it has found, and
    /// can be continued.
    search_timeout_s: u64 = 10, 1..=3600;
    /// Most output that a search reads before it answers with what it has found, bytes.
    search_bytes_max: u64 = 4 << 30, (16 << 20)..=i64::MAX as u64;
    /// Most searches that take turns, one for each session.
    searches_max: u64 = 8, 1..=1000;
    /// Most searches of other sessions that wait for those; more are refused.
    searches_waiting_max: u64 = 64, 0..=10_000;
    /// Seconds between two applications of the rules of retention.
    retention_interval_s: u64 = 300, 1..=86_400;
    /// After so many ends of jobs the rules of retention are applied as well.
    retention_after_ends: u64 = 1000, 1..=1_000_000_000;
    /// When the data directory takes so many bytes, ls and status warn, or none.
    disk_warn_bytes: Option<u64> = Some(10 << 30), ANY;
    /// Most deliveries of notices at a time; up to a quarter of them to the same host or program.
    notices_running_max: u64 = 16, 1..=1000;
    /// How long an attempt to deliver a notice may take, seconds.
    notice_timeout_s: u64 = 15, 1..=3600;
    /// Most attempts to deliver a notice; it is then given up.
    notice_attempts_max: u64 = 30, 1..=1000;
    /// Seconds after which a notice that is not delivered is given up.
    notice_age_max_s: u64 = 259_200, 1..=31_536_000;
    /// Pause after the first failed attempt to deliver a notice, milliseconds; each further one is twice as
    /// long, up to four hours.
    notice_backoff_ms: u64 = 5000, 1..=3_600_000;
    /// Most notices that wait for their delivery; beyond it, jobs with notify are refused.
    notices_waiting_max: u64 = 100_000, 1..=100_000_000;
}

/// The server would be reachable from other machines, without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "listening on {0} would send the token and all output unencrypted over the network; listen on \
     127.0.0.1 behind a TLS proxy or an SSH tunnel, or allow it with --insecure-listen \
     (insecure_listen = true, {ENV_PREFIX}INSECURE_LISTEN=true)"
)]
pub struct InsecureListen(pub SocketAddr);

/// The settings in force and where they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values.
    pub settings: Settings,
    /// All of them for display, in the order of the table.
    pub shown: Vec<Shown>,
}

/// Reads all layers: defaults, the file, this process's environment, `options`.
///
/// The file is `config` if given (then it must exist), else `config.toml` in the data directory if there is
/// one.
///
/// # Errors
///
/// The file cannot be read or is no TOML, a key is unknown, or a value is wrong.
pub fn load(
    config: Option<&Path>,
    options: &BTreeMap<String, OsString>,
) -> Result<Loaded, ConfigError> {
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v)));
    load_from(config, environment.collect(), options)
}

/// Whether a server reads a variable of this name, as a setting or as the settings file.
pub fn is_variable(name: &str) -> bool {
    name == CONFIG_VARIABLE || TABLE.iter().any(|entry| entry.variable() == name)
}

/// The settings file that an environment names. An empty variable counts as unset, as that of a setting.
pub fn file_named_in(environment: &BTreeMap<String, OsString>) -> Option<PathBuf> {
    let named = environment.get(CONFIG_VARIABLE);
    named.filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// [`load`] with this environment.
pub fn load_from(
    config: Option<&Path>,
    environment: BTreeMap<String, OsString>,
    options: &BTreeMap<String, OsString>,
) -> Result<Loaded, ConfigError> {
    let config = config
        .map(Path::to_owned)
        .or_else(|| file_named_in(&environment));
    let mut layers = Layers::new(options.clone(), environment);
    match config {
        Some(file) => layers.read_file(&file)?,
        None => layers.read_file_of(default_data_dir)?,
    }
    let (settings, shown) = Settings::pick(&layers)?;
    settings.check()?;
    Ok(Loaded { settings, shown })
}

impl Settings {
    /// Checks what depends on more than one value.
    fn check(&self) -> Result<(), ConfigError> {
        if self.segment_bytes > i64::MAX as u64 {
            return Err(ConfigError::value("segment_bytes", "is too large"));
        }
        if self.held_bytes_max / 4 < self.message_bytes_max {
            let why = "must be at least four times message_bytes_max";
            return Err(ConfigError::value("held_bytes_max", why));
        }
        Ok(())
    }

    /// Whether the server may listen on `listen`.
    ///
    /// # Errors
    ///
    /// The address is beyond this machine, and `insecure_listen` is not set.
    pub fn check_listen(&self) -> Result<(), InsecureListen> {
        match self.listen {
            Listen::Address(address) if !address.ip().to_canonical().is_loopback() => {
                match self.insecure_listen {
                    true => Ok(()),
                    false => Err(InsecureListen(address)),
                }
            }
            _ => Ok(()),
        }
    }

    /// A path among the values, the data directory's aside, that depends on the working directory.
    pub fn relative_path(&self) -> Option<PathBuf> {
        let program = match &self.audit_checkpoints {
            // Without a slash it is looked up in PATH.
            CheckpointSink::Command(argv) => argv.first().filter(|program| program.contains('/')),
            _ => None,
        };
        let files = [&self.policy, &self.secrets_dir, &self.log_file];
        let mut paths = files.into_iter().flatten().map(PathBuf::as_path);
        let relative = paths.find(|path| path.is_relative());
        let program = program.map(Path::new).filter(|path| path.is_relative());
        relative.or(program).map(Path::to_owned)
    }

    /// `handshake_timeout_s` as a [`Duration`].
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_timeout_s)
    }

    /// `auth_timeout_s` as a [`Duration`].
    pub fn auth_timeout(&self) -> Duration {
        Duration::from_secs(self.auth_timeout_s)
    }

    /// `ping_interval_s` as a [`Duration`].
    pub fn ping_interval(&self) -> Duration {
        Duration::from_secs(self.ping_interval_s)
    }

    /// The bytes that one `job.submit_many` may store.
    pub fn submit_many_bytes(&self) -> u64 {
        self.submit_many_bytes_max.min(self.wal_bytes_max / 2)
    }

    /// The bytes that a session may send of one `job.submit_many` before its last part: half of what all
    /// sessions may hold.
    pub fn parts_bytes(&self) -> u64 {
        self.held_bytes_max / 2
    }

    /// `message_bytes_max` as a length in memory.
    pub fn message_len_max(&self) -> usize {
        usize::try_from(self.message_bytes_max).unwrap_or(usize::MAX)
    }
}

/// The data directory where none is named: `$XDG_STATE_HOME/cc-executor`, else
/// `~/.local/state/cc-executor`.
pub fn default_data_dir() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("cc-executor")
}

#[cfg(test)]
mod tests;
