//! Names of enum variants: on the wire, in SQL, in messages.

/// Gives an enum without data its names: `ALL`, `name`, `from_name`, and serde both ways. Any other
/// value is refused with the list of names, and is not repeated.
macro_rules! words {
    ($type:ident: $($variant:ident = $word:literal),+ $(,)?) => {
        impl $type {
            /// All variants.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name on the wire and in SQL.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// The variant with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
                $crate::job::read::checked(value, |value| {
                    let found = value.as_str().and_then(Self::from_name);
                    found.ok_or_else(|| $crate::job::words::expected(&[$($word),+]))
                })
            }
        }
    };
}

pub(super) use words;

/// `must be "a", "b" or "c"`.
pub(super) fn expected(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => format!("must be {last}"),
        Some((last, others)) => format!("must be {} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::expected;

    #[test]
    fn the_words_are_listed() {
        assert_eq!(expected(&["a"]), r#"must be "a""#);
        assert_eq!(expected(&["a", "b"]), r#"must be "a" or "b""#);
        assert_eq!(expected(&["a", "b", "c"]), r#"must be "a", "b" or "c""#);
    }
}
