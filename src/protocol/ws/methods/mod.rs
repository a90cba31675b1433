//! The methods, one per file: parameters in, the executor's answer out.
//!
//! Order, bounds and replies are the session's business.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{session::Session, tails::Granted};
use crate::{
    config::Settings,
    protocol::{
        Kind,
        jsonrpc::{envelope::to_raw, error::Refusal},
    },
};

pub mod authenticate;
mod backup;
mod control;
mod delete;
mod get;
mod info;
mod input;
pub mod limits;
mod list;
pub mod query;
mod queue_delete;
mod queue_list;
mod queue_set;
pub mod read;
mod retry;
mod submit;
pub mod submit_many;
mod tail;
mod untail;
mod update;
mod verify;
pub mod wait;

/// Version of the protocol, told in the greeting.
pub const PROTOCOL: u32 = 1;
/// The one method that is open to strangers.
pub const AUTHENTICATE: &str = "session.authenticate";

/// Room that every reply leaves for its envelope, bytes. An `id` may take half of it.
const ENVELOPE_BYTES: usize = 128 << 10;

/// Most arrays and objects of a request.
pub const CONTAINERS_MAX: usize = 4096;
/// The same for `job.submit_many`: ten thousand jobs with half a dozen each.
pub const MANY_CONTAINERS_MAX: usize = 64 << 10;

/// A method that this version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `job.submit`
    Submit,
    /// `job.submit_many`
    SubmitMany,
    /// `job.tail`
    Tail,
    /// `job.untail`
    Untail,
    /// `job.read`
    Read,
    /// `job.get`
    Get,
    /// `job.list`
    List,
    /// `job.wait`
    Wait,
    /// `job.control`
    Control,
    /// `job.input`
    Input,
    /// `job.retry`
    Retry,
    /// `job.update`
    Update,
    /// `job.delete`
    Delete,
    /// `queue.list`
    QueueList,
    /// `queue.set`
    QueueSet,
    /// `queue.delete`
    QueueDelete,
    /// `history.query`
    Query,
    /// `transcript.verify`
    Verify,
    /// `server.info`
    Info,
    /// `server.backup`
    Backup,
}

const BUILT: &[(&str, Method)] = &[
    ("job.submit", Method::Submit),
    ("job.submit_many", Method::SubmitMany),
    ("job.tail", Method::Tail),
    ("job.untail", Method::Untail),
    ("job.read", Method::Read),
    ("job.get", Method::Get),
    ("job.list", Method::List),
    ("job.wait", Method::Wait),
    ("job.control", Method::Control),
    ("job.input", Method::Input),
    ("job.retry", Method::Retry),
    ("job.update", Method::Update),
    ("job.delete", Method::Delete),
    ("queue.list", Method::QueueList),
    ("queue.set", Method::QueueSet),
    ("queue.delete", Method::QueueDelete),
    ("history.query", Method::Query),
    ("transcript.verify", Method::Verify),
    ("server.info", Method::Info),
    ("server.backup", Method::Backup),
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
    pub fn named(name: &str) -> Result<Self, Refusal> {
        if let Some((_, method)) = BUILT.iter().find(|(known, _)| *known == name) {
            return Ok(*method);
        }
        if LATER.contains(&name) {
            return Err(Refusal::unsupported(name));
        }
        let known: Vec<&str> = BUILT.iter().map(|(known, _)| *known).collect();
        let known = known.join(", ");
        let message = format!("there is no such method; there are {AUTHENTICATE}, {known}");
        Err(Refusal::new(Kind::MethodNotFound, message))
    }

    /// Most arrays and objects in the parameters of such a request, and the name of that bound: as
    /// values each of them takes up to a kilobyte, so that a message of 1 MiB could be a hundred.
    pub fn containers_max(self) -> (&'static str, usize) {
        match self {
            Self::SubmitMany => ("submit_many_containers_max", MANY_CONTAINERS_MAX),
            _ => ("containers_max", CONTAINERS_MAX),
        }
    }

    /// Whether such a request may take so long that others must not wait for it.
    pub fn runs_beside(self, params: &Map<String, Value>) -> bool {
        match self {
            Self::Wait | Self::Query | Self::Verify | Self::Backup => true,
            Self::Read => params
                .get("wait_ms")
                .and_then(Value::as_u64)
                .is_some_and(|ms| ms > 0),
            _ => false,
        }
    }

    /// Whether the reply to such a request may be long.
    pub fn tells_much(self, params: &Map<String, Value>) -> bool {
        match self {
            Self::List => true,
            Self::Read => params
                .get("max_bytes")
                .and_then(Value::as_u64)
                .is_some_and(|bytes| bytes > read::BYTES_DEFAULT),
            _ => false,
        }
    }

    /// Whether such a request may cause notifications of tails that are there before it.
    pub fn wakes_tails(self) -> bool {
        matches!(
            self,
            Self::Control | Self::Input | Self::Update | Self::Delete | Self::QueueSet
        )
    }

    /// Whether such a request does nothing but tell, so that nobody misses it once the client has
    /// left. `job.get` and `job.tail` do more: they call off what the loss of a connection means.
    pub fn only_tells(self) -> bool {
        use Method::{Info, List, Query, QueueList, Read};

        matches!(self, Read | List | QueueList | Query | Info)
    }

    /// Whether such a request only stores a job, so that others like it may be stored with it.
    pub fn is_submit_alone(self, params: &Map<String, Value>) -> bool {
        self == Self::Submit && params.get("tail").is_none_or(Value::is_null)
    }
}

/// What a method has to say.
#[derive(Debug)]
pub struct Outcome {
    /// The result, as JSON.
    pub result: Box<RawValue>,
    /// The tail that begins behind the reply.
    pub granted: Option<Granted>,
}

impl Outcome {
    fn of<T: Serialize>(result: &T) -> Self {
        Self {
            result: to_raw(result),
            granted: None,
        }
    }
}

/// Executes a request. What may take long lets go of the parameters before it waits.
pub async fn execute(
    session: &Session,
    method: Method,
    params: Map<String, Value>,
) -> Result<Outcome, Refusal> {
    match method {
        Method::Submit => submit::execute(session, params).await,
        Method::SubmitMany => submit_many::execute(session, params).await,
        Method::Tail => tail::execute(session, &params).await,
        Method::Untail => untail::execute(session, &params).await,
        Method::Read => read::execute(session, &params).await,
        Method::Get => get::execute(session, &params).await,
        Method::List => list::execute(session, &params).await,
        Method::Wait => {
            let decision = wait::until_decided(session, params).await;
            wait::tell(session, decision).await
        }
        Method::Control => control::execute(session, &params).await,
        Method::Input => input::execute(session, &params).await,
        Method::Retry => retry::execute(session, &params).await,
        Method::Update => update::execute(session, &params).await,
        Method::Delete => delete::execute(session, &params).await,
        Method::QueueList => queue_list::execute(session, &params).await,
        Method::QueueSet => queue_set::execute(session, &params).await,
        Method::QueueDelete => queue_delete::execute(session, &params).await,
        Method::Query => query::execute(session, params).await,
        Method::Verify => verify::execute(session, params).await,
        Method::Info => info::execute(session, &params).await,
        Method::Backup => backup::execute(session, &params).await,
    }
}

/// Longest job that can be told, as JSON, bytes.
fn job_bytes_max(settings: &Settings) -> usize {
    settings.message_len_max().saturating_sub(ENVELOPE_BYTES)
}

/// Takes items while their JSON fits into `bytes_max`; also whether all did. The first one is
/// always taken, so that a reader gets on.
fn fitting<T: Serialize>(
    items: impl IntoIterator<Item = T>,
    bytes_max: usize,
) -> (Vec<Box<RawValue>>, bool) {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for item in items {
        let json = to_raw(&item);
        bytes += json.get().len() + 1;
        if bytes > bytes_max && !taken.is_empty() {
            return (taken, false);
        }
        taken.push(json);
    }
    (taken, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_methods_are_built_or_unsupported_and_others_unknown() {
        for (name, method) in BUILT {
            assert_eq!(Method::named(name), Ok(*method));
        }
        for name in LATER {
            assert_eq!(Method::named(name), Err(Refusal::unsupported(name)));
        }
        for name in [
            "",
            "job",
            "job.",
            "Job.submit",
            "job.submit ",
            "rpc.discover",
        ] {
            assert_eq!(
                Method::named(name).map_err(|r| r.kind),
                Err(Kind::MethodNotFound)
            );
        }
    }

    #[test]
    fn long_reads_and_lists_tell_much() {
        let params = |value: Value| value.as_object().cloned().unwrap_or_default();
        assert!(Method::List.tells_much(&params(json!({}))));
        assert!(Method::Read.tells_much(&params(json!({"max_bytes": 65_537}))));
        assert!(!Method::Read.tells_much(&params(json!({}))));
        assert!(!Method::Get.tells_much(&params(json!({"max_bytes": 65_537}))));
    }

    #[test]
    fn only_what_may_wait_runs_beside() {
        let params = |value: Value| value.as_object().cloned().unwrap_or_default();
        assert!(Method::Wait.runs_beside(&params(json!({}))));
        assert!(Method::Query.runs_beside(&params(json!({}))));
        assert!(Method::Backup.runs_beside(&params(json!({}))));
        assert!(Method::Verify.runs_beside(&params(json!({}))));
        assert!(Method::Read.runs_beside(&params(json!({"wait_ms": 1}))));
        assert!(!Method::Read.runs_beside(&params(json!({"wait_ms": 0}))));
        assert!(!Method::Read.runs_beside(&params(json!({}))));
        assert!(!Method::Submit.runs_beside(&params(json!({"wait_ms": 1}))));
    }

    #[test]
    fn what_does_not_fit_is_left_out_but_never_the_first() {
        let taken = |items: &[&str], max| {
            let (taken, all) = fitting(items, max);
            (taken.len(), all)
        };
        assert_eq!(taken(&["a", "b"], 8), (2, true));
        assert_eq!(taken(&["a", "b", "c"], 8), (2, false));
        assert_eq!(taken(&["aaaaaaaaaa", "b"], 8), (1, false));
        assert_eq!(taken(&[], 8), (0, true));
    }
}
