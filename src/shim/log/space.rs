//! Whether there is room for another segment: the free space of the file system and the sum of
//! all segments, against the bounds of the job. What to do without room is the log's business.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{errno::Errno, sys::statvfs::fstatvfs};

use crate::{spool::SegmentName, sys::disk_reserve::DiskReserve};

/// The bounds of the spool, bytes.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Of all segments together.
    pub spool_bytes_max: Option<u64>,
    /// What stays free on the file system.
    pub free_bytes_min: u64,
}

/// Why there is too little free on the file system, for people; `None` where there is enough. What
/// the ballast has given up for the ends of attempts is not free for their output.
pub fn disk_shortage(
    spool: &OwnedFd,
    bounds: &SpoolLimits,
    reserve: &DiskReserve,
) -> io::Result<Option<String>> {
    let stats = fstatvfs(spool.as_fd())?;
    let free = stats.blocks_available() * stats.fragment_size();
    let min = bounds.free_bytes_min.saturating_add(reserve.missing()?);
    Ok((free < min).then(|| format!("{free} bytes are free on the disk, {min} have to stay free")))
}

/// Why there is no room for another segment, for people; `None` where there is. `more_bytes` are what a next segment may
/// take: they must fit below the spool's bound, so that it is passed only by what other running
/// jobs still add to their current segments, and by a job's first one.
pub fn shortage(
    spool: &OwnedFd,
    bounds: &SpoolLimits,
    reserve: &DiskReserve,
    more_bytes: u64,
) -> io::Result<Option<String>> {
    if let Some(why) = disk_shortage(spool, bounds, reserve)? {
        return Ok(Some(why));
    }
    let Some(max) = bounds.spool_bytes_max else {
        return Ok(None);
    };
    let used = spool_bytes(spool)?;
    Ok((used >= max || used + more_bytes > max)
        .then(|| format!("the spool holds {used} bytes of at most {max}")))
}

/// The sum of all segments, bytes.
fn spool_bytes(spool: &OwnedFd) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", spool.as_raw_fd()))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().and_then(SegmentName::parse).is_some() {
            sum += match entry.metadata() {
                // It was unlinked between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                data => data?.len(),
            };
        }
    }
    Ok(sum)
}

/// Whether an error means "no room": waiting may help.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOSPC | Errno::EDQUOT)
    )
}
