//! The methods of a WebSocket session: one row each. What all doors share is in
//! `protocol::methods`; tails and the token are here, because they belong to a session.

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{session::Session, tails::Granted};
use crate::protocol::{
    ErrorKind,
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal},
    methods::{
        CONTAINERS_MAX, MANY_CONTAINERS_MAX, backup, control, delete, get, info, input, list,
        query, queue_delete, queue_list, queue_set, read, retry, submit_many, update, verify, wait,
    },
};

pub mod authenticate;
mod submit;
mod tail;
mod untail;

/// The one method that is open before the token has been shown.
pub const AUTHENTICATE: &str = "session.authenticate";

/// A request's parameters.
pub type Parameters = Map<String, Value>;

/// What a method has to say.
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

/// The outcome of a method that runs, or why it is refused.
pub type MethodFuture<'a> = BoxFuture<'a, Result<Outcome, Refusal>>;

/// What a concurrent method comes to.
pub enum Late<'a> {
    /// All of it.
    Outcome(Outcome),
    /// It has waited for what it is about; the reply is still to be made, once there is room for it.
    Reply(MethodFuture<'a>),
}

/// A concurrent method that runs.
pub type LateFuture<'a> = BoxFuture<'a, Result<Late<'a>, Refusal>>;

/// How a request is executed beside the session's other requests.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// After the one before it and before the next one.
    Ordered(for<'a> fn(&'a Session, Parameters) -> MethodFuture<'a>),
    /// After the one before it; others of the same kind that follow it share its commit.
    Batched(for<'a> fn(&'a Session, Parameters) -> MethodFuture<'a>),
    /// Begun in order, then beside all others: it may take long.
    Concurrent(for<'a> fn(&'a Session, Parameters) -> LateFuture<'a>),
}

/// A method that this version has.
#[derive(Debug)]
pub struct Method {
    /// Its name on the wire.
    pub name: &'static str,
    /// How a request with these parameters is executed.
    pub mode: fn(&Parameters) -> Mode,
    /// Whether the reply to a request with these parameters may be long.
    pub long_reply: fn(&Parameters) -> bool,
    /// Whether it may cause notifications of tails that were there before it.
    pub wakes_tails: bool,
    /// Whether it only tells, so that it need not run once the client has left. `job.get` and
    /// `job.tail` do more: they call off what the loss of a connection means.
    pub only_tells: bool,
    /// Whether its parameters are kept, and counted, until it ends.
    pub keeps_parameters: bool,
    /// Most arrays and objects in the parameters, and the name of that bound: as values each of them
    /// takes up to a kilobyte, so that a message of 1 MiB could be a hundred.
    pub containers_max: (&'static str, usize),
    /// Longest `id` of a request, bytes, and the name of that bound, where it is not the message's.
    pub id_bytes_max: Option<(&'static str, usize)>,
}

/// An ordered method that tells and changes nothing: what most rows change one or two things of.
const TELLS: Method = Method {
    name: "",
    mode: |_| Mode::Ordered(|_, _| Box::pin(async { Ok(Outcome::of(&())) })),
    long_reply: |_| false,
    wakes_tails: false,
    only_tells: true,
    keeps_parameters: false,
    containers_max: ("containers_max", CONTAINERS_MAX),
    id_bytes_max: None,
};

/// The same of a method that changes something.
const ACTS: Method = Method {
    only_tells: false,
    ..TELLS
};

/// An ordered method that all doors share.
macro_rules! ordered {
    ($execute:path) => {
        |_| {
            Mode::Ordered(|session, params| {
                Box::pin(async move { Ok($execute(&session.caller, params).await?.into()) })
            })
        }
    };
}

/// The same of a concurrent one.
macro_rules! concurrent {
    ($execute:path) => {
        |_| {
            Mode::Concurrent(|session, params| {
                Box::pin(async move {
                    let result = $execute(&session.caller, params).await?;
                    Ok(Late::Outcome(result.into()))
                })
            })
        }
    };
}

/// Every method but [`AUTHENTICATE`].
static METHODS: [Method; 20] = [
    Method {
        name: "job.submit",
        mode: |params| match params.get("tail").is_none_or(Value::is_null) {
            true => Mode::Batched(|session, params| Box::pin(submit::execute(session, params))),
            false => Mode::Ordered(|session, params| Box::pin(submit::execute(session, params))),
        },
        ..ACTS
    },
    Method {
        name: "job.submit_many",
        mode: ordered!(submit_many::execute),
        containers_max: ("submit_many_containers_max", MANY_CONTAINERS_MAX),
        id_bytes_max: Some(("submit_many_id_bytes_max", submit_many::ID_BYTES_MAX)),
        ..ACTS
    },
    Method {
        name: "job.tail",
        mode: |_| Mode::Ordered(|session, params| Box::pin(tail::execute(session, params))),
        ..ACTS
    },
    Method {
        name: "job.untail",
        mode: |_| Mode::Ordered(|session, params| Box::pin(untail::execute(session, params))),
        ..ACTS
    },
    Method {
        name: "job.read",
        mode: |params| match read::waits(params) {
            true => Mode::Concurrent(|session, params| Box::pin(wait_to_read(session, params))),
            false => Mode::Ordered(|session, params| {
                Box::pin(async move { Ok(read::execute(&session.caller, params).await?.into()) })
            }),
        },
        long_reply: read::is_long,
        ..TELLS
    },
    Method {
        name: "job.get",
        mode: ordered!(get::execute),
        ..ACTS
    },
    Method {
        name: "job.list",
        mode: ordered!(list::execute),
        long_reply: |_| true,
        ..TELLS
    },
    Method {
        name: "job.wait",
        mode: |_| Mode::Concurrent(|session, params| Box::pin(wait(session, params))),
        ..ACTS
    },
    Method {
        name: "job.control",
        mode: ordered!(control::execute),
        wakes_tails: true,
        ..ACTS
    },
    Method {
        name: "job.input",
        mode: ordered!(input::execute),
        wakes_tails: true,
        ..ACTS
    },
    Method {
        name: "job.retry",
        mode: ordered!(retry::execute),
        ..ACTS
    },
    Method {
        name: "job.update",
        mode: ordered!(update::execute),
        wakes_tails: true,
        ..ACTS
    },
    Method {
        name: "job.delete",
        mode: ordered!(delete::execute),
        wakes_tails: true,
        ..ACTS
    },
    Method {
        name: "queue.list",
        mode: ordered!(queue_list::execute),
        ..TELLS
    },
    Method {
        name: "queue.set",
        mode: ordered!(queue_set::execute),
        wakes_tails: true,
        ..ACTS
    },
    Method {
        name: "queue.delete",
        mode: ordered!(queue_delete::execute),
        ..ACTS
    },
    Method {
        name: "history.query",
        mode: |_| Mode::Concurrent(|session, params| Box::pin(ask_history(session, params))),
        ..TELLS
    },
    Method {
        name: "transcript.verify",
        mode: concurrent!(verify::execute),
        keeps_parameters: true,
        ..ACTS
    },
    Method {
        name: "server.info",
        mode: ordered!(info::execute),
        ..TELLS
    },
    Method {
        name: "server.backup",
        mode: concurrent!(backup::execute),
        ..ACTS
    },
];

/// Methods that are promised and not built yet.
const LATER: &[&str] = &[
    "job.resize",
    "job.explain",
    "schedule.set",
    "schedule.list",
    "schedule.delete",
    "history.search",
];

impl Method {
    /// The method with this name; refused where it is not built yet or nobody knows it.
    pub fn named(name: &str) -> Result<&'static Self, Refusal> {
        if let Some(method) = METHODS.iter().find(|method| method.name == name) {
            return Ok(method);
        }
        if LATER.contains(&name) {
            return Err(Refusal::unsupported(name));
        }
        let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        let known = known.join(", ");
        let message = format!("there is no such method; there are {AUTHENTICATE}, {known}");
        Err(Refusal::new(ErrorKind::MethodNotFound, message))
    }
}

/// Waits for something to read; what is told is read once there is room for it.
async fn wait_to_read(session: &Session, params: Parameters) -> Result<Late<'_>, Refusal> {
    let caller = &session.caller;
    read::until_there(caller, &params).await;
    let reply = async move { Ok(read::execute(caller, params).await?.into()) };
    Ok(Late::Reply(Box::pin(reply)))
}

/// Waits for jobs; what is told of them is read once there is room for it.
async fn wait(session: &Session, params: Parameters) -> Result<Late<'_>, Refusal> {
    let caller: &Caller = &session.caller;
    let decision = wait::until_decided(caller, params).await?;
    let reply = async move { Ok(wait::tell(caller, decision).await?.into()) };
    Ok(Late::Reply(Box::pin(reply)))
}

/// Asks once the client has taken what was answered before: an answer may be as long as a message.
async fn ask_history(session: &Session, params: Parameters) -> Result<Late<'_>, Refusal> {
    drop(session.outbox.room().await);
    let result = query::execute(&session.caller, params).await?;
    Ok(Late::Outcome(result.into()))
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
        for method in &METHODS {
            let found = Method::named(method.name).expect("built");
            assert!(std::ptr::eq(found, method));
        }
        for name in LATER {
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
        assert!(is_concurrent("server.backup", json!({})));
        assert!(is_concurrent("transcript.verify", json!({})));
        assert!(is_concurrent("job.read", json!({"wait_ms": 1})));
        assert!(!is_concurrent("job.read", json!({"wait_ms": 0})));
        assert!(!is_concurrent("job.read", json!({})));
        assert!(!is_concurrent("job.submit", json!({"wait_ms": 1})));
    }
}
