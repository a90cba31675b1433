//! A command on a terminal of its own, with what it shows there and a person's keys.
//! Knows nothing of the verbs; what is shown is bytes, escape sequences and all.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{BINARY, CEILING, processes::MARK, until};

/// How wide the terminal is, columns.
const WIDTH: u16 = 100;

/// A command whose stdin, stdout, stderr and controlling terminal are one terminal.
pub struct Terminal {
    keys: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// How much of it was looked at, bytes.
    seen: usize,
}

impl Terminal {
    /// Calls `VERB --data-dir DIR WORDS…`.
    #[track_caller]
    pub fn call<S: AsRef<OsStr>>(
        data_dir: &Path,
        verb: &str,
        words: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Self {
        let (master, name) = open();
        let side = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NOCTTY);
            Stdio::from(options.open(&name).expect("the terminal"))
        };
        // It makes the terminal the controlling one, so that Ctrl-C is a signal, and becomes the
        // command.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(BINARY).arg(verb);
        command.arg("--data-dir").arg(data_dir).args(words);
        command.env(MARK, data_dir).env("TERM", "xterm");
        command.env_remove("NO_COLOR").env_remove("LESS");
        command.envs(env.iter().copied());
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("the binary starts");
        let keys = File::from(master);
        let shown = Arc::default();
        let reader = collect(keys.try_clone().expect("a descriptor"), Arc::clone(&shown));
        Self {
            keys,
            child,
            shown,
            reader: Some(reader),
            seen: 0,
        }
    }

    /// Presses keys. Control ones only count where somebody waits for keys: see the prompt first.
    #[track_caller]
    pub fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("a terminal");
    }

    /// Waits until this is shown, and returns what was shown up to its end since the last look.
    #[track_caller]
    pub fn sees(&mut self, text: &str) -> String {
        let began = Instant::now();
        let at = until(&format!("{text:?} to be shown"), || {
            let shown = self.shown.lock().expect("no panic");
            let found = find(&shown[self.seen..], text.as_bytes());
            let is_all = self.reader.as_ref().is_some_and(JoinHandle::is_finished);
            if found.is_none() && (is_all || began.elapsed() * 10 > CEILING * 9) {
                panic!("{text:?} is not in {:?}", String::from_utf8_lossy(&shown));
            }
            found
        });
        let shown = self.shown.lock().expect("no panic");
        let from = self.seen;
        self.seen += at + text.len();
        String::from_utf8_lossy(&shown[from..self.seen]).into_owned()
    }

    /// Waits for its end; its exit code and all that was shown.
    #[track_caller]
    pub fn ends(mut self) -> (i32, String) {
        let child = &mut self.child;
        let status = until("the command to end", || {
            child.try_wait().expect("our child")
        });
        let reader = self.reader.take().expect("reading");
        reader.join().expect("what it showed");
        let shown = self.shown.lock().expect("no panic");
        let text = String::from_utf8_lossy(&shown).into_owned();
        (status.code().expect("an exit code"), text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open() -> (OwnedFd, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a terminal");
    grantpt(&master).expect("a terminal");
    unlockpt(&master).expect("a terminal");
    let size = Winsize {
        ws_row: 30,
        ws_col: WIDTH,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master.as_fd(), size).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("its name");
    (master, name.into_string().expect("a path"))
}

/// Reads until the last one has closed it, which is an error by its nature.
fn collect(mut terminal: File, shown: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = terminal.read(&mut bytes) {
            let mut shown = shown.lock().expect("no panic");
            shown.extend_from_slice(&bytes[..length]);
        }
    })
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
