//! The bounds as clients see them: all of them in `server.info`, and in the greeting those that a client
//! must know before its first request. Every setting that bounds something appears without being named
//! here.

use serde_json::{Map, Value, json};

use super::{disk_usage, list, read, submit_many, verify, wait};
use crate::{
    config::Settings,
    executor::{
        FoundLine, LINE_MATCH_BYTES_MAX, MATCH_BYTES_MAX, Pattern, SearchOptions, TEXT_BYTES_MAX,
        TIED_JOBS_MAX,
    },
    job::{
        Input, Queue, RetentionRule, Schedule, Timetable,
        read::{LABEL_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX},
    },
    protocol::{
        jsonrpc::envelope,
        limits::HEAD_BYTES_MAX,
        methods::{CONTAINERS_MAX, MANY_CONTAINERS_MAX, job_bytes_max},
    },
};

/// The bounds in the greeting, which unauthenticated clients see, too.
const IN_GREETING: [&str; 16] = [
    "auth_timeout_s",
    "in_flight_max",
    "job_bytes_max",
    "json_depth_max",
    "list_limit_max",
    "message_bytes_max",
    "ping_interval_s",
    "read_bytes_max",
    "read_wait_ms_max",
    "sessions_max",
    "submit_many_bytes_max",
    "submit_many_max",
    "submit_many_parts_bytes_max",
    "subscriptions_max",
    "unauthenticated_sessions_max",
    "wait_jobs_max",
];

/// Every bound, by name: the settings that are numbers, and the constants of the interface.
pub fn all(settings: &Settings) -> Map<String, Value> {
    let mut all = settings.bounds();
    let constants = [
        ("claim_bytes_max", json!(TEXT_BYTES_MAX)),
        (
            "claims_compiled_bytes_max",
            json!(verify::COMPILED_BYTES_MAX),
        ),
        ("claims_max", json!(verify::CLAIMS_MAX)),
        ("containers_max", json!(CONTAINERS_MAX)),
        ("head_bytes_max", json!(HEAD_BYTES_MAX)),
        ("id_bytes_max", json!(envelope::ID_BYTES_MAX)),
        ("input_bytes_max", json!(Input::BYTES_MAX)),
        ("inputs_kept_max", json!(Input::KEPT_MAX)),
        ("job_bytes_max", json!(job_bytes_max(settings))),
        ("label_bytes_max", json!(LABEL_BYTES_MAX)),
        ("labels_max", json!(LABELS_MAX)),
        ("list_limit_max", json!(list::LIMIT_MAX)),
        ("match_bytes_max", json!(MATCH_BYTES_MAX)),
        ("name_bytes_max", json!(NAME_BYTES_MAX)),
        ("pattern_bytes_max", json!(Pattern::TEXT_BYTES_MAX)),
        ("queue_concurrency_max", json!(Queue::CONCURRENCY_MAX)),
        ("queue_defaults_bytes_max", json!(Queue::DEFAULTS_BYTES_MAX)),
        (
            "queue_starts_per_minute_max",
            json!(Queue::STARTS_PER_MINUTE_MAX),
        ),
        ("queue_weight_max", json!(Queue::WEIGHT_MAX)),
        ("queues_max", json!(Queue::COUNT_MAX)),
        ("retention_rules_max", json!(RetentionRule::COUNT_MAX)),
        ("disk_usage_limit_max", json!(disk_usage::LIMIT_MAX)),
        ("read_bytes_max", json!(read::BYTES_MAX)),
        ("read_wait_ms_max", json!(read::WAIT_MS_MAX)),
        ("schedule_cron_bytes_max", json!(Timetable::CRON_BYTES_MAX)),
        ("schedule_job_bytes_max", json!(Schedule::JOB_BYTES_MAX)),
        ("schedule_waiting_max", json!(Schedule::WAITING_MAX)),
        ("schedules_max", json!(Schedule::COUNT_MAX)),
        ("search_limit_max", json!(SearchOptions::LIMIT_MAX)),
        ("search_line_bytes_max", json!(FoundLine::TEXT_BYTES_MAX)),
        ("search_match_bytes_max", json!(LINE_MATCH_BYTES_MAX)),
        ("submit_many_containers_max", json!(MANY_CONTAINERS_MAX)),
        ("submit_many_bytes_max", json!(settings.submit_many_bytes())),
        ("submit_many_id_bytes_max", json!(submit_many::ID_BYTES_MAX)),
        ("submit_many_parts_bytes_max", json!(settings.parts_bytes())),
        ("tied_jobs_max", json!(TIED_JOBS_MAX)),
        ("wait_jobs_max", json!(wait::JOBS_MAX)),
        ("write_id_bytes_max", json!(Input::WRITE_ID_BYTES_MAX)),
        ("write_ids_remembered_max", json!(Input::REMEMBERED_MAX)),
    ];
    all.extend(constants.map(|(name, value)| (name.to_owned(), value)));
    all
}

/// The bounds for the greeting.
pub fn greeting(settings: &Settings) -> Map<String, Value> {
    let mut all = all(settings);
    all.retain(|name, _| IN_GREETING.contains(&name.as_str()));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{self, TABLE};

    fn defaults() -> Settings {
        let loaded = config::load_from(None, BTreeMap::new(), &BTreeMap::new());
        loaded.expect("defaults").settings
    }

    /// A setting whose name ends in a unit or bound is a bound.
    #[test]
    fn every_bound_of_the_settings_is_told() {
        let all = all(&defaults());
        let units = ["_max", "_min", "_s", "_ms", "_bytes"];
        let bounds = TABLE
            .iter()
            .filter(|entry| units.iter().any(|unit| entry.name.ends_with(unit)));
        for entry in bounds {
            assert!(all.contains_key(entry.name), "{} is not shown", entry.name);
        }
        assert_eq!(all["spool_bytes_max"], Value::Null, "no bound is null");
    }

    #[test]
    fn the_greeting_tells_what_it_names() {
        assert_eq!(greeting(&defaults()).len(), IN_GREETING.len());
    }
}
