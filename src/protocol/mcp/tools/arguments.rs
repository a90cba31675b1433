//! What several tools take: lengths, waits, patterns.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::excerpt::ShownLinePattern,
    super::reply::{CHARS_DEFAULT, CHARS_MAX, CHARS_MIN},
    call::ToolCall,
};
use crate::{
    executor::{Pattern, PatternError},
    protocol::jsonrpc::{
        error::Refusal,
        params::{OFFSET_MAX, Params},
    },
};

/// Longest wait of one call: many clients end a silent call after 60 s.
pub const WAIT_MAX: Duration = Duration::from_secs(50);
/// The same for a call with a progress token: progress keeps the call alive.
pub const WAIT_WITH_PROGRESS_MAX: Duration = Duration::from_secs(240);
/// Wait of a call that names none.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// The arguments of a call, of which all must be known.
pub fn known<'a>(call: &'a ToolCall<'_>, keys: &[&str]) -> Result<Params<'a>, Refusal> {
    Params::new(&call.arguments, keys)
}

/// The length of the answer in characters: what is asked for, within the bounds.
pub fn max_chars(params: &Params<'_>) -> Result<usize, Refusal> {
    let asked = params.number("max_chars", 1, OFFSET_MAX)?;
    let asked = asked.map_or(CHARS_DEFAULT, |chars| {
        usize::try_from(chars).unwrap_or(CHARS_MAX)
    });
    Ok(asked.clamp(CHARS_MIN, CHARS_MAX))
}

/// How long to wait: what is asked for, up to the bound for this call.
pub fn wait(
    call: &ToolCall<'_>,
    params: &Params<'_>,
    default: Duration,
) -> Result<Duration, Refusal> {
    Ok(params.seconds("wait_s")?.unwrap_or(default).min(most(call)))
}

/// The longest wait of this call.
pub fn most(call: &ToolCall<'_>) -> Duration {
    match call.context.meta.get_progress_token() {
        Some(_) => WAIT_WITH_PROGRESS_MAX,
        None => WAIT_MAX,
    }
}

/// A regex under `key`: text, or an object with `pattern` or `regex`.
pub fn pattern(params: &Params<'_>, key: &str) -> Result<Option<Pattern>, Refusal> {
    let text = match params.get(key) {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Object(object)) if object.len() == 1 => {
            let value = object.get("pattern").or_else(|| object.get("regex"));
            value
                .and_then(Value::as_str)
                .ok_or_else(|| params.wrong(key, NOT_A_PATTERN))?
        }
        Some(_) => return Err(params.wrong(key, NOT_A_PATTERN)),
    };
    compiled(params, key, text).map(Some)
}

/// A regex for lines under `key`.
pub fn line_pattern(params: &Params<'_>, key: &str) -> Result<Option<ShownLinePattern>, Refusal> {
    let Some(text) = params.text(key)? else {
        return Ok(None);
    };
    let pattern = ShownLinePattern::new(text);
    pattern
        .map(Some)
        .map_err(|error| params.wrong(key, &error.to_string()))
}

/// Compiles a regex; the refusal says what is wrong with it.
pub fn compiled(params: &Params<'_>, key: &str, text: &str) -> Result<Pattern, Refusal> {
    Pattern::new(text).map_err(|error| match error {
        PatternError::TooLong => Refusal::limit("pattern_bytes_max", error.to_string()),
        error => params.wrong(key, &error.to_string()),
    })
}

const NOT_A_PATTERN: &str = "must be a regex as text, for example \"listening on\"";
