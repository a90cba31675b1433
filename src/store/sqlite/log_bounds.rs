//! At which lengths of the write-ahead log what is done about it: pure arithmetic.
//!
//! `checkpoints` acts on it.

/// Bytes of the log for one page: the page and its header.
pub(super) const FRAME_BYTES: u64 = 4096 + 24;
/// The default of the setting `wal_bytes_max`, bytes.
pub const WAL_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// The log is checkpointed each time that it has grown by this, bytes.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// The log's file keeps this length when it begins again, bytes.
const KEPT_BYTES: u64 = 16 << 20;
/// The most data in one transaction, bytes, but for a single write that has more by itself.
const TRANSACTION_BYTES: u64 = 4 << 20;
/// How many times the bound the log may have before a backup is stopped for it.
const COPY_FACTOR: u64 = 16;

/// The bounds that follow from `wal_bytes_max`, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct LogBounds {
    /// A checkpoint each time that it has grown by this.
    pub checkpoint_every: u64,
    /// From here on no new long read begins until it has begun again: a quarter.
    pub drain_at: u64,
    /// From here on long reads are stopped: five eighths.
    pub stop_at: u64,
    /// From here on the writer waits until the log can begin again: three quarters. What is left is
    /// for the transaction that reaches it.
    pub wait_at: u64,
    /// The longest that it may become.
    pub max: u64,
    /// From here on backups are stopped as well.
    pub stop_copies_at: u64,
    /// The length of the file that is kept.
    pub kept: u64,
    /// The most data in one transaction.
    pub transaction: u64,
}

impl LogBounds {
    /// The bounds for a log of up to `wal_bytes_max` bytes.
    pub fn new(wal_bytes_max: u64) -> Self {
        Self {
            checkpoint_every: CHECKPOINT_BYTES.min(wal_bytes_max / 16),
            drain_at: wal_bytes_max / 4,
            stop_at: wal_bytes_max / 8 * 5,
            wait_at: wal_bytes_max / 4 * 3,
            max: wal_bytes_max,
            stop_copies_at: wal_bytes_max.saturating_mul(COPY_FACTOR),
            kept: KEPT_BYTES.min(wal_bytes_max / 4),
            transaction: TRANSACTION_BYTES.min(wal_bytes_max / 16),
        }
    }
}

/// What the log's length means at a moment, and when it means more.
#[derive(Debug)]
pub(super) struct LogGrowth {
    bounds: LogBounds,
    /// Length at the last look, bytes.
    bytes: u64,
    /// The lengths at which the next action of each kind is due.
    next_checkpoint: u64,
    next_drain: u64,
    next_stop: u64,
    next_wait: u64,
}

impl LogGrowth {
    pub fn new(bounds: LogBounds) -> Self {
        let mut growth = Self {
            bounds,
            bytes: 0,
            next_checkpoint: 0,
            next_drain: 0,
            next_stop: 0,
            next_wait: 0,
        };
        growth.begun_again();
        growth
    }

    /// The length at the last look, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the length at a look, in pages; whether the log has begun again since the last one.
    pub fn look(&mut self, frames: u64) -> bool {
        let bytes = frames * FRAME_BYTES;
        let shorter = bytes < self.bytes;
        if shorter {
            self.begun_again();
        }
        self.bytes = bytes;
        shorter
    }

    /// The log begins again with the next transaction.
    pub fn begun_again(&mut self) {
        self.bytes = 0;
        self.next_checkpoint = self.bounds.checkpoint_every;
        self.next_drain = self.bounds.drain_at;
        self.next_stop = self.bounds.stop_at;
        self.next_wait = self.bounds.wait_at;
    }

    /// Whether a checkpoint is due; it counts as made then.
    pub fn takes_checkpoint(&mut self) -> bool {
        let due = self.bytes >= self.next_checkpoint;
        if due {
            self.next_checkpoint = self.bytes + self.bounds.checkpoint_every;
        }
        due
    }

    /// Whether no long read may begin until the log has begun again.
    pub fn wants_drain(&self) -> bool {
        self.bytes >= self.next_drain
    }

    /// Whether long reads must be stopped. With a backup among them only at a much longer log.
    pub fn wants_stop(&self, has_copies: bool) -> bool {
        self.bytes >= self.next_stop.max(self.least(has_copies))
    }

    /// Whether nothing may be written until the log has begun again. Later, too, with a backup.
    pub fn wants_wait(&self, has_copies: bool) -> bool {
        self.bytes >= self.next_wait.max(self.least(has_copies))
    }

    /// Whether the log has to begin again before a transaction of about so many bytes of it, which is
    /// larger than what is kept for any transaction.
    pub fn wants_room(&self, bytes: u64, has_copies: bool) -> bool {
        let is_larger = bytes > self.bounds.max - self.bounds.wait_at;
        let is_put_off = self.next_wait > self.bounds.wait_at;
        is_larger
            && !is_put_off
            && self.bytes > self.least(has_copies)
            && self.bytes + bytes > self.bounds.max
    }

    fn least(&self, has_copies: bool) -> u64 {
        match has_copies {
            true => self.bounds.stop_copies_at,
            false => 0,
        }
    }

    /// Long reads did not end in time: the next try is at a longer log.
    pub fn put_drain_off(&mut self) {
        self.next_drain = self.bytes + (self.bounds.stop_at - self.bounds.drain_at) / 3;
    }

    /// Long reads that were stopped did not end in time: they are stopped again at twice this length.
    pub fn put_stop_off(&mut self) {
        self.put_drain_off();
        self.next_stop = self.next_stop.max(self.bytes.saturating_mul(2));
    }

    /// The log could not begin again although no read of this server runs: neither stopping reads
    /// nor waiting helps, and both are tried again when the log is twice as long.
    pub fn put_wait_off(&mut self) {
        self.put_stop_off();
        self.next_wait = self.next_wait.max(self.next_stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn frames(bytes: u64) -> u64 {
        bytes.div_ceil(FRAME_BYTES)
    }

    #[test]
    fn what_is_done_at_which_length() {
        let mut growth = LogGrowth::new(LogBounds::new(64 * MIB));
        let mut done = Vec::new();
        for mib in 1..=41 {
            // A little more each time, so that whole pages do not matter.
            assert!(!growth.look(frames(mib * MIB) + mib));
            if growth.takes_checkpoint() {
                done.push(("checkpoint", mib));
            }
            if growth.wants_drain() {
                done.push(("drain", mib));
                growth.put_drain_off();
            }
            if growth.wants_stop(false) {
                done.push(("stop", mib));
                growth.put_stop_off();
            }
        }
        let of = |kind: &str| -> Vec<u64> {
            let of_kind = done.iter().filter(|(what, _)| *what == kind);
            of_kind.map(|(_, mib)| *mib).collect()
        };
        assert_eq!(of("checkpoint"), [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]);
        assert_eq!(of("drain"), [16, 24, 32, 40]);
        assert_eq!(of("stop"), [40]);
    }

    #[test]
    fn only_a_large_transaction_needs_room() {
        let mut growth = LogGrowth::new(LogBounds::new(64 * MIB));
        growth.look(frames(30 * MIB));
        assert!(growth.wants_room(40 * MIB, false));
        // Others have what is left behind the length at which the writer waits.
        assert!(!growth.wants_room(16 * MIB, false));
        assert!(!growth.wants_room(30 * MIB, false));
        assert!(!growth.wants_room(40 * MIB, true));
        growth.put_wait_off();
        assert!(!growth.wants_room(40 * MIB, false));
        growth.begun_again();
        assert!(!growth.wants_room(40 * MIB, false));
    }

    #[test]
    fn a_backup_has_more_time() {
        let mut growth = LogGrowth::new(LogBounds::new(64 * MIB));
        growth.look(frames(1000 * MIB));
        assert!(growth.wants_stop(false) && !growth.wants_stop(true));
        growth.look(frames(1025 * MIB));
        assert!(growth.wants_stop(true));
    }

    #[test]
    fn a_log_that_has_begun_again_starts_over() {
        let mut growth = LogGrowth::new(LogBounds::new(8 * MIB));
        growth.look(frames(7 * MIB));
        growth.put_stop_off();
        assert!(!growth.wants_stop(false));
        assert!(growth.look(3));
        assert!(!growth.takes_checkpoint() && !growth.wants_drain());
        growth.look(frames(6 * MIB));
        assert!(growth.wants_drain() && growth.wants_stop(false));
    }
}
