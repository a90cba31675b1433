//! JSON as we take it: bounded in depth, and with every key at most once at every level.
//!
//! What the JSON means is `envelope`'s business.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Whether `text` nests deeper than `max` levels of arrays and objects. One pass without
/// recursion, so that a hundred thousand brackets cost nothing but their bytes; of text that is
/// not JSON the answer means nothing.
pub fn is_deeper_than(text: &str, max: u64) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u64, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max {
            return true;
        }
    }
    false
}

/// Reads any value and notes in `repeated` whether some object in it has a key twice. It reads on
/// behind one: text that is not JSON further down is still not JSON.
#[derive(Clone, Copy)]
pub struct StrictValue<'a> {
    /// Set when a key is repeated.
    pub repeated: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for StrictValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            if map.insert(key, value).is_some() {
                self.repeated.set(true);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Result<Value, serde_json::Error>, bool) {
        let repeated = Cell::new(false);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = StrictValue {
            repeated: &repeated,
        }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
        (value, repeated.get())
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(!is_deeper_than(&nested(64), 64));
        assert!(is_deeper_than(&nested(65), 64));
        assert!(is_deeper_than(&"[".repeat(100_000), 64));
        assert!(is_deeper_than(&r#"{"a":"#.repeat(100_000), 64));
        assert!(!is_deeper_than(r#"{"a":"[[[[[","b\"[[[":"\\"}"#, 1));
        assert!(!is_deeper_than("[],[],[]", 1));
    }

    #[test]
    fn a_repeated_key_is_seen_at_every_level() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"a":1,"a":1}}"#,
            r#"[[{"a":1,"b":2,"a":3}]]"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            let (value, repeated) = read(text);
            assert!(value.is_ok() && repeated, "{text}");
        }
        assert!(!read(r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#).1);
    }

    proptest! {
        /// Where nothing is repeated, it reads what serde_json reads.
        #[test]
        fn it_agrees_with_serde_json(text in r#"[\[\]{}":,a0-9.\\ -]{0,30}"#) {
            let (value, repeated) = read(&text);
            if !repeated {
                prop_assert_eq!(value.ok(), serde_json::from_str::<Value>(&text).ok());
            }
        }

        #[test]
        fn it_reads_what_serde_json_writes(keys in proptest::collection::vec(".{0,5}", 0..6)) {
            let inner: Map<_, _> = keys.iter().map(|key| (key.clone(), 1.into())).collect();
            let outer = Value::Object(keys.iter().map(|key| (key.clone(), inner.clone().into())).collect());
            prop_assert_eq!(read(&outer.to_string()).0.ok(), Some(outer));
        }
    }
}
