//! What of the log is on disk: the requests to the sync thread, those that could not be sent to it,
//! and those that failed.

use std::collections::VecDeque;

use super::{
    AttemptLog,
    obstacle::Obstacle,
    sync::{SyncFailure, SyncWork, Synced, Syncer},
};
use crate::spool::{SegmentName, unsynced};

/// The state of the requests of one attempt.
#[derive(Debug)]
pub(super) struct Syncing {
    /// Results for this attempt carry this ticket.
    ticket: u64,
    /// How many requests the sync thread has not answered.
    asked: u32,
    /// Requests that could not be sent yet: their data counts as not synced, not dropped.
    unsent: VecDeque<SyncWork>,
    /// A drop that failed, to be sent again.
    failed_drop: Option<SyncWork>,
    /// Why it failed, reported once before it is sent again.
    next_obstacle: Option<Obstacle>,
    /// The last drop failed, and the result of the next try is not known yet.
    drop_failed_before: bool,
    /// Why a sync failed. No later sync brings that data back.
    error: Option<String>,
    /// No more segments are dropped: a drop was cancelled at the end.
    keeps_all: bool,
}

impl Syncing {
    pub(super) fn new(ticket: u64) -> Self {
        Self {
            ticket,
            asked: 0,
            unsent: VecDeque::new(),
            failed_drop: None,
            next_obstacle: None,
            drop_failed_before: false,
            error: None,
            keeps_all: false,
        }
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.keeps_all
    }
}

impl AttemptLog {
    /// No segment is begun before all requests are done: two may be unsynced, never three.
    /// `closing`: nothing else is to be done, so that a request that no thread can take is done in
    /// this one.
    pub(super) fn continue_syncing(
        &mut self,
        syncer: &mut Syncer,
        closing: bool,
    ) -> Result<(), Obstacle> {
        if closing {
            self.take_drop_back();
        } else if let Some(why) = self.syncing.next_obstacle.take() {
            return Err(why);
        }
        let again = self.syncing.failed_drop.take();
        self.syncing.unsent.extend(again);
        self.send(syncer, closing)?;
        match self.syncing.asked {
            0 => Ok(()),
            _ => Err(Obstacle::Unsynced),
        }
    }

    pub(super) fn request(&mut self, syncer: &mut Syncer, work: SyncWork, closing: bool) {
        self.syncing.unsent.push_back(work);
        // A request that cannot be sent is kept, and prevents the next segment from being begun.
        let _ = self.send(syncer, closing);
    }

    fn send(&mut self, syncer: &mut Syncer, closing: bool) -> Result<(), Obstacle> {
        while let Some(work) = self.syncing.unsent.pop_front() {
            match syncer.request(self.syncing.ticket, work) {
                Ok(()) => self.syncing.asked += 1,
                Err(work) if closing => {
                    let synced = syncer.perform(self.syncing.ticket, work);
                    self.take_result(synced);
                }
                Err(work) => {
                    self.syncing.unsent.push_front(work);
                    return Err(Obstacle::Broken("the thread that syncs is gone".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Asks for a sync of the current segment; [`Self::synced`] says when all is on disk.
    pub fn sync_all(&mut self, syncer: &mut Syncer) {
        let file = self.current.shared_file();
        self.request(syncer, SyncWork::Sync(file), true);
    }

    /// Waits until it is certain what has been dropped. Segments that could not be dropped are
    /// kept: the end of an attempt must not wait for a broken disk.
    pub fn finish_drops(&mut self, syncer: &mut Syncer) -> Result<(), Obstacle> {
        if !self.is_dropping() {
            return Ok(());
        }
        self.take_drop_back();
        self.send(syncer, true)?;
        if self.syncing.asked > 0 {
            return Err(Obstacle::Unsynced);
        }
        self.take_drop_back();
        Ok(())
    }

    fn take_drop_back(&mut self) {
        if self.syncing.failed_drop.take().is_some() {
            self.syncing.next_obstacle = None;
            self.syncing.keeps_all = true;
            self.cancel_drop();
        }
    }

    /// Takes a result of the sync thread; ignores one of another attempt.
    pub fn on_synced(&mut self, synced: Synced) {
        if synced.ticket == self.syncing.ticket {
            self.syncing.asked = self.syncing.asked.saturating_sub(1);
            self.take_result(synced);
        }
    }

    fn take_result(&mut self, synced: Synced) {
        let is_drop = matches!(synced.work, SyncWork::Drop { .. });
        let Err(failure) = synced.result else {
            if is_drop {
                self.syncing.drop_failed_before = false;
                self.confirm_drop();
            }
            return;
        };
        if failure.is_sync {
            self.lose_sync(&failure);
        }
        if is_drop {
            if failure.is_published {
                self.confirm_drop();
            }
            self.syncing.drop_failed_before = true;
            self.syncing.next_obstacle = Some(cannot_drop(failure));
            self.syncing.failed_drop = Some(synced.work);
        }
    }

    /// Whether the drop that is under way, or comes next, repeats one that has failed.
    pub fn tries_again(&self) -> bool {
        self.syncing.drop_failed_before
    }

    fn lose_sync(&mut self, failure: &SyncFailure) {
        self.syncing.error = Some(failure.error.to_string());
        let SegmentName { job, attempt, .. } = self.current.name();
        // Should this fail, the server still knows from the exit message: nothing of this attempt
        // counts as synced.
        let _ = unsynced::mark(&self.spool, job, attempt);
    }

    /// `None` while a request is under way; then whether all that was requested is on disk. After a
    /// failed sync the result stays an error: the kernel reports such an error once and then
    /// forgets it.
    pub fn synced(&self) -> Option<Result<(), &str>> {
        if self.syncing.asked > 0 || !self.syncing.unsent.is_empty() {
            return None;
        }
        Some(self.syncing.error.as_deref().map_or(Ok(()), Err))
    }
}

fn cannot_drop(failure: SyncFailure) -> Obstacle {
    match failure.error.into() {
        Obstacle::Full(why) => {
            Obstacle::Full(format!("the oldest output cannot be dropped: {why}"))
        }
        Obstacle::Broken(why) => {
            Obstacle::Broken(format!("the oldest output cannot be dropped: {why}"))
        }
        // An error while the dropped range is written comes as one of the two above.
        other @ (Obstacle::NotStarted(..) | Obstacle::Unsynced) => other,
    }
}
