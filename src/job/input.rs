//! Input for the stdin of an interactive job, and the answer to it.
//!
//! The store keeps an input until the job starts, then the shim does until the process reads it.

use serde::{Deserialize, Serialize};

/// Bytes for a process's stdin. Taken whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// At most [`Input::BYTES_MAX`] bytes; JSON carries them as base64.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
    /// Whether stdin ends after them.
    #[serde(default)]
    pub eof: bool,
    /// A name for the input, so that a repeated one is not written twice.
    #[serde(default)]
    pub write_id: Option<String>,
}

impl Input {
    /// The most bytes of one input, of all inputs that wait until a process reads them, and of all
    /// that are kept before the start.
    pub const BYTES_MAX: usize = 1 << 20;
    /// The most inputs that are kept before the start: as many as repeats can be recognised for.
    pub const KEPT_MAX: usize = Self::REMEMBERED_MAX;
    /// The number of `write_id`s of an attempt that are remembered, the newest.
    pub const REMEMBERED_MAX: usize = 1024;
    /// Longest `write_id`, bytes.
    pub const WRITE_ID_BYTES_MAX: usize = 256;
}

/// The answer to an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum InputAnswer {
    /// It will be written, or it was accepted before (a repeated `write_id`).
    Accepted {
        /// Length of its data, bytes.
        bytes: u64,
    },
    /// Too many bytes wait to be read; nothing of it was accepted.
    Full {
        /// Bytes that wait.
        waiting_bytes: u64,
    },
    /// Nothing is written to this stdin any more: an `eof` was accepted, or no process reads it.
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
