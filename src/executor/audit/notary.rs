//! Signs where the audit trail ends, with a key that is replaced again and again: who takes the machine today has only
//! today's key.
//!
//! A new key is in its file before the trail names it, and signs only after that.

use std::{io, path::Path, sync::Arc};

use serde_json::json;

use super::{
    key_file::{self, DatedKey},
    settings::AuditSettings,
    sink::CheckpointWriter,
};
use crate::{
    access::ClientOrigin,
    audit::{AuditEntry, ChainHead, Checkpoint, KeyLink, checkpoint::ORIGIN, trail::KEY_ACTION},
    data_dir::{DataDirError, OwnDir},
    spool::Layout,
    store::{AuditKeyRow, Store, StoreError},
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

/// The key in force.
#[derive(Debug)]
struct KeyInForce {
    key: DatedKey,
    /// How the key before has signed it.
    link: Option<KeyLink>,
    /// Whether a checkpoint that it has signed was delivered. A key is not replaced before that: the checkpoints lead from
    /// one key to the next.
    has_delivered: bool,
}

/// Signs checkpoints.
#[derive(Debug, Default)]
pub struct Notary {
    /// `None`: not loaded yet.
    key: Option<KeyInForce>,
    /// The last checkpoint that was delivered.
    delivered: Option<ChainHead>,
    writer: CheckpointWriter,
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
        let (signer, link) = (&key.key.signer, key.link.as_ref());
        let made = Checkpoint::sign(instance, head, clock::now(), signer, link);
        let delivered = self.writer.deliver(&settings.sink, &made).await;
        delivered.map_err(CheckpointFailure::Sink)?;
        self.delivered = Some(head);
        if let Some(key) = &mut self.key {
            key.has_delivered = true;
        }
        Ok(Some(head))
    }

    /// The key in force. It is replaced if it is old, or another data directory's.
    async fn key(
        &mut self,
        store: &Store,
        data_dir: &Path,
        instance: &str,
        settings: &AuditSettings,
    ) -> Result<&KeyInForce, CheckpointFailure> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let dir = OwnDir::open(data_dir)?.ok_or_else(|| CheckpointFailure::Key(gone()))?;
        let known = match self.key.take() {
            Some(key) => Some(key),
            None => load(store, &dir).await?,
        };
        let name = format!("{ORIGIN}{instance}");
        let key_us = i64::try_from(settings.key_s).unwrap_or(i64::MAX / 2_000_000) * 1_000_000;
        let is_fresh = |held: &KeyInForce| {
            let age = clock::now().0.saturating_sub(held.key.made_at.0);
            let is_young = (0..key_us).contains(&age);
            held.key.signer.key().name == name && (is_young || !held.has_delivered)
        };
        let key = match known {
            Some(key) if is_fresh(&key) => key,
            known => replace(store, dir, &name, known.map(|known| known.key)).await?,
        };
        Ok(self.key.insert(key))
    }
}

/// The key that the trail names last, with how the one before has signed it.
async fn load(store: &Store, dir: &OwnDir) -> Result<Option<KeyInForce>, CheckpointFailure> {
    let mut rows = store.audit_last_keys().await?.into_iter();
    let (last, before) = (rows.next(), rows.next());
    let named = last.as_ref().map(|last| last.key.clone());
    let link = last
        .zip(before)
        .and_then(|(last, before)| link(&last, &before));
    let key = in_force(dir, named).await?;
    Ok(key.map(|key| KeyInForce {
        key,
        link,
        has_delivered: false,
    }))
}

/// How one key has signed the next.
fn link(key: &AuditKeyRow, before: &AuditKeyRow) -> Option<KeyLink> {
    let link = KeyLink {
        before: before.key.parse().ok()?,
        key: key.key.parse().ok()?,
        signature: key.signature.clone()?,
    };
    link.is_right().then_some(link)
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
) -> Result<KeyInForce, CheckpointFailure> {
    let key = DatedKey::generate(name, clock::now()).map_err(CheckpointFailure::Key)?;
    let next = key.signer.key().clone();
    let place = dir.clone();
    let stored = blocking(move || key_file::store_next(&place, &key).map(|()| key));
    let key = stored.await.map_err(CheckpointFailure::Key)?;
    let link = before.map(|before| KeyLink {
        signature: before.signer.sign_next(&next),
        before: before.signer.key().clone(),
        key: next.clone(),
    });
    let signature = link.as_ref().map(|link| &link.signature);
    let result = json!({"key": next.to_string(), "signature": signature});
    let origin = Arc::new(ClientOrigin::server());
    let entry = AuditEntry::allowed(KEY_ACTION, origin, json!({}), result);
    store.add_audit_entries(vec![entry]).await?;
    let promoted = blocking(move || key_file::promote_next(&dir));
    promoted.await.map_err(CheckpointFailure::Key)?;
    Ok(KeyInForce {
        key,
        link,
        has_delivered: false,
    })
}
