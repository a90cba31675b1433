//! The settings as the parts of the server take them.

use std::path::PathBuf;

use crate::{
    config::{IsolationSetting, Settings},
    executor::{
        AuditSettings, Ceased, ExecutorSettings, RetentionSettings, SearchSettings, VerifySettings,
        WantedLevel,
    },
    notices::NoticeSettings,
    query::{QueryLimits as QueryBounds, QuerySettings},
    secrets::{CREDENTIALS_VARIABLE, SecretSettings},
    store::StoreBounds,
};

fn level(isolation: IsolationSetting) -> WantedLevel {
    match isolation {
        IsolationSetting::Auto => WantedLevel::Highest,
        IsolationSetting::A => WantedLevel::A,
        IsolationSetting::B => WantedLevel::B,
    }
}

/// What an executor is started with.
pub fn of_executor(settings: &Settings) -> ExecutorSettings {
    ExecutorSettings {
        segment_bytes: settings.segment_bytes,
        inline_bytes_max: settings.inline_bytes_max,
        spool_bytes_max: settings.spool_bytes_max,
        free_bytes_min: settings.free_bytes_min,
        ballast_bytes: settings.ballast_bytes,
        isolation: level(settings.isolation),
        // Bounded to 1024 by the table.
        warm_shims: u32::try_from(settings.warm_shims).unwrap_or(u32::MAX),
        shim_answer_ms: settings.shim_answer_ms,
        store: StoreBounds {
            check_bytes_max: settings.check_bytes_max,
            wal_bytes_max: settings.wal_bytes_max,
        },
        queries: QuerySettings {
            bounds: QueryBounds {
                timeout_s: settings.query_timeout_s,
                memory_bytes: settings.query_memory_bytes,
            },
            rows_max: settings.query_rows_max,
            queries_max: settings.queries_max,
            waiting_max: settings.queries_waiting_max,
        },
        verifies: VerifySettings {
            timeout_s: settings.verify_timeout_s,
            verifies_max: settings.verifies_max,
            waiting_max: settings.verifies_waiting_max,
        },
        expect_timeout_s: settings.expect_timeout_s,
        searches: SearchSettings {
            timeout_s: settings.search_timeout_s,
            bytes_max: settings.search_bytes_max,
            searches_max: settings.searches_max,
            waiting_max: settings.searches_waiting_max,
        },
        retention: RetentionSettings {
            interval_s: settings.retention_interval_s,
            after_ends: settings.retention_after_ends,
        },
        notices: NoticeSettings {
            running_max: settings.notices_running_max,
            timeout_s: settings.notice_timeout_s,
            attempts_max: settings.notice_attempts_max,
            age_max_s: settings.notice_age_max_s,
            backoff_ms: settings.notice_backoff_ms,
            waiting_max: settings.notices_waiting_max,
        },
        policy: settings.policy.clone(),
        ceased: Ceased::default(),
        audit: AuditSettings {
            sink: settings.audit_checkpoints.clone(),
            checkpoint_s: settings.audit_checkpoint_s,
            key_s: settings.audit_key_s,
            days: settings.audit_days,
            refusal_kinds_max: usize::try_from(settings.audit_refusal_kinds_max)
                .unwrap_or(usize::MAX),
        },
        secrets: SecretSettings {
            directory: settings.secrets_dir.clone(),
            credentials: std::env::var_os(CREDENTIALS_VARIABLE)
                .filter(|directory| !directory.is_empty())
                .map(PathBuf::from),
            bytes_max: settings.secret_bytes_max,
        },
    }
}
