//! Control groups of version 2 (cgroups(7)): the group of this process, and groups below it for others. All processes
//! of a group and of the groups below it can be frozen and killed at once; a process cannot leave without the right to
//! write into a group elsewhere.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open, openat},
    io::{Errno, read, write},
};

/// An open group.
#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
    path: PathBuf,
}

/// What `cgroup.events` says of a group and of those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupEvents {
    /// Whether a process lives in it; zombies do not count.
    pub populated: bool,
    /// Whether all of its processes stand still.
    pub frozen: bool,
}

impl Cgroup {
    /// Creates a group, with the groups above it that are missing; one that is there is opened.
    ///
    /// # Errors
    ///
    /// It cannot be created or opened.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut tries = CREATE_TRIES;
        loop {
            // Whoever has removed the last group in it may remove the parent in between.
            let made = fs::create_dir_all(path).and_then(|()| Self::open(path));
            match made {
                Ok(Some(group)) => return Ok(group),
                Ok(None) if tries > 0 => tries -= 1,
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::NotFound => tries -= 1,
                Ok(None) => return Err(Errno::NOENT.into()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a group; `None` where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Self {
                dir,
                path: path.to_owned(),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends SIGKILL to all of its processes in one step, whichever user they belong to; none that they fork meanwhile
    /// escapes.
    ///
    /// # Errors
    ///
    /// The kernel refuses it, or has no `cgroup.kill` (before Linux 5.14).
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", b"1")
    }

    /// Freezes its processes, and those that come later, or lets them go on. The call does not wait: see
    /// [`CgroupEvents::frozen`].
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn freeze(&self, freezes: bool) -> io::Result<()> {
        self.write("cgroup.freeze", if freezes { b"1" } else { b"0" })
    }

    /// Moves a process into it.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", pid.to_string().as_bytes())
    }

    /// Its state now.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn events(&self) -> io::Result<CgroupEvents> {
        let text = self.read("cgroup.events")?;
        let has = |line: &str| text.lines().any(|found| found == line);
        Ok(CgroupEvents {
            populated: has("populated 1"),
            frozen: has("frozen 1"),
        })
    }

    /// The CPU time that all processes that ever were in it have used so far, in user mode and in the kernel, µs.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has other lines.
    pub fn cpu_us(&self) -> io::Result<(u64, u64)> {
        let text = self.read("cpu.stat")?;
        let line = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().and_then(|number| number.trim().parse().ok())
        };
        let times = line("user_usec").zip(line("system_usec"));
        times.ok_or_else(|| Errno::NODATA.into())
    }

    /// The processes in it and in the groups below it, in no order. Such a process may have made those groups.
    ///
    /// # Errors
    ///
    /// A list cannot be read.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut all = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(path) = open.pop() {
            let list = match fs::read_to_string(path.join("cgroup.procs")) {
                // The group below is gone, or has only threads.
                Err(error) if path != self.path && is_no_list(&error) => continue,
                list => list?,
            };
            all.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()));
            open.extend(groups_in(&path)?);
        }
        Ok(all)
    }

    /// Removes it, the groups below it, and the one above it if that has become empty.
    ///
    /// # Errors
    ///
    /// A process lives in it (EBUSY).
    pub fn remove(self) -> io::Result<()> {
        remove_tree(&self.path)?;
        if let Some(parent) = self.path.parent() {
            // Other groups may be in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.dir, file, flags, Mode::empty())?;
        write(&file, bytes)?;
        Ok(())
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.dir, file, flags, Mode::empty())?;
        let mut bytes = [0; FILE_BYTES_MAX];
        let length = read(&file, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// How often a group is created anew whose parent is removed at that moment.
const CREATE_TRIES: u32 = 100;

/// How much of a file is read, bytes: `cpu.stat` has up to 16 lines, and what is looked for in the first three.
const FILE_BYTES_MAX: usize = 512;

fn is_no_list(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || [Errno::NODEV, Errno::OPNOTSUPP]
            .map(Errno::raw_os_error)
            .contains(&error.raw_os_error().unwrap_or_default())
}

/// The groups directly in a group.
fn groups_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut groups = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// Removes a group and all below it, the lowest first.
fn remove_tree(path: &Path) -> io::Result<()> {
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while let Some(group) = all.get(next) {
        let below = groups_in(group)?;
        all.extend(below);
        next += 1;
    }
    for group in all.iter().rev() {
        match fs::remove_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The directory of the group of this process in a mounted hierarchy of version 2, also where version 1 is mounted
/// beside it; `None` where there is none.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn own_dir() -> io::Result<Option<PathBuf>> {
    let (groups, mounts) = (
        fs::read_to_string("/proc/self/cgroup")?,
        fs::read_to_string("/proc/self/mountinfo")?,
    );
    Ok(dir_of(&groups, &mounts))
}

/// The same, from the text of `/proc/PID/cgroup` and `/proc/PID/mountinfo`.
fn dir_of(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // ID, parent, device, root of the mount, mount point, options, …, "-", type (proc_pid_mountinfo(5)).
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = Path::new(own).strip_prefix(root).ok()?;
        let is_outside = below.components().any(|part| part.as_os_str() == "..");
        (!is_outside).then(|| Path::new(&point).join(below))
    })
}

/// A path of mountinfo: blanks and backslashes stand there in octal.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(byte) => {
                path.push(char::from(byte));
                path.push_str(&part[3..]);
            }
            None => path.push_str(part),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn the_group_of_this_process_is_found_in_each_kind_of_mount() {
        let dir = |groups, mounts| dir_of(groups, mounts).map(|dir| dir.display().to_string());
        assert_eq!(
            dir("4:memory:/a\n0::/\n", HYBRID).as_deref(),
            Some("/sys/fs/cgroup/unified/")
        );
        let unified = "31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(
            dir("0::/user.slice/run-1.scope\n", unified).as_deref(),
            Some("/sys/fs/cgroup/user.slice/run-1.scope")
        );
        // A container sees a part of the hierarchy.
        let part = "31 30 0:27 /docker/7 /a\\040b rw - cgroup2 cgroup rw\n";
        assert_eq!(dir("0::/docker/7/x\n", part).as_deref(), Some("/a b/x"));
        assert_eq!(dir("0::/other\n", part), None);
        assert_eq!(dir("0::/../other\n", unified), None);
        assert_eq!(dir("4:memory:/a\n", HYBRID), None);
        let none = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n";
        assert_eq!(dir("0::/\n", none), None);
    }
}
