//! Disk space that is kept for what must be stored on a full disk: a preallocated file in the data
//! directory, released to the file system when no other space is left, and refilled later.
//!
//! Callers check here before they write; they decide what may use the space.

mod guard;

use std::{io, os::fd::OwnedFd, path::Path, sync::Arc};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, Stat, fallocate, fstat, fstatvfs, ftruncate,
    open, openat, statat, unlinkat,
};
use rustix::io::{Errno, pwrite};

use guard::ReserveLock;

/// The file's name in a data directory.
pub const FILE_NAME: &str = "cc-executor.ballast";

/// The name of the file that [`DiskReserve::is_out_of_room`] writes as a test.
const PROBE_NAME: &str = "cc-executor.probe";

/// Length of that file, bytes: more than any single write of SQLite, which are pages.
const PROBE_BYTES: usize = 64 << 10;

/// This much more must be free before the reserve is refilled, bytes: a process that takes the last
/// byte would have to release it at once.
const SPARE_BYTES: u64 = 256 << 10;

/// The reserve is released in this many portions.
const PORTIONS: u64 = 8;

/// Where this much more than the reserve is free, a drain needs no lock, bytes: many shims may be
/// at this point at once, each with one write.
const PLENTY_BYTES: u64 = 4 << 20;

/// What a write takes on the disk besides its bytes, bytes: partly filled blocks, headers of a next
/// segment, the file system's own blocks about blocks.
const OVERHEAD_BYTES: u64 = 16 << 10;

/// The reserve's file. Its state is in the file itself: its length is the size of the reserve, its
/// allocated blocks are what it holds now. Every process that sees the file, also a shim without a
/// server, can tell what is missing. The length never changes while the reserve is kept; what it
/// holds changes under its lock only.
#[derive(Debug, Clone)]
pub struct DiskReserve {
    dir: Arc<OwnedFd>,
}

/// Whether a drain (a shim that empties the pipes of an attempt into its segments) may write.
#[derive(Debug)]
pub enum DrainPermission {
    /// It may, while the permit is held. `None`: there is plenty of space, and no permit is needed.
    Granted(Option<WritePermit>),
    /// It may not: the rest is for ends and requests. The text says why, for people.
    Refused(String),
}

/// The right to write once; other processes that need the same space wait meanwhile.
#[derive(Debug)]
pub struct WritePermit {
    _guard: ReserveLock,
}

impl DiskReserve {
    /// The reserve of a data directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened.
    pub fn of_data_dir(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = open(dir, flags, Mode::empty())?;
        Ok(Self { dir: Arc::new(dir) })
    }

    /// The size of the reserve, bytes; 0 where none is kept.
    ///
    /// # Errors
    ///
    /// The file cannot be examined.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.stat()?.map_or(0, |stat| size(&stat)))
    }

    /// How many bytes the reserve lacks; 0 also where none is kept.
    ///
    /// # Errors
    ///
    /// The file cannot be examined: whether it lacks something is unknown.
    pub fn missing(&self) -> io::Result<u64> {
        Ok(self.stat()?.map_or(0, |stat| missing_bytes(&stat)))
    }

    fn stat(&self) -> io::Result<Option<Stat>> {
        match statat(&*self.dir, FILE_NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a reserve of `bytes` from now on; 0: none. The space is taken as soon as it is free,
    /// so some may be missing at first. A reserve of another size is resized.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn keep(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return self.remove();
        }
        // Whole blocks: a partly filled last one would never count as held.
        let length = bytes.next_multiple_of(BLOCK_BYTES);
        let file = self.create()?;
        if size(&fstat(&file)?) != length {
            self.resize(file, length)?;
        }
        self.refill();
        Ok(())
    }

    /// It keeps what it holds; if another process keeps the lock, the file is replaced.
    fn resize(&self, file: OwnedFd, length: u64) -> io::Result<()> {
        match ReserveLock::patient(file)? {
            Some(guard) => ftruncate(guard.file(), length)?,
            None => {
                self.remove()?;
                ftruncate(self.create()?, length)?;
            }
        }
        Ok(())
    }

    /// Takes what is missing, if there is space for it. Returns whether nothing is missing any
    /// more. Where the file system cannot preallocate, the file is removed and there is no reserve
    /// from then on.
    pub fn refill(&self) -> bool {
        match self.missing() {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the disk reserve cannot be examined");
                return false;
            }
        }
        match self.fill() {
            Ok(filled) => filled,
            Err(error) if is_permanent(error) => {
                tracing::warn!(%error, "this file system cannot preallocate files; there is no disk reserve");
                self.remove().is_ok()
            }
            // No space, no quota, or the disk has a problem now: the next call tries again.
            Err(error) => {
                tracing::debug!(%error, "the disk reserve is not full yet");
                false
            }
        }
    }

    fn fill(&self) -> rustix::io::Result<bool> {
        let Some(guard) = self.lock()? else {
            return Ok(false);
        };
        let stat = fstat(guard.file())?;
        if self.free_bytes()? < missing_bytes(&stat) + SPARE_BYTES {
            return Ok(false);
        }
        allocate(&guard, &stat)?;
        match missing_bytes(&fstat(guard.file())?) {
            0 => Ok(true),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// Releases a portion of it to the file system, no more: on a busy disk other programs are
    /// quick to take what is free. Returns whether it holds less now and our user gained space by
    /// it: `false` also where another process keeps its lock for longer than a fifth of a second.
    pub fn release(&self) -> bool {
        let quota_is_full = || self.probe() == Err(Errno::DQUOT);
        let was_full = quota_is_full();
        let released = self
            .open()
            .and_then(ReserveLock::patient)
            .and_then(|guard| {
                let Some(guard) = guard else { return Ok(false) };
                let before = fstat(guard.file())?;
                let portion = (size(&before) / PORTIONS).next_multiple_of(BLOCK_BYTES);
                let holds_less = free_some(&guard, portion)?;
                if holds_less && was_full && quota_is_full() {
                    // The file counts against another quota than our user's.
                    let now = fstat(guard.file())?;
                    let _ = allocate(&guard, &now);
                    return Ok(false);
                }
                Ok(holds_less)
            });
        // It cannot be released now, whatever the reason; callers try again later.
        released.unwrap_or_else(|error| {
            if error != Errno::NOENT {
                tracing::warn!(%error, "the disk reserve could not be released");
            }
            false
        })
    }

    /// Releases as much as is needed to have `free_min` bytes free. Returns whether it released
    /// any.
    pub fn release_below(&self, free_min: u64) -> bool {
        let mut released = false;
        while self.free_bytes().is_ok_and(|free| free < free_min) && self.release() {
            released = true;
        }
        released
    }

    /// Whether a drain may write `bytes`: half of the reserve stays for ends and requests, however
    /// many drain at once. `failed`: such a write has just found no space, whatever the file system
    /// reports as free (a quota).
    ///
    /// # Errors
    ///
    /// The reserve or the disk cannot be examined.
    pub fn drain_permission(&self, bytes: u64, failed: bool) -> io::Result<DrainPermission> {
        let file = match self.open() {
            Err(Errno::NOENT) => return Ok(DrainPermission::Granted(None)),
            file => file?,
        };
        let length = size(&fstat(&file)?);
        if !failed && self.free_bytes()? >= length + PLENTY_BYTES {
            return Ok(DrainPermission::Granted(None));
        }
        let Some(guard) = ReserveLock::patient(file)? else {
            return Ok(DrainPermission::Refused(
                "another process keeps the lock of the disk reserve".to_owned(),
            ));
        };
        let need = bytes + OVERHEAD_BYTES;
        let mut free = if failed { 0 } else { self.free_bytes()? };
        if free + held_bytes(&fstat(guard.file())?) < length / 2 + need {
            return Ok(DrainPermission::Refused(
                "what is left of the disk reserve is kept for ends of jobs".to_owned(),
            ));
        }
        if free < need {
            free_some(&guard, need - free)?;
            free = self.free_bytes()?;
        }
        Ok(match free < need {
            // Another program was quicker, or the file system releases nothing.
            true => DrainPermission::Refused(format!("{free} bytes are free on the disk")),
            false => DrainPermission::Granted(Some(WritePermit { _guard: guard })),
        })
    }

    /// Whether it is released in part, or will be soon: little other space is free, or that is
    /// unknown.
    pub fn is_needed(&self) -> bool {
        let whole = matches!(self.missing(), Ok(0));
        !whole || self.free_bytes().is_ok_and(|free| free < PLENTY_BYTES)
    }

    /// Whether nothing more can be written beside it, found out by writing a file: also where the
    /// disk has space but the quota of our user is used up, which no call reports as a number.
    pub fn is_out_of_room(&self) -> bool {
        matches!(self.probe(), Err(Errno::NOSPC | Errno::DQUOT))
    }

    /// Writes a small file beside it, and removes it again.
    fn probe(&self) -> rustix::io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        // A file of that name may be a second name (hard link) of another file, which must not be
        // overwritten.
        let _ = unlinkat(&*self.dir, PROBE_NAME, AtFlags::empty());
        let written = openat(&*self.dir, PROBE_NAME, flags, Mode::RUSR | Mode::WUSR)
            .and_then(|file| pwrite(&file, &[0; PROBE_BYTES], 0));
        // If this fails, the next probe removes it.
        let _ = unlinkat(&*self.dir, PROBE_NAME, AtFlags::empty());
        match written? {
            PROBE_BYTES => Ok(()),
            _ => Err(Errno::NOSPC),
        }
    }

    /// The lock of the file, if it is free now: a refill is never urgent.
    fn lock(&self) -> rustix::io::Result<Option<ReserveLock>> {
        ReserveLock::now(self.open()?)
    }

    fn create(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&*self.dir, FILE_NAME, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => self.open(),
            made => made,
        }
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        // Opening a device may have an effect, and opening a pipe may block.
        check_is_ours(&statat(&*self.dir, FILE_NAME, AtFlags::SYMLINK_NOFOLLOW)?)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = openat(&*self.dir, FILE_NAME, flags, Mode::empty())?;
        check_is_ours(&fstat(&opened)?)?;
        Ok(opened)
    }

    /// Bytes that are free on the file system for our user.
    fn free_bytes(&self) -> rustix::io::Result<u64> {
        let stats = fstatvfs(&*self.dir)?;
        Ok(stats.f_bavail * stats.f_frsize)
    }

    fn remove(&self) -> io::Result<()> {
        match unlinkat(&*self.dir, FILE_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Checks that it is a regular file of our user with one name: holes are punched into it and it is
/// filled with zeros, so it must not be anything else's.
fn check_is_ours(stat: &Stat) -> rustix::io::Result<()> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::LOOP);
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    match stat.st_nlink {
        0 | 1 => Ok(()),
        _ => Err(Errno::MLINK),
    }
}

/// Whether the file system will return this error every time.
fn is_permanent(error: Errno) -> bool {
    const NEVER: [Errno; 6] = [
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::NODEV,
        Errno::PERM,
        Errno::FBIG,
    ];
    NEVER.contains(&error)
}

/// Allocates all that the file lacks. If that fails, what this call has allocated is released
/// again, and no more.
fn allocate(guard: &ReserveLock, before: &Stat) -> rustix::io::Result<()> {
    let length = size(before);
    fallocate(guard.file(), FallocateFlags::empty(), 0, length).inspect_err(|_| {
        if let Ok(now) = fstat(guard.file())
            && held_bytes(&now) > held_bytes(before)
        {
            let _ = punch(guard, held_bytes(before).min(length), length);
        }
    })
}

/// Releases `bytes` of what the file holds; returns whether it holds less then. The allocated part
/// is its beginning, give or take a few blocks that the file system uses for itself: where
/// releasing the last part changes nothing, the part before it is released too.
fn free_some(guard: &ReserveLock, bytes: u64) -> rustix::io::Result<bool> {
    let before = fstat(guard.file())?;
    let (length, held_before) = (size(&before), held_bytes(&before));
    let bytes = bytes.next_multiple_of(BLOCK_BYTES);
    let mut from = held_before.min(length);
    loop {
        from = from.saturating_sub(bytes) / BLOCK_BYTES * BLOCK_BYTES;
        punch(guard, from, length)?;
        if held_bytes(&fstat(guard.file())?) < held_before {
            return Ok(true);
        }
        if from == 0 {
            return Ok(false);
        }
    }
}

/// Releases the blocks from `from` on; the length stays.
fn punch(guard: &ReserveLock, from: u64, length: u64) -> rustix::io::Result<()> {
    if from >= length {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(guard.file(), flags, from, length - from) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            // A kill in between leaves it too short: the next start of a server repairs that.
            ftruncate(guard.file(), from)?;
            ftruncate(guard.file(), length)
        }
        punched => punched,
    }
}

/// The unit of allocation, bytes.
const BLOCK_BYTES: u64 = 4096;

fn size(stat: &Stat) -> u64 {
    stat.st_size.unsigned_abs()
}

fn held_bytes(stat: &Stat) -> u64 {
    // The unit is 512 on every file system: stat(2).
    stat.st_blocks.unsigned_abs() * 512
}

fn missing_bytes(stat: &Stat) -> u64 {
    size(stat).saturating_sub(held_bytes(stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve() -> (tempfile::TempDir, DiskReserve) {
        let dir = tempfile::tempdir().expect("a directory");
        let reserve = DiskReserve::of_data_dir(dir.path()).expect("opened");
        (dir, reserve)
    }

    fn missing(reserve: &DiskReserve) -> u64 {
        reserve.missing().expect("a look")
    }

    fn length(dir: &tempfile::TempDir) -> u64 {
        let data = std::fs::metadata(dir.path().join(FILE_NAME));
        data.expect("the file").len()
    }

    #[test]
    fn what_is_given_back_is_missing_until_it_is_taken_again() {
        let (dir, reserve) = reserve();
        let seen = DiskReserve::of_data_dir(dir.path()).expect("opened");
        assert_eq!(seen.missing().expect("seen"), 0, "nothing is kept");
        reserve.keep(1_000_000).expect("made");
        assert_eq!(missing(&reserve), 0);
        assert!(reserve.release());
        assert_eq!(missing(&seen), 126_976, "an eighth, in whole blocks");
        let more = (0..100).take_while(|_| seen.release()).count();
        assert_eq!((more, missing(&reserve)), (7, 1_003_520));
        assert!(seen.refill());
        assert_eq!(missing(&reserve), 0);
        assert!(!reserve.release_below(1), "there is room without it");
        assert!(seen.release());
        reserve.keep(0).expect("removed");
        assert_eq!((missing(&reserve), reserve.release()), (0, false));
    }

    #[test]
    fn more_than_there_is_stays_missing() {
        let (_dir, reserve) = reserve();
        reserve.keep(1 << 43).expect("made");
        assert_eq!(missing(&reserve), 1 << 43);
        assert!(!reserve.refill());
    }

    #[test]
    fn its_length_stays_however_many_give_and_take_at_once() {
        let (dir, reserve) = reserve();
        reserve.keep(1_000_000).expect("made");
        std::thread::scope(|scope| {
            for nth in 0..8 {
                let own = DiskReserve::of_data_dir(dir.path()).expect("opened");
                scope.spawn(move || {
                    for _ in 0..100 {
                        match nth % 2 {
                            0 => own.release(),
                            _ => own.refill(),
                        };
                    }
                });
            }
        });
        assert_eq!(length(&dir), 1_003_520);
        assert!(reserve.refill());
        assert_eq!(missing(&reserve), 0);
    }

    #[test]
    fn while_somebody_keeps_its_lock_it_is_not_to_be_had() {
        let (dir, reserve) = reserve();
        reserve.keep(1_000_000).expect("made");
        let held = reserve.lock().expect("opened").expect("the lock");
        assert!(!reserve.release());
        assert!(reserve.refill(), "nothing is missing");
        assert_eq!((length(&dir), missing(&reserve)), (1_003_520, 0));
        drop(held);
        assert!(reserve.release());
    }

    #[test]
    fn one_of_another_size_is_made_anew_whoever_keeps_its_lock() {
        let (dir, reserve) = reserve();
        for (bytes, locked) in [(430_080, false), (1_003_520, false), (430_080, true)] {
            let held = locked.then(|| reserve.lock().expect("opened").expect("the lock"));
            reserve.keep(bytes).expect("made");
            assert_eq!((length(&dir), missing(&reserve)), (bytes, 0));
            drop(held);
        }
    }

    #[test]
    fn drains_leave_half_of_it_to_ends() {
        let (_dir, reserve) = reserve();
        assert!(matches!(
            reserve.drain_permission(65536, true),
            Ok(DrainPermission::Granted(None))
        ));
        reserve.keep(1 << 20).expect("made");
        assert!(matches!(
            reserve.drain_permission(65536, false),
            Ok(DrainPermission::Granted(None))
        ));
        let mut granted = 0;
        // Each finds no space, whatever the file system reports.
        while let DrainPermission::Granted(permit) =
            reserve.drain_permission(65536, true).expect("a look")
        {
            assert!(permit.is_some());
            granted += 1;
        }
        let need = 65536 + OVERHEAD_BYTES;
        assert_eq!(granted, (1 << 19) / need);
        assert!(missing(&reserve) <= 1 << 19);
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let (dir, reserve) = reserve();
        assert!(!reserve.is_out_of_room());
        assert_eq!(std::fs::read_dir(&dir).expect("listed").count(), 0);
    }

    #[test]
    fn a_link_of_that_name_leads_nowhere() {
        let (dir, reserve) = reserve();
        let other = dir.path().join("other");
        std::fs::write(&other, "precious").expect("written");
        std::os::unix::fs::symlink(&other, dir.path().join(FILE_NAME)).expect("linked");
        assert!(reserve.keep(4096).is_err());
        assert!(!reserve.release());
        assert_eq!(std::fs::read(&other).expect("read"), b"precious");
    }

    #[test]
    fn a_second_name_of_something_else_is_not_written_over() {
        let (dir, reserve) = reserve();
        let other = dir.path().join("other");
        std::fs::write(&other, "precious").expect("written");
        for name in [FILE_NAME, PROBE_NAME] {
            std::fs::hard_link(&other, dir.path().join(name)).expect("linked");
        }
        assert!(!reserve.is_out_of_room());
        assert!(reserve.keep(4096).is_err());
        assert!(!reserve.release());
        assert_eq!(std::fs::read(&other).expect("read"), b"precious");
    }

    #[test]
    fn a_pipe_of_that_name_is_not_waited_for() {
        let (dir, reserve) = reserve();
        for name in [FILE_NAME, PROBE_NAME] {
            let path = dir.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        }
        assert!(!reserve.is_out_of_room());
        assert!(reserve.keep(4096).is_err());
    }
}
