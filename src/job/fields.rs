//! Lists the names of a struct's fields as serde knows them: the only list of an object's keys.

use serde::{
    Deserialize, Deserializer,
    de::{Visitor, value::Error},
    forward_to_deserialize_any,
};

/// The fields of a struct that derives `Deserialize`, in their order.
pub(super) fn of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    listed_by(|list| T::deserialize(list).err())
}

/// The same for a `deserialize` function that is not the trait's.
pub(super) fn listed_by(read: impl FnOnce(List<'_>) -> Option<Error>) -> &'static [&'static str] {
    let mut fields: &[&str] = &[];
    let stopped = read(List(&mut fields));
    debug_assert!(stopped.is_some(), "there is nothing to read");
    fields
}

/// A deserializer that stores the names of the requested fields, and then fails.
pub(super) struct List<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for List<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(serde::de::Error::custom("only the fields are wanted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Two {
        one: u8,
        #[serde(rename = "two_s")]
        two: u8,
    }

    #[test]
    fn the_fields_of_a_struct_are_listed() {
        assert_eq!(super::of::<Two>(), ["one", "two_s"]);
        assert!(super::of::<String>().is_empty());
    }
}
