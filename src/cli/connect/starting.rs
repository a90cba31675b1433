//! Waits for a server whose start takes long, and says on a terminal what it waits for.

use std::{
    io::{self, Read},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::{
    client::Client,
    dial::ConnectError,
    holder::{is_locked, recorded_pid},
    target::Target,
};
use crate::{
    cli::render::print,
    data_dir::{Access, DataDirError, OwnDir},
    spool::Layout,
};

/// The longest note that is read, bytes.
const NOTE_BYTES_MAX: u64 = 4096;

/// What a server that starts is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartNote {
    /// Its process. The note is old if another process holds the data directory.
    pub pid: u32,
    /// A phrase for people.
    pub doing: String,
}

impl StartNote {
    /// Replaces the note.
    ///
    /// # Errors
    ///
    /// The file cannot be created or written.
    pub fn write(&self, dir: &OwnDir) -> Result<(), DataDirError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let draft = format!("{}.draft", Layout::STARTING);
        dir.replace_file(Layout::STARTING, &draft, &bytes)
    }

    /// The note, if there is one.
    pub fn read(dir: &OwnDir) -> Option<Self> {
        let file = dir.open_file(Layout::STARTING, Access::Read).ok()??;
        let mut bytes = Vec::new();
        file.take(NOTE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Removes the note, if there is one.
    pub fn remove(dir: &OwnDir) -> io::Result<()> {
        dir.remove(Layout::STARTING)
    }
}

/// How long a start may take before the first line about it.
const FIRST_LINE: Duration = Duration::from_secs(2);
/// Time between two such lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What the server that holds the data directory does in its start; `None` if it has not left word,
/// or does not live any more.
pub fn doing(layout: &Layout) -> Option<String> {
    let dir = OwnDir::open(layout.root()).ok()??;
    let note = StartNote::read(&dir)?;
    let holder = recorded_pid(layout).and_then(|pid| u32::try_from(pid).ok());
    (holder == Some(note.pid) && is_locked(layout)).then_some(note.doing)
}

/// When the next line about a start is due.
pub struct StartNotice(Instant);

impl StartNotice {
    pub fn new() -> Self {
        Self(Instant::now() + FIRST_LINE)
    }

    /// Connects, and tells meanwhile what the server does.
    pub async fn connect(
        &mut self,
        target: &Target,
        layout: &Layout,
    ) -> Result<Client, ConnectError> {
        let connecting = Client::connect(target);
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connected = &mut connecting => return connected,
                () = sleep_until(self.0) => self.tell(layout),
            }
        }
    }

    fn tell(&mut self, layout: &Layout) {
        match doing(layout) {
            Some(doing) => {
                print::line_on_terminal(&format!("waiting for the server, which {doing}"));
                self.0 = Instant::now() + LINE_EVERY;
            }
            None => self.0 = Instant::now() + FIRST_LINE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn a_note_counts_only_while_its_server_holds_the_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(home.path().join("data"));
        let dir = OwnDir::make(layout.root()).expect("made");
        let note = |pid| StartNote {
            pid,
            doing: "does something".to_owned(),
        };
        std::fs::write(layout.lock(), "42").expect("written");
        note(42).write(&dir).expect("written");
        assert_eq!(doing(&layout), None, "no server lives");
        let lock = File::open(layout.root()).expect("opened");
        flock(&lock, FlockOperation::LockExclusive).expect("a lock");
        assert_eq!(doing(&layout).as_deref(), Some("does something"));
        note(41).write(&dir).expect("written");
        assert_eq!(doing(&layout), None, "of a server before this one");
        note(42).write(&dir).expect("written");
        StartNote::remove(&dir).expect("removed");
        assert_eq!(doing(&layout), None);
    }
}
