//! `retention.list`: all rules, by name.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    job::RetentionRule,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::{fitting, job_bytes_max},
    },
};

#[derive(Debug, Serialize)]
struct RuleListView {
    rules: Vec<Box<RawValue>>,
    /// Present if not all rules fit into one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl RuleListView {
    /// The rules after `cursor`, which is the name of the last one on the previous page.
    fn of(rules: &[RetentionRule], cursor: &str, bytes_max: usize) -> Self {
        let begin = rules.partition_point(|rule| rule.name.as_str() <= cursor);
        let (shown, all) = fitting(&rules[begin..], bytes_max);
        let last = (begin + shown.len()).checked_sub(1);
        let last = last.filter(|_| !all).map(|last| rules[last].name.clone());
        Self {
            rules: shown,
            next_cursor: last,
        }
    }
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["cursor"])?;
    let cursor = params.text("cursor")?.unwrap_or_default();
    let rules = caller.server.executor.retention_rules().await?;
    let bytes_max = job_bytes_max(&caller.server.settings);
    Ok(to_raw(&RuleListView::of(&rules, cursor, bytes_max)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{RetentionBounds, RetentionFilter, RetentionScope};

    #[test]
    fn pages_follow_each_other() {
        let rules = ["a", "b", "c", "d"].map(|name| RetentionRule {
            name: name.to_owned(),
            scope: RetentionScope::Jobs,
            filter: RetentionFilter::default(),
            bounds: RetentionBounds::default(),
        });
        let first = RuleListView::of(&rules, "", 70);
        assert_eq!(first.next_cursor.as_deref(), Some("b"));
        let second = RuleListView::of(&rules, "b", 70);
        assert_eq!((second.rules.len(), second.next_cursor), (2, None));
        assert!(RuleListView::of(&[], "", 70).next_cursor.is_none());
    }
}
