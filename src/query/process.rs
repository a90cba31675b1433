//! The server's side: starts a query process, sends it the question, reads the reply, and kills it
//! when its time is over.

use std::{io, path::PathBuf, process::Stdio, sync::Once, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    DATA_DIR, ROLE,
    messages::{QueryLimits, QueryParams, QueryRefusal, QueryReply, Question, ReplyMessage, Rows},
};
use crate::{
    store::{LogTooLong, LongRead, LongReadKind, ReadGate},
    sys::descriptors,
};

/// How much longer than its columns and rows a reply may be, bytes: its keys, what is missing, or the
/// message of a refusal.
const REPLY_MORE_BYTES: u64 = 64 << 10;

/// The limits of queries. Each is a setting of the server with the name `query_…` or `queries_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuerySettings {
    /// Time and memory of one query.
    pub bounds: QueryLimits,
    /// Most rows in a reply.
    pub rows_max: u64,
    /// Most queries that run at the same time.
    pub queries_max: u64,
    /// Most queries that wait; one more is refused.
    pub waiting_max: u64,
}

/// The result of a query that succeeded.
#[derive(Debug)]
pub struct QueryAnswer {
    /// What the statement returned.
    pub rows: Rows,
    /// How long it took, including the start of the process.
    pub elapsed: Duration,
}

/// Runs queries, up to `queries_max` at a time.
#[derive(Debug)]
pub struct Queries {
    data_dir: PathBuf,
    settings: QuerySettings,
    /// A query is a long read.
    gate: ReadGate,
    /// A permit for each query that runs or waits.
    admitted: Semaphore,
    /// A permit for each query that runs.
    running: Semaphore,
    warned: Once,
}

impl Queries {
    /// Queries over the database and the spool of this data directory.
    pub fn new(data_dir: PathBuf, settings: QuerySettings, gate: ReadGate) -> Self {
        let count = |n: u64| usize::try_from(n).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            data_dir,
            settings,
            gate,
            admitted: Semaphore::new(count(settings.queries_max + settings.waiting_max)),
            running: Semaphore::new(count(settings.queries_max)),
            warned: Once::new(),
        }
    }

    /// Runs one statement and returns up to `rows_max` rows (fewer where the setting is lower) of up to
    /// `bytes_max` bytes as JSON. Dropping the future kills the process.
    ///
    /// # Errors
    ///
    /// The statement is wrong, not allowed, or exceeds a limit; too many queries wait; the database's
    /// log has to become short first.
    pub async fn run(
        &self,
        sql: String,
        params: QueryParams,
        rows_max: Option<u64>,
        bytes_max: u64,
    ) -> Result<QueryAnswer, QueryRefusal> {
        let settings = &self.settings;
        let _admitted = self.admitted.try_acquire().map_err(|_| {
            let (running, waiting) = (settings.queries_max, settings.waiting_max);
            let message =
                format!("{running} queries run and {waiting} wait; try again in a moment");
            QueryRefusal::limit("queries_waiting_max", message)
        })?;
        // This cannot fail: the semaphore is never closed.
        let _running = self.running.acquire().await;
        let question = Question {
            sql,
            params,
            rows_max: rows_max.unwrap_or(settings.rows_max).min(settings.rows_max),
            bytes_max,
            bounds: settings.bounds,
        };
        // The time limit does not include this wait.
        let read = self.gate.enter(LongReadKind::Stoppable).await;
        let read = read.map_err(|LogTooLong| stopped())?;
        let began = Instant::now();
        let rows = self.run_process(&question, &read).await?;
        let elapsed = began.elapsed();
        Ok(QueryAnswer { rows, elapsed })
    }

    async fn run_process(
        &self,
        question: &Question,
        read: &LongRead,
    ) -> Result<Rows, QueryRefusal> {
        let failed = |error: io::Error| {
            tracing::error!(%error, "a query process could not be used");
            if descriptors::is_shortage(&error) {
                let message =
                    format!("no query process can be started now ({error}); try again in a moment");
                return QueryRefusal::Unavailable(message);
            }
            QueryRefusal::Internal("the query could not be run; see the server's log".to_owned())
        };
        let mut child = self.start().map_err(failed)?;
        let time = Duration::from_secs(question.bounds.timeout_s);
        let conversation = timeout(time, converse(&mut child, question));
        let done = tokio::select! {
            done = conversation => Some(done),
            () = read.must_end() => None,
        };
        let Some(done) = done else {
            // Waits for the end of the process: only then it does not read any more.
            let _ = child.kill().await;
            return Err(stopped());
        };
        match done {
            Ok(Ok(Some(ReplyMessage { reply, missing }))) => {
                self.warn_once(&missing);
                match reply {
                    QueryReply::Rows(rows) => Ok(rows),
                    QueryReply::Refused(refusal) => Err(refusal),
                }
            }
            Ok(Ok(None)) => Err(ended(&mut child, question).await),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => {
                // Waits for the end of the process, so that no zombie is left.
                let _ = child.kill().await;
                Err(too_slow(question))
            }
        }
    }

    /// Logs, once per server, which confinements this kernel does not have.
    fn warn_once(&self, missing: &[String]) {
        if !missing.is_empty() {
            self.warned.call_once(|| {
                let missing = missing.join("; ");
                tracing::warn!(missing, "queries are confined less than they could be");
            });
        }
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(ROLE).env_clear().env(DATA_DIR, &self.data_dir);
        // For SQL functions that use local time.
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

/// Sends the question and reads the reply; `None` if the process ended without one.
async fn converse(child: &mut Child, question: &Question) -> io::Result<Option<ReplyMessage>> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Ok(None);
    };
    let asked = stdin
        .write_all(serde_json::to_string(question)?.as_bytes())
        .await;
    drop(stdin);
    let mut text = String::new();
    let bytes_max = question.bytes_max.saturating_add(REPLY_MORE_BYTES);
    stdout.take(bytes_max).read_to_string(&mut text).await?;
    // A process that did not even read the question has no reply.
    if asked.is_err() || text.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&text)?))
}

/// Why a process ended without a reply.
async fn ended(child: &mut Child, question: &Question) -> QueryRefusal {
    use std::os::unix::process::ExitStatusExt;

    let status = child.wait().await;
    let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
    match signal {
        Some(libc::SIGXCPU | libc::SIGALRM) => too_slow(question),
        // Out of memory: Rust aborts, the kernel kills, or a stack cannot grow.
        Some(libc::SIGABRT | libc::SIGKILL | libc::SIGSEGV | libc::SIGBUS) => {
            let bytes = question.bounds.memory_bytes;
            let message = format!("the query needs more than {bytes} bytes of memory: select less");
            QueryRefusal::limit("query_memory_bytes", message)
        }
        _ => {
            tracing::error!(?status, "a query process ended without a reply");
            QueryRefusal::Internal("the query process failed; see the server's log".to_owned())
        }
    }
}

/// The query could not begin, or was stopped, because the write-ahead log has to become short.
fn stopped() -> QueryRefusal {
    QueryRefusal::Unavailable(
        "the query was stopped, because so much is written that the database's log has to be \
         shortened: try again in a moment, or narrow it down, so that it takes less time"
            .to_owned(),
    )
}

fn too_slow(question: &Question) -> QueryRefusal {
    let seconds = question.bounds.timeout_s;
    let message = format!(
        "the query took longer than {seconds} s and was stopped: narrow it down, such as to one job, \
         one queue, or at > ago('1 hour')"
    );
    QueryRefusal::limit("query_timeout_s", message)
}
