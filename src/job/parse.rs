//! Reads a NewJob from JSON and refuses what is wrong, what is unknown and what is not built yet,
//! each in its own way.
//!
//! Whether the queue exists is not known here; the store says so.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    command::{Command, Leftover, NewJob, OnDisconnect, OutputPolicy, WhenFull},
    limits::Limits,
    loss::OnLost,
    time::Seconds,
};

/// Keys of NewJob that this version understands, in the order in which they are listed to users.
pub const KNOWN_KEYS: [&str; 22] = [
    "argv",
    "shell",
    "cwd",
    "env",
    "umask",
    "limits",
    "stdin",
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
    "output",
    "idempotency_key",
    "tail",
];

/// Keys that are promised and not built yet.
const LATER_KEYS: [&str; 10] = [
    "pty",
    "exclusive",
    "after",
    "run_at",
    "delay_s",
    "retry",
    "user",
    "notify",
    "expect",
    "prompt",
];

/// Keys that say what one job is: a queue has no default for them.
const NO_DEFAULTS: [&str; 6] = ["argv", "shell", "queue", "stdin", "idempotency_key", "tail"];

/// Longest `name`, queue name and idempotency key, bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Most labels of a job.
pub const LABELS_MAX: usize = 64;
/// Longest key or value of a label, bytes.
pub const LABEL_BYTES_MAX: usize = 4096;

/// Why a NewJob is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewJobRefusal {
    /// The value is wrong or missing, or nobody knows the key.
    #[error("{key}: {message}")]
    Invalid {
        /// The key, dotted where nested.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The contract knows it; this version does not do it yet.
    #[error("{key}: {message}")]
    Unsupported {
        /// The key, dotted where nested.
        key: String,
        /// What to do instead.
        message: String,
    },
}

impl NewJobRefusal {
    /// A wrong value.
    pub fn invalid(key: &str, message: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Invalid { key, .. } | Self::Unsupported { key, .. } => key,
        }
    }

    /// The same about a key inside the object `outer`.
    pub fn within(mut self, outer: &str) -> Self {
        let (Self::Invalid { key, .. } | Self::Unsupported { key, .. }) = &mut self;
        *key = format!("{outer}.{key}");
        self
    }

    /// Something that is not built yet.
    pub fn unsupported(key: &str) -> Self {
        Self::Unsupported {
            key: key.to_owned(),
            message: "this version does not support it yet; leave it out".to_owned(),
        }
    }
}

/// Reads a NewJob. The key `tail` belongs to `job.submit` itself and is passed over.
pub fn new_job(object: &Map<String, Value>) -> Result<NewJob, NewJobRefusal> {
    for key in object.keys() {
        if LATER_KEYS.contains(&key.as_str()) {
            return Err(NewJobRefusal::unsupported(key));
        }
        if !KNOWN_KEYS.contains(&key.as_str()) {
            return Err(NewJobRefusal::invalid(
                key,
                format!("unknown key; known keys are {}", KNOWN_KEYS.join(", ")),
            ));
        }
    }
    let mut job = NewJob::new(command(object)?);
    let get = |key: &str| object.get(key).filter(|value| !value.is_null());
    if let Some(value) = get("cwd") {
        job.cwd = Some(absolute_path("cwd", value)?);
    }
    if let Some(value) = get("env") {
        job.env = environment(value)?;
    }
    if let Some(value) = get("umask") {
        job.umask = umask(value)?;
    }
    if let Some(value) = get("limits") {
        job.limits = Limits::read(value)?;
    }
    if let Some(value) = get("stdin") {
        job.stdin = Some(string("stdin", value)?.to_owned());
    }
    if let Some(value) = get("interactive") {
        job.interactive = boolean("interactive", value)?;
    }
    if let Some(value) = get("name") {
        job.name = Some(short("name", value)?);
    }
    if let Some(value) = get("labels") {
        job.labels = labels(value)?;
    }
    if let Some(value) = get("queue") {
        job.queue = short("queue", value)?;
    }
    if let Some(value) = get("priority") {
        job.priority = priority(value)?;
    }
    if let Some(value) = get("timeout_s") {
        job.timeout_s = Some(positive("timeout_s", value)?);
    }
    if let Some(value) = get("stall_timeout_s") {
        job.stall_timeout_s = Some(positive("stall_timeout_s", value)?);
    }
    if let Some(value) = get("grace_s") {
        job.grace_s = length("grace_s", value)?;
    }
    if let Some(value) = get("leftover") {
        job.leftover = leftover(value)?;
    }
    if let Some(value) = get("on_lost") {
        job.on_lost = on_lost(value)?;
    }
    if let Some(value) = get("on_disconnect") {
        job.on_disconnect = on_disconnect(value)?;
    }
    if let Some(value) = get("disconnect_delay_s") {
        job.disconnect_delay_s = length("disconnect_delay_s", value)?;
    }
    if let Some(value) = get("output") {
        job.output = output_policy(value)?;
    }
    if let Some(value) = get("idempotency_key") {
        job.idempotency_key = Some(short("idempotency_key", value)?);
    }
    Ok(job)
}

/// Checks NewJob keys that are to be a queue's defaults.
pub fn check_defaults(defaults: &Map<String, Value>) -> Result<(), NewJobRefusal> {
    if let Some(key) = defaults
        .keys()
        .find(|key| NO_DEFAULTS.contains(&key.as_str()))
    {
        let refusal =
            NewJobRefusal::invalid(key, "every job has its own; a queue has no default for it");
        return Err(refusal.within("defaults"));
    }
    let mut job = defaults.clone();
    job.insert("argv".to_owned(), Value::from(vec!["true"]));
    new_job(&job)
        .map(drop)
        .map_err(|refusal| refusal.within("defaults"))
}

fn command(object: &Map<String, Value>) -> Result<Command, NewJobRefusal> {
    match (object.get("argv"), object.get("shell")) {
        (Some(argv), None) => argv_words(argv).map(Command::Argv),
        (None, Some(line)) => {
            let line = string("shell", line)?;
            no_nul("shell", line)?;
            Ok(Command::Shell(line.to_owned()))
        }
        (Some(_), Some(_)) => Err(NewJobRefusal::invalid(
            "argv",
            "give argv or shell, not both",
        )),
        (None, None) => Err(NewJobRefusal::invalid(
            "argv",
            "missing; give argv (a list of strings) or shell (a string)",
        )),
    }
}

fn argv_words(value: &Value) -> Result<Vec<String>, NewJobRefusal> {
    let wrong = || NewJobRefusal::invalid("argv", "must be a list of at least one string");
    let words = value.as_array().ok_or_else(wrong)?;
    let argv: Vec<String> = words
        .iter()
        .map(|word| word.as_str().map(str::to_owned).ok_or_else(wrong))
        .collect::<Result<_, _>>()?;
    match argv.first() {
        None => return Err(wrong()),
        Some(program) if program.is_empty() => {
            return Err(NewJobRefusal::invalid(
                "argv",
                "the program's name is empty",
            ));
        }
        Some(_) => {}
    }
    argv.iter().try_for_each(|word| no_nul("argv", word))?;
    Ok(argv)
}

fn string<'a>(key: &str, value: &'a Value) -> Result<&'a str, NewJobRefusal> {
    value
        .as_str()
        .ok_or_else(|| NewJobRefusal::invalid(key, "must be a string"))
}

fn boolean(key: &str, value: &Value) -> Result<bool, NewJobRefusal> {
    value
        .as_bool()
        .ok_or_else(|| NewJobRefusal::invalid(key, "must be true or false"))
}

fn no_nul(key: &str, text: &str) -> Result<(), NewJobRefusal> {
    if text.contains('\0') {
        return Err(NewJobRefusal::invalid(key, "must not contain a NUL byte"));
    }
    Ok(())
}

pub(super) fn short(key: &str, value: &Value) -> Result<String, NewJobRefusal> {
    let text = string(key, value)?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NewJobRefusal::invalid(
            key,
            format!("must have 1 to {NAME_BYTES_MAX} bytes"),
        ));
    }
    Ok(text.to_owned())
}

fn absolute_path(key: &str, value: &Value) -> Result<String, NewJobRefusal> {
    let path = string(key, value)?;
    no_nul(key, path)?;
    if !path.starts_with('/') {
        return Err(NewJobRefusal::invalid(key, "must be an absolute path"));
    }
    Ok(path.to_owned())
}

fn environment(value: &Value) -> Result<BTreeMap<String, String>, NewJobRefusal> {
    let map = string_map("env", value)?;
    for (name, value) in &map {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(NewJobRefusal::invalid(
                "env",
                "a variable's name must not be empty nor contain '=' or NUL",
            ));
        }
        no_nul("env", value)?;
    }
    Ok(map)
}

fn string_map(key: &str, value: &Value) -> Result<BTreeMap<String, String>, NewJobRefusal> {
    let wrong = || NewJobRefusal::invalid(key, "must be an object whose values are strings");
    value
        .as_object()
        .ok_or_else(wrong)?
        .iter()
        .map(|(k, v)| Ok((k.clone(), v.as_str().ok_or_else(wrong)?.to_owned())))
        .collect()
}

pub(super) fn labels(value: &Value) -> Result<BTreeMap<String, String>, NewJobRefusal> {
    let map = string_map("labels", value)?;
    let long = |text: &String| text.len() > LABEL_BYTES_MAX;
    if map.len() > LABELS_MAX || map.iter().any(|(k, v)| k.is_empty() || long(k) || long(v)) {
        return Err(NewJobRefusal::invalid(
            "labels",
            format!(
                "at most {LABELS_MAX} labels, keys of 1 to {LABEL_BYTES_MAX} bytes, \
                 values of at most {LABEL_BYTES_MAX}"
            ),
        ));
    }
    Ok(map)
}

fn umask(value: &Value) -> Result<u32, NewJobRefusal> {
    let text = string("umask", value)?;
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| octal && *mask <= 0o777)
        .ok_or_else(|| {
            NewJobRefusal::invalid("umask", "must be octal digits from \"000\" to \"777\"")
        })
}

pub(super) fn priority(value: &Value) -> Result<i64, NewJobRefusal> {
    value
        .as_i64()
        .filter(|n| i32::try_from(*n).is_ok())
        .ok_or_else(|| NewJobRefusal::invalid("priority", "must be an integer of 32 bits"))
}

/// A length of time, 0 allowed. JSON has no NaN and no infinity; 1e999 does not parse.
fn length(key: &str, value: &Value) -> Result<Seconds, NewJobRefusal> {
    value
        .as_f64()
        .filter(|s| (0.0..=Seconds::MAX).contains(s))
        .map(Seconds)
        .ok_or_else(|| {
            NewJobRefusal::invalid(
                key,
                "must be a number of seconds, at most ten years (315360000)",
            )
        })
}

fn positive(key: &str, value: &Value) -> Result<Seconds, NewJobRefusal> {
    let seconds = length(key, value)?;
    if seconds.0 == 0.0 {
        return Err(NewJobRefusal::invalid(
            key,
            "must be above 0; leave it out for none",
        ));
    }
    Ok(seconds)
}

fn leftover(value: &Value) -> Result<Leftover, NewJobRefusal> {
    match value.as_str() {
        Some("kill") => Ok(Leftover::Kill),
        Some("keep") => Ok(Leftover::Keep),
        _ => Err(NewJobRefusal::invalid(
            "leftover",
            "must be \"kill\" or \"keep\"",
        )),
    }
}

fn on_lost(value: &Value) -> Result<OnLost, NewJobRefusal> {
    value
        .as_str()
        .and_then(OnLost::from_name)
        .ok_or_else(|| NewJobRefusal::invalid("on_lost", "must be \"fail\" or \"retry\""))
}

fn on_disconnect(value: &Value) -> Result<OnDisconnect, NewJobRefusal> {
    value
        .as_str()
        .and_then(OnDisconnect::from_name)
        .ok_or_else(|| {
            NewJobRefusal::invalid("on_disconnect", "must be \"continue\" or \"cancel\"")
        })
}

fn output_policy(value: &Value) -> Result<OutputPolicy, NewJobRefusal> {
    let object = value
        .as_object()
        .ok_or_else(|| NewJobRefusal::invalid("output", "must be an object"))?;
    let mut policy = OutputPolicy::default();
    for (key, value) in object {
        match key.as_str() {
            _ if value.is_null() => {}
            "max_bytes" => policy.max_bytes = Some(max_bytes(value)?),
            "when_full" => policy.when_full = when_full(value)?,
            _ => {
                return Err(NewJobRefusal::invalid(
                    &format!("output.{key}"),
                    "unknown key; known keys are max_bytes, when_full",
                ));
            }
        }
    }
    bounds_fit(&policy)?;
    Ok(policy)
}

/// Dropping needs a bound, and whole segments need room.
fn bounds_fit(policy: &OutputPolicy) -> Result<(), NewJobRefusal> {
    let least = match policy.when_full {
        WhenFull::Fail => return Ok(()),
        WhenFull::DropNewest => 1,
        WhenFull::DropOldest => OutputPolicy::DROP_OLDEST_BYTES_MIN,
    };
    if policy.max_bytes.is_some_and(|max| max >= least) {
        return Ok(());
    }
    let (name, key) = (policy.when_full.name(), "output.max_bytes");
    let message = format!("must be at least {least} where output.when_full is {name:?}");
    Err(NewJobRefusal::invalid(key, message))
}

fn max_bytes(value: &Value) -> Result<u64, NewJobRefusal> {
    value
        .as_u64()
        .filter(|n| *n > 0 && i64::try_from(*n).is_ok())
        .ok_or_else(|| NewJobRefusal::invalid("output.max_bytes", "must be an integer above 0"))
}

fn when_full(value: &Value) -> Result<WhenFull, NewJobRefusal> {
    value.as_str().and_then(WhenFull::from_name).ok_or_else(|| {
        NewJobRefusal::invalid(
            "output.when_full",
            "must be \"fail\", \"drop_oldest\" or \"drop_newest\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<NewJob, NewJobRefusal> {
        new_job(value.as_object().expect("an object"))
    }

    fn with(key: &str, value: Value) -> Result<NewJob, NewJobRefusal> {
        let mut object = json!({"argv": ["true"]});
        object[key] = value;
        parse(object)
    }

    #[test]
    fn defaults_are_filled_in() {
        let job = parse(json!({"argv": ["echo", "hi"]})).expect("valid");
        let expected = NewJob::new(Command::Argv(vec!["echo".into(), "hi".into()]));
        assert_eq!(job, expected);
        assert_eq!((job.umask, job.queue.as_str()), (0o077, "default"));
    }

    #[test]
    fn every_key_is_read() {
        let job = parse(json!({
            "shell": "make", "cwd": "/src", "env": {"A": "b"}, "umask": "022", "stdin": "x",
            "name": "n", "labels": {"k": "v"}, "queue": "q", "priority": -3, "timeout_s": 1.5,
            "stall_timeout_s": 2, "grace_s": 0, "leftover": "keep",
            "output": {"max_bytes": 10, "when_full": "drop_newest"}, "idempotency_key": "key",
            "interactive": true, "on_disconnect": "cancel", "disconnect_delay_s": 0,
            "on_lost": "retry",
        }))
        .expect("valid");
        assert_eq!(job.command, Command::Shell("make".into()));
        assert_eq!(job.umask, 0o022);
        assert_eq!(job.timeout_s, Some(Seconds(1.5)));
        assert_eq!(job.grace_s, Seconds(0.0));
        assert_eq!(job.output.max_bytes, Some(10));
        assert_eq!(job.output.when_full, WhenFull::DropNewest);
        assert!(job.interactive);
        assert_eq!(job.on_disconnect, OnDisconnect::Cancel);
        assert_eq!(job.disconnect_delay_s, Seconds(0.0));
        assert_eq!(job.leftover, Leftover::Keep);
        assert_eq!(job.on_lost, OnLost::Retry);
    }

    #[test]
    fn wrong_values_are_invalid() {
        for (key, value) in [
            ("argv", json!([])),
            ("argv", json!([""])),
            ("argv", json!(["a\0b"])),
            ("argv", json!("true")),
            ("argv", json!([1])),
            ("shell", json!("both")),
            ("cwd", json!("relative")),
            ("env", json!({"A": 1})),
            ("env", json!({"": "x"})),
            ("env", json!({"A=B": "x"})),
            ("umask", json!(22)),
            ("umask", json!("888")),
            ("umask", json!("+22")),
            ("umask", json!("1777")),
            ("priority", json!(1.5)),
            ("priority", json!(1u64 << 40)),
            ("timeout_s", json!(0)),
            ("timeout_s", json!(-1)),
            ("timeout_s", json!(1e18)),
            ("timeout_s", json!("5")),
            ("grace_s", json!(-0.5)),
            ("leftover", json!("maybe")),
            ("output", json!({"max_bytes": 0})),
            ("output", json!({"when_full": "explode"})),
            ("output", json!({"when_full": "drop_newest"})),
            ("output", json!({"when_full": "drop_oldest"})),
            (
                "output",
                json!({"when_full": "drop_oldest", "max_bytes": (16 << 20) - 1}),
            ),
            ("interactive", json!("yes")),
            ("on_lost", json!("explode")),
            ("on_disconnect", json!("explode")),
            ("disconnect_delay_s", json!(-1)),
            ("output", json!({"colour": 1})),
            ("idempotency_key", json!("")),
            ("labels", json!(["a"])),
            ("colour", json!(1)),
        ] {
            assert!(
                matches!(with(key, value.clone()), Err(NewJobRefusal::Invalid { .. })),
                "{key} = {value}"
            );
        }
        assert!(parse(json!({})).is_err());
    }

    #[test]
    fn what_comes_later_is_unsupported() {
        for key in LATER_KEYS {
            let refused = with(key, json!(true));
            assert_eq!(refused, Err(NewJobRefusal::unsupported(key)));
        }
    }
}
