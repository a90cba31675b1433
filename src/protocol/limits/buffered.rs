//! What is held in memory for the client of one session, by the event that releases it, and the last
//! progress of each kind.
//!
//! Times are numbers of a logical clock that only rises; `memory_budget` owns it.

/// A kind of buffered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferKind {
    /// Of a message that is not complete: its client has to send the rest.
    Arriving,
    /// Of a batch whose last part has not come: its client has to send the rest.
    Parts,
    /// Of requests that are not done: the server has to execute them.
    Requests,
    /// Of replies that the kernel has not taken: their client has to read.
    Replies,
}

/// Bytes that have to arrive or be read before they count as progress.
pub const PROGRESS_BYTES: usize = 16 << 10;
/// Bytes that may be read from the socket before they are known to belong to a message.
const READ_AHEAD_BYTES: usize = 16 << 10;

/// The buffered bytes of a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffered {
    arriving: ByteProgress,
    parts: ByteProgress,
    requests: ByteProgress,
    replies: ByteProgress,
}

impl Buffered {
    /// The bytes of one kind.
    pub fn of(&mut self, kind: BufferKind) -> &mut ByteProgress {
        match kind {
            BufferKind::Arriving => &mut self.arriving,
            BufferKind::Parts => &mut self.parts,
            BufferKind::Requests => &mut self.requests,
            BufferKind::Replies => &mut self.replies,
        }
    }

    /// The bytes of all kinds.
    pub fn bytes(&self) -> usize {
        let all = [self.arriving, self.parts, self.requests, self.replies];
        let bytes = all.into_iter().map(|of_kind| of_kind.bytes);
        bytes.fold(0, usize::saturating_add)
    }

    /// Since when the client has made no progress with what waits for it; `None` if nothing does.
    pub fn stuck_since(&self) -> Option<u64> {
        let arriving = self.arriving.since(READ_AHEAD_BYTES);
        [arriving, self.parts.since(0), self.replies.since(0)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Since when the oldest kind has made no progress; `None` if nothing is held.
    pub fn oldest(&self) -> Option<u64> {
        let all = [self.arriving, self.parts, self.requests, self.replies];
        all.into_iter().filter_map(|bytes| bytes.since(0)).min()
    }
}

/// How many bytes of one kind are held, and when they last made progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByteProgress {
    bytes: usize,
    /// Bytes since the last progress.
    moved: usize,
    progress: u64,
}

impl ByteProgress {
    /// Adds bytes; if there were none, the time of progress is now.
    pub fn grow(&mut self, bytes: usize, now: u64) {
        if self.bytes == 0 {
            self.progress = now;
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Removes bytes: progress.
    pub fn shrink(&mut self, bytes: usize, now: u64) {
        self.forget(bytes);
        self.progress = now;
    }

    /// Removes bytes without progress.
    pub fn forget(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Counts bytes that arrived or were read; enough of them are progress.
    pub fn moved(&mut self, bytes: usize, now: u64) {
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= PROGRESS_BYTES {
            (self.moved, self.progress) = (0, now);
        }
    }

    fn since(self, free: usize) -> Option<u64> {
        (self.bytes > free).then_some(self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_for_the_client_is_stuck() {
        let mut buffered = Buffered::default();
        assert_eq!((buffered.stuck_since(), buffered.oldest()), (None, None));
        buffered.of(BufferKind::Requests).grow(1 << 20, 1);
        buffered.of(BufferKind::Arriving).grow(READ_AHEAD_BYTES, 2);
        assert_eq!((buffered.stuck_since(), buffered.oldest()), (None, Some(1)));
        buffered.of(BufferKind::Arriving).grow(1, 3);
        assert_eq!(buffered.stuck_since(), Some(2));
        buffered.of(BufferKind::Arriving).shrink(usize::MAX, 4);
        buffered.of(BufferKind::Replies).grow(1, 5);
        assert_eq!(buffered.stuck_since(), Some(5));
        buffered.of(BufferKind::Replies).shrink(1, 6);
        assert_eq!(buffered.stuck_since(), None);
        assert_eq!(buffered.bytes(), 1 << 20);
    }

    /// Reading nothing and sending all the time is no progress with what is not read.
    #[test]
    fn each_kind_has_its_own_progress() {
        let mut buffered = Buffered::default();
        buffered.of(BufferKind::Replies).grow(700 << 10, 1);
        buffered.of(BufferKind::Arriving).grow(PROGRESS_BYTES, 2);
        buffered.of(BufferKind::Arriving).moved(PROGRESS_BYTES, 2);
        buffered.of(BufferKind::Arriving).shrink(usize::MAX, 3);
        assert_eq!(buffered.stuck_since(), Some(1));
        buffered
            .of(BufferKind::Replies)
            .moved(PROGRESS_BYTES - 1, 4);
        assert_eq!(buffered.stuck_since(), Some(1));
        buffered.of(BufferKind::Replies).moved(1, 5);
        assert_eq!(buffered.stuck_since(), Some(5));
    }
}
