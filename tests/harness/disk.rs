//! Small file systems that a test can fill: a tmpfs, or an ext4 in a file behind a loop device, with
//! a journal, delayed allocation and a fixed number of inodes. What is stored there is not known.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

/// What kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Tmpfs,
    Ext4,
}

/// What an ext4 can grow to, bytes: so large it is made, and a file takes the rest.
const GROWN_BYTES: u64 = 256 << 20;

/// A small file system of its own, unmounted when dropped.
pub struct Disk {
    kind: FileSystem,
    place: TempDir,
}

impl Disk {
    /// One with about so many bytes free; `None`, and a word why, where this process may not have one.
    pub fn mount(kind: FileSystem, bytes: u64) -> Option<Self> {
        Self::with_inodes(kind, bytes, None)
    }

    /// One with so many inodes, about.
    pub fn with_inodes(kind: FileSystem, bytes: u64, inodes: Option<u64>) -> Option<Self> {
        let place = tempfile::Builder::new()
            .prefix("cc-executor-disk-")
            .tempdir()
            .expect("a directory");
        let disk = Self { kind, place };
        fs::create_dir(disk.root()).expect("a place to mount at");
        let mounted = match kind {
            FileSystem::Tmpfs => disk.mount_tmpfs(bytes, inodes),
            FileSystem::Ext4 => disk.mount_ext4(bytes, inodes),
        };
        match mounted {
            Ok(()) => Some(disk),
            Err(why) => {
                eprintln!("SKIPPED: a small {kind:?} cannot be mounted here: {why}");
                None
            }
        }
    }

    fn mount_tmpfs(&self, bytes: u64, inodes: Option<u64>) -> Result<(), String> {
        let mut options = format!("size={bytes}");
        if let Some(inodes) = inodes {
            options += &format!(",nr_inodes={inodes}");
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]);
        run(mount.arg(self.root())).map(drop)
    }

    fn mount_ext4(&self, bytes: u64, inodes: Option<u64>) -> Result<(), String> {
        let image = self.image();
        let file = File::create(&image).expect("an image");
        file.set_len(GROWN_BYTES).expect("its length");
        let mut make = Command::new("mkfs.ext4");
        // Nothing is kept for root, which the tests run as.
        make.args(["-q", "-F", "-m", "0", "-b", "4096"]);
        if let Some(inodes) = inodes {
            make.args(["-N", &inodes.to_string()]);
        }
        run(make.arg(&image))?;
        let device = loop_device()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]);
        run(mount.arg(&image).arg(self.root())).map_err(|why| format!("{why} ({device})"))?;
        let stats = statvfs(&self.root()).expect("its room");
        let free = stats.blocks_available() * stats.fragment_size();
        let wedge = free.saturating_sub(bytes);
        let mut fill = Command::new("fallocate");
        fill.args(["--length", &wedge.to_string()]);
        run(fill.arg(self.wedge())).map(drop)
    }

    /// Makes it as large as this while it is used, once; an ext4 gets what it can grow to.
    pub fn grow(&self, bytes: u64) {
        let grown = match self.kind {
            FileSystem::Tmpfs => {
                let mut mount = Command::new("mount");
                mount.args(["-o", &format!("remount,size={bytes}")]);
                run(mount.arg(self.root())).map(drop)
            }
            // Resizing one that is mounted takes a right that root in a container has not.
            FileSystem::Ext4 => fs::remove_file(self.wedge()).map_err(|e| e.to_string()),
        };
        grown.expect("it grows");
    }

    /// The place of a file on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file until not one byte more fits.
    pub fn fill(&self) -> PathBuf {
        let path = self.path("ballast");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("the ballast");
        let block = vec![7; 1 << 16];
        let mut length = block.len();
        while length > 0 {
            if file.write_all(&block[..length]).is_err() {
                length /= 2;
            }
        }
        path
    }

    /// Makes empty files until not one more can be made; returns where they are.
    pub fn fill_inodes(&self) -> PathBuf {
        let place = self.path("files");
        fs::create_dir(&place).expect("a directory");
        self.fill_inodes_again();
        place
    }

    /// The same, after some were given back.
    pub fn fill_inodes_again(&self) {
        let place = self.path("files");
        let there = fs::read_dir(&place).expect("the files").count();
        let made = |nth: &usize| File::create(place.join(nth.to_string())).is_ok();
        let most = 1 << 20;
        let count = (there..most).take_while(made).count();
        assert!(count < most, "this file system always has inodes");
    }

    /// Whoever writes to it stands still, and cannot even be killed, until it is thawed.
    pub fn freeze(&self) -> Result<(), String> {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.root())).map(drop)
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        let _ = Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(self.root())
            .output();
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("disk")
    }

    /// Takes the room that an ext4 gets when it grows.
    fn wedge(&self) -> PathBuf {
        self.path("wedge")
    }

    fn image(&self) -> PathBuf {
        self.place.path().join("image")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        // The loop device goes with its last user.
        let _ = Command::new("umount").arg("-l").arg(self.root()).output();
    }
}

/// Makes sure that the next free loop device has a name; in containers it often has none.
fn loop_device() -> Result<String, String> {
    let device = run(Command::new("losetup").arg("--find"))?;
    let device = device.trim();
    if !Path::new(device).exists() {
        let number = device.trim_start_matches("/dev/loop");
        run(Command::new("mknod").args([device, "b", "7", number]))?;
    }
    Ok(device.to_owned())
}

/// Runs a command; its stdout, or what it said instead.
fn run(command: &mut Command) -> Result<String, String> {
    let done = command
        .output()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        return Err(format!("{:?}: {}", command.get_program(), why.trim()));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
