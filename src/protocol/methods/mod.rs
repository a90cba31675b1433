//! What can be asked of the server, one method per file: parameters in, the executor's answer out as
//! JSON. Every door calls these functions for its [`super::caller::Caller`].
//!
//! In which order requests are executed, and what a reply looks like, is the doors' business.

pub mod backup;
pub mod control;
pub mod delete;
pub mod get;
pub mod info;
pub mod input;
pub mod limits;
pub mod list;
pub mod query;
pub mod queue_delete;
pub mod queue_list;
pub mod queue_set;
pub mod read;
pub mod retry;
pub mod submit;
pub mod submit_many;
pub mod update;
pub mod verify;
pub mod wait;

use serde::Serialize;
use serde_json::value::RawValue;

use super::jsonrpc::envelope::to_raw;
use crate::config::Settings;

/// Version of the protocol, told in the greeting.
pub const PROTOCOL: u32 = 1;

/// Room that every reply leaves for its envelope, bytes. An `id` may take half of it.
const ENVELOPE_BYTES: usize = 128 << 10;

/// Most arrays and objects of a request.
pub const CONTAINERS_MAX: usize = 4096;

/// The same for `job.submit_many`: ten thousand jobs with half a dozen each.
pub const MANY_CONTAINERS_MAX: usize = 64 << 10;

/// Longest job that can be told, as JSON, bytes.
pub fn job_bytes_max(settings: &Settings) -> usize {
    settings.message_len_max().saturating_sub(ENVELOPE_BYTES)
}

/// Takes items while their JSON fits into `bytes_max`; also whether all did. The first one is
/// always taken, so that a reader gets on.
pub fn fitting<T: Serialize>(
    items: impl IntoIterator<Item = T>,
    bytes_max: usize,
) -> (Vec<Box<RawValue>>, bool) {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for item in items {
        let json = to_raw(&item);
        bytes += json.get().len() + 1;
        if bytes > bytes_max && !taken.is_empty() {
            return (taken, false);
        }
        taken.push(json);
    }
    (taken, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_but_never_the_first() {
        let taken = |items: &[&str], max| {
            let (taken, all) = fitting(items, max);
            (taken.len(), all)
        };
        assert_eq!(taken(&["a", "b"], 8), (2, true));
        assert_eq!(taken(&["a", "b", "c"], 8), (2, false));
        assert_eq!(taken(&["aaaaaaaaaa", "b"], 8), (1, false));
        assert_eq!(taken(&[], 8), (0, true));
    }
}
