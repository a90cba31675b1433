//! The requests of the client that have no answer yet. Pure.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{ids::MessageId, params::CallParams, resend};

/// How many requests may wait for their answers: as many as a server has in flight for a session.
pub const REQUESTS_MAX: usize = 64;
/// How long they may be together, bytes.
pub const REQUESTS_BYTES_MAX: usize = 16 << 20;

/// A request without an answer.
#[derive(Debug)]
pub struct HeldRequest {
    /// Its id.
    pub id: MessageId,
    /// The whole message, as the client wrote it.
    pub text: Utf8Bytes,
    /// Such as `tools/call`.
    pub method: String,
    /// The tool of a `tools/call`.
    pub tool: Option<String>,
    /// Whether it may be sent again after it may have been executed.
    pub is_repeatable: bool,
    /// Whether a result needs a `resultType`.
    pub has_result_type: bool,
    /// Whether it was sent on the present connection.
    pub is_sent: bool,
    /// Whether it was sent on an earlier connection.
    pub was_sent: bool,
    /// How many connections in a row were lost right after they were made while it was held.
    pub lost_at_once: u32,
}

impl HeldRequest {
    /// A request that has just come.
    pub fn new(id: MessageId, method: String, params: &CallParams<'_>, text: Utf8Bytes) -> Self {
        Self {
            id,
            text,
            tool: params
                .tool()
                .filter(|_| method == "tools/call")
                .map(str::to_owned),
            is_repeatable: resend::is_repeatable(&method, params),
            has_result_type: params.names_its_revision(),
            method,
            is_sent: false,
            was_sent: false,
            lost_at_once: 0,
        }
    }
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub struct HeldRequests {
    requests: Vec<HeldRequest>,
    bytes: usize,
}

impl HeldRequests {
    /// Adds one; returns it if there is no room.
    pub fn add(&mut self, request: HeldRequest) -> Result<(), HeldRequest> {
        let bytes = self.bytes + request.text.len();
        if self.requests.len() == REQUESTS_MAX || bytes > REQUESTS_BYTES_MAX {
            return Err(request);
        }
        self.bytes = bytes;
        self.requests.push(request);
        Ok(())
    }

    /// One of them.
    pub fn get_mut(&mut self, id: &MessageId) -> Option<&mut HeldRequest> {
        self.requests.iter_mut().find(|held| held.id == *id)
    }

    /// Removes one.
    pub fn remove(&mut self, id: &MessageId) -> Option<HeldRequest> {
        let at = self.requests.iter().position(|held| held.id == *id)?;
        let held = self.requests.remove(at);
        self.bytes -= held.text.len();
        Some(held)
    }

    /// Removes those for which `is_wanted` is true.
    pub fn take_if(&mut self, is_wanted: impl Fn(&HeldRequest) -> bool) -> Vec<HeldRequest> {
        let taken: Vec<_> = self
            .requests
            .extract_if(.., |held| is_wanted(held))
            .collect();
        self.bytes -= taken.iter().map(|held| held.text.len()).sum::<usize>();
        taken
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &HeldRequest> {
        self.requests.iter()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut HeldRequest> {
        self.requests.iter_mut()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
