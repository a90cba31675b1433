//! Signs where the audit trail ends, with a key that is replaced again and again: who takes the machine today has only
//! today's key.
//!
//! A new key is in its file before the trail names it, and signs only after that.

use std::{io, path::Path, sync::Arc};

use serde_json::json;

use super::{
    key_file::{self, DatedKey},
    settings::AuditSettings,
    sink,
};
use crate::{
    access::ClientOrigin,
    audit::{AuditEntry, ChainHead, Checkpoint, checkpoint::ORIGIN, trail::KEY_ACTION},
    data_dir::{DataDirError, OwnDir},
    spool::Layout,
    store::{Store, StoreError},
    sys::{clock, threads::blocking},
};

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFailure {
    /// The trail cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory is not ours alone.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A key cannot be read, made or stored.
    #[error("the key of the audit trail: {0}")]
    Key(io::Error),
    /// The checkpoint was not taken.
    #[error("audit_checkpoints: {0}")]
    Sink(String),
}

/// Signs checkpoints.
#[derive(Debug, Default)]
pub struct Notary {
    /// The key in force; `None`: not loaded yet.
    key: Option<DatedKey>,
    /// The last checkpoint that was delivered.
    delivered: Option<ChainHead>,
}

impl Notary {
    /// Delivers a checkpoint; `None` if nothing is new since the last one.
    pub async fn checkpoint(
        &mut self,
        store: &Store,
        data_dir: &Path,
        instance: &str,
        settings: &AuditSettings,
    ) -> Result<Option<ChainHead>, CheckpointFailure> {
        if self.delivered == Some(store.audit_head().await?) {
            return Ok(None);
        }
        let key = self.key(store, data_dir, instance, settings).await?;
        let head = store.audit_head().await?;
        let made = Checkpoint::sign(instance, head, clock::now(), &key.signer);
        let delivered = sink::deliver(&settings.sink, &made).await;
        delivered.map_err(CheckpointFailure::Sink)?;
        self.delivered = Some(head);
        Ok(Some(head))
    }

    /// The key in force. It is replaced if it is old, or another data directory's.
    async fn key(
        &mut self,
        store: &Store,
        data_dir: &Path,
        instance: &str,
        settings: &AuditSettings,
    ) -> Result<&DatedKey, CheckpointFailure> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let dir = OwnDir::open(data_dir)?.ok_or_else(|| CheckpointFailure::Key(gone()))?;
        let known = match self.key.take() {
            Some(key) => Some(key),
            None => in_force(&dir, store.audit_key().await?).await?,
        };
        let name = format!("{ORIGIN}{instance}");
        let key_us = i64::try_from(settings.key_s).unwrap_or(i64::MAX / 2_000_000) * 1_000_000;
        let is_fresh = |key: &DatedKey| {
            let age = clock::now().0.saturating_sub(key.made_at.0);
            key.signer.key().name == name && (0..key_us).contains(&age)
        };
        let key = match known {
            Some(key) if is_fresh(&key) => key,
            known => replace(store, dir, &name, known).await?,
        };
        Ok(self.key.insert(key))
    }
}

/// The key that the trail names last. A kill may have come between its file and the trail.
async fn in_force(
    dir: &OwnDir,
    named: Option<String>,
) -> Result<Option<DatedKey>, CheckpointFailure> {
    let dir = dir.clone();
    let found = blocking(move || {
        let is_named = |key: &DatedKey| Some(key.signer.key().to_string()) == named;
        match key_file::load(&dir, Layout::AUDIT_KEY_NEXT)? {
            Some(next) if is_named(&next) => {
                key_file::promote_next(&dir)?;
                return Ok(Some(next));
            }
            Some(_) => key_file::discard_next(&dir)?,
            None => {}
        }
        Ok(key_file::load(&dir, Layout::AUDIT_KEY)?.filter(is_named))
    });
    found.await.map_err(CheckpointFailure::Key)
}

/// Makes a key, has it signed by the one before, and puts it in force with an entry of the trail.
async fn replace(
    store: &Store,
    dir: OwnDir,
    name: &str,
    before: Option<DatedKey>,
) -> Result<DatedKey, CheckpointFailure> {
    let key = DatedKey::generate(name, clock::now()).map_err(CheckpointFailure::Key)?;
    let next = key.signer.key().clone();
    let place = dir.clone();
    let stored = blocking(move || key_file::store_next(&place, &key).map(|()| key));
    let key = stored.await.map_err(CheckpointFailure::Key)?;
    let signature = before.map(|before| before.signer.sign_next(&next));
    let result = json!({"key": next.to_string(), "signature": signature});
    let origin = Arc::new(ClientOrigin::server());
    let entry = AuditEntry::allowed(KEY_ACTION, origin, json!({}), result);
    store.add_audit_entries(vec![entry]).await?;
    let promoted = blocking(move || key_file::promote_next(&dir));
    promoted.await.map_err(CheckpointFailure::Key)?;
    Ok(key)
}
