//! What a server accepts as a message, checked before one is sent: it would answer a refusal without the
//! message's id, or close the connection. Pure.

use crate::cli::connect::wire::MESSAGE_BYTES_MAX;

/// What a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Longest message, bytes.
    pub bytes_max: usize,
    /// Deepest nesting of arrays and objects.
    pub depth_max: u64,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            bytes_max: MESSAGE_BYTES_MAX,
            depth_max: 64,
        }
    }
}

/// Checks that the server accepts a message; an error says what to do.
pub fn check(text: &str, limits: MessageLimits) -> Result<(), String> {
    if text.len() > limits.bytes_max {
        return Err(overlong_text(limits.bytes_max));
    }
    if depth(text) > limits.depth_max {
        let max = limits.depth_max;
        return Err(format!(
            "the message nests arrays and objects deeper than {max} levels"
        ));
    }
    Ok(())
}

/// The text for a message that is too long.
pub fn overlong_text(bytes_max: usize) -> String {
    format!(
        "the message is longer than {bytes_max} bytes; write the data to a file and pass the file's path"
    )
}

/// How deep arrays and objects nest in a JSON text; the outermost counts as one.
fn depth(json: &str) -> u64 {
    let (mut depth, mut deepest) = (0_u64, 0);
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        for (json, expected) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[1,[2]],"b":"[[[[\"[["}"#, 3),
            (r#"["\\",[]]"#, 2),
        ] {
            assert_eq!(depth(json), expected, "{json}");
        }
    }
}
