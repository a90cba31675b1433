//! Looks in the two ends of a line that is too long for what is needed to answer it. Pure.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::ids::MessageId;

/// What the ends of a line tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OverlongMessage {
    /// Its id, if one of the ends has it.
    pub id: Option<MessageId>,
    /// Whether it has a method: without one it is an answer.
    pub has_method: bool,
}

impl OverlongMessage {
    /// Reads the ends.
    pub fn read(head: &[u8], tail: &[u8]) -> Self {
        let mut found = Self::default();
        let last = last_members(tail)
            .into_iter()
            .map(|(key, value)| (key, Some(value)));
        for (key, value) in first_members(head).into_iter().chain(last) {
            match key.as_str() {
                "id" => found.id = value.and_then(|id| serde_json::from_value(id).ok()),
                "method" => found.has_method = true,
                _ => {}
            }
        }
        found
    }
}

/// The members of the object that begins here, up to the first one that is cut (its value is `None`).
fn first_members(head: &[u8]) -> Vec<(String, Option<Value>)> {
    let mut members = Vec::new();
    let mut at = 0;
    let mut opener = b'{';
    while let Some(after) = after(head, at, opener) {
        let Some((key, end)) = value_at::<String>(head, after) else {
            break;
        };
        let value = self::after(head, end, b':').and_then(|from| value_at::<Value>(head, from));
        at = value.as_ref().map_or(head.len(), |(_, end)| *end);
        members.push((key, value.map(|(value, _)| value)));
        opener = b',';
    }
    members
}

/// The place after `expected`, which may have white space before it.
fn after(text: &[u8], from: usize, expected: u8) -> Option<usize> {
    let rest = text.get(from..)?;
    let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
    let at = from + blank.count();
    (text.get(at) == Some(&expected)).then_some(at + 1)
}

/// The value that begins here, and the place after it.
fn value_at<T: serde::de::DeserializeOwned>(text: &[u8], from: usize) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_slice(text.get(from..)?).into_iter();
    let value = values.next()?.ok()?;
    Some((value, from + values.byte_offset()))
}

/// The members of the object that ends here, from the first `"id"` or `"method"` on from which all is
/// there. A quote within a string is escaped, so that a key is never found within a string; and the
/// rest is an object only if the key is one of the outermost object.
fn last_members(tail: &[u8]) -> Map<String, Value> {
    let keys = [&b"\"id\""[..], b"\"method\""];
    let mut places: Vec<usize> = keys
        .iter()
        .flat_map(|key| memchr::memmem::find_iter(tail, key))
        .collect();
    places.sort_unstable();
    for at in places {
        let text = [b"{", &tail[at..]].concat();
        if serde_json::from_slice::<IgnoredAny>(&text).is_ok() {
            return serde_json::from_slice(&text).unwrap_or_default();
        }
    }
    Map::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in the ends of this many bytes.
    fn found(text: &str, ends: usize) -> OverlongMessage {
        let text = text.as_bytes();
        let ends = ends.min(text.len());
        OverlongMessage::read(&text[..ends], &text[text.len() - ends..])
    }

    fn message(id: impl Into<Option<MessageId>>, has_method: bool) -> OverlongMessage {
        OverlongMessage {
            id: id.into(),
            has_method,
        }
    }

    #[test]
    fn an_id_is_found_at_either_end() {
        let data = "y".repeat(500);
        let five = MessageId::Number(5);
        let text = MessageId::Text("a b".to_owned());
        for (line, expected) in [
            (
                format!(r#"{{"jsonrpc":"2.0","id":5,"method":"m","params":{{"d":"{data}"}}}}"#),
                message(five.clone(), true),
            ),
            (
                format!(
                    r#"{{"method":"m","params":{{"id":9,"d":"{data}"}},"jsonrpc":"2.0","id":5}}"#
                ),
                message(five.clone(), true),
            ),
            (
                format!(
                    r#" {{ "params" : {{"d":"{data}","id":9}} , "id" : "a b" , "method":"m" }} "#
                ),
                message(text, true),
            ),
            (
                format!(r#"{{"id":5,"result":{{"d":"{data}"}}}}"#),
                message(five.clone(), false),
            ),
            (
                format!(r#"{{"params":{{"d":"{data}","e":[{{"id":9}}]}},"id":5,"method":"m"}}"#),
                message(five, true),
            ),
        ] {
            assert_eq!(found(&line, 100), expected, "{line}");
        }
    }

    #[test]
    fn what_looks_like_an_id_is_none() {
        let data = "y".repeat(500);
        for line in [
            format!(r#"{{"params":{{"d":"{data}","id":9}}}}"#),
            format!(r#"{{"params":"{data},\"id\":9}}"}}"#),
            format!(r#"{{"params":["{data}",{{"id":9}}]}}"#),
            data.clone(),
            format!(r#"{{"id":{{"d":"{data}"}}}}"#),
        ] {
            assert_eq!(found(&line, 100), message(None, false), "{line}");
        }
        assert_eq!(OverlongMessage::read(b"", b""), message(None, false));
    }
}
