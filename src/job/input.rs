//! What is written to the stdin of an interactive job, piece by piece, and how it is answered.
//!
//! Who keeps a piece until its process reads it is not known here.

use serde::{Deserialize, Serialize};

/// Bytes for a process's stdin. Taken whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// At most [`Input::BYTES_MAX`]; JSON carries them as base64.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
    /// Whether stdin ends behind them.
    #[serde(default)]
    pub eof: bool,
    /// Names it, so that repeating it does not write it twice.
    #[serde(default)]
    pub write_id: Option<String>,
}

impl Input {
    /// Most bytes that wait until a process reads them, those of one input as well as those of
    /// all together, and those that are kept before the start.
    pub const BYTES_MAX: usize = 1 << 20;
    /// Most inputs that are kept before the start: as many as can be told from repeats.
    pub const KEPT_MAX: usize = Self::REMEMBERED_MAX;
    /// How many `write_id`s of an attempt are remembered, the newest.
    pub const REMEMBERED_MAX: usize = 1024;
    /// Longest `write_id`, bytes.
    pub const WRITE_ID_BYTES_MAX: usize = 256;
}

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum InputAnswer {
    /// It will be written, or, where its `write_id` is a repeated one, it was taken before.
    Accepted {
        /// Length of its data.
        bytes: u64,
    },
    /// So much waits to be read that it does not fit; nothing of it was taken.
    Full {
        /// How much waits.
        waiting_bytes: u64,
    },
    /// Nothing is written to this stdin any more: an `eof` was taken, or nobody reads it.
    Closed,
}

mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(bytes, &STANDARD))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_base64_and_absent_keys_are_their_defaults() {
        let input = Input {
            data: vec![0, 0xff, b'\n'],
            eof: true,
            write_id: Some("w".into()),
        };
        let json = serde_json::to_string(&input).expect("JSON");
        assert_eq!(json, r#"{"data":"AP8K","eof":true,"write_id":"w"}"#);
        assert_eq!(serde_json::from_str::<Input>(&json).expect("read"), input);
        let bare: Input = serde_json::from_str(r#"{"data":""}"#).expect("read");
        assert_eq!(bare, Input::default());
    }
}
