//! Which server a verb connects to, from options and variables: the one of a data directory, or one
//! at an address, with its token.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::spool::Layout;

/// Port of a server whose URL names none.
const DEFAULT_PORT: u16 = 8003;

/// The data directory of a verb that only makes sense on the server's own machine.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DataDir {
    /// Data directory of the server [env: CC_EXECUTOR_DATA_DIR] [default:
    /// $XDG_STATE_HOME/cc-executor, else ~/.local/state/cc-executor]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// The server of a verb that can also talk to another machine's.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connect {
    #[command(flatten)]
    dir: DataDir,

    /// Use the server at ws://HOST:PORT instead of the data directory's own
    /// [env: CC_EXECUTOR_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "data_dir", global = true)]
    server: Option<String>,

    /// File that holds the token for --server [env: CC_EXECUTOR_TOKEN_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,

    /// Token for --server; others see it in `ps`, unlike --token-file [env: CC_EXECUTOR_TOKEN]
    #[arg(
        long,
        value_name = "TOKEN",
        conflicts_with = "token_file",
        global = true
    )]
    token: Option<String>,
}

/// Which server to connect to.
#[derive(Debug, Clone)]
pub enum Target {
    /// The server of a data directory, through its Unix socket.
    Local(Layout),
    /// A server on TCP.
    Remote {
        /// `HOST:PORT`.
        address: String,
        /// The bearer token; `None` if none was given.
        token: Option<Secret>,
    },
}

/// Text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a variable is looked up; [`process_env`] outside of tests.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A variable of this process; an empty one counts as unset.
fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl DataDir {
    /// The layout of the chosen data directory.
    pub fn layout(&self) -> anyhow::Result<Layout> {
        self.layout_in(&process_env)
    }

    fn layout_in(&self, env: Env<'_>) -> anyhow::Result<Layout> {
        let chosen = self
            .data_dir
            .clone()
            .or_else(|| env("CC_EXECUTOR_DATA_DIR").map(PathBuf::from))
            .or_else(|| default_data_dir(env))
            .context("there is no home directory; name the data directory with --data-dir")?;
        let absolute = std::path::absolute(&chosen)
            .with_context(|| format!("the data directory {} cannot be used", chosen.display()))?;
        if absolute.to_str().is_none() {
            bail!(
                "the path of the data directory {} is not valid UTF-8, which the database needs; name \
                 another one with --data-dir",
                absolute.display()
            );
        }
        Ok(Layout::new(absolute))
    }
}

/// This user's default data directory; `None` without a home directory.
pub fn default_layout() -> Option<Layout> {
    default_data_dir(&process_env).map(Layout::new)
}

fn default_data_dir(env: Env<'_>) -> Option<PathBuf> {
    let state = env("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            let home = env("HOME").map(PathBuf::from).or_else(std::env::home_dir)?;
            Some(home.join(".local/state"))
        })?;
    Some(state.join("cc-executor"))
}

impl Connect {
    /// The layout of the chosen data directory, whichever server was named.
    pub fn layout(&self) -> anyhow::Result<Layout> {
        self.dir.layout()
    }

    /// The data directory that was named.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.dir.data_dir.clone()
    }

    /// The token that was given, in whichever way.
    pub fn own_token(&self) -> anyhow::Result<Option<Secret>> {
        self.secret(&process_env)
    }

    /// The chosen server.
    pub fn target(&self) -> anyhow::Result<Target> {
        self.target_in(&process_env)
    }

    fn target_in(&self, env: Env<'_>) -> anyhow::Result<Target> {
        let from_env = || {
            // --data-dir takes precedence over the variable.
            let unnamed = self.dir.data_dir.is_none();
            env("CC_EXECUTOR_SERVER")
                .filter(|_| unnamed)
                .map(|url| text("CC_EXECUTOR_SERVER", url))
        };
        match self.server.clone().map(Ok).or_else(from_env) {
            Some(url) => Ok(Target::Remote {
                address: address(&url?)?,
                token: self.secret(env)?,
            }),
            None => self.dir.layout_in(env).map(Target::Local),
        }
    }

    fn secret(&self, env: Env<'_>) -> anyhow::Result<Option<Secret>> {
        if let Some(token) = &self.token {
            return Ok(Some(Secret(token.clone())));
        }
        if let Some(path) = &self.token_file {
            return secret_file(path).map(Some);
        }
        if let Some(token) = env("CC_EXECUTOR_TOKEN") {
            return text("CC_EXECUTOR_TOKEN", token).map(Secret).map(Some);
        }
        env("CC_EXECUTOR_TOKEN_FILE")
            .map(|path| secret_file(Path::new(&path)))
            .transpose()
    }
}

fn secret_file(path: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the token file {} cannot be read", path.display()))?;
    Ok(Secret(text.trim().to_owned()))
}

fn text(name: &str, value: OsString) -> anyhow::Result<String> {
    value
        .into_string()
        .map_err(|_| anyhow::anyhow!("{name} is not valid UTF-8"))
}

/// `HOST:PORT` of a URL such as `ws://127.0.0.1:8003`; the scheme and the port may be left out.
fn address(url: &str) -> anyhow::Result<String> {
    let bare = match url.split_once("://") {
        None => url,
        Some(("ws" | "http", rest)) => rest,
        Some((scheme, _)) => bail!(
            "--server does not speak {scheme}; give ws://HOST:PORT (for TLS put a tunnel in front)"
        ),
    };
    let host = bare.strip_suffix('/').unwrap_or(bare);
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        bail!("--server {url:?} is not an address; give ws://HOST:PORT");
    }
    let port_at = host
        .rfind(':')
        .filter(|at| *at > host.rfind(']').unwrap_or(0));
    match port_at.map(|at| host[at + 1..].parse::<u16>()) {
        None => Ok(format!("{host}:{DEFAULT_PORT}")),
        Some(Ok(_)) => Ok(host.to_owned()),
        Some(Err(_)) => bail!("--server {url:?} has no valid port; give ws://HOST:PORT"),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(layout) => layout.root().display().fmt(f),
            Self::Remote { address, .. } => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env_of(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| {
            let found = pairs.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        }
    }

    fn root(connect: &Connect, pairs: &'static [(&str, &str)]) -> PathBuf {
        match connect.target_in(&env_of(pairs)).expect("a target") {
            Target::Local(layout) => layout.root().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_data_directory_is_found_in_order() {
        let none = Connect::default();
        let home = &[("HOME", "/home/me"), ("XDG_STATE_HOME", "relative")];
        assert_eq!(
            root(&none, home),
            Path::new("/home/me/.local/state/cc-executor")
        );
        let xdg = &[("HOME", "/home/me"), ("XDG_STATE_HOME", "/state")];
        assert_eq!(root(&none, xdg), Path::new("/state/cc-executor"));
        let var = &[
            ("CC_EXECUTOR_DATA_DIR", "/var/cc"),
            ("XDG_STATE_HOME", "/state"),
        ];
        assert_eq!(root(&none, var), Path::new("/var/cc"));
        let mut named = Connect::default();
        named.dir.data_dir = Some("/named".into());
        let server = &[
            ("CC_EXECUTOR_DATA_DIR", "/v"),
            ("CC_EXECUTOR_SERVER", "h:1"),
        ];
        assert_eq!(root(&named, server), Path::new("/named"));
    }

    #[test]
    fn an_address_is_read_from_a_url() {
        for (url, expected) in [
            ("ws://127.0.0.1:9000", "127.0.0.1:9000"),
            ("ws://localhost/", "localhost:8003"),
            ("http://h:1", "h:1"),
            ("h", "h:8003"),
            ("ws://[::1]", "[::1]:8003"),
            ("ws://[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(address(url).expect(url), expected);
        }
        for bad in [
            "wss://h:1",
            "ws://",
            "ws://h:x",
            "ws://h:1/ws?token=x",
            "ws://me@h",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_comes_from_the_environment_and_is_not_shown() {
        let connect = Connect {
            server: Some("ws://h:1".into()),
            ..Connect::default()
        };
        let target = connect.target_in(&env_of(&[("CC_EXECUTOR_TOKEN", "hush")]));
        let target = target.expect("a target");
        assert!(!format!("{target:?}").contains("hush"));
        let Target::Remote { token, .. } = target else {
            panic!("not remote");
        };
        assert_eq!(token, Some(Secret("hush".into())));
    }
}
