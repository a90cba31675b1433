//! What a shim was given, as its handle remembers it.

use crate::{
    output::Hasher,
    store::OpenAttempt,
    supervisor::{
        Context,
        attempt_watch::{AttemptId, AttemptWatch},
    },
};

/// What the shim was given.
#[derive(Debug)]
pub(super) enum ShimTask {
    /// Nothing.
    None,
    /// An attempt that has not ended.
    Attempt(Box<WatchedAttempt>),
    /// An attempt whose end is being committed.
    Ended(AttemptId),
}

/// An attempt that is being watched.
#[derive(Debug)]
pub(super) struct WatchedAttempt {
    pub(super) watch: AttemptWatch,
    /// Set once the first segment is sealed. It then holds the digest, and that in `watch` is old.
    pub(super) hasher: Option<Hasher>,
}

impl ShimTask {
    pub(super) fn watching(open: &OpenAttempt) -> Self {
        let watch = AttemptWatch::of_open(open);
        Self::Attempt(Box::new(WatchedAttempt {
            watch,
            hasher: None,
        }))
    }

    /// The attempt that the shim was last given.
    pub(super) fn key(&self) -> Option<AttemptId> {
        match self {
            Self::None => None,
            Self::Attempt(watched) => Some(watched.watch.key),
            Self::Ended(key) => Some(*key),
        }
    }

    /// The attempt that the shim was given and that has not ended.
    pub(super) fn open_key(&self) -> Option<AttemptId> {
        match self {
            Self::Attempt(watched) => Some(watched.watch.key),
            Self::None | Self::Ended(_) => None,
        }
    }

    pub(super) fn watched(&mut self) -> Option<&mut WatchedAttempt> {
        match self {
            Self::Attempt(watched) => Some(watched),
            Self::None | Self::Ended(_) => None,
        }
    }
}

impl WatchedAttempt {
    pub(super) fn hasher(&mut self, ctx: &Context) -> &Hasher {
        let AttemptId { job, attempt } = self.watch.key;
        let digest = &self.watch.digest;
        self.hasher.get_or_insert_with(|| {
            let spool = ctx.layout.spool();
            Hasher::start(ctx.store.clone(), spool, job, attempt, digest.clone())
        })
    }

    /// The watch with the digest as far as it came.
    pub(super) async fn into_watch(self) -> AttemptWatch {
        let mut watch = self.watch;
        if let Some(hasher) = self.hasher
            && let Some(digest) = hasher.finish().await
        {
            watch.digest = digest;
        }
        watch
    }
}
