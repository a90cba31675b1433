//! What a pause has done to whom, so that its end lets go on those that it has stopped, and nobody
//! else. Which processes there are, and how they are reached, is not known here.

use std::collections::HashSet;

use crate::shim::process::{
    inspect::{Descendant, Identity},
    tree::Known,
};

/// A pause.
#[derive(Debug, Default)]
pub struct Halt {
    has_begun: bool,
    /// Everybody who was met in it.
    known: Known,
    /// Everybody who was there at the last look, those too that had exited.
    seen: HashSet<Identity>,
    /// Those that stood still before the pause: they go on standing still after it.
    stopped_before: HashSet<Identity>,
    /// Those that the pause has stopped.
    stopped: HashSet<Identity>,
    /// The leader's group was stopped as a whole: who stands still in it from now on does so because
    /// of that.
    group: Option<i32>,
    /// Somebody was stopped who could not be looked at before: nobody who is met from now on can be
    /// told from those, so they all go on in the end.
    is_blind: bool,
}

impl Halt {
    /// Whether [`Self::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Everybody was looked at once; a whole `group` was stopped after that.
    pub fn begin(&mut self, group: Option<i32>) {
        self.has_begun = true;
        self.group = group;
    }

    /// Takes out everybody who was met; they are to be put back.
    pub fn take_known(&mut self) -> Known {
        std::mem::take(&mut self.known)
    }

    /// Puts them back.
    pub fn put_known(&mut self, known: Known) {
        self.known = known;
    }

    /// Takes over who is there now; whether anybody is new. One that has exited since the last look
    /// counts as well: it may have left a child that was not there when its list was read.
    pub fn update_seen(&mut self, found: &[Descendant]) -> bool {
        let now: HashSet<_> = found.iter().map(Descendant::identity).collect();
        let any_new = !now.is_subset(&self.seen);
        self.seen = now;
        any_new
    }

    /// Whether this process is to be stopped: it is met for the first time, somebody else has let it go
    /// on, or it has not come to its stop yet. One that stands still by itself is remembered.
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

    /// Whether a process that stands still and is not known does so because of the pause.
    fn must_have_stopped(&self, process: &Descendant) -> bool {
        let in_group = self.group == Some(process.stat.group);
        (in_group || self.is_blind) && !self.stopped_before.contains(&process.identity())
    }

    /// The pause has stopped this process.
    pub fn has_stopped(&mut self, process: &Descendant) {
        self.stopped_before.remove(&process.identity());
        self.stopped.insert(process.identity());
    }

    /// The pause has stopped processes that could not be looked at.
    pub fn has_stopped_blindly(&mut self) {
        self.is_blind = true;
    }

    /// Whether this process goes on at the end of the pause.
    pub fn must_continue(&self, process: &Descendant) -> bool {
        let identity = process.identity();
        let was_unseen = self.is_blind && !self.stopped_before.contains(&identity);
        self.stopped.contains(&identity) || was_unseen
    }

    /// It goes on.
    pub fn has_continued(&mut self, process: &Descendant) {
        self.stopped.remove(&process.identity());
    }

    /// Forgets those that are gone.
    pub fn forget_unless(&mut self, is_alive: impl Fn(Identity) -> bool) {
        self.stopped.retain(|identity| is_alive(*identity));
    }

    /// Whether somebody has still to be let go on.
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
    fn whoever_could_not_be_looked_at_is_not_left_behind() {
        let mut halt = Halt::default();
        halt.begin(None);
        halt.has_stopped_blindly();
        let met = process(1, 9);
        assert!(!halt.observe(&met, true));
        assert!(halt.must_continue(&met));
        halt.has_continued(&met);
        assert!(!halt.has_stopped_processes());
    }
}
