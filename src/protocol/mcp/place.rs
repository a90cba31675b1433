//! Where a client on this machine runs: what its jobs start with. The command line tells it with a
//! notification of its own, the first message of a connection over the Unix socket.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde::Deserialize;
use serde_json::Value;

use crate::sys::lock;

/// The name of the notification.
pub const CALLER_NOTIFICATION: &str = "notifications/cc-executor/caller";

/// Where a client runs, in the forms of a NewJob.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClientPlace {
    /// Its working directory, absolute.
    pub cwd: Option<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its file mode creation mask, octal digits.
    pub umask: Option<String>,
    /// Its resource limits.
    pub limits: Option<Value>,
}

/// The place of a session's client, as far as it has told. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ToldPlace(Arc<Mutex<Option<Arc<ClientPlace>>>>);

impl ToldPlace {
    /// Reads the parameters of the notification. Malformed ones tell nothing.
    pub fn set(&self, params: Option<Value>) {
        let place = params.and_then(|params| serde_json::from_value(params).ok());
        *lock(&self.0) = place.map(Arc::new);
    }

    /// The place; `None` if the client has not told it.
    pub fn get(&self) -> Option<Arc<ClientPlace>> {
        lock(&self.0).clone()
    }
}
