//! The client for whom something is done: its name in records, and its rights.

use std::{ops::Deref, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::access::Principal;

/// The client for whom something is done. Dereferences to its name in records, such as `ws:0198…`.
#[derive(Debug, Clone)]
pub struct Actor {
    name: String,
    principal: Arc<Principal>,
}

impl Actor {
    /// A client with these rights.
    pub fn new(name: impl Into<String>, principal: Arc<Principal>) -> Self {
        Self {
            name: name.into(),
            principal,
        }
    }

    /// A part of the server, which may do everything.
    pub fn server(name: impl Into<String>) -> Self {
        Self::new(name, Arc::new(Principal::admin(CancellationToken::new())))
    }

    /// Its rights.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}

impl Deref for Actor {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
