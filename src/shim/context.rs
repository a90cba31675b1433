//! What a shim keeps from one attempt to the next: its identity, its tools, and the messages that
//! wait for the server.

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

/// State that lasts from one attempt to the next.
pub struct ShimContext {
    /// The shim's id, as given by `--id`.
    pub shim: String,
    /// The kernel's boot id when the shim started.
    pub boot_id: String,
    /// The data directory's instance, from the last `hello`; empty before the first one.
    pub instance: String,
    /// The directory of the segments, open.
    pub spool: Arc<OwnedFd>,
    /// The disk reserve: space that is released for the end of an attempt on a full disk.
    pub reserve: DiskReserve,
    /// `/dev/null`.
    pub null: OwnedFd,
    /// The buffer in which output becomes frames.
    pub frame: FrameBuffer,
    /// The helper thread that syncs segments.
    pub syncer: Syncer,
    /// The process tree below the shim.
    pub tree: Tree,
    /// Messages for the server; the event loop sends them.
    pub outgoing: Vec<FromShim>,
    /// Counts attempts, so that a late result of a sync is matched with the right one.
    pub ticket: u64,
}

impl ShimContext {
    /// The parts that the log needs to write.
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
            cgroup: spec.cgroup.as_ref().map(|group| group.path.clone()),
        })
    }

    /// The number that the processes of this attempt carry; `None` where the hard limit that the
    /// shim was started with is below it.
    pub fn mark(&self, spec: &RunSpec) -> Option<u64> {
        let number = mark::number(spec.job_id, &self.instance);
        let hard = getrlimit(Resource::Rttime).maximum;
        hard.is_none_or(|hard| number <= hard).then_some(number)
    }
}
