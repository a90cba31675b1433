//! The bounds of deliveries, and how an attempt fails.

use std::time::Duration;

/// The bounds of deliveries. Each is a setting of the server with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoticeSettings {
    /// The most deliveries at a time.
    pub running_max: u64,
    /// How long an attempt may take, seconds.
    pub timeout_s: u64,
    /// The most attempts of a notice.
    pub attempts_max: u64,
    /// After this time a notice that is not delivered is given up, seconds.
    pub age_max_s: u64,
    /// The pause after the first failed attempt, milliseconds; each further one is twice as long.
    pub backoff_ms: u64,
    /// With this many waiting notices, jobs with `notify` are refused.
    pub waiting_max: u64,
}

/// Why an attempt has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryFailure {
    /// For people: what the receiver or the system answered. It names no URL and no secret.
    pub error: String,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the receiver wants no other attempt.
    pub is_final: bool,
}

impl DeliveryFailure {
    /// Another attempt may succeed.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            retry_after: None,
            is_final: false,
        }
    }
}
