//! The methods of a WebSocket session: one row each. What all interfaces share is in
//! `protocol::methods`; tails and the token are here, because they belong to a session.

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{outbox::PausedTails, session::Session, tails::Granted};
use crate::access::Scope;
use crate::protocol::{
    ErrorKind,
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::job_ref},
    methods::{
        CONTAINERS_MAX, MANY_CONTAINERS_MAX, audit_read, backup, control, delete, disk_usage,
        explain, get, info, input, list, notice_list, notice_retry, notice_test, policy_reload,
        prune, query, queue_delete, queue_list, queue_set, read, retention_delete, retention_list,
        retention_set, retry, schedule_delete, schedule_list, schedule_run, schedule_set, search,
        token, update, verify, wait,
    },
    narrowing::Narrowing,
};

pub mod authenticate;
mod submit;
mod submit_many;
mod tail;
mod untail;

/// The only method that a client may call before it has shown the token.
pub const AUTHENTICATE: &str = "session.authenticate";

/// A request's parameters, as values.
pub type Parameters = Map<String, Value>;

/// What a method returns.
#[derive(Debug)]
pub struct Outcome {
    /// The result, as JSON.
    pub result: Box<RawValue>,
    /// The tail that begins after the reply.
    pub granted: Option<Granted>,
}

impl Outcome {
    fn of<T: Serialize>(result: &T) -> Self {
        to_raw(result).into()
    }
}

impl From<Box<RawValue>> for Outcome {
    fn from(result: Box<RawValue>) -> Self {
        Self {
            result,
            granted: None,
        }
    }
}

/// A running method: its outcome, or why the request is refused.
pub type MethodFuture<'a> = BoxFuture<'a, Result<Outcome, Refusal>>;

/// What a concurrent method returns.
pub enum ConcurrentOutcome<'a> {
    /// The result, as JSON.
    Ready(Box<RawValue>),
    /// The method has waited; its reply is made after the reply's permit is there.
    Deferred(MethodFuture<'a>),
}

/// The running first part of a batched method; it returns the rest.
pub type BatchedFuture<'a> = BoxFuture<'a, Result<MethodFuture<'a>, Refusal>>;

/// A running concurrent method.
pub type ConcurrentFuture<'a> = BoxFuture<'a, Result<ConcurrentOutcome<'a>, Refusal>>;

/// How a request is executed beside the session's other requests.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// After the request before it is answered, and before the next one begins.
    Ordered(for<'a> fn(&'a Session, Parameters) -> MethodFuture<'a>),
    /// After the request before it; others of the same kind that follow it share its commit. The first
    /// part of it is done in order, as that of an ordered one.
    Batched(for<'a> fn(&'a Session, Parameters) -> BatchedFuture<'a>),
    /// Begins in order, then runs beside all others: it may take long.
    Concurrent(for<'a> fn(&'a Session, Parameters) -> ConcurrentFuture<'a>),
}

/// The name of a method. A row cannot name itself without saying which scopes a client needs, and what the
/// method tells a client whose token is narrowed to some jobs.
#[derive(Debug, Clone, Copy)]
pub struct MethodName {
    /// The name on the wire.
    pub wire: &'static str,
    /// The scopes that a client needs.
    pub scopes: &'static [Scope],
    /// How it is held to the jobs that a token reaches.
    pub narrowing: Narrowing,
}

impl MethodName {
    const fn of(wire: &'static str, scopes: &'static [Scope], narrowing: Narrowing) -> Self {
        Self {
            wire,
            scopes,
            narrowing,
        }
    }
}

impl std::fmt::Display for MethodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.wire)
    }
}

/// A method that this version has.
#[derive(Debug)]
pub struct Method {
    /// Its name on the wire, with what a token needs for it.
    pub name: MethodName,
    /// How a request with these parameters is executed.
    pub mode: fn(&Parameters) -> Mode,
    /// Whether the reply to a request with these parameters may be long.
    pub long_reply: fn(&Parameters) -> bool,
    /// Of which tails that were there before it a request with these parameters may cause notifications. A
    /// request that waits for a shim names those of its job alone: the session's others go on meanwhile.
    pub wakes_tails: fn(&Parameters) -> PausedTails,
    /// Whether it changes nothing, so that it need not run after the client has left. `job.get` and
    /// `job.tail` do change something: they prevent the cancel that is due because a job's
    /// connection was lost.
    pub read_only: bool,
    /// Whether its parameters are kept, and counted, until it ends.
    pub keeps_parameters: bool,
    /// The name of a bound, and the most arrays and objects that the parameters may have. As values each
    /// takes up to a kilobyte, so that a message of 1 MiB could take a hundred.
    pub containers_max: (&'static str, usize),
    /// The name of a bound, and the longest `id` of a request, bytes; `None` for the bound of all requests.
    pub id_bytes_max: Option<(&'static str, usize)>,
}

/// An ordered method that changes nothing. Each row states what differs from this or from [`CHANGES`].
const READS: Method = Method {
    name: MethodName::of("", &Scope::ALL, Narrowing::Whole),
    mode: |_| Mode::Ordered(|_, _| Box::pin(async { Ok(Outcome::of(&())) })),
    long_reply: |_| false,
    wakes_tails: |_| PausedTails::None,
    read_only: true,
    keeps_parameters: false,
    containers_max: ("containers_max", CONTAINERS_MAX),
    id_bytes_max: None,
};

/// An ordered method that changes something.
const CHANGES: Method = Method {
    read_only: false,
    ..READS
};

/// An ordered method of `protocol::methods`.
macro_rules! ordered {
    ($execute:path) => {
        |_| {
            Mode::Ordered(|session, params| {
                Box::pin(async move { Ok($execute(&session.caller, params).await?.into()) })
            })
        }
    };
}

/// A concurrent method of `protocol::methods`.
macro_rules! concurrent {
    ($execute:path) => {
        |_| {
            Mode::Concurrent(|session, params| {
                Box::pin(async move {
                    let result = $execute(&session.caller, params).await?;
                    Ok(ConcurrentOutcome::Ready(result))
                })
            })
        }
    };
}

/// Every method but [`AUTHENTICATE`].
static METHODS: &[Method] = &[
    Method {
        name: MethodName::of("job.submit", &[Scope::Submit], Narrowing::Filtered),
        mode: |params| match params.get("tail").is_none_or(Value::is_null) {
            true => Mode::Batched(|session, params| Box::pin(submit::begin(session, params))),
            false => Mode::Ordered(|session, params| Box::pin(submit::execute(session, params))),
        },
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.submit_many", &[Scope::Submit], Narrowing::Filtered),
        mode: |_| Mode::Ordered(|session, params| Box::pin(submit_many::execute(session, params))),
        containers_max: ("submit_many_containers_max", MANY_CONTAINERS_MAX),
        id_bytes_max: Some(("submit_many_id_bytes_max", submit_many::ID_BYTES_MAX)),
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.tail", &[Scope::Read], Narrowing::Jobs),
        mode: |params| match tail::counts_lines(params) {
            true => Mode::Concurrent(|session, params| Box::pin(tail_lines(session, params))),
            false => Mode::Ordered(|session, params| Box::pin(tail::execute(session, params))),
        },
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.untail", &[Scope::Read], Narrowing::Free),
        mode: |_| Mode::Ordered(|session, params| Box::pin(untail::execute(session, params))),
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.read", &[Scope::Read], Narrowing::Jobs),
        mode: |params| match read::waits(params) {
            true => Mode::Concurrent(|session, params| Box::pin(wait_to_read(session, params))),
            false => Mode::Ordered(|session, params| {
                let caller = &session.caller;
                Box::pin(async move { Ok(read::execute(caller, params, None).await?.into()) })
            }),
        },
        long_reply: read::is_long,
        ..READS
    },
    Method {
        name: MethodName::of("job.get", &[Scope::Read], Narrowing::Jobs),
        mode: ordered!(get::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.explain", &[Scope::Read], Narrowing::Jobs),
        mode: ordered!(explain::execute),
        long_reply: |_| true,
        ..READS
    },
    Method {
        name: MethodName::of("job.list", &[Scope::Read], Narrowing::Filtered),
        mode: ordered!(list::execute),
        long_reply: |_| true,
        ..READS
    },
    Method {
        name: MethodName::of("job.wait", &[Scope::Read], Narrowing::Jobs),
        mode: |_| Mode::Concurrent(|session, params| Box::pin(wait(session, params))),
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.control", &[Scope::Control], Narrowing::Jobs),
        mode: ordered!(control::execute),
        wakes_tails: |params| match control::waits_for_shim(params) {
            true => tails_of_job(params),
            false => PausedTails::All,
        },
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.input", &[Scope::Input], Narrowing::Jobs),
        mode: ordered!(input::execute),
        wakes_tails: tails_of_job,
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.retry", &[Scope::Submit], Narrowing::Jobs),
        mode: ordered!(retry::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.update", &[Scope::Control], Narrowing::Jobs),
        mode: ordered!(update::execute),
        wakes_tails: |_| PausedTails::All,
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.delete", &[Scope::Control], Narrowing::Jobs),
        mode: ordered!(delete::execute),
        wakes_tails: |_| PausedTails::All,
        ..CHANGES
    },
    Method {
        name: MethodName::of("job.prune", &[Scope::Admin], Narrowing::Whole),
        mode: concurrent!(prune::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("retention.set", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(retention_set::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("retention.list", &[Scope::Read], Narrowing::Whole),
        mode: ordered!(retention_list::execute),
        ..READS
    },
    Method {
        name: MethodName::of("retention.delete", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(retention_delete::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("server.disk_usage", &[Scope::Read], Narrowing::Whole),
        mode: concurrent!(disk_usage::execute),
        ..READS
    },
    Method {
        name: MethodName::of("queue.list", &[Scope::Read], Narrowing::Filtered),
        mode: ordered!(queue_list::execute),
        ..READS
    },
    Method {
        name: MethodName::of("queue.set", &[Scope::Queues], Narrowing::Queue),
        mode: ordered!(queue_set::execute),
        wakes_tails: |_| PausedTails::All,
        ..CHANGES
    },
    Method {
        name: MethodName::of("queue.delete", &[Scope::Queues], Narrowing::Queue),
        mode: ordered!(queue_delete::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("policy.reload", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(policy_reload::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("notice.list", &[Scope::Read], Narrowing::Whole),
        mode: ordered!(notice_list::execute),
        long_reply: |_| true,
        ..READS
    },
    Method {
        name: MethodName::of("notice.retry", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(notice_retry::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("notice.test", &[Scope::Admin], Narrowing::Whole),
        mode: concurrent!(notice_test::execute),
        keeps_parameters: true,
        ..CHANGES
    },
    Method {
        name: MethodName::of("schedule.list", &[Scope::Read], Narrowing::Whole),
        mode: ordered!(schedule_list::execute),
        ..READS
    },
    Method {
        name: MethodName::of("schedule.set", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(schedule_set::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("schedule.delete", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(schedule_delete::execute),
        ..CHANGES
    },
    Method {
        name: MethodName::of("schedule.run", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(schedule_run::execute),
        wakes_tails: |_| PausedTails::All,
        ..CHANGES
    },
    Method {
        name: MethodName::of("history.query", &[Scope::Read], Narrowing::Whole),
        mode: |_| Mode::Concurrent(|session, params| Box::pin(query_history(session, params))),
        ..READS
    },
    Method {
        name: MethodName::of("history.search", &[Scope::Read], Narrowing::Filtered),
        mode: |_| Mode::Concurrent(|session, params| Box::pin(search_history(session, params))),
        keeps_parameters: true,
        ..READS
    },
    Method {
        name: MethodName::of("transcript.verify", &[Scope::Read], Narrowing::Jobs),
        mode: concurrent!(verify::execute),
        keeps_parameters: true,
        ..CHANGES
    },
    Method {
        name: MethodName::of("server.info", &[Scope::Read], Narrowing::Free),
        mode: ordered!(info::execute),
        ..READS
    },
    Method {
        name: MethodName::of("token.list", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(token::list),
        ..READS
    },
    Method {
        name: MethodName::of("token.create", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(token::create),
        ..CHANGES
    },
    Method {
        name: MethodName::of("token.revoke", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(token::revoke),
        ..CHANGES
    },
    Method {
        name: MethodName::of("token.rotate", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(token::rotate),
        ..CHANGES
    },
    Method {
        name: MethodName::of("audit.read", &[Scope::Admin], Narrowing::Whole),
        mode: ordered!(audit_read::execute),
        long_reply: |_| true,
        ..READS
    },
    Method {
        name: MethodName::of("server.backup", &[Scope::Admin], Narrowing::Whole),
        mode: concurrent!(backup::execute),
        ..CHANGES
    },
];

/// Methods of the protocol that this version does not have yet.
const PLANNED: &[&str] = &["job.resize"];

impl Method {
    /// The method with this name.
    ///
    /// # Errors
    ///
    /// This version does not have the method yet, or no method has the name.
    pub fn named(name: &str) -> Result<&'static Self, Refusal> {
        if let Some(method) = METHODS.iter().find(|method| method.name.wire == name) {
            return Ok(method);
        }
        if PLANNED.contains(&name) {
            return Err(Refusal::unsupported(name));
        }
        let known: Vec<&str> = METHODS.iter().map(|method| method.name.wire).collect();
        let known = known.join(", ");
        let message = format!("there is no such method; known methods are {AUTHENTICATE}, {known}");
        Err(Refusal::new(ErrorKind::MethodNotFound, message))
    }
}

/// The tails of the job that a request is about.
fn tails_of_job(params: &Parameters) -> PausedTails {
    let job = params.get("job").and_then(job_ref);
    job.map_or(PausedTails::None, PausedTails::Of)
}

/// Waits for something to read; the reply is read after its permit is there.
async fn wait_to_read(
    session: &Session,
    params: Parameters,
) -> Result<ConcurrentOutcome<'_>, Refusal> {
    let caller = &session.caller;
    let from = read::wait_for_output(caller, &params).await?;
    let reply = async move { Ok(read::execute(caller, params, Some(from)).await?.into()) };
    Ok(ConcurrentOutcome::Deferred(Box::pin(reply)))
}

/// Finds where the last lines begin; the tail begins after its reply.
async fn tail_lines(
    session: &Session,
    params: Parameters,
) -> Result<ConcurrentOutcome<'_>, Refusal> {
    let outcome = tail::execute(session, params).await?;
    Ok(ConcurrentOutcome::Deferred(Box::pin(async { Ok(outcome) })))
}

/// Waits for jobs; the reply is read after its permit is there.
async fn wait(session: &Session, params: Parameters) -> Result<ConcurrentOutcome<'_>, Refusal> {
    let caller: &Caller = &session.caller;
    let decision = wait::wait_for_decision(caller, params).await?;
    let reply = async move { Ok(wait::reply(caller, decision).await?.into()) };
    Ok(ConcurrentOutcome::Deferred(Box::pin(reply)))
}

/// Starts the query only after the client has read earlier replies: an answer may be as long as a message.
async fn query_history(
    session: &Session,
    params: Parameters,
) -> Result<ConcurrentOutcome<'_>, Refusal> {
    drop(session.outbox.reply_permit().await);
    let result = query::execute(&session.caller, params).await?;
    Ok(ConcurrentOutcome::Ready(result))
}

/// Searches only after the client has read earlier replies. The next search of the session begins only
/// after this one's reply has its permit: an answer may be as long as a message.
async fn search_history(
    session: &Session,
    params: Parameters,
) -> Result<ConcurrentOutcome<'_>, Refusal> {
    drop(session.outbox.reply_permit().await);
    let (result, turn) = search::execute(&session.caller, params).await?;
    Ok(ConcurrentOutcome::Deferred(Box::pin(async move {
        drop(turn);
        Ok(result.into())
    })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(value: Value) -> Parameters {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn known_methods_are_built_or_unsupported_and_others_unknown() {
        for method in METHODS {
            let found = Method::named(method.name.wire).expect("built");
            assert!(std::ptr::eq(found, method));
        }
        for name in PLANNED {
            let refused = Method::named(name).err();
            assert_eq!(refused, Some(Refusal::unsupported(name)));
        }
        for name in [
            "",
            "job",
            "job.",
            "Job.submit",
            "job.submit ",
            "rpc.discover",
        ] {
            let refused = Method::named(name).err().map(|refusal| refusal.kind);
            assert_eq!(refused, Some(ErrorKind::MethodNotFound));
        }
    }

    #[test]
    fn the_page_says_what_each_method_needs() {
        let page = include_str!("../../../../docs/protocol.md");
        for MethodName {
            wire,
            scopes,
            narrowing,
        } in METHODS.iter().map(|method| method.name)
        {
            let scopes: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
            let row = format!(
                "| `{wire}` | `{}` | {} |",
                scopes.join(", "),
                narrowing.name()
            );
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn long_reads_and_lists_tell_much() {
        let is_long = |name: &str, value: Value| {
            let method = Method::named(name).expect("built");
            (method.long_reply)(&params(value))
        };
        assert!(is_long("job.list", json!({})));
        assert!(is_long("job.read", json!({"max_bytes": 65_537})));
        assert!(!is_long("job.read", json!({})));
        assert!(!is_long("job.get", json!({"max_bytes": 65_537})));
    }

    #[test]
    fn only_what_may_wait_runs_beside() {
        let is_concurrent = |name: &str, value: Value| {
            let method = Method::named(name).expect("built");
            matches!((method.mode)(&params(value)), Mode::Concurrent(_))
        };
        assert!(is_concurrent("job.wait", json!({})));
        assert!(is_concurrent("history.query", json!({})));
        assert!(is_concurrent("history.search", json!({})));
        assert!(is_concurrent("server.backup", json!({})));
        assert!(is_concurrent("transcript.verify", json!({})));
        assert!(is_concurrent("job.prune", json!({})));
        assert!(is_concurrent("server.disk_usage", json!({})));
        assert!(is_concurrent("job.read", json!({"wait_ms": 1})));
        assert!(!is_concurrent("job.read", json!({"wait_ms": 0})));
        assert!(!is_concurrent("job.read", json!({})));
        assert!(!is_concurrent("job.submit", json!({"wait_ms": 1})));
    }
}
