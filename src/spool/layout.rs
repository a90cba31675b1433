//! The paths in a data directory. Names only: nothing here creates or opens a file.

use std::path::{Path, PathBuf};

/// The paths of one data directory.
///
/// ```text
/// DATA                      held by the server (flock): a file that can be removed is no safe lock
/// DATA/lock                 held by the server, too: earlier versions check only this file
/// DATA/server.start         how the server was started, for `restart`, 0600
/// DATA/server.in_force      the policy and the sources of secrets of the last server, 0600
/// DATA/server.starting      what a server does whose start takes long, while it does
/// DATA/cc-executor.db       the ledger
/// DATA/cc-executor.ballast  disk reserve for ends and cancels on a full disk
/// DATA/token                the administrator's bearer token for TCP, 0600
/// DATA/token.key            the key of all other tokens, 0600
/// DATA/audit.key            the private key that signs checkpoints of the audit trail, 0600
/// DATA/audit.key.next       the one that follows it, until the trail names it
/// DATA/server.sock          the Unix socket, 0600
/// DATA/server.log           log of a server that the CLI started
/// DATA/sql_history          history of the prompt of `sql`, 0600
/// DATA/spool/…              segments, and files of dropped ranges; one flat directory
/// DATA/shims.log            stderr of the shims: problems only
/// DATA/shims/ID.lock        held by the shim ID for its life (flock)
/// DATA/shims/ID.sock        the shim's socket
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Name of the server's lock file.
    pub const LOCK: &str = "lock";
    /// Name of the file that says how the running server was started.
    pub const START: &str = "server.start";
    /// Name of the file that says which policy and secrets the last server had in force.
    pub const IN_FORCE: &str = "server.in_force";
    /// Name of the note of a server whose start takes long.
    pub const STARTING: &str = "server.starting";
    /// Name of the token file.
    pub const TOKEN: &str = "token";
    /// Name of the file with the key of all other tokens.
    pub const TOKEN_KEY: &str = "token.key";
    /// Name of the file with the private key that signs checkpoints of the audit trail.
    pub const AUDIT_KEY: &str = "audit.key";
    /// Name of the file with the key that follows it.
    pub const AUDIT_KEY_NEXT: &str = "audit.key.next";
    /// Name of the server's Unix socket.
    pub const SOCKET: &str = "server.sock";
    /// Name of the log of a server that the CLI started.
    pub const LOG: &str = "server.log";
    /// Name of the history of the prompt of `sql`.
    pub const SQL_HISTORY: &str = "sql_history";
    /// Name of the directory of the segments.
    pub const SPOOL: &str = "spool";
    /// Name of the directory of the shims' locks and sockets.
    pub const SHIMS: &str = "shims";
    /// Name of the log with the stderr of shims.
    pub const SHIM_LOG: &str = "shims.log";

    /// The layout below `root`, which should be absolute.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The server's lock file.
    pub fn lock(&self) -> PathBuf {
        self.root.join(Self::LOCK)
    }

    /// The file that says how the running server was started.
    pub fn start(&self) -> PathBuf {
        self.root.join(Self::START)
    }

    /// The file that says which policy and secrets the last server had in force.
    pub fn in_force(&self) -> PathBuf {
        self.root.join(Self::IN_FORCE)
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.root.join("cc-executor.db")
    }

    /// The token file.
    pub fn token(&self) -> PathBuf {
        self.root.join(Self::TOKEN)
    }

    /// The server's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join(Self::SOCKET)
    }

    /// The log of a server that the CLI started.
    pub fn log(&self) -> PathBuf {
        self.root.join(Self::LOG)
    }

    /// The log with the stderr of shims; empty unless something is wrong.
    pub fn shim_log(&self) -> PathBuf {
        self.root.join(Self::SHIM_LOG)
    }

    /// The directory of the segments.
    pub fn spool(&self) -> PathBuf {
        self.root.join(Self::SPOOL)
    }

    /// The directory of the shims' locks and sockets.
    pub fn shims(&self) -> PathBuf {
        self.root.join(Self::SHIMS)
    }

    /// File name, below [`Self::shims`], of a shim's lock.
    pub fn shim_lock_name(shim: &str) -> String {
        format!("{shim}.lock")
    }

    /// File name, below [`Self::shims`], of a shim's socket.
    pub fn shim_socket_name(shim: &str) -> String {
        format!("{shim}.sock")
    }
}
