//! `queue.list`: all queues, by name; values of environment variables only if `include` asks for them.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    access::Scope,
    job::Queue,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::{fitting, job_bytes_max},
    },
};

const KEYS: [&str; 2] = ["cursor", "include"];

#[derive(Debug, Serialize)]
struct QueueListView {
    queues: Vec<Box<RawValue>>,
    /// Present if not all queues fit into one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl QueueListView {
    /// The queues after `cursor`, which is the name of the last one on the previous page.
    fn of(queues: &[Queue], cursor: &str, bytes_max: usize) -> Self {
        let begin = queues.partition_point(|queue| queue.name.as_str() <= cursor);
        let queues = &queues[begin..];
        let (shown, all) = fitting(queues, bytes_max);
        let last = shown
            .len()
            .checked_sub(1)
            .map(|last| queues[last].name.clone());
        Self {
            queues: shown,
            next_cursor: last.filter(|_| !all),
        }
    }
}

/// Whether `include` asks for the values of variables, as with `job.get`.
fn with_values(params: &Params<'_>) -> Result<bool, Refusal> {
    let include = params.texts("include")?.unwrap_or_default();
    match include.iter().all(|name| *name == "env") {
        true => Ok(!include.is_empty()),
        false => Err(params.wrong("include", "must be a list of \"env\"")),
    }
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let cursor = params.text("cursor")?.unwrap_or_default();
    let with_values = with_values(&params)?;
    if with_values {
        caller.require(&[Scope::ReadSecrets])?;
    }
    let mut queues = caller.server.executor.queues().await?;
    let principal = caller.principal();
    queues.retain(|queue| principal.grant.reach.has_queue(&queue.name));
    let shown = match with_values {
        true => Queue::without_secrets,
        false => Queue::without_values,
    };
    queues = queues.into_iter().map(shown).collect();
    let bytes_max = job_bytes_max(&caller.server.settings);
    Ok(to_raw(&QueueListView::of(&queues, cursor, bytes_max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_only_to_who_names_them() {
        let read = |include: Value| {
            let map = Map::from_iter([("include".to_owned(), include)]);
            let params = Params::new(&map, &KEYS).expect("known");
            with_values(&params).ok()
        };
        assert_eq!(read(Value::Null), Some(false));
        assert_eq!(read(serde_json::json!(["env"])), Some(true));
        assert_eq!(read(serde_json::json!(["stdin"])), None);
    }

    #[test]
    fn pages_follow_each_other() {
        let names = ["a", "b", "c", "d", "e"];
        let queues = names.map(|name| Queue {
            name: name.to_owned(),
            concurrency: 1,
            paused: false,
            pause_reason: None,
            drain: false,
            starts_per_minute: None,
            weight: 1,
            defaults: Map::new(),
            running: 0,
            queued: 0,
        });
        let (mut cursor, mut seen) = (String::new(), 0);
        loop {
            let page = QueueListView::of(&queues, &cursor, 400);
            assert!(page.queues.len() < 4, "cut");
            seen += page.queues.len();
            match page.next_cursor {
                Some(next) => cursor = next,
                None => break,
            }
        }
        assert_eq!(seen, 5);
        assert!(QueueListView::of(&queues, "e", 400).queues.is_empty());
    }
}
