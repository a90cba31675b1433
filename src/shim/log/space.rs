//! Whether there is disk space for another segment: compares the free space of the file system and
//! the sum of all segments with the limits of the job.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{errno::Errno, sys::statvfs::fstatvfs};

use crate::{spool::SegmentName, sys::disk_reserve::DiskReserve};

/// Limits of the spool, bytes.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// The sum of all segments may reach this; `None`: no limit.
    pub spool_bytes_max: Option<u64>,
    /// This much stays free on the file system.
    pub free_bytes_min: u64,
}

/// Why too little is free on the file system, for people; `None` where enough is free. Space that
/// the reserve has released for the ends of attempts is not free for their output.
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

/// Why there is no space for another segment, for people; `None` where there is. `more_bytes` is
/// what the next segment may take: it must fit below the limit of the spool, so that only the
/// current segments of other running jobs and the first segment of a job can exceed it.
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

/// The sizes of all segments together, bytes. Lists the directory: blocking.
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

/// Whether an error means "no space": waiting may help.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOSPC | Errno::EDQUOT)
    )
}
