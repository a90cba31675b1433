//! The methods, one per file: each takes parameters and returns the executor's answer as JSON. Every
//! interface calls these functions for its [`super::caller::Caller`].
//!
//! The interface decides in which order requests are executed: see `ws::dispatch`.

pub mod audit_read;
pub mod backup;
pub mod control;
pub mod delete;
pub mod disk_usage;
pub mod explain;
pub mod get;
pub mod info;
pub mod input;
pub mod limits;
pub mod list;
pub mod notice_list;
pub mod notice_retry;
pub mod notice_test;
pub mod policy_reload;
pub mod principal;
pub mod prune;
pub mod query;
pub mod queue_delete;
pub mod queue_list;
pub mod queue_set;
pub mod read;
pub mod retention_delete;
pub mod retention_list;
pub mod retention_set;
pub mod retry;
pub mod schedule_delete;
pub mod schedule_list;
pub mod schedule_run;
pub mod schedule_set;
pub mod search;
pub mod submit;
pub mod submit_many;
pub mod token;
pub mod update;
pub mod verify;
pub mod wait;

use serde::Serialize;
use serde_json::value::RawValue;

use super::jsonrpc::envelope::to_raw;
use crate::config::Settings;

/// Version of the protocol, sent in the greeting.
pub const PROTOCOL: u32 = 1;

/// Bytes of a message that every reply leaves free for its envelope. An `id` may take half of them.
const ENVELOPE_BYTES: usize = 128 << 10;

/// Most arrays and objects of a request.
pub const CONTAINERS_MAX: usize = 4096;

/// The same for `job.submit_many`: ten thousand jobs with half a dozen each.
pub const MANY_CONTAINERS_MAX: usize = 64 << 10;

/// Longest view of a job, as JSON, bytes.
pub fn job_bytes_max(settings: &Settings) -> usize {
    settings.message_len_max().saturating_sub(ENVELOPE_BYTES)
}

/// Takes items while their JSON fits into `bytes_max`; also returns whether all did. The first item is
/// always taken, so that a reader makes progress.
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
