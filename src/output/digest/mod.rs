//! The SHA-256 of a job's output, hashed segment by segment. Its state can be stored between two
//! segments.
//!
//! It reads a segment once that is sealed or the attempt has ended, never a growing one.

pub mod hasher;

use std::{io, path::Path};

use sha2::{
    Digest as _, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use super::read::{item::Item, segments::item};
use crate::{
    job::{Gap, JobNumber, Offset, StreamCounts},
    spool::{Position, RecordKind, SegmentName, SegmentReader, reader::NextRecord},
    store::SegmentRow,
};

/// The stored state after a gap: from there on the output has no digest.
const BROKEN: &[u8] = b"gap";

/// SHA-256 over the output of a job up to some offset.
#[derive(Debug, Clone)]
pub struct Digest {
    /// `None` after a gap.
    sha: Option<Sha256>,
    offset: Offset,
    /// The gaps since it was resumed.
    gaps: Vec<Gap>,
}

impl Digest {
    /// Goes on at `offset` from a state that [`Self::state`] returned there, or without a state at
    /// offset 0. Anything else gives a digest whose [`Self::hex`] is `None`: no digest is better than
    /// a wrong one, and an error here would keep the job from ending.
    pub fn resume(offset: Offset, state: Option<&[u8]>) -> Self {
        let sha = match state {
            None => (offset == 0).then(Sha256::new),
            Some(BROKEN) => None,
            Some(bytes) => SerializedState::<Sha256>::try_from(bytes)
                .ok()
                .and_then(|state| Sha256::deserialize(&state).ok()),
        };
        if sha.is_none() && state != Some(BROKEN) {
            tracing::error!(offset, "the state of a digest is missing or unreadable");
        }
        Self {
            sha,
            offset,
            gaps: Vec::new(),
        }
    }

    /// How many bytes of the output it has taken in.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The state as bytes, to go on from later.
    pub fn state(&self) -> Vec<u8> {
        self.sha
            .as_ref()
            .map_or_else(|| BROKEN.to_vec(), |sha| sha.serialize().to_vec())
    }

    /// The digest so far, in lower-case hex; `None` after a gap.
    pub fn hex(&self) -> Option<String> {
        let sum = self.sha.clone()?.finalize();
        Some(sum.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes in the next item of output.
    ///
    /// # Panics
    /// If it does not begin where the last one ended, which would be a bug of the caller.
    pub fn update(&mut self, item: &Item) {
        match item {
            Item::Chunk(chunk) => {
                assert_eq!(chunk.offset, self.offset, "the digest skips bytes");
                self.offset = chunk.next_offset();
                if let Some(sha) = &mut self.sha {
                    sha.update(&chunk.data);
                }
            }
            Item::Gap(gap) => {
                assert_eq!(gap.from, self.offset, "the digest skips bytes");
                self.skip(*gap);
            }
        }
    }

    /// Goes on after a gap, or stays where it is if that is later: bytes may have been hashed before
    /// they were dropped.
    pub fn skip(&mut self, gap: Gap) {
        self.offset = self.offset.max(gap.to);
        self.sha = None;
        self.gaps.push(gap);
    }

    /// Goes on after bytes that are damaged, and returns the row of the segment that should hold
    /// them, so that every later reader finds the same damage.
    pub fn skip_damaged(
        &mut self,
        job: JobNumber,
        attempt: u32,
        from: Offset,
        to: Offset,
    ) -> SegmentRow {
        self.offset = self.offset.max(to);
        self.sha = None;
        let first_offset = from;
        let name = SegmentName {
            job,
            attempt,
            first_offset,
        };
        self.row(name, 0, None)
    }

    /// The gaps since it was resumed or since the last call.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// Hashes the attempt's segment that begins at this digest's offset, as far as it has whole
    /// records. Returns its row, and whether it is sealed, which means that another one follows.
    /// Blocking.
    pub fn next_segment(
        &mut self,
        spool: &Path,
        job: JobNumber,
        attempt: u32,
    ) -> io::Result<(SegmentRow, bool)> {
        let name = SegmentName {
            job,
            attempt,
            first_offset: self.offset,
        };
        let mut reader = SegmentReader::open(spool, Position::first(name))?;
        let mut counts = StreamCounts::default();
        let last = self.read_through(&mut reader, name, &mut counts)?;
        let row = self.row(name, reader.position().at, Some(counts));
        Ok((row, last == Some(RecordKind::Seal)))
    }

    /// The same for a segment that is sealed; `None`, and no change, if it is not. Blocking.
    pub fn sealed_segment(
        &mut self,
        spool: &Path,
        job: JobNumber,
        attempt: u32,
    ) -> io::Result<Option<SegmentRow>> {
        let mut next = self.clone();
        let (row, sealed) = next.next_segment(spool, job, attempt)?;
        if sealed {
            *self = next;
        }
        Ok(sealed.then_some(row))
    }

    /// Hashes and counts all whole records; returns the kind of the last one if it closes the segment.
    fn read_through(
        &mut self,
        reader: &mut SegmentReader,
        name: SegmentName,
        counts: &mut StreamCounts,
    ) -> io::Result<Option<RecordKind>> {
        loop {
            let NextRecord::Record(header, payload) = reader.next_record()? else {
                return Ok(None);
            };
            if matches!(header.kind, RecordKind::Seal | RecordKind::Exit) {
                return Ok(Some(header.kind));
            }
            if let Some(item) = item(name, &header, payload) {
                self.update(&item);
                if let Item::Chunk(chunk) = item {
                    counts.add(chunk.stream, &chunk.data);
                }
            }
        }
    }

    fn row(&self, name: SegmentName, file_bytes: u64, counts: Option<StreamCounts>) -> SegmentRow {
        SegmentRow {
            number: name.job,
            attempt: name.attempt,
            first_offset: name.first_offset,
            end_offset: self.offset,
            file_bytes,
            hash_state: self.state(),
            counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Chunk, Gap, GapReason, Micros, Stream};

    fn chunk(offset: Offset, data: &[u8]) -> Item {
        Item::Chunk(Chunk {
            offset,
            stream: Stream::Stdout,
            attempt: 1,
            at: Micros(0),
            data: data.to_vec(),
        })
    }

    #[test]
    fn a_state_stored_anywhere_goes_on() {
        let text = b"The quick brown fox jumps over the lazy dog";
        for cut in 0..text.len() {
            let mut first = Digest::resume(0, None);
            first.update(&chunk(0, &text[..cut]));
            let mut second = Digest::resume(first.offset(), Some(&first.state()));
            second.update(&chunk(cut as u64, &text[cut..]));
            assert_eq!(
                second.hex().as_deref(),
                Some("d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592")
            );
        }
    }

    #[test]
    fn after_a_gap_there_is_no_digest() {
        let mut digest = Digest::resume(0, None);
        digest.update(&Item::Gap(Gap {
            from: 0,
            to: 5,
            reason: GapReason::PowerLoss,
        }));
        let mut digest = Digest::resume(5, Some(&digest.state()));
        digest.update(&chunk(5, b"x"));
        assert_eq!((digest.hex(), digest.offset()), (None, 6));
    }

    #[test]
    fn after_a_foreign_or_missing_state_there_is_no_digest() {
        for (offset, state) in [(0, Some(&b"nonsense"[..])), (5, Some(b"")), (5, None)] {
            let mut digest = Digest::resume(offset, state);
            digest.update(&chunk(offset, b"x"));
            assert_eq!((digest.hex(), digest.offset()), (None, offset + 1));
        }
    }
}
