//! `audit.read`: entries of the audit trail, oldest first, page by page.

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    audit::{canonical::canonical, chain::hex},
    executor::{AuditKeyRow, AuditPage, AuditRow},
    job::Micros,
    protocol::{
        caller::Caller,
        jsonrpc::{
            envelope::to_raw,
            error::Refusal,
            params::{OFFSET_MAX, Params},
        },
        methods::{fitting, job_bytes_max},
    },
};

/// Most entries of one page.
const LIMIT_MAX: u64 = 1000;
/// Entries of a page if `limit` is not given.
const LIMIT_DEFAULT: u64 = 100;

const KEYS: [&str; 4] = ["after", "since", "limit", "keys_after"];

#[derive(Debug, Serialize)]
struct AuditPageView {
    /// The entry before the first one.
    after: u64,
    /// Its hash.
    hash: String,
    /// The verifier's key that was in force there.
    key: Option<String>,
    entries: Vec<Box<RawValue>>,
    /// Keys that were put in force up to the entry `after` of the request, if it asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Box<RawValue>>>,
    /// The last entry of the trail.
    last: u64,
}

impl AuditPageView {
    fn of(page: &AuditPage, bytes_max: usize) -> Self {
        let (entries, _) = fitting(page.rows.iter().map(row), bytes_max);
        Self {
            after: page.after.seq,
            hash: hex(&page.after.hash),
            key: page.key.clone(),
            entries,
            keys: None,
            last: page.head.seq,
        }
    }
}

fn key_row(row: &AuditKeyRow) -> Value {
    json!({"seq": row.seq, "key": row.key, "signature": row.signature})
}

/// An entry as an object; a text that is not as the server has written it is shown as a text.
fn row(row: &AuditRow) -> Value {
    let read: Option<Value> = serde_json::from_str(&row.entry).ok();
    let entry = read.filter(|entry| entry.is_object() && canonical(entry) == row.entry);
    let entry = entry.unwrap_or_else(|| row.entry.as_str().into());
    json!({"seq": row.seq, "entry": entry, "hash": hex(&row.hash)})
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let after = params.number("after", 0, OFFSET_MAX)?.unwrap_or(0);
    let limit = params.number("limit", 1, LIMIT_MAX)?;
    let limit = u32::try_from(limit.unwrap_or(LIMIT_DEFAULT)).unwrap_or(u32::MAX);
    let since = params.text("since")?.map(|text| {
        let since = Micros::from_rfc3339(text);
        since.ok_or_else(|| params.wrong("since", "must be a time in RFC 3339"))
    });
    let keys_after = params.number("keys_after", 0, OFFSET_MAX)?;
    let executor = &caller.server.executor;
    let mut page = executor
        .audit_page(after, since.transpose()?, limit)
        .await?;
    let bytes_max = job_bytes_max(&caller.server.settings);
    let Some(keys_after) = keys_after else {
        return Ok(to_raw(&AuditPageView::of(&page, bytes_max)));
    };
    // The message has room for one of both.
    page.rows.clear();
    let keys = executor.audit_keys(keys_after, after, limit);
    let (keys, _) = fitting(keys.await?.iter().map(key_row), bytes_max);
    let mut view = AuditPageView::of(&page, bytes_max);
    view.keys = Some(keys);
    Ok(to_raw(&view))
}
