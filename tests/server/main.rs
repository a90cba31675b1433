//! The server over its public doors: real binary, raw clients, one behaviour per test.
//! Knows only what the contract promises.

#[path = "../harness/mod.rs"]
mod harness;

mod backup;
mod backup_faults;
mod clock_jumps;
mod control;
mod copies;
mod damaged;
mod dead_shims;
mod delete;
mod disconnect;
mod doors;
mod drop_faults;
mod drops;
mod envelope;
mod fixture;
mod fsync;
mod full_disk;
mod history;
mod hostile_fuzz;
mod hostile_jobs;
mod hostile_places;
mod hostile_wire;
mod hung_disk;
mod input;
mod jobs;
mod keys;
mod limits;
mod long_paths;
mod many;
mod no_inodes;
mod no_threads;
mod one_server;
mod pid_one;
mod pids;
mod queues;
mod quota;
mod read;
mod refusals;
mod refused;
mod remains;
mod restart;
mod retry;
mod secrets;
mod service;
mod session;
mod shims;
mod shortage;
mod sql_cookbook;
mod tail;
mod text;
mod update;
mod verify;
mod wait;
