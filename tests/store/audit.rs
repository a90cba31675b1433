//! The rows of the audit trail: one transaction with what they are about, no gap after a refused one, and pruning.

use std::sync::Arc;

use cc_executor::{
    access::ClientOrigin,
    audit::{AuditEntry, ChainHead, chain::link},
    job::{Micros, QueueChange},
    store::{AuditRow, Store},
};
use serde_json::{Value, json};

use crate::ledger::*;

async fn rows(store: &Store) -> Vec<AuditRow> {
    store.audit_page(0, 100_000).await.unwrap().rows
}

/// Checks the chain; returns the entries.
#[track_caller]
fn whole(rows: &[AuditRow]) -> Vec<Value> {
    let mut head = ChainHead::default();
    for row in rows {
        assert_eq!(row.seq, head.seq + 1);
        assert_eq!(row.hash, link(&head.hash, &row.entry));
        head = ChainHead {
            seq: row.seq,
            hash: row.hash,
        };
    }
    let entries = rows
        .iter()
        .map(|row| serde_json::from_str(&row.entry).unwrap());
    entries.collect()
}

fn note(nth: usize) -> AuditEntry {
    let origin = Arc::new(ClientOrigin::within("unix", "ci"));
    AuditEntry::allowed("job.signal", origin, json!({"job": nth}), json!({}))
}

#[tokio::test]
async fn a_write_of_a_client_names_it_and_one_that_is_refused_leaves_nothing() {
    let ledger = Ledger::new().await;
    let before = rows(&ledger.store).await.len();
    let mut ci = ClientOrigin::within("tcp", "ci");
    (ci.token, ci.peer) = (Some(7), Some("10.0.0.1".to_owned()));
    let store = ledger.store.by(&Arc::new(ci));
    let change = QueueChange {
        name: "q".to_owned(),
        concurrency: Some(2),
        ..QueueChange::default()
    };
    store.set_queue(change).await.unwrap();
    store.delete_queue("nowhere".to_owned()).await.unwrap();
    let mut job = true_job();
    job.queue = "nowhere".to_owned();
    assert!(store.submit(submission(job)).await.is_err());
    let entries = whole(&rows(&ledger.store).await);
    assert_eq!(entries.len(), before + 1);
    let entry = &entries[before];
    assert_eq!(
        (&entry["action"], &entry["target"]),
        (&json!("queue.set"), &json!({"queue": "q"}))
    );
    assert_eq!(entry["actor"], json!({"name": "ci", "token": 7}));
    assert_eq!(
        (&entry["door"], &entry["peer"]),
        (&json!("tcp"), &json!("10.0.0.1"))
    );
}

#[tokio::test]
async fn writes_that_come_together_are_one_chain() {
    let ledger = Ledger::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for nth in 0..500 {
        let store = ledger.store.clone();
        tasks.spawn(async move { store.add_audit_entries(vec![note(nth)]).await });
    }
    while let Some(added) = tasks.join_next().await {
        added.unwrap().unwrap();
    }
    let entries = whole(&rows(&ledger.store).await);
    let notes = entries
        .iter()
        .filter(|entry| entry["action"] == "job.signal");
    assert_eq!(notes.count(), 500);
    let head = ledger.store.audit_head().await.unwrap();
    assert_eq!(head.seq, entries.len() as u64);
}

#[tokio::test]
async fn pruning_keeps_where_the_rest_begins() {
    let ledger = Ledger::new().await;
    for nth in 0..10 {
        ledger
            .store
            .add_audit_entries(vec![note(nth)])
            .await
            .unwrap();
    }
    let all = rows(&ledger.store).await;
    assert_eq!(ledger.store.prune_audit(Micros(0)).await, Ok(None));
    let pruned = ledger
        .store
        .prune_audit(Micros(i64::MAX))
        .await
        .unwrap()
        .unwrap();
    let last = all.last().unwrap();
    assert_eq!(
        (pruned.through, pruned.entries),
        (last.seq, all.len() as u64)
    );
    let page = ledger.store.audit_page(0, 100).await.unwrap();
    assert_eq!((page.after.seq, page.after.hash), (last.seq, last.hash));
    let entry: Value = serde_json::from_str(&page.rows[0].entry).unwrap();
    assert_eq!(
        (&entry["action"], &entry["result"]["through"]),
        (&json!("audit.prune"), &json!(last.seq))
    );
    assert_eq!(page.rows[0].hash, link(&last.hash, &page.rows[0].entry));
    assert_eq!(page.rows.len(), 1);
}

#[tokio::test]
async fn entries_are_found_by_their_time() {
    let ledger = Ledger::new().await;
    for nth in 0..5 {
        ledger
            .store
            .add_audit_entries(vec![note(nth)])
            .await
            .unwrap();
    }
    let last = ledger.store.audit_head().await.unwrap().seq;
    assert_eq!(ledger.store.audit_before(Micros(0)).await, Ok(0));
    assert_eq!(ledger.store.audit_before(Micros(i64::MAX)).await, Ok(last));
}
