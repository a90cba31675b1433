//! How a verb reaches a server: `target` names one, `dial` opens a WebSocket to it, `client` is one
//! connection, `link` reconnects, `backoff` says when, `autostart` starts servers, `starting` says what one does that takes long, `follow` is a tail that survives its
//! connection, `wire` parses messages. `find_job`, `filter`, `jobs` and `control` are what the verbs on
//! existing jobs share, `keep` and `disk_notice` what the verbs about disk space share.

pub(super) mod autostart;
pub(super) mod backoff;
pub(super) mod batch;
pub(super) mod client;
pub(super) mod control;
pub(super) mod dial;
pub(super) mod disk_notice;
pub(super) mod filter;
pub(super) mod find_job;
pub(super) mod follow;
pub(super) mod forward;
pub(super) mod holder;
pub(super) mod jobs;
pub(super) mod keep;
pub(super) mod link;
pub(super) mod proc;
pub(super) mod signals;
pub(super) mod starting;
pub(super) mod stdin;
pub(super) mod target;
pub(super) mod wire;
