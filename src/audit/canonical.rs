//! One text for one value: the form of JSON whose bytes are hashed.
//!
//! It is RFC 8785 for what entries have: keys sorted, no spaces, the shortest escapes. Entries have no fractions; a
//! number with one is written as a text. Whole numbers are written exactly, also above 2^53.

use serde_json::Value;

/// The text of a value.
pub fn canonical(value: &Value) -> String {
    let mut text = String::with_capacity(256);
    write(&mut text, value);
    text
}

fn write(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) if number.is_f64() => string(text, &number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::String(value) => string(text, value),
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(text, value);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            // By UTF-16 code units, as RFC 8785 asks.
            entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                string(text, key);
                text.push(':');
                write(text, value);
            }
            text.push('}');
        }
    }
}

/// Writes a string with the escapes of RFC 8785, 3.2.2.2.
fn string(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            c if u32::from(c) < 0x20 => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any value without fractions.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_text_is_read_back_as_the_same_value_and_written_as_the_same_text(value in values()) {
            let text = canonical(&value);
            let read: Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(&read, &value);
            prop_assert_eq!(canonical(&read), text);
        }

        #[test]
        fn the_order_of_keys_and_spaces_change_nothing(
            entries in prop::collection::btree_map(any::<String>(), any::<i64>(), 0..8)
        ) {
            let ordered = |entries: Vec<(&String, &i64)>| {
                let entries: Vec<String> = entries
                    .into_iter()
                    .map(|(key, value)| format!("{} :\n {value}", json!(key)))
                    .collect();
                let text = format!("{{ {} }}", entries.join(" , "));
                canonical(&serde_json::from_str(&text).expect("JSON"))
            };
            let forward = ordered(entries.iter().collect());
            let backward = ordered(entries.iter().rev().collect());
            prop_assert_eq!(&forward, &backward);
            prop_assert!(!forward.contains('\n'));
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 8785, 3.2.3, without its fractions.
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control",
            "\u{f6}": "Latin Small Letter O With Diaeresis",
        });
        let text = canonical(&value);
        let order = [
            "\\r",
            "1",
            "\u{80}",
            "\u{f6}",
            "\u{20ac}",
            "\u{1f600}",
            "\u{fb33}",
        ];
        let places: Vec<usize> = order
            .iter()
            .map(|key| text.find(&format!("\"{key}\":")).expect("a key"))
            .collect();
        assert!(places.is_sorted(), "{text}");
        assert_eq!(
            canonical(&json!("\u{7}\u{1f}\u{7f}/")),
            "\"\\u0007\\u001f\u{7f}/\""
        );
    }

    #[test]
    fn a_fraction_is_a_text_and_large_numbers_are_exact() {
        assert_eq!(
            canonical(&json!([0.5, u64::MAX])),
            "[\"0.5\",18446744073709551615]"
        );
    }
}
