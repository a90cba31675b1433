//! The recovery floor: one test per interleaving that the design names. A data directory is frozen
//! in a state that a kill can leave, then the real server is started on it and watched through its
//! public doors, its rows and /proc.

#[path = "harness/mod.rs"]
mod harness;
#[allow(dead_code)]
#[path = "shim/harness.rs"]
mod shim;

#[path = "recovery/paper.rs"]
mod paper;
#[path = "recovery/scene.rs"]
mod scene;

#[path = "recovery/adopts.rs"]
mod adopts;
#[path = "recovery/ages.rs"]
mod ages;
#[path = "recovery/cannot_look.rs"]
mod cannot_look;
#[path = "recovery/deletes.rs"]
mod deletes;
#[path = "recovery/drops.rs"]
mod drops;
#[path = "recovery/finishes.rs"]
mod finishes;
#[path = "recovery/foreign.rs"]
mod foreign;
#[path = "recovery/goes_on.rs"]
mod goes_on;
#[path = "recovery/keys.rs"]
mod keys;
#[path = "recovery/leaves_alone.rs"]
mod leaves_alone;
#[path = "recovery/loses.rs"]
mod loses;
#[path = "recovery/reconnects.rs"]
mod reconnects;
#[path = "recovery/releases.rs"]
mod releases;
#[path = "recovery/repeats.rs"]
mod repeats;
#[path = "recovery/runs_again.rs"]
mod runs_again;
#[path = "recovery/tidies.rs"]
mod tidies;
#[path = "recovery/voids.rs"]
mod voids;
