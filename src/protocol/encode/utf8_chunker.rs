//! Cuts output for readers of text: no character is split because a chunk ended inside it. It reads no
//! clock; `ws::tails` decides how long bytes may be held.

use crate::job::{Chunk, Offset};

/// Holds back the beginning of a character until the rest of it arrives.
#[derive(Debug, Default)]
pub struct TextCutter {
    /// One to three bytes that begin a character, as a chunk.
    held: Option<Chunk>,
}

impl TextCutter {
    /// Takes the next chunk; returns what is to be sent now, in order.
    pub fn push(&mut self, chunk: Chunk) -> impl Iterator<Item = Chunk> + use<> {
        let (flushed, mut chunk) = match self.held.take() {
            Some(held) if continues(&held, &chunk) => (None, join(held, chunk)),
            held => (held, chunk),
        };
        let begun = begun_len(&chunk.data);
        if begun > 0 {
            let data = chunk.data.split_off(chunk.data.len() - begun);
            self.held = Some(Chunk {
                offset: chunk.next_offset(),
                data,
                ..chunk
            });
        }
        let whole = (!chunk.data.is_empty()).then_some(chunk);
        flushed.into_iter().chain(whole)
    }

    /// Takes what is held, to be sent as it is: nothing that could complete it follows.
    pub fn flush(&mut self) -> Option<Chunk> {
        self.held.take()
    }

    /// The offset of the first held byte.
    pub fn held_from(&self) -> Option<Offset> {
        self.held.as_ref().map(|held| held.offset)
    }
}

/// Whether `next` may complete the character that `held` begins.
fn continues(held: &Chunk, next: &Chunk) -> bool {
    held.next_offset() == next.offset && held.stream == next.stream && held.attempt == next.attempt
}

fn join(held: Chunk, next: Chunk) -> Chunk {
    let mut data = held.data;
    data.extend_from_slice(&next.data);
    Chunk {
        offset: held.offset,
        data,
        ..next
    }
}

/// How many bytes at the end begin a character that is not complete: 0 to 3.
fn begun_len(data: &[u8]) -> usize {
    let longest = data.len().min(3);
    let begins = |len: &usize| {
        let end = &data[data.len() - len..];
        std::str::from_utf8(end)
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=longest).find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{Micros, Stream};

    fn chunk(offset: Offset, stream: Stream, attempt: u32, data: &[u8]) -> Chunk {
        Chunk {
            offset,
            stream,
            attempt,
            at: Micros(0),
            data: data.to_vec(),
        }
    }

    fn stdout(offset: Offset, data: &[u8]) -> Chunk {
        chunk(offset, Stream::Stdout, 1, data)
    }

    fn push(cutter: &mut TextCutter, chunk: Chunk) -> Vec<(Offset, Vec<u8>)> {
        cutter
            .push(chunk)
            .map(|chunk| (chunk.offset, chunk.data))
            .collect()
    }

    #[test]
    fn a_character_that_comes_a_byte_at_a_time_arrives_whole() {
        let mut cutter = TextCutter::default();
        let euro = "€".as_bytes();
        assert_eq!(push(&mut cutter, stdout(5, &euro[..1])), []);
        assert_eq!(cutter.held_from(), Some(5));
        assert_eq!(push(&mut cutter, stdout(6, &euro[1..2])), []);
        assert_eq!(cutter.held_from(), Some(5));
        assert_eq!(
            push(&mut cutter, stdout(7, &euro[2..])),
            [(5, euro.to_vec())]
        );
        assert_eq!((cutter.held_from(), cutter.flush()), (None, None));
    }

    #[test]
    fn another_stream_attempt_or_place_flushes_what_is_held() {
        for next in [
            chunk(1, Stream::Stderr, 1, b"x"),
            chunk(1, Stream::Stdout, 2, b"x"),
            chunk(9, Stream::Stdout, 1, b"x"),
        ] {
            let mut cutter = TextCutter::default();
            assert_eq!(push(&mut cutter, stdout(0, &[0xe2])), []);
            let at = next.offset;
            assert_eq!(
                push(&mut cutter, next),
                [(0, vec![0xe2]), (at, b"x".to_vec())]
            );
        }
    }

    #[test]
    fn only_what_can_become_a_character_is_held() {
        for (data, held) in [
            (&b"abc"[..], 0),
            (b"ab\xc3", 1),
            (b"ab\xe2\x82", 2),
            (b"a\xf0\x9f\x98", 3),
            (b"\x80", 0),
            (b"\xff", 0),
            (b"\xc0", 0),
            (b"\xe2\x82\xac", 0),
            (b"\xed\xa0", 0),
            (b"\xff\xe2\x82", 2),
            (b"\xf5", 0),
            (b"", 0),
            (b"\xe0\x80", 0),
        ] {
            assert_eq!(begun_len(data), held, "{data:x?}");
        }
    }

    /// Bytes in which characters, halves of them and garbage are all likely.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 1..3),
        ];
        proptest::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
    }

    /// Cuts `data` into chunks of the given lengths.
    fn cut(data: &[u8], lengths: &[usize]) -> Vec<Chunk> {
        let (mut chunks, mut at) = (Vec::new(), 0);
        for length in lengths.iter().cycle().take_while(|_| !lengths.is_empty()) {
            if at == data.len() {
                break;
            }
            let end = (at + length).min(data.len());
            chunks.push(stdout(at as u64, &data[at..end]));
            at = end;
        }
        chunks
    }

    fn pass(chunks: Vec<Chunk>) -> Vec<Chunk> {
        let mut cutter = TextCutter::default();
        let mut sent: Vec<Chunk> = chunks.into_iter().flat_map(|c| cutter.push(c)).collect();
        sent.extend(cutter.flush());
        sent
    }

    proptest! {
        #[test]
        fn every_byte_arrives_once_at_its_offset(
            data in bytes(), lengths in proptest::collection::vec(1..5_usize, 1..20),
        ) {
            let mut at = 0;
            for chunk in pass(cut(&data, &lengths)) {
                prop_assert_eq!(chunk.offset, at);
                prop_assert!(!chunk.data.is_empty());
                let from = usize::try_from(at).expect("small");
                prop_assert_eq!(&chunk.data[..], &data[from..from + chunk.data.len()]);
                at = chunk.next_offset();
            }
            prop_assert_eq!(at, data.len() as u64);
        }

        #[test]
        fn text_is_text_wherever_it_is_cut(
            text in any::<String>(), lengths in proptest::collection::vec(1..5_usize, 1..20),
        ) {
            for chunk in pass(cut(text.as_bytes(), &lengths)) {
                prop_assert!(std::str::from_utf8(&chunk.data).is_ok());
            }
        }
    }
}
