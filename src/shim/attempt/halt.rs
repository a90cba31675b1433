//! Which processes a pause has stopped, so that its end continues those and no others. It only
//! keeps the sets; `process::signal_tree` sends the signals.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::shim::process::{
    inspect::{Descendant, Identity},
    tree::Known,
};

/// The processes of one pause.
#[derive(Debug, Default)]
pub struct Halt {
    /// When the pause began to stop processes.
    begun_at: Option<Instant>,
    /// Every process that a scan of this pause has found.
    known: Known,
    /// Every process of the last scan; exited ones included.
    seen: HashSet<Identity>,
    /// Processes that were stopped before the pause: they stay stopped after it.
    stopped_before: HashSet<Identity>,
    /// Processes that the pause has stopped.
    stopped: HashSet<Identity>,
    /// The leader's group, if it was stopped as a whole: a process in it that is found stopped
    /// later was stopped by that.
    group: Option<i32>,
    /// A process was stopped without being looked at first. It cannot be told from processes that
    /// are found stopped from now on, so they all continue at the end.
    stopped_unseen: bool,
}

impl Halt {
    /// Whether [`Self::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.begun_at.is_some()
    }

    /// Begins the pause: every process was looked at once, and after that the whole `group` was
    /// stopped.
    pub fn begin(&mut self, group: Option<i32>) {
        self.begun_at = Some(Instant::now());
        self.group = group;
    }

    /// How long ago the pause began; zero before it has.
    pub fn age(&self) -> Duration {
        self.begun_at
            .map_or(Duration::ZERO, |begun_at| begun_at.elapsed())
    }

    /// Takes out the known processes; [`Self::put_known`] must put them back.
    pub fn take_known(&mut self) -> Known {
        std::mem::take(&mut self.known)
    }

    /// Puts the known processes back.
    pub fn put_known(&mut self, known: Known) {
        self.known = known;
    }

    /// Replaces the set of seen processes; returns whether any is new. One that has exited since
    /// the last scan counts as well: it may have left a child that was not there when its list was
    /// read.
    pub fn update_seen(&mut self, found: &[Descendant]) -> bool {
        let now: HashSet<_> = found.iter().map(Descendant::identity).collect();
        let any_new = !now.is_subset(&self.seen);
        self.seen = now;
        any_new
    }

    /// Whether this process must be stopped: it is found for the first time, another process has
    /// continued it, or it has not stopped yet. One that is stopped already is remembered.
    pub fn observe(&mut self, process: &Descendant, is_stopped: bool) -> bool {
        let identity = process.identity();
        if is_stopped && !self.stopped.contains(&identity) {
            match self.must_have_stopped(process) {
                true => self.stopped.insert(identity),
                false => self.stopped_before.insert(identity),
            };
        }
        !is_stopped
    }

    /// Whether a stopped process that is not known was stopped by the pause.
    fn must_have_stopped(&self, process: &Descendant) -> bool {
        let in_group = self.group == Some(process.stat.group);
        (in_group || self.stopped_unseen) && !self.stopped_before.contains(&process.identity())
    }

    /// The pause is over: who stops from now on has done so by itself.
    pub fn end_group(&mut self) {
        self.group = None;
    }

    /// Records that the pause has stopped this process.
    pub fn has_stopped(&mut self, process: &Descendant) {
        self.stopped_before.remove(&process.identity());
        self.stopped.insert(process.identity());
    }

    /// Records that the pause has stopped processes that could not be looked at.
    pub fn has_stopped_unseen(&mut self) {
        self.stopped_unseen = true;
    }

    /// Whether this process continues at the end of the pause.
    pub fn must_continue(&self, process: &Descendant) -> bool {
        let identity = process.identity();
        let was_unseen = self.stopped_unseen && !self.stopped_before.contains(&identity);
        self.stopped.contains(&identity) || was_unseen
    }

    /// Records that it continues.
    pub fn has_continued(&mut self, process: &Descendant) {
        self.stopped.remove(&process.identity());
    }

    /// Forgets stopped processes that are gone.
    pub fn forget_unless(&mut self, is_alive: impl Fn(Identity) -> bool) {
        self.stopped.retain(|identity| is_alive(*identity));
    }

    /// Whether a process must still be continued.
    pub fn has_stopped_processes(&self) -> bool {
        !self.stopped.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, group: i32) -> Descendant {
        Descendant::sample(pid, group)
    }

    #[test]
    fn whoever_stood_before_goes_on_standing() {
        let mut halt = Halt::default();
        let (leader, stopped_before, apart) = (process(1, 1), process(2, 1), process(3, 3));
        assert!(!halt.observe(&stopped_before, true));
        halt.begin(Some(1));
        assert!(!halt.observe(&leader, true));
        assert!(!halt.observe(&stopped_before, true));
        assert!(halt.observe(&apart, false));
        halt.has_stopped(&apart);
        assert!(!halt.observe(&apart, true));
        assert!(halt.must_continue(&leader) && halt.must_continue(&apart));
        assert!(!halt.must_continue(&stopped_before));
    }

    #[test]
    fn whoever_was_let_go_by_others_is_stopped_again_and_goes_on_in_the_end() {
        let mut halt = Halt::default();
        let (ours, stopped_before) = (process(1, 1), process(2, 2));
        assert!(!halt.observe(&stopped_before, true));
        halt.begin(Some(1));
        assert!(!halt.observe(&ours, true));
        assert!(halt.observe(&ours, false));
        assert!(halt.observe(&stopped_before, false));
        halt.has_stopped(&stopped_before);
        assert!(halt.must_continue(&stopped_before));
    }

    #[test]
    fn one_that_has_come_and_gone_is_somebody_new() {
        let mut halt = Halt::default();
        let (leader, link) = (process(1, 1), process(2, 1));
        assert!(halt.update_seen(&[leader]));
        assert!(!halt.update_seen(&[leader]));
        assert!(halt.update_seen(&[leader, link]));
        assert!(!halt.update_seen(&[leader]));
    }

    #[test]
    fn whoever_appears_at_the_end_goes_on_and_who_stops_later_does_not() {
        let mut halt = Halt::default();
        halt.begin(Some(1));
        let (late, later) = (process(2, 1), process(3, 1));
        halt.observe(&late, true);
        halt.end_group();
        halt.observe(&later, true);
        assert!(halt.must_continue(&late) && !halt.must_continue(&later));
    }

    #[test]
    fn whoever_could_not_be_looked_at_is_not_left_behind() {
        let mut halt = Halt::default();
        halt.begin(None);
        halt.has_stopped_unseen();
        let met = process(1, 9);
        assert!(!halt.observe(&met, true));
        assert!(halt.must_continue(&met));
        halt.has_continued(&met);
        assert!(!halt.has_stopped_processes());
    }
}
