//! Masks the values of secrets in the output of an attempt, before a byte of it becomes a record. Lengths
//! and line ends stay.
//!
//! `forms` lists how a value may be written, `automaton` finds what is written so, `mask` is one stream.
//! Reasons are in docs/design/secrets.md.

mod automaton;
mod forms;
mod mask;
#[cfg(test)]
mod property_tests;

use std::sync::Arc;

use crate::{job::Stream, spool::RunSpec};
use automaton::AutomatonError;
use forms::Forms;
use mask::{SecretPatterns, StreamMask};

/// The masks of both streams of an attempt. They know nothing of each other: a value of which one half is
/// written to stdout and the other to stderr is not found.
pub struct Redaction {
    stdout: StreamMask,
    stderr: StreamMask,
}

impl Redaction {
    /// The masks that an attempt needs; `None` where it has no secrets or shows them.
    ///
    /// # Errors
    ///
    /// The secrets are too long to be searched for.
    pub fn of(spec: &RunSpec) -> Result<Option<Self>, AutomatonError> {
        if !spec.redact || spec.secret_env.is_empty() {
            return Ok(None);
        }
        let values = spec.secret_env.iter().map(|secret| secret.value.expose());
        let patterns = Arc::new(SecretPatterns::of(&Forms::of(values))?);
        Ok(Some(Self {
            stdout: StreamMask::new(Arc::clone(&patterns)),
            stderr: StreamMask::new(patterns),
        }))
    }

    /// Takes bytes that were read from a stream.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        self.of_stream(stream).push(bytes);
    }

    /// Nothing follows in this stream: what was held back is released.
    pub fn finish(&mut self, stream: Stream) {
        self.of_stream(stream).finish();
    }

    /// Whether bytes of this stream are released and not taken.
    pub fn has_released(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stderr => self.stderr.has_released(),
            Stream::Stdout | Stream::Pty => self.stdout.has_released(),
        }
    }

    /// Moves released bytes of a stream into `into`; returns how many.
    pub fn take(&mut self, stream: Stream, into: &mut [u8]) -> usize {
        self.of_stream(stream).take(into)
    }

    fn of_stream(&mut self, stream: Stream) -> &mut StreamMask {
        match stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Pty => &mut self.stdout,
        }
    }
}
