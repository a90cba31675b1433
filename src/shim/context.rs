//! What a shim keeps from one attempt to the next: its name, its instruments, and what is still to
//! be said to the server. It decides nothing.

use std::{os::fd::OwnedFd, sync::Arc};

use rustix::process::{Resource, getrlimit};

use super::{
    log::{WriteContext, frame::FrameBuffer, sync::Syncer},
    process::tree::Tree,
};
use crate::{
    spool::{FromShim, RunSpec, mark, segment::Intent},
    sys::disk_reserve::DiskReserve,
};

/// What a shim keeps from one attempt to the next.
pub struct ShimContext {
    /// The shim's id.
    pub shim: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The data directory's instance, as the server told it.
    pub instance: String,
    /// The directory of the segments.
    pub spool: Arc<OwnedFd>,
    /// Room for the end of an attempt on a full disk.
    pub reserve: DiskReserve,
    /// `/dev/null`.
    pub null: OwnedFd,
    /// The place where frames are made.
    pub frame: FrameBuffer,
    /// Syncs segments.
    pub syncer: Syncer,
    /// The processes below us.
    pub tree: Tree,
    /// What the server should hear.
    pub outgoing: Vec<FromShim>,
    /// Counts attempts, so that a late result of a sync finds the right one.
    pub ticket: u64,
}

impl ShimContext {
    /// What the log needs for a step.
    pub fn write_context(&mut self) -> WriteContext<'_> {
        WriteContext {
            frame: &mut self.frame,
            syncer: &mut self.syncer,
        }
    }

    /// The payload of the intent record for this attempt.
    pub fn intent(&self, spec: &RunSpec) -> Vec<u8> {
        super::json(&Intent {
            job: spec.job_id,
            shim: self.shim.clone(),
            boot_id: self.boot_id.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            segment_bytes: Some(spec.segment_bytes),
            mark: self.mark(spec),
        })
    }

    /// The number that the processes of this attempt carry; none where the hard limit that we were
    /// started with is below it.
    pub fn mark(&self, spec: &RunSpec) -> Option<u64> {
        let number = mark::number(spec.job_id, &self.instance);
        let hard = getrlimit(Resource::Rttime).maximum;
        hard.is_none_or(|hard| number <= hard).then_some(number)
    }
}
