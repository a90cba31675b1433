//! Where checkpoints go: a file, the journal, or a command.

use std::{
    collections::BTreeMap, fs::OpenOptions, io, io::Write, os::unix::fs::OpenOptionsExt,
    os::unix::net::UnixDatagram, path::Path, time::Duration,
};

use tokio::task::JoinHandle;

use crate::{audit::Checkpoint, config::CheckpointSink, notices, supervisor::base_environment};

/// The socket of the journal (systemd.journal-fields(7), its native protocol).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// By which name the journal finds checkpoints.
const IDENTIFIER: &str = "cc-executor-audit";
/// How long a command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// How long a file or the journal may take.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Hands checkpoints over.
#[derive(Debug, Default)]
pub struct CheckpointWriter {
    /// A write that did not end in time. Another one is begun when it has ended: each one occupies a thread.
    hung: Option<JoinHandle<io::Result<()>>>,
}

impl CheckpointWriter {
    /// Hands a checkpoint over; an error is a sentence without its end.
    pub async fn deliver(
        &mut self,
        sink: &CheckpointSink,
        checkpoint: &Checkpoint,
    ) -> Result<(), String> {
        let text = checkpoint.to_string();
        match sink {
            CheckpointSink::None => Ok(()),
            CheckpointSink::File(path) => {
                let (file, shown) = (path.clone(), path.display().to_string());
                self.write(&shown, WRITE_WITHIN, move || append(&file, &text))
                    .await
            }
            CheckpointSink::Journald => {
                let send = move || send_to_journal(Path::new(JOURNAL), &text, WRITE_WITHIN);
                self.write(JOURNAL, WRITE_WITHIN, send).await
            }
            CheckpointSink::Command(argv) => {
                let env = BTreeMap::from(base_environment());
                let run = notices::run_command(argv, &env, &text);
                match tokio::time::timeout(COMMAND_WITHIN, run).await {
                    Ok(ran) => ran.map_err(|failure| failure.error),
                    Err(_) => Err(format!(
                        "the command took longer than {} s",
                        COMMAND_WITHIN.as_secs()
                    )),
                }
            }
        }
    }

    /// Writes on a thread for blocking work, and waits for it up to a bound: a disk or a mount may hang.
    async fn write(
        &mut self,
        to: &str,
        within: Duration,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        if self.hung.as_ref().is_some_and(|hung| !hung.is_finished()) {
            return Err(format!("{to}: an earlier write has not ended yet"));
        }
        let written = self.hung.insert(tokio::task::spawn_blocking(work));
        let Ok(written) = tokio::time::timeout(within, written).await else {
            return Err(format!(
                "{to}: a write has not ended within {} s",
                within.as_secs()
            ));
        };
        self.hung = None;
        let written = written.unwrap_or_else(|ended| Err(io::Error::other(ended)));
        written.map_err(|error| format!("{to}: {error}"))
    }
}

/// Appends a note after an empty line, so that one that was cut off ends before it. What is no regular file may keep a
/// writer waiting for ever, and is refused.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    file.write_all(format!("\n{text}").as_bytes())?;
    file.sync_data()
}

fn send_to_journal(socket: &Path, text: &str, within: Duration) -> io::Result<()> {
    let mut message = format!("PRIORITY=5\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE\n").into_bytes();
    // A value with line ends has its length before it.
    message.extend((text.len() as u64).to_le_bytes());
    message.extend(text.as_bytes());
    message.push(b'\n');
    let sender = UnixDatagram::unbound()?;
    // A journal that does not read fills its socket.
    sender.set_write_timeout(Some(within))?;
    sender.send_to(&message, socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_a_note_as_one_message() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("bound");
        send_to_journal(&path, "a\n\nb\n", WRITE_WITHIN).expect("sent");
        let mut message = [0; 1024];
        let length = journal.recv(&mut message).expect("received");
        let expected = b"PRIORITY=5\nSYSLOG_IDENTIFIER=cc-executor-audit\nMESSAGE\n\
                         \x05\0\0\0\0\0\0\0a\n\nb\n\n";
        assert_eq!(&message[..length], expected);
    }

    #[test]
    fn a_file_is_only_appended_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("checkpoints");
        std::fs::write(&path, "cut of").expect("written");
        append(&path, "a\n").expect("appended");
        append(&path, "b\n").expect("appended");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "cut of\na\n\nb\n");
    }

    #[test]
    fn a_journal_that_does_not_read_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let _journal = UnixDatagram::bind(&path).expect("bound");
        let text = "x".repeat(10_000);
        let send = || send_to_journal(&path, &text, Duration::from_millis(10));
        let failed = (0..1000).find_map(|_| send().err());
        let kind = failed.expect("a full socket").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        // Nobody reads it, and then somebody does.
        append(&path, "a\n").expect_err("a FIFO");
        let _reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .expect("open");
        append(&path, "a\n").expect_err("a FIFO");
    }

    #[tokio::test]
    async fn a_write_that_hangs_is_told_of_and_no_other_one_begins_beside_it() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let mut sink = CheckpointWriter::default();
        let hang = move || wait.recv().map_err(io::Error::other);
        let hung = sink.write("x", Duration::from_millis(10), hang).await;
        assert_eq!(hung, Err("x: a write has not ended within 0 s".to_owned()));
        let beside = || panic!("begun beside it");
        let beside = sink.write("x", WRITE_WITHIN, beside).await;
        assert_eq!(
            beside,
            Err("x: an earlier write has not ended yet".to_owned())
        );
        release.send(()).expect("it still waits");
        let ended = sink.hung.as_mut().expect("still there").await;
        assert!(ended.is_ok_and(|written| written.is_ok()));
        assert_eq!(sink.write("x", WRITE_WITHIN, || Ok(())).await, Ok(()));
    }
}
