//! The text that is hashed to find out whether two submissions are the same job.
//!
//! Hashes of it are stored, so the text of a job must never change: not with a new version, and not
//! with a new key. The keys of the first version have an order of their own, which [`Frozen`]
//! keeps; later keys follow in the order of their names, and only where their value is not the
//! default.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{
    command::Command, limits::Limits, loss::OnLost, notify::NotifyEntry, policy::OnDisconnect,
    policy::OutputPolicy, policy::WhenFull, secret::EnvValue, spec::JobSpec, time::Seconds,
};

/// With this value `disconnect_delay_s` is left out of the text. It is the default at the time when
/// the key was added, and never changes.
const USUAL_DELAY: Seconds = Seconds(10.0);

impl JobSpec {
    /// The text that is compared when an idempotency key is used again: everything but the key
    /// itself. Equal jobs have equal texts in every version.
    ///
    /// # Errors
    ///
    /// None that a job can cause.
    pub fn fingerprint_source(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Source {
            frozen: Frozen::of(self),
            later: Later(later(self)?),
        })
    }
}

#[derive(Serialize)]
struct Source<'a> {
    #[serde(flatten)]
    frozen: Frozen<'a>,
    #[serde(flatten)]
    later: Later,
}

/// The keys that existed when the first fingerprint was stored. Never change this struct, and never
/// add a field.
#[derive(Serialize)]
struct Frozen<'a> {
    command: FrozenCommand<'a>,
    cwd: Option<&'a str>,
    env: &'a BTreeMap<String, EnvValue>,
    umask: u32,
    #[serde(skip_serializing_if = "Limits::is_none")]
    limits: &'a Limits,
    stdin: Option<&'a str>,
    #[serde(skip_serializing_if = "is_default")]
    interactive: bool,
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    queue: &'a str,
    priority: i64,
    timeout_s: Option<Seconds>,
    stall_timeout_s: Option<Seconds>,
    grace_s: Seconds,
    leftover: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    on_lost: OnLost,
    #[serde(skip_serializing_if = "is_default")]
    on_disconnect: OnDisconnect,
    #[serde(skip_serializing_if = "is_usual_delay")]
    disconnect_delay_s: Seconds,
    output: FrozenOutput,
    idempotency_key: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum FrozenCommand<'a> {
    Argv(&'a [String]),
    Shell(&'a str),
}

#[derive(Serialize)]
struct FrozenOutput {
    max_bytes: Option<u64>,
    when_full: WhenFull,
}

/// The keys in [`Frozen`], by their names on the wire. `env` and `stdin` are missing: a spec never
/// serialises them.
const FROZEN_KEYS: [&str; 20] = [
    "argv",
    "shell",
    "cwd",
    "umask",
    "limits",
    "interactive",
    "name",
    "labels",
    "queue",
    "priority",
    "timeout_s",
    "stall_timeout_s",
    "grace_s",
    "leftover",
    "on_lost",
    "on_disconnect",
    "disconnect_delay_s",
    "output.max_bytes",
    "output.when_full",
    "idempotency_key",
];

impl<'a> Frozen<'a> {
    fn of(job: &'a JobSpec) -> Self {
        let OutputPolicy {
            max_bytes,
            when_full,
            ..
        } = job.output;
        Self {
            command: match &job.command {
                Command::Argv(argv) => FrozenCommand::Argv(argv),
                Command::Shell(line) => FrozenCommand::Shell(line),
            },
            cwd: job.cwd.as_deref(),
            env: &job.env,
            umask: job.umask.0,
            limits: &job.limits,
            stdin: job.stdin.as_deref(),
            interactive: job.interactive,
            name: job.name.as_deref(),
            labels: &job.labels,
            queue: &job.queue,
            priority: job.priority,
            timeout_s: job.timeout_s,
            stall_timeout_s: job.stall_timeout_s,
            grace_s: job.grace_s,
            leftover: job.leftover.name(),
            on_lost: job.on_lost,
            on_disconnect: job.on_disconnect,
            disconnect_delay_s: job.disconnect_delay_s,
            output: FrozenOutput {
                max_bytes,
                when_full,
            },
            idempotency_key: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_usual_delay(delay: &Seconds) -> bool {
    *delay == USUAL_DELAY
}

/// Keys that came later, dotted inside `output`, in the order of their names.
struct Later(BTreeMap<String, Value>);

impl Serialize for Later {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The later keys of a job with all defaults.
static DEFAULTS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let plain = JobSpec::new(Command::Shell(String::new()));
    keys(&plain).unwrap_or_default()
});

/// The later keys whose values are not the default.
fn later(job: &JobSpec) -> serde_json::Result<BTreeMap<String, Value>> {
    let mut keys = keys(job)?;
    // With the secrets, which a spec never serialises.
    let notify = job.notify.iter().map(NotifyEntry::with_secret);
    keys.insert("notify".to_owned(), notify.collect());
    keys.retain(|key, value| DEFAULTS.get(key) != Some(value));
    Ok(keys)
}

fn keys(job: &JobSpec) -> serde_json::Result<BTreeMap<String, Value>> {
    let mut shown: Map<String, Value> = serde_json::from_value(serde_json::to_value(job)?)?;
    let output = shown.remove("output");
    let output = output.as_ref().and_then(Value::as_object).into_iter();
    let output: Vec<_> = output
        .flatten()
        .map(|(key, value)| (format!("output.{key}"), value.clone()))
        .collect();
    let keys = shown.into_iter().chain(output);
    Ok(keys
        .filter(|(key, _)| !FROZEN_KEYS.contains(&key.as_str()))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sha2::{Digest, Sha256};

    use super::*;

    fn text(job: Value) -> String {
        let job = JobSpec::read(job.as_object().expect("an object").clone()).expect("valid");
        String::from_utf8(job.fingerprint_source().expect("a text")).expect("UTF-8")
    }

    /// As the version before `JobSpec` computed them.
    #[test]
    fn fingerprints_stay_as_they_are_stored() {
        for (job, digest) in [
            (
                json!({"argv": ["true"], "cwd": "/home/user"}),
                "92d7c707c087858efcf59a5b589cc7d90263cb0c6dadcd56ee2b7ebd6f7bff89",
            ),
            (
                json!({"shell": "make \"all\"", "cwd": "/src", "env": {"B": "2", "A": "é\n"},
                    "umask": "022", "stdin": "in", "name": "n", "labels": {"z": "1", "k": "v"},
                    "queue": "q", "priority": -3, "timeout_s": 1.5, "stall_timeout_s": 2,
                    "grace_s": 0, "leftover": "keep", "idempotency_key": "key",
                    "output": {"max_bytes": 10, "when_full": "drop_newest"}}),
                "8c578a506f1a243be31c12b218c8b523b5284dbf7417b78e7cfc3809dede7c42",
            ),
            (
                json!({"argv": ["a", ""], "cwd": "/", "interactive": true,
                    "on_disconnect": "cancel", "disconnect_delay_s": 0.1, "on_lost": "retry",
                    "limits": {"memory_bytes": 1 << 30, "cpu_s": {"soft": 3, "hard": 3},
                        "open_files": {"soft": 64, "hard": null}, "core_bytes": 0, "nice": -3},
                    "output": {"max_bytes": 16 << 20, "when_full": "drop_oldest"}}),
                "6845d04a883dc466baad6ea6c7a085b36d5a444891980f5a46882168430931ca",
            ),
            (
                json!({"argv": ["true"], "cwd": "/", "umask": "7", "on_disconnect": "cancel",
                    "output": {"max_bytes": 1}, "priority": 2147483647, "grace_s": 1e-7,
                    "timeout_s": 315360000, "disconnect_delay_s": 10}),
                "9aa8ccc65399954fc0b9414f6b7846c2b5eb8d9a1a1061c2f1233d14614882d0",
            ),
        ] {
            let source = text(job);
            let found: String = Sha256::digest(&source)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(found, digest, "{source}");
        }
    }

    #[test]
    fn every_key_is_frozen_or_has_a_default_that_leaves_no_trace() {
        let plain = text(json!({"argv": ["true"], "cwd": "/"}));
        let spelled = text(
            json!({"argv": ["true"], "cwd": "/", "umask": "077", "limits": {},
            "disconnect_delay_s": 10, "on_lost": "fail", "idempotency_key": "k"}),
        );
        assert_eq!(plain, spelled);
        let ends = r#""output":{"max_bytes":null,"when_full":"fail"},"idempotency_key":null}"#;
        assert!(plain.ends_with(ends), "{plain}");
        let later = text(json!({"argv": ["true"], "cwd": "/", "output": {"max_lines": 5}}));
        let with = |ends: &str| plain.replace("null}", ends);
        assert_eq!(later, with("null,\"output.max_lines\":5}"));
        let shown = text(json!({"argv": ["true"], "cwd": "/", "output": {"redact": false}}));
        assert_eq!(shown, with("null,\"output.redact\":false}"));
        let secret = text(json!({"argv": ["true"], "cwd": "/", "env": {"A": {"secret": "s"}}}));
        let expected = plain.replace("\"env\":{}", "\"env\":{\"A\":{\"secret\":\"s\"}}");
        assert_eq!(secret, expected);
    }
}
