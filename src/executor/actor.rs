//! The client for whom something is done: its name in records, its rights, and who it is for the policy.

use std::{ops::Deref, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    access::Principal,
    job::{Requester, Schedule},
};

/// The client for whom something is done. Dereferences to its name in records, such as `ws:0198…`.
#[derive(Debug, Clone)]
pub struct Actor {
    name: String,
    principal: Arc<Principal>,
    uid: Option<u32>,
}

impl Actor {
    /// A client with these rights; `uid` is the user at the other end of a Unix socket.
    pub fn new(name: impl Into<String>, principal: Arc<Principal>, uid: Option<u32>) -> Self {
        Self {
            name: name.into(),
            principal,
            uid,
        }
    }

    /// A schedule, which the policy judges as the one who has set it. No token narrows it.
    pub(super) fn schedule(schedule: &Schedule) -> Self {
        let requester = schedule.requester.clone();
        // Until there was a policy, only the admin could set one.
        let requester = requester.unwrap_or_else(|| Requester::admin(None));
        Self::unnarrowed(Schedule::actor(&schedule.name), &requester)
    }

    /// The same client for a run of a schedule, which belongs to no token.
    pub(super) fn for_run(&self) -> Self {
        Self::unnarrowed(self.name.clone(), &self.requester())
    }

    fn unnarrowed(name: String, requester: &Requester) -> Self {
        let principal = Principal {
            name: requester.name.as_str().into(),
            ..Principal::admin(CancellationToken::new())
        };
        Self::new(name, Arc::new(principal), requester.uid)
    }

    /// Its rights.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Who it is for the policy: its token's name, or the admin. The user of a Unix socket counts only
    /// without a token: who shows one is not more than that.
    pub fn requester(&self) -> Requester {
        Requester {
            name: self.principal.name.to_string(),
            uid: self.uid.filter(|_| self.principal.token.is_none()),
        }
    }
}

impl Deref for Actor {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
