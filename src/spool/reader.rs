//! Reads the records of one segment, from any record on, while it may still be growing.
//!
//! The caller chooses the next segment (`output::read` follows an output through its segments).

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{
    record::{self, Decoded, HEADER_BYTES, RecordHeader, RecordKind},
    safe_file,
    segment::{FILE_HEADER_BYTES, SegmentName},
};
use crate::job::Offset;

/// How many bytes are read from the file at once, unless a record is longer: the longest output
/// record of a shim, and a little more.
const READ_BYTES: usize = 68 << 10;

/// Where a record begins: the whole state of a reader that keeps no file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The segment.
    pub segment: SegmentName,
    /// Position in its file, bytes.
    pub at: u64,
}

impl Position {
    /// The position of the first record of a segment.
    pub fn first(segment: SegmentName) -> Self {
        Self {
            segment,
            at: FILE_HEADER_BYTES,
        }
    }
}

/// What a reader finds at its position.
#[derive(Debug, PartialEq, Eq)]
pub enum NextRecord<'a> {
    /// A record and its payload; the position is now after it.
    Record(RecordHeader, &'a [u8]),
    /// No whole record yet.
    End,
    /// Bytes that are no record. In a segment that is still written they may become one in a
    /// moment; in any other they are damage.
    Damaged,
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskWait {
    /// It may wait.
    Waits,
    /// Only the page cache is read; `WouldBlock` or `Unsupported` say that more is needed
    /// (preadv2(2), RWF_NOWAIT). For threads that must not block.
    CachedOnly,
}

/// A segment that is open for reading.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    disk_wait: DiskWait,
    position: Position,
    buffer: Vec<u8>,
    /// Position in the file at which `buffer` begins, bytes.
    buffer_at: u64,
}

impl SegmentReader {
    /// Opens the segment of `position` in the directory `spool`. `NotFound` where it was unlinked
    /// or never existed; `InvalidData` where the file is not that segment; another error where a
    /// later version wrote it.
    pub fn open(spool: &Path, position: Position) -> io::Result<Self> {
        Self::open_with(spool, position, DiskWait::Waits)
    }

    /// Like [`Self::open`], for reads that may or may not wait for the disk.
    pub fn open_with(spool: &Path, position: Position, disk_wait: DiskWait) -> io::Result<Self> {
        let reader = Self {
            file: safe_file::open(&spool.join(position.segment.to_string()))?,
            disk_wait,
            position,
            buffer: Vec::new(),
            buffer_at: position.at,
        };
        reader.check_header()?;
        Ok(reader)
    }

    fn check_header(&self) -> io::Result<()> {
        let mut header = [0; FILE_HEADER_BYTES as usize];
        let length = self.read_up_to(&mut header, 0)?;
        let name = self.position.segment;
        // A file that was created a moment ago may still be empty.
        if length < header.len() || name.is_header(&header) {
            return Ok(());
        }
        if let Some(format) = SegmentName::foreign_format(&header) {
            // This is no damage, and no reader may take it for the end of an output.
            return Err(io::Error::other(format!(
                "{name} has format {format}, which a later version of cc-executor writes; \
                 start that version"
            )));
        }
        let message = format!("{name} does not begin like a segment");
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next record.
    pub fn next_record(&mut self) -> io::Result<NextRecord<'_>> {
        let mut needed = HEADER_BYTES;
        let mut fresh = false;
        let (header, whole) = loop {
            match record::decode(self.rest()) {
                Decoded::Record(header, _, whole) => break (header, whole),
                // The buffer may be from before the record was complete: read once more.
                Decoded::Invalid if fresh => return Ok(NextRecord::Damaged),
                Decoded::Incomplete { needed: n } if fresh && n == needed => {
                    return Ok(NextRecord::End);
                }
                Decoded::Incomplete { needed: n } => needed = n,
                Decoded::Invalid => {}
            }
            self.fill(needed)?;
            fresh = true;
        };
        let start = (self.position.at - self.buffer_at) as usize;
        self.position.at += whole as u64;
        let payload = &self.buffer[start + HEADER_BYTES..start + whole];
        Ok(NextRecord::Record(header, payload))
    }

    /// Moves to the first record that reaches beyond `offset` or is no output, so that the next
    /// record is the one with the byte at `offset`, if that is in this segment.
    pub fn skip_to(&mut self, offset: Offset) -> io::Result<()> {
        loop {
            let before = self.position;
            match self.next_record()? {
                NextRecord::Record(header, payload)
                    if header.kind != RecordKind::Seal
                        && header.kind != RecordKind::Exit
                        && header.offset + output_length(&header, payload) <= offset => {}
                _ => {
                    self.position = before;
                    return Ok(());
                }
            }
        }
    }

    fn rest(&self) -> &[u8] {
        usize::try_from(self.position.at - self.buffer_at)
            .ok()
            .and_then(|start| self.buffer.get(start..))
            .unwrap_or_default()
    }

    /// Reads from the position on: `needed` bytes or more, or as many as there are. The buffer is
    /// never larger than the rest of the file: a live tail reads a few bytes at a time.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        let there = self.file.metadata()?.len().saturating_sub(self.position.at);
        let wanted = READ_BYTES.max(needed).min(there as usize);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(wanted, 0);
        let length = self.read_up_to(&mut buffer, self.position.at)?;
        buffer.truncate(length);
        self.buffer = buffer;
        self.buffer_at = self.position.at;
        Ok(())
    }

    /// Fills `buffer` from position `at` on, up to the end of the file; returns the number of
    /// bytes.
    fn read_up_to(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut length = 0;
        while length < buffer.len() {
            match self.read_at(&mut buffer[length..], at + length as u64) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(length)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self.disk_wait {
            DiskWait::Waits => self.file.read_at(buffer, at),
            DiskWait::CachedOnly => {
                let mut slices = [io::IoSliceMut::new(buffer)];
                let flags = rustix::io::ReadWriteFlags::NOWAIT;
                Ok(rustix::io::preadv2(&self.file, &mut slices, at, flags)?)
            }
        }
    }
}

/// Whether [`SegmentReader::open`] failed because there is no such segment: no file, or one with
/// another header. A power loss leaves such a file after a seal that was on disk already.
pub fn is_no_segment(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData
    )
}

/// Whether a reader with [`DiskWait::CachedOnly`] failed because it would have had to wait for the
/// disk.
pub fn needs_disk(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported
    )
}

/// How many bytes of the job's output a record stands for: the dropped ones of a gap count.
pub fn output_length(header: &RecordHeader, payload: &[u8]) -> u64 {
    match header.kind {
        RecordKind::Output => payload.len() as u64,
        RecordKind::Gap => serde_json::from_slice::<crate::job::Gap>(payload)
            .map_or(0, |gap| gap.to.saturating_sub(gap.from)),
        RecordKind::Intent | RecordKind::Start | RecordKind::Seal | RecordKind::Exit => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::job::Stream;

    const NAME: SegmentName = SegmentName {
        job: 1,
        attempt: 1,
        first_offset: 100,
    };

    fn output(offset: u64, data: &[u8]) -> Vec<u8> {
        let header = RecordHeader {
            kind: RecordKind::Output,
            stream: Stream::Stdout,
            offset,
            wall_us: 0,
            boottime_us: 0,
        };
        record::encode(&header, data)
    }

    fn payload_of(next: NextRecord<'_>) -> Option<Vec<u8>> {
        match next {
            NextRecord::Record(_, payload) => Some(payload.to_vec()),
            NextRecord::End | NextRecord::Damaged => None,
        }
    }

    #[test]
    fn a_growing_segment_is_read_byte_by_byte() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut file = File::create(dir.path().join(NAME.to_string())).expect("create");
        let mut reader = SegmentReader::open(dir.path(), Position::first(NAME)).expect("open");
        let mut bytes = NAME.file_header().to_vec();
        bytes.extend(output(100, b"one"));
        let first = bytes.len();
        bytes.extend(output(103, b"two"));
        let mut got = Vec::new();
        for (i, byte) in bytes.iter().enumerate() {
            file.write_all(&[*byte]).expect("write");
            let next = payload_of(reader.next_record().expect("read"));
            assert_eq!(
                next.is_some(),
                i + 1 == first || i + 1 == bytes.len(),
                "byte {i}"
            );
            got.extend(next.unwrap_or_default());
        }
        assert_eq!(got, b"onetwo");
    }

    #[test]
    fn skipping_stops_at_the_record_that_holds_the_byte() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut bytes = NAME.file_header().to_vec();
        for (offset, data) in [(100, "aaa"), (103, "bbb"), (106, "ccc")] {
            bytes.extend(output(offset, data.as_bytes()));
        }
        std::fs::write(dir.path().join(NAME.to_string()), bytes).expect("write");
        for (offset, expected) in [(100, "aaa"), (102, "aaa"), (103, "bbb"), (108, "ccc")] {
            let mut reader = SegmentReader::open(dir.path(), Position::first(NAME)).expect("open");
            reader.skip_to(offset).expect("skip");
            let next = payload_of(reader.next_record().expect("read"));
            assert_eq!(next.as_deref(), Some(expected.as_bytes()), "{offset}");
        }
    }

    #[test]
    fn what_is_cached_is_read_without_waiting() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut bytes = NAME.file_header().to_vec();
        bytes.extend(output(100, b"one"));
        std::fs::write(dir.path().join(NAME.to_string()), bytes).expect("write");
        let position = Position::first(NAME);
        let read = || {
            let disk_wait = DiskWait::CachedOnly;
            let mut reader = SegmentReader::open_with(dir.path(), position, disk_wait)?;
            Ok::<_, io::Error>(payload_of(reader.next_record()?))
        };
        match read() {
            Ok(payload) => assert_eq!(payload.as_deref(), Some(&b"one"[..])),
            // Not every file system supports it, and under memory pressure nothing stays cached.
            Err(e) => assert!(needs_disk(&e), "{e}"),
        }
    }

    #[test]
    fn a_foreign_file_is_not_a_segment() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join(NAME.to_string()), [7; 100]).expect("write");
        let error = SegmentReader::open(dir.path(), Position::first(NAME)).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(is_no_segment(&error));
    }

    /// Every record of a segment until its end or damage; a reader always reaches one of them.
    fn read_all(bytes: &[u8]) -> io::Result<Vec<(RecordHeader, Vec<u8>)>> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join(NAME.to_string()), bytes)?;
        let mut reader = SegmentReader::open(dir.path(), Position::first(NAME))?;
        let mut all = Vec::new();
        while let NextRecord::Record(header, payload) = reader.next_record()? {
            all.push((header, payload.to_vec()));
        }
        Ok(all)
    }

    proptest! {
        /// Of a segment with bytes exchanged and its end torn off, exactly the records before the
        /// first change are read: never another byte, never a panic.
        #[test]
        fn fuzz_mutated_segments(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..8),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 0..3),
            torn in any::<proptest::sample::Index>(),
        ) {
            let (mut bytes, mut offset) = (NAME.file_header().to_vec(), 100);
            let mut ends = Vec::new();
            for payload in &payloads {
                bytes.extend(output(offset, payload));
                offset += payload.len() as u64;
                ends.push(bytes.len());
            }
            let begin = FILE_HEADER_BYTES as usize;
            let mut whole = begin + torn.index(bytes.len() - begin + 1);
            bytes.truncate(whole);
            let length = bytes.len();
            for (at, by) in changes.iter().filter(|_| length > begin) {
                let at = begin + at.index(length - begin);
                bytes[at] ^= by;
            }
            let original: Vec<u8> = std::iter::once(NAME.file_header().to_vec())
                .chain(payloads.iter().scan(100, |offset, payload| {
                    let record = output(*offset, payload);
                    *offset += payload.len() as u64;
                    Some(record)
                }))
                .flatten()
                .collect();
            if let Some(at) = (0..whole).find(|at| bytes[*at] != original[*at]) {
                whole = at;
            }
            let intact = ends.iter().take_while(|end| **end <= whole).count();
            let read = read_all(&bytes).expect("a segment");
            let read: Vec<Vec<u8>> = read.into_iter().map(|(_, payload)| payload).collect();
            prop_assert_eq!(&read[..], &payloads[..intact]);
        }

        /// Bytes that never were a segment have no records and end.
        #[test]
        fn fuzz_arbitrary_segments(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let after_header = [&NAME.file_header()[..], &bytes].concat();
            prop_assert_eq!(read_all(&after_header).expect("a segment"), []);
            if let Ok(records) = read_all(&bytes) {
                prop_assert_eq!(records, []);
            }
        }
    }
}
