//! A chunk of output as JSON: its bytes as text if they are UTF-8 and base64 is not shorter, else as
//! base64. `utf8_chunker` keeps characters whole.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::job::{Chunk, Micros, Offset, Stream};

/// A chunk as it is sent: with exactly one of `data` and `data_base64`.
#[derive(Debug, Serialize)]
pub struct ChunkView<'a> {
    offset: Offset,
    next_offset: Offset,
    stream: Stream,
    attempt: u32,
    at: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl<'a> ChunkView<'a> {
    /// The view of a chunk.
    pub fn of(chunk: &'a Chunk) -> Self {
        let text = std::str::from_utf8(&chunk.data).ok();
        let data = text.filter(|text| json_len(text) <= base64_len(text.len()));
        Self {
            offset: chunk.offset,
            next_offset: chunk.next_offset(),
            stream: chunk.stream,
            attempt: chunk.attempt,
            at: chunk.at,
            data,
            data_base64: data.is_none().then(|| STANDARD.encode(&chunk.data)),
        }
    }
}

/// Bytes that `text` takes inside the quotes of a JSON string, as `serde_json` writes it.
fn json_len(text: &str) -> usize {
    let mut len = 0;
    for byte in text.as_bytes() {
        len += usize::from(ESCAPED_LEN[usize::from(*byte)]);
    }
    len
}

/// What each byte takes there.
const ESCAPED_LEN: [u8; 256] = {
    let mut lens = [1; 256];
    let mut byte = 0;
    while byte < 0x20 {
        lens[byte] = 6;
        byte += 1;
    }
    let short = *b"\"\\\n\r\t\x08\x0c";
    let mut at = 0;
    while at < short.len() {
        lens[short[at] as usize] = 2;
        at += 1;
    }
    lens
};

/// Bytes that `len` bytes take as base64 with padding.
fn base64_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn chunk(data: &[u8]) -> Chunk {
        Chunk {
            offset: 10,
            stream: Stream::Stderr,
            attempt: 2,
            at: Micros(0),
            data: data.to_vec(),
        }
    }

    fn view(data: &[u8]) -> Value {
        serde_json::to_value(ChunkView::of(&chunk(data))).expect("serialises")
    }

    #[test]
    fn text_is_text_and_the_rest_base64() {
        let text = view("é\n".as_bytes());
        assert_eq!(text["data"], "é\n");
        assert_eq!(
            (&text["offset"], &text["next_offset"]),
            (&10.into(), &13.into())
        );
        assert_eq!(
            (&text["stream"], &text["attempt"]),
            (&"stderr".into(), &2.into())
        );
        assert_eq!(text["at"], "1970-01-01T00:00:00.000000Z");
        assert!(text.get("data_base64").is_none());
        let binary = view(&[0xff, 0xfe]);
        assert_eq!(binary["data_base64"], "//4=");
        assert!(binary.get("data").is_none());
        assert!(
            view(&[0; 100]).get("data").is_none(),
            "NULs are shorter as base64"
        );
    }

    proptest! {
        #[test]
        fn json_lengths_are_what_is_written(text in any::<String>()) {
            let written = serde_json::to_string(&text).expect("serialises");
            prop_assert_eq!(written.len(), json_len(&text) + 2);
        }

        #[test]
        fn no_chunk_grows_by_more_than_a_third(data in proptest::collection::vec(any::<u8>(), 1..400)) {
            let view = view(&data);
            let sent = view.get("data").or(view.get("data_base64")).expect("one of them");
            prop_assert!(sent.to_string().len() <= base64_len(data.len()) + 2);
            prop_assert!(view.get("data").is_none() || view.get("data_base64").is_none());
        }
    }
}
