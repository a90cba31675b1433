//! The kinds of kills, how often each is drawn, and how often each has been done.

use std::collections::BTreeMap;

use crate::random::Random;

/// One kind of blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ServerKill,
    ServerKillStarting,
    ServerStopKill,
    ServerStopCont,
    ServerTerm,
    ServerAway,
    ShimKill,
    ShimStopCont,
    ShimStopKill,
    ShimKillServerDown,
    ShimStoppedOverRestart,
    ShimStoppedOverRestartKill,
    BothKill,
    BothStopKill,
}

/// How often each is drawn, and its name in tables.
const TABLE: [(u64, Kind, &str); 14] = [
    (30, Kind::ServerKill, "server: SIGKILL"),
    (
        22,
        Kind::ServerKillStarting,
        "server: SIGKILL within 100 ms of its start",
    ),
    (9, Kind::ServerStopKill, "server: SIGSTOP, then SIGKILL"),
    (3, Kind::ServerStopCont, "server: SIGSTOP, then SIGCONT"),
    (3, Kind::ServerTerm, "server: planned stop (SIGTERM)"),
    (
        1,
        Kind::ServerAway,
        "server: SIGKILL, and none for 11 to 16 s",
    ),
    (6, Kind::ShimKill, "shim: SIGKILL"),
    (4, Kind::ShimStopCont, "shim: SIGSTOP, then SIGCONT"),
    (3, Kind::ShimStopKill, "shim: SIGSTOP, then SIGKILL"),
    (
        5,
        Kind::ShimKillServerDown,
        "shim: SIGKILL while the server is down",
    ),
    (
        3,
        Kind::ShimStoppedOverRestart,
        "shim: SIGSTOP over a kill of the server, then SIGCONT",
    ),
    (
        3,
        Kind::ShimStoppedOverRestartKill,
        "shim: SIGSTOP over a kill of the server, then SIGKILL",
    ),
    (6, Kind::BothKill, "both: SIGKILL at once"),
    (4, Kind::BothStopKill, "both: SIGSTOP, then SIGKILL"),
];

impl Kind {
    /// The next one.
    pub fn draw(random: &mut Random) -> Self {
        let weights: Vec<_> = TABLE
            .iter()
            .map(|(weight, kind, _)| (*weight, *kind))
            .collect();
        random.weighted(&weights)
    }

    /// What tables call it.
    pub fn name(self) -> &'static str {
        let row = TABLE.iter().find(|(_, kind, _)| *kind == self);
        row.map_or("?", |(_, _, name)| name)
    }
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Blows by kind.
    pub by_kind: BTreeMap<Kind, u32>,
    /// SIGKILLs that hit a server.
    pub servers: u32,
    /// SIGKILLs that hit a shim.
    pub shims: u32,
    /// How many of those shims had a job.
    pub busy_shims: u32,
}
