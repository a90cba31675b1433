//! The server's side: starts a query process, asks it, and kills it when its time is over.
//!
//! What the process does with the question is not known here.

use std::{io, path::PathBuf, process::Stdio, sync::Once, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    DATA_DIR, ROLE,
    ask::{QueryLimits, QueryParams, QueryRefusal, QueryReply, Question, Rows, Said},
};
use crate::sys::descriptors;

/// Beside its rows a reply has names of columns and little else, bytes.
const REPLY_MORE_BYTES: u64 = 1 << 20;

/// The bounds of queries. Each is a setting of the server with the name `query_…` or `queries_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuerySettings {
    /// What one of them may use.
    pub bounds: QueryLimits,
    /// The most rows of an answer.
    pub rows_max: u64,
    /// How many run at a time.
    pub queries_max: u64,
    /// How many more may wait.
    pub waiting_max: u64,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            bounds: QueryLimits {
                timeout_s: 5,
                memory_bytes: 256 << 20,
            },
            rows_max: 10_000,
            queries_max: 2,
            waiting_max: 16,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub struct QueryAnswer {
    /// The rows.
    pub rows: Rows,
    /// How long it took, the start of the process included.
    pub elapsed: Duration,
}

/// Runs queries, a few at a time.
#[derive(Debug)]
pub struct Queries {
    data_dir: PathBuf,
    settings: QuerySettings,
    /// For those that run and those that wait.
    seats: Semaphore,
    /// For those that run.
    places: Semaphore,
    noted: Once,
}

impl Queries {
    /// Over the database and the spool of this data directory.
    pub fn new(data_dir: PathBuf, settings: QuerySettings) -> Self {
        let count = |n: u64| usize::try_from(n).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            data_dir,
            settings,
            seats: Semaphore::new(count(settings.queries_max + settings.waiting_max)),
            places: Semaphore::new(count(settings.queries_max)),
            noted: Once::new(),
        }
    }

    /// The answer to one statement: at most `rows_max` rows (fewer where the setting is lower) of at
    /// most `bytes_max` bytes as JSON. Dropping the future kills the process.
    ///
    /// # Errors
    ///
    /// The statement is wrong, not allowed, or needs more than it may have; too many queries wait.
    pub async fn ask(
        &self,
        sql: String,
        params: QueryParams,
        rows_max: Option<u64>,
        bytes_max: u64,
    ) -> Result<QueryAnswer, QueryRefusal> {
        let settings = &self.settings;
        let _seat = self.seats.try_acquire().map_err(|_| {
            let (running, waiting) = (settings.queries_max, settings.waiting_max);
            let message =
                format!("{running} queries run and {waiting} wait; try again in a moment");
            QueryRefusal::limit("queries_waiting_max", message)
        })?;
        // It is never closed.
        let _place = self.places.acquire().await;
        let ask = Question {
            sql,
            params,
            rows_max: rows_max.unwrap_or(settings.rows_max).min(settings.rows_max),
            bytes_max,
            bounds: settings.bounds,
        };
        let began = Instant::now();
        let rows = self.run(&ask).await?;
        let elapsed = began.elapsed();
        Ok(QueryAnswer { rows, elapsed })
    }

    async fn run(&self, ask: &Question) -> Result<Rows, QueryRefusal> {
        let failed = |error: io::Error| {
            tracing::error!(%error, "a query process could not be used");
            if descriptors::is_shortage(&error) {
                let message =
                    format!("no query process can be started now ({error}); try again in a moment");
                return QueryRefusal::Unavailable(message);
            }
            QueryRefusal::Internal(
                "the query could not be run; the server's log says why".to_owned(),
            )
        };
        let mut child = self.start().map_err(failed)?;
        let time = Duration::from_secs(ask.bounds.timeout_s);
        match timeout(time, converse(&mut child, ask)).await {
            Ok(Ok(Some(Said { reply, missing }))) => {
                self.note(&missing);
                match reply {
                    QueryReply::Rows(rows) => Ok(rows),
                    QueryReply::Refused(refusal) => Err(refusal),
                }
            }
            Ok(Ok(None)) => Err(ended(&mut child, ask).await),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => {
                // It is reaped here, so that none of them is left behind.
                let _ = child.kill().await;
                Err(too_slow(ask))
            }
        }
    }

    /// Says once what this kernel does not fence in.
    fn note(&self, missing: &[String]) {
        if !missing.is_empty() {
            self.noted.call_once(|| {
                let missing = missing.join("; ");
                tracing::warn!(missing, "queries are confined less than they could be");
            });
        }
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(ROLE).env_clear().env(DATA_DIR, &self.data_dir);
        // Local times, where somebody asks for them.
        if let Some(zone) = std::env::var_os("TZ") {
            command.env("TZ", zone);
        }
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Asks and hears the reply; `None` where it ended without one.
async fn converse(child: &mut Child, ask: &Question) -> io::Result<Option<Said>> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Ok(None);
    };
    let asked = stdin
        .write_all(serde_json::to_string(ask)?.as_bytes())
        .await;
    drop(stdin);
    let mut text = String::new();
    let bytes_max = ask.bytes_max.saturating_add(REPLY_MORE_BYTES);
    stdout.take(bytes_max).read_to_string(&mut text).await?;
    // Whoever did not even read the question has no reply.
    if asked.is_err() || text.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&text)?))
}

/// Why a process ended without a reply.
async fn ended(child: &mut Child, ask: &Question) -> QueryRefusal {
    use std::os::unix::process::ExitStatusExt;

    let status = child.wait().await;
    let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
    match signal {
        Some(libc::SIGXCPU | libc::SIGALRM) => too_slow(ask),
        // No memory: Rust's own way to say so, the kernel's, and that of a stack that cannot grow.
        Some(libc::SIGABRT | libc::SIGKILL | libc::SIGSEGV | libc::SIGBUS) => {
            let bytes = ask.bounds.memory_bytes;
            let message = format!("the query needs more than {bytes} bytes of memory: select less");
            QueryRefusal::limit("query_memory_bytes", message)
        }
        _ => {
            tracing::error!(?status, "a query process ended without a reply");
            QueryRefusal::Internal(
                "the query process failed; the server's log says more".to_owned(),
            )
        }
    }
}

fn too_slow(ask: &Question) -> QueryRefusal {
    let seconds = ask.bounds.timeout_s;
    let message = format!(
        "the query took longer than {seconds} s and was stopped: narrow it down, such as to one job, \
         one queue, or at > ago('1 hour')"
    );
    QueryRefusal::limit("query_timeout_s", message)
}
