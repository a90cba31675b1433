//! The name and the header of a segment file.
//!
//! A segment holds records of one attempt from one offset on. Its name says which, so that a reader
//! finds it without listing the directory: a seal names the offset of the next one.
//!
//! The file begins with a header of 32 bytes: the magic `CCEXSEG1` (whose last character is the
//! format's version), u64 job number, u32 attempt, u32 CRC32C of the other 28 bytes, u64 first
//! offset. Records follow at byte 32.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::{JobId, JobNumber, Offset};

/// Length of the file header, bytes; the first record begins there.
pub const FILE_HEADER_BYTES: u64 = 32;

/// The first bytes of the header in every format; the format's version follows.
const FAMILY: &[u8] = b"CCEXSEG";
/// The only format so far.
const FORMAT: u8 = b'1';

/// Which segment: job, attempt and the offset of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// The job's number.
    pub job: JobNumber,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The offset of the job's output at which the segment begins.
    pub first_offset: Offset,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.seg", self.job, self.attempt, self.first_offset)
    }
}

impl SegmentName {
    /// The segment with this file name; `None` where it is no segment's.
    pub fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.split('.');
        let name = Self {
            job: parts.next()?.parse().ok()?,
            attempt: parts.next()?.parse().ok()?,
            first_offset: parts.next()?.parse().ok()?,
        };
        (parts.next() == Some("seg") && parts.next().is_none() && name.to_string() == file_name)
            .then_some(name)
    }

    /// The first bytes of the file.
    pub fn file_header(&self) -> [u8; FILE_HEADER_BYTES as usize] {
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        bytes[0..7].copy_from_slice(FAMILY);
        bytes[7] = FORMAT;
        bytes[8..16].copy_from_slice(&self.job.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_offset.to_le_bytes());
        let sum = checksum(&bytes);
        bytes[20..24].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Whether `bytes` are the first bytes of this segment's file.
    pub fn is_header(&self, bytes: &[u8]) -> bool {
        bytes == self.file_header()
    }

    /// The format of a segment file that begins with these bytes, if it is not ours: only a later
    /// version can have written it.
    pub fn foreign_format(bytes: &[u8]) -> Option<char> {
        let format = *bytes.strip_prefix(FAMILY)?.first()?;
        (format != FORMAT).then_some(char::from(format))
    }
}

fn checksum(header: &[u8; FILE_HEADER_BYTES as usize]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..20]), &header[24..])
}

/// Payload of an intent record: which shim took the right to start, and for which job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The job's UUID.
    pub job: JobId,
    /// The id of the shim that took it; `rescue` where recovery did, so that no shim can.
    pub shim: String,
    /// The kernel's boot id when it was taken.
    pub boot_id: String,
    /// The data directory's instance.
    pub instance: String,
    /// The version of the program that wrote it.
    pub version: String,
    /// Segments of the attempt are sealed at this size, bytes. Versions before this field did not
    /// write it down, and a rescue has none.
    #[serde(default)]
    pub segment_bytes: Option<u64>,
    /// The number that the attempt's processes carry ([`super::mark`]). Versions before this field
    /// gave them none, and a shim does not where a hard limit forbids it.
    #[serde(default)]
    pub mark: Option<u64>,
    /// The directory of the attempt's control group, where it was to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SegmentName = SegmentName {
        job: 42,
        attempt: 3,
        first_offset: 4_194_304,
    };

    #[test]
    fn names_go_both_ways() {
        assert_eq!(NAME.to_string(), "42.3.4194304.seg");
        assert_eq!(SegmentName::parse("42.3.4194304.seg"), Some(NAME));
        for bad in ["42.3.seg", "042.3.0.seg", "42.3.0.seg.zst", "42.3.0", "x"] {
            assert_eq!(SegmentName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_damaged_header_is_seen() {
        let header = NAME.file_header();
        assert!(NAME.is_header(&header));
        for at in 0..header.len() {
            let mut damaged = header;
            damaged[at] ^= 1;
            assert!(!NAME.is_header(&damaged), "byte {at}");
        }
    }

    #[test]
    fn a_later_format_is_no_damage() {
        let mut header = NAME.file_header();
        assert_eq!(SegmentName::foreign_format(&header), None);
        header[7] = b'2';
        assert_eq!(SegmentName::foreign_format(&header), Some('2'));
        assert_eq!(SegmentName::foreign_format(&[0; 32]), None);
        assert_eq!(SegmentName::foreign_format(b"CCEXSEG"), None);
    }
}
