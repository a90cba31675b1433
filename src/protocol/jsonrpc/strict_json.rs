//! Strict JSON: bounded in depth, and with every key at most once in an object.

use std::{cell::Cell, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The brackets of JSON outside its strings. One pass without recursion, so that a hundred thousand of them
/// cost nothing but their bytes; if the text is not JSON, the result means nothing.
fn brackets(text: &str) -> impl Iterator<Item = u8> {
    let (mut in_string, mut escaped) = (false, false);
    text.bytes().filter(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b']' | b'}' => return !in_string,
            _ => {}
        }
        false
    })
}

/// How many arrays and objects there are in `text`; `None` if it nests deeper than `depth_max` levels.
pub fn containers(text: &str, depth_max: u64) -> Option<usize> {
    let (mut depth, mut containers) = (0_u64, 0);
    for bracket in brackets(text) {
        match bracket {
            b'[' | b'{' => (depth, containers) = (depth + 1, containers + 1),
            _ => depth = depth.saturating_sub(1),
        }
        if depth > depth_max {
            return None;
        }
    }
    Some(containers)
}

/// Whether some object in `text`, which is one JSON value, has a key twice. It reads on after such a key:
/// text that is not JSON further down is an error all the same. Only the keys of open objects are kept.
pub fn has_repeated_keys(text: &str) -> Result<bool, serde_json::Error> {
    let repeated = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    KeyCheck {
        repeated: &repeated,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(repeated.get())
}

/// Skips any value and notes whether a key is repeated.
#[derive(Clone, Copy)]
struct KeyCheck<'a> {
    repeated: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for KeyCheck<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyCheck<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = access.next_key::<String>()? {
            if !keys.insert(key) {
                self.repeated.set(true);
            }
            access.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// Up to this many keys are compared one by one, which costs less than hashing.
const FEW_KEYS: usize = 8;

/// The keys of one object so far.
#[derive(Default)]
struct Keys {
    few: Vec<String>,
    more: HashSet<String>,
}

impl Keys {
    /// Adds a key; false if it was there already.
    fn insert(&mut self, key: String) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < FEW_KEYS {
            self.few.push(key);
            return true;
        }
        self.more.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn depth_is_bounded_outside_strings() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(containers(&nested(64), 64), Some(64));
        assert_eq!(containers(&nested(65), 64), None);
        assert_eq!(containers(&"[".repeat(100_000), 64), None);
        assert_eq!(containers(&r#"{"a":"#.repeat(100_000), 64), None);
        assert_eq!(containers(r#"{"a":"[[[[[","b\"[[[":"\\"}"#, 1), Some(1));
        assert_eq!(containers("[],[],[]", 1), Some(3));
    }

    #[test]
    fn containers_are_counted_outside_strings() {
        assert_eq!(containers(r#"{"a[{":["\"[",{}]}"#, 64), Some(3));
        assert_eq!(containers("0", 0), Some(0));
    }

    #[test]
    fn a_repeated_key_is_seen_at_every_level() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"a":1,"a":1}}"#,
            r#"[[{"a":1,"b":2,"a":3}]]"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(has_repeated_keys(text).expect("JSON"), "{text}");
        }
        let none = r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#;
        assert!(!has_repeated_keys(none).expect("JSON"));
        let many = |last: usize| {
            let keys: Vec<_> = (0..20)
                .chain([last])
                .map(|n| format!("\"{n}\":0"))
                .collect();
            format!("{{{}}}", keys.join(","))
        };
        for (last, repeated) in [(20, false), (3, true), (17, true)] {
            assert_eq!(has_repeated_keys(&many(last)).ok(), Some(repeated));
        }
    }

    proptest! {
        /// What it takes can be read, and what it does not take cannot.
        #[test]
        fn it_agrees_with_serde_json(text in r#"[\[\]{}":,a0-9.eu\\ -]{0,30}"#) {
            let read = serde_json::from_str::<Value>(&text);
            prop_assert_eq!(has_repeated_keys(&text).is_ok(), read.is_ok());
        }

        #[test]
        fn it_takes_what_serde_json_writes(keys in proptest::collection::vec(".{0,5}", 0..6)) {
            let inner: Map<_, _> = keys.iter().map(|key| (key.clone(), 1.into())).collect();
            let outer = keys.iter().map(|key| (key.clone(), inner.clone().into())).collect();
            let text = Value::Object(outer).to_string();
            prop_assert_eq!(has_repeated_keys(&text).ok(), Some(false));
        }
    }
}
