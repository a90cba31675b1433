//! `token`: prints the bearer token of a data directory.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use crate::{config, data_dir::OwnDir, protocol::auth::Token};

/// Options of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The data directory of the server.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Prints the token and nothing else.
pub async fn token(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let path = config::data_dir(args.data_dir);
    let missing = || {
        format!(
            "there is no token in {}; `cc-executor serve` creates it at its first start",
            path.display()
        )
    };
    let directory = OwnDir::open(&path)?.with_context(missing)?;
    let token = Token::load(&directory)?.with_context(missing)?;
    writeln!(std::io::stdout(), "{}", token.secret())?;
    Ok(ExitCode::SUCCESS)
}
