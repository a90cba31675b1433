//! Writes messages to our stdout, one a line, in a thread of its own. The thread may block for as long as
//! the client does not read.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    thread,
};

use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{cli::render::reader::OutputReaders, sys::waiting_io::WaitingIo};

/// The way to the client.
#[derive(Debug)]
pub struct ClientWriter {
    sender: mpsc::Sender<Utf8Bytes>,
    /// `None` once it is known that the thread has ended.
    ended: Option<oneshot::Receiver<io::Result<()>>>,
    readers: OutputReaders,
}

impl ClientWriter {
    /// Starts the thread; one message waits for it at most.
    pub fn start() -> io::Result<Self> {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (sender, receiver) = mpsc::channel(1);
        let (result, ended) = oneshot::channel();
        thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                // An error means that the receiver was dropped: the process is about to exit.
                let _ = result.send(write_all(receiver, &stdout));
            })?;
        Ok(Self {
            sender,
            ended: Some(ended),
            readers: OutputReaders::of_stdout()?,
        })
    }

    /// Waits until it takes a message. Never returns if writing has failed: [`Self::broken`] does.
    pub fn permit(&self) -> impl Future<Output = mpsc::OwnedPermit<Utf8Bytes>> + use<> {
        let sender = self.sender.clone();
        async move {
            match sender.reserve_owned().await {
                Ok(permit) => permit,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Waits until a write has failed, or the client has closed its end. Cancel-safe.
    pub async fn broken(&mut self) {
        let Some(ended) = &mut self.ended else {
            return;
        };
        tokio::select! {
            _ = ended => self.ended = None,
            _ = self.readers.left() => {}
        }
    }

    /// Waits until everything is written.
    pub async fn finish(self) {
        drop(self.sender);
        if let Some(ended) = self.ended {
            let _ = ended.await;
        }
    }
}

fn write_all(mut messages: mpsc::Receiver<Utf8Bytes>, stdout: &File) -> io::Result<()> {
    while let Some(message) = messages.blocking_recv() {
        WaitingIo(stdout).write_all(&line(&message))?;
    }
    Ok(())
}

/// The message as a line. A line end in a JSON text can only stand between its parts, where a space means
/// the same.
fn line(message: &str) -> Vec<u8> {
    let bytes = message.bytes().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => byte,
    });
    bytes.chain([b'\n']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(line("{\r\n\"a\": \"\\n\"}"), b"{  \"a\": \"\\n\"}\n");
    }
}
