//! `input`: sends text, or its own stdin, to the stdin of an interactive job.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
};

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep_until};

use crate::cli::{
    connect::{
        client::RequestError,
        find_job,
        forward::{ResendDelay, WriteIds},
        link::{self, Link, StartPolicy, VersionNotice},
        stdin::{PIECE_BYTES_MAX, Stdin},
        target::Connect,
        wire::WireError,
    },
    render::print,
};

/// After this time a line on the terminal says what the command waits for.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// How long an input is sent again while the server or the job's shim is unavailable.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(30);

/// Options of `input`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without TEXT, input sends its own stdin as it is, up to the end; with --eof and a terminal as stdin, \
only the end. The server holds a bounded amount of input for a job that does not read: beyond that, \
input waits until the job reads.")]
pub struct InputArgs {
    #[command(flatten)]
    connect: Connect,

    /// The job: a number, an id, a name (the newest of it), or `last` for the newest of all
    job: String,

    /// What to send: the words, separated by spaces, and a newline
    text: Vec<OsString>,

    /// Close the job's stdin afterwards
    #[arg(long)]
    eof: bool,

    /// Send no newline after TEXT
    #[arg(short = 'n', long, requires = "text")]
    no_newline: bool,
}

/// Sends TEXT, or stdin.
pub async fn input(args: InputArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve_live(&mut link, &args.job).await?;
    let mut sender = Sender {
        link,
        job,
        write_ids: WriteIds::new(),
    };
    if !args.text.is_empty() {
        // A message has a longest length, and the server holds a bounded amount.
        let text = line(&args.text, !args.no_newline);
        let mut pieces = text.chunks(PIECE_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            sender.send(piece, args.eof && is_last).await?;
        }
        if text.is_empty() && args.eof {
            sender.send(b"", true).await?;
        }
    } else {
        if !(args.eof && io::stdin().is_terminal()) {
            let mut stdin = Stdin::start()?;
            while let Some(piece) = stdin.next().await {
                sender.send(&piece, false).await?;
            }
        }
        if args.eof {
            sender.send(b"", true).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(words: &[OsString], newline: bool) -> Vec<u8> {
    let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
    let mut line = words.join(&b' ');
    line.extend(newline.then_some(b'\n'));
    line
}

struct Sender {
    link: Link,
    job: Value,
    write_ids: WriteIds,
}

impl Sender {
    /// Sends an input until the server accepts it, across losses of the server; its `write_id`
    /// makes sure that the job gets it once.
    async fn send(&mut self, data: &[u8], eof: bool) -> anyhow::Result<()> {
        let mut input = self.write_ids.input(data, eof);
        input["job"] = self.job.clone();
        let began = Instant::now();
        let mut backoff = ResendDelay::new();
        let mut noted = false;
        loop {
            let Err(error) = self.link.request("job.input", &input).await else {
                return Ok(());
            };
            let waits = match refusal(&error) {
                Some(error) if error.code == WireError::LIMIT_EXCEEDED => true,
                Some(error) => error.is_temporary() && began.elapsed() < UNAVAILABLE_MAX,
                None => false,
            };
            if !waits {
                return Err(error);
            }
            if began.elapsed() >= NOTE_AFTER && !std::mem::replace(&mut noted, true) {
                print::line_on_terminal(&format!("waiting: {error:#}"));
            }
            sleep_until(backoff.next_try()).await;
        }
    }
}

fn refusal(error: &anyhow::Error) -> Option<&WireError> {
    match error.downcast_ref() {
        Some(RequestError::Refused(error)) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_line() {
        let words: Vec<OsString> = vec!["go".into(), "on,  then".into()];
        assert_eq!(line(&words, true), b"go on,  then\n");
        assert_eq!(line(&words[..1], false), b"go");
        assert_eq!(line(&["".into()], true), b"\n");
    }
}
