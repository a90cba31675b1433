//! What is held for the client of one session, by what has to happen before it can go, and when it
//! last did.
//!
//! Moments are numbers that rise; whose piles they are, and how high is too high, is not known here.

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferKind {
    /// Of a message that is not whole yet: its client has to send the rest.
    Arriving,
    /// Requests that are not done yet: that is our turn.
    Requests,
    /// Replies that are not with the kernel yet: their client has to read.
    Replies,
}

/// So much has to arrive or be read until it counts as progress, bytes.
const PROGRESS_BYTES: usize = 16 << 10;
/// So much is read ahead of what is known to belong to a message, bytes.
const AHEAD_BYTES: usize = 16 << 10;

/// All piles of a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffered {
    arriving: Heap,
    requests: Heap,
    replies: Heap,
}

impl Buffered {
    /// One of them.
    pub fn of(&mut self, pile: BufferKind) -> &mut Heap {
        match pile {
            BufferKind::Arriving => &mut self.arriving,
            BufferKind::Requests => &mut self.requests,
            BufferKind::Replies => &mut self.replies,
        }
    }

    /// How much all of them hold, bytes.
    pub fn bytes(&self) -> usize {
        let bytes = self.arriving.bytes.saturating_add(self.requests.bytes);
        bytes.saturating_add(self.replies.bytes)
    }

    /// Since when the client has done nothing about what waits for it; `None`: nothing does.
    pub fn stuck_since(&self) -> Option<u64> {
        let arriving = self.arriving.since(AHEAD_BYTES);
        [arriving, self.replies.since(0)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Since when one of them has not moved.
    pub fn oldest(&self) -> Option<u64> {
        let all = [self.arriving, self.requests, self.replies];
        all.into_iter().filter_map(|heap| heap.since(0)).min()
    }
}

/// One of them: how much, and since when it does not move.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap {
    bytes: usize,
    /// Bytes since the last progress.
    moved: usize,
    progress: u64,
}

impl Heap {
    /// More; where nothing was, it begins now.
    pub fn grow(&mut self, bytes: usize, now: u64) {
        if self.bytes == 0 {
            self.progress = now;
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Less, or nothing any more: progress.
    pub fn shrink(&mut self, bytes: usize, now: u64) {
        self.forget(bytes);
        self.progress = now;
    }

    /// Less without progress.
    pub fn forget(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// So many bytes were moved; enough of them are progress.
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
        let mut piles = Buffered::default();
        assert_eq!((piles.stuck_since(), piles.oldest()), (None, None));
        piles.of(BufferKind::Requests).grow(1 << 20, 1);
        piles.of(BufferKind::Arriving).grow(AHEAD_BYTES, 2);
        assert_eq!((piles.stuck_since(), piles.oldest()), (None, Some(1)));
        piles.of(BufferKind::Arriving).grow(1, 3);
        assert_eq!(piles.stuck_since(), Some(2));
        piles.of(BufferKind::Arriving).shrink(usize::MAX, 4);
        piles.of(BufferKind::Replies).grow(1, 5);
        assert_eq!(piles.stuck_since(), Some(5));
        piles.of(BufferKind::Replies).shrink(1, 6);
        assert_eq!(piles.stuck_since(), None);
        assert_eq!(piles.bytes(), 1 << 20);
    }

    /// Reading nothing and sending all the time is no progress with what is not read.
    #[test]
    fn each_pile_has_its_own_progress() {
        let mut piles = Buffered::default();
        piles.of(BufferKind::Replies).grow(700 << 10, 1);
        piles.of(BufferKind::Arriving).grow(PROGRESS_BYTES, 2);
        piles.of(BufferKind::Arriving).moved(PROGRESS_BYTES, 2);
        piles.of(BufferKind::Arriving).shrink(usize::MAX, 3);
        assert_eq!(piles.stuck_since(), Some(1));
        piles.of(BufferKind::Replies).moved(PROGRESS_BYTES - 1, 4);
        assert_eq!(piles.stuck_since(), Some(1));
        piles.of(BufferKind::Replies).moved(1, 5);
        assert_eq!(piles.stuck_since(), Some(5));
    }
}
