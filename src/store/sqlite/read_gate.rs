//! The gate of long reads: queries over history, backups, the check for damage. While one of them
//! runs, the write-ahead log cannot begin again from its start.
//!
//! `checkpoints` closes and opens it; short reads of the pool do not pass it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// How long a long read waits at the gate before it is refused. A closed gate opens earlier, unless
/// the disk is very slow.
const GATE_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a long read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongReadKind {
    /// Something that can be stopped and tried again: a query, the check for damage.
    Stoppable,
    /// A copy of the whole database. It may last long, and is stopped only at a much larger log.
    Copy,
}

/// The long read cannot begin, or must end, because the write-ahead log has to become short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database's write-ahead log has to be shortened first")]
pub struct LogTooLong;

/// Who may read for long at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatePhase {
    /// Every long read may begin.
    Open,
    /// None may begin; those that run may go on.
    Closed,
    /// None may begin, and those that run must end; copies only if that is set.
    Stopping { copies: bool },
}

#[derive(Debug, Clone, Copy)]
struct GateState {
    phase: GatePhase,
    /// Long reads that run: those that can be stopped, and copies.
    stoppable: usize,
    copies: usize,
}

/// The gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadGate(Arc<watch::Sender<GateState>>);

impl Default for ReadGate {
    fn default() -> Self {
        let state = GateState {
            phase: GatePhase::Open,
            stoppable: 0,
            copies: 0,
        };
        Self(Arc::new(watch::Sender::new(state)))
    }
}

impl ReadGate {
    /// Waits until a long read may begin. It must end when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// The gate stays closed for longer than 30 s.
    pub async fn enter(&self, kind: LongReadKind) -> Result<LongRead, LogTooLong> {
        let mut states = self.0.subscribe();
        let entered = async {
            loop {
                // The guard that it returns locks the state, so it is dropped here. It cannot fail:
                // `self` has the sender.
                let _ = states
                    .wait_for(|state| state.phase == GatePhase::Open)
                    .await;
                if self.count_in(kind) {
                    return;
                }
            }
        };
        timeout(GATE_WAIT_MAX, entered)
            .await
            .map_err(|_| LogTooLong)?;
        Ok(LongRead {
            gate: self.clone(),
            kind,
        })
    }

    /// Counts one more, if the gate is still open.
    fn count_in(&self, kind: LongReadKind) -> bool {
        self.0.send_if_modified(|state| {
            let open = state.phase == GatePhase::Open;
            if open {
                *state.count(kind) += 1;
            }
            open
        })
    }

    /// Lets no new long read begin.
    pub(super) fn close(&self) {
        self.set(GatePhase::Closed);
    }

    /// Lets all begin again.
    pub(super) fn open(&self) {
        self.set(GatePhase::Open);
    }

    /// Lets none begin and asks those that run to end, copies only if `copies`.
    pub(super) fn stop_all(&self, copies: bool) {
        self.set(GatePhase::Stopping { copies });
    }

    fn set(&self, phase: GatePhase) {
        self.0.send_if_modified(|state| {
            let changed = state.phase != phase;
            state.phase = phase;
            changed
        });
    }

    /// Whether long reads are asked to end.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.0.borrow().phase, GatePhase::Stopping { .. })
    }

    /// Whether a copy is being made.
    pub(super) fn has_copies(&self) -> bool {
        self.0.borrow().copies > 0
    }

    /// Whether no long read runs.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.borrow().is_quiet()
    }

    /// Returns when no long read runs.
    pub(super) async fn quiet(&self) {
        // This cannot fail: `self` has the sender.
        let _ = self.0.subscribe().wait_for(GateState::is_quiet).await;
    }

    /// Returns when no copy is being made.
    pub(super) async fn no_copies(&self) {
        // This cannot fail: `self` has the sender.
        let _ = self.0.subscribe().wait_for(|s| s.copies == 0).await;
    }
}

impl GateState {
    fn count(&mut self, kind: LongReadKind) -> &mut usize {
        match kind {
            LongReadKind::Stoppable => &mut self.stoppable,
            LongReadKind::Copy => &mut self.copies,
        }
    }

    fn is_quiet(&self) -> bool {
        self.stoppable + self.copies == 0
    }
}

/// A long read that has passed the gate. Dropping it says that the read has ended.
#[derive(Debug)]
pub struct LongRead {
    gate: ReadGate,
    kind: LongReadKind,
}

impl LongRead {
    /// Returns when this read must end. It is safe to drop the future.
    pub async fn must_end(&self) {
        let mut states = self.gate.0.subscribe();
        let stopping = |state: &GateState| match state.phase {
            GatePhase::Stopping { copies } => copies || self.kind == LongReadKind::Stoppable,
            GatePhase::Open | GatePhase::Closed => false,
        };
        if states.wait_for(stopping).await.is_err() {
            // `self.gate` has the sender.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for LongRead {
    fn drop(&mut self) {
        self.gate
            .0
            .send_modify(|state| *state.count(self.kind) -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::{LongReadKind::*, *};

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_lets_nothing_begin_and_running_reads_go_on() {
        let gate = ReadGate::default();
        let first = gate.enter(Stoppable).await.expect("open");
        gate.close();
        assert!(gate.enter(Stoppable).now_or_never().is_none());
        assert!(first.must_end().now_or_never().is_none());
        assert!(gate.quiet().now_or_never().is_none());
        drop(first);
        assert!(gate.is_quiet());
        let waiting = gate.enter(Stoppable);
        gate.open();
        assert!(waiting.now_or_never().is_some_and(|read| read.is_ok()));
        gate.close();
        assert_eq!(gate.enter(Copy).await.err(), Some(LogTooLong));
    }

    #[tokio::test]
    async fn copies_are_stopped_later_than_queries() {
        let gate = ReadGate::default();
        let query = gate.enter(Stoppable).await.expect("open");
        let copy = gate.enter(Copy).await.expect("open");
        gate.stop_all(false);
        assert!(query.must_end().now_or_never().is_some());
        assert!(copy.must_end().now_or_never().is_none());
        gate.stop_all(true);
        assert!(copy.must_end().now_or_never().is_some());
        drop(query);
        assert!(gate.no_copies().now_or_never().is_none());
        drop(copy);
        assert!(gate.no_copies().now_or_never().is_some());
    }
}
