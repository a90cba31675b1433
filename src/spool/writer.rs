//! Writes one segment file: creates it, and appends whole frames. The shim's log decides when a
//! segment is full and what to do when the disk is.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::segment::{FILE_HEADER_BYTES, SegmentName};

/// A segment that is being written. Frames exist whole or not at all: the bytes of a failed write
/// after the last whole frame are cut off or overwritten.
#[derive(Debug)]
pub struct SegmentWriter {
    file: Arc<File>,
    name: SegmentName,
    length: u64,
}

impl SegmentWriter {
    /// Creates the file in the directory `spool`; it is empty until [`Self::begin`].
    ///
    /// `AlreadyExists` where another process has the right to write this segment.
    pub fn create(spool: impl AsFd, name: SegmentName) -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file: File = openat(spool, name.to_string().as_str(), flags, mode)?.into();
        Ok(Self {
            file: Arc::new(file),
            name,
            length: 0,
        })
    }

    /// Writes the file header and then `first`, in one write. Does nothing when that is done.
    pub fn begin(&mut self, first: &[u8]) -> io::Result<()> {
        if self.length > 0 {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES as usize + first.len());
        bytes.extend_from_slice(&self.name.file_header());
        bytes.extend_from_slice(first);
        self.append(&bytes)
    }

    /// Writes a whole frame after the last whole one, in one write.
    ///
    /// After an error nothing has been written; a short write is returned as
    /// [`io::ErrorKind::StorageFull`].
    pub fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        let written = loop {
            match self.file.write_at(frame, self.length) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if written < frame.len() {
            // A shorter frame may come next: no rest of this one may stay after it.
            self.file.set_len(self.length)?;
            return Err(Errno::ENOSPC.into());
        }
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Discards the bytes after `length`: the next frame begins there. The file keeps them until
    /// then.
    pub fn rewind(&mut self, length: u64) {
        self.length = self.length.min(length);
    }

    /// Which segment this is.
    pub fn name(&self) -> SegmentName {
        self.name
    }

    /// Where the next frame begins, bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file, to sync it or to pass it on.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The same file, to share it with another thread.
    pub fn shared_file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::Stream,
        spool::{Position, RecordHeader, RecordKind, SegmentReader, reader::NextRecord, record},
    };

    const NAME: SegmentName = SegmentName {
        job: 5,
        attempt: 1,
        first_offset: 0,
    };

    fn frame(data: &[u8]) -> Vec<u8> {
        let header = RecordHeader {
            kind: RecordKind::Output,
            stream: Stream::Stdout,
            offset: 0,
            wall_us: 1,
            boottime_us: 2,
        };
        record::encode(&header, data)
    }

    #[test]
    fn a_segment_has_one_writer() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = File::open(dir.path()).expect("open");
        SegmentWriter::create(&spool, NAME).expect("first");
        let error = SegmentWriter::create(&spool, NAME).expect_err("second");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = File::open(dir.path()).expect("open");
        let mut writer = SegmentWriter::create(&spool, NAME).expect("create");
        writer.begin(&frame(b"one")).expect("begin");
        writer.begin(&frame(b"again")).expect("begin again");
        writer.append(&frame(b"two")).expect("append");
        let mut reader = SegmentReader::open(dir.path(), Position::first(NAME)).expect("open");
        for expected in [&b"one"[..], b"two"] {
            match reader.next_record().expect("read") {
                NextRecord::Record(_, payload) => assert_eq!(payload, expected),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(reader.next_record().expect("read"), NextRecord::End);
    }
}
