//! A wall clock for the processes of a test that it can move while they run: the fixture
//! `clock/shift.c`, preloaded. Steady clocks stay as they are; what the time is used for is not
//! known here.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A day, seconds.
pub const DAY_S: i64 = 86_400;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clock/shift.c");

/// A wall clock.
pub struct WallClock {
    place: TempDir,
}

impl WallClock {
    /// One that is right; the library is compiled by the C compiler that Rust links with.
    #[track_caller]
    pub fn new() -> Self {
        let place = tempfile::Builder::new()
            .prefix("cc-executor-clock-")
            .tempdir()
            .expect("a temporary directory");
        let clock = Self { place };
        clock.jump_to(0);
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&clock.preloaded(), Path::new(SOURCE)])
            .arg(format!("-DSHIFT_FILE=\"{}\"", clock.shift_file().display()))
            .output()
            .expect("cc runs");
        let why = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "the clock's library: {why}");
        clock
    }

    /// The variables of a process that goes by this clock.
    pub fn env(&self) -> [(String, String); 2] {
        let text = |path: PathBuf| path.into_os_string().into_string().expect("UTF-8");
        [
            ("LD_PRELOAD".to_owned(), text(self.preloaded())),
            ("CC_TEST_CLOCK".to_owned(), text(self.shift_file())),
        ]
    }

    /// From now on it shows so many seconds more than is right, or less.
    pub fn jump_to(&self, shift_s: i64) {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.shift_file())
            .expect("the clock's file");
        // In one piece: a reader sees the old or the new value.
        file.write_all_at(&shift_s.to_ne_bytes(), 0)
            .expect("written");
    }

    /// Proves that a process goes by this clock.
    #[track_caller]
    pub fn moves(&self, pid: i32) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a living process");
        for part in [self.preloaded(), self.shift_file()] {
            let part = part.display().to_string();
            assert!(maps.contains(&part), "process {pid} has no {part}:\n{maps}");
        }
    }

    fn preloaded(&self) -> PathBuf {
        self.place.path().join("shift.so")
    }

    fn shift_file(&self) -> PathBuf {
        self.place.path().join("shift")
    }
}
