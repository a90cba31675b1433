//! The control group of an attempt: created before its process, frozen in a pause, killed as one, removed when no process
//! is left. Processes that have left it (that takes root's rights) are found by the tree below the shim, as without a
//! group; docs/design/isolation.md.

use std::{collections::HashSet, io, path::Path};

use nix::errno::Errno;

use super::Attempt;
use crate::{
    shim::{context::ShimContext, process::spawn::SpawnFailure},
    sys::cgroup::Cgroup,
};

/// A group that is frozen or about to be.
#[derive(Debug)]
pub(super) struct FrozenGroup {
    /// Its processes. No signal is sent to them: it would take effect after the pause.
    pub(super) members: HashSet<i32>,
    /// Whether all of them stand still.
    pub(super) rests: bool,
}

impl Attempt {
    /// Creates the group, if the attempt is to have one. Where that fails, the process starts without one, or, if one
    /// is required, not: what is short is waited for, as with every start.
    pub(super) fn make_cgroup(&mut self, context: &mut ShimContext) -> Result<(), SpawnFailure> {
        let is_wanted = self.cgroup.is_none() && self.spec.refusal.is_none();
        let Some(wanted) = self.spec.cgroup.clone().filter(|_| is_wanted) else {
            return Ok(());
        };
        let what = format!("create its control group {}", wanted.path);
        match Cgroup::create(Path::new(&wanted.path)) {
            Ok(group) => self.cgroup = Some(group),
            Err(error) if wanted.required => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                return Err(SpawnFailure::of(None, errno, &what));
            }
            Err(error) => self.report_trouble(format!("{what}: {error}"), context),
        }
        Ok(())
    }

    /// Whether it has a group and may run without one.
    pub(super) fn may_leave_cgroup(&self) -> bool {
        let is_required = self
            .spec
            .cgroup
            .as_ref()
            .is_some_and(|group| group.required);
        self.cgroup.is_some() && !is_required
    }

    /// Freezes the group; what is known of it then. Without a group nothing is frozen, and all rests.
    pub(super) fn freeze(&self) -> io::Result<FrozenGroup> {
        let Some(group) = &self.cgroup else {
            return Ok(FrozenGroup {
                members: HashSet::new(),
                rests: true,
            });
        };
        group.freeze(true)?;
        Ok(FrozenGroup {
            rests: group.events()?.frozen,
            members: group.processes()?.into_iter().collect(),
        })
    }

    /// Kills all processes of the group; returns those that it had.
    pub(super) fn kill_cgroup(&mut self, context: &mut ShimContext) -> HashSet<i32> {
        let Some(group) = &self.cgroup else {
            return HashSet::new();
        };
        let had = group.processes().unwrap_or_default();
        match group.kill() {
            Ok(()) => had.into_iter().collect(),
            Err(error) => {
                self.report_trouble(format!("kill its control group: {error}"), context);
                HashSet::new()
            }
        }
    }

    /// Lets the group go on; returns whether that was possible.
    pub(super) fn thaw(&self) -> bool {
        self.cgroup
            .as_ref()
            .is_none_or(|group| group.freeze(false).is_ok())
    }

    /// No process of the attempt is left, or only survivors: removes a group without processes.
    pub(super) fn leave_cgroup(&mut self) {
        if let Some(group) = self.cgroup.take() {
            if let Ok(used) = group.cpu_us() {
                self.used.take_group(used);
            }
            // Survivors keep it. The server removes it later.
            let _ = group.remove();
        }
    }
}
