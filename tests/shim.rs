//! The shim floor: real shims with real processes, one behaviour per file. The tests play the
//! server over the shim's socket and read its segments.

#[path = "harness/failing.rs"]
mod failing;
#[path = "shim/harness.rs"]
mod harness;

// For `failing`.
use harness::until_some as until;

#[path = "shim/arms.rs"]
mod arms;
#[path = "shim/crowds.rs"]
mod crowds;
#[path = "shim/dies_with_its_job.rs"]
mod dies_with_its_job;
#[path = "shim/drops_output.rs"]
mod drops_output;
#[path = "shim/ends_leftovers.rs"]
mod ends_leftovers;
#[path = "shim/feeds_stdin.rs"]
mod feeds_stdin;
#[path = "shim/fences_servers.rs"]
mod fences_servers;
#[path = "shim/gives_a_clean_start.rs"]
mod gives_a_clean_start;
#[path = "shim/has_its_thread.rs"]
mod has_its_thread;
#[path = "shim/holds.rs"]
mod holds;
#[path = "shim/keeps_survivors.rs"]
mod keeps_survivors;
#[path = "shim/late_orders.rs"]
mod late_orders;
#[path = "shim/limits_output.rs"]
mod limits_output;
#[path = "shim/limits_time.rs"]
mod limits_time;
#[path = "shim/looks_again.rs"]
mod looks_again;
#[path = "shim/opens_its_door.rs"]
mod opens_its_door;
#[path = "shim/outlives_the_server.rs"]
mod outlives_the_server;
#[path = "shim/pauses.rs"]
mod pauses;
#[path = "shim/pins_the_program.rs"]
mod pins_the_program;
#[path = "shim/redacts.rs"]
mod redacts;
#[path = "shim/runs_a_job.rs"]
mod runs_a_job;
#[path = "shim/runs_many.rs"]
mod runs_many;
#[path = "shim/seals_segments.rs"]
mod seals_segments;
#[path = "shim/starts_again.rs"]
mod starts_again;
#[path = "shim/starts_once.rs"]
mod starts_once;
#[path = "shim/stops.rs"]
mod stops;
#[path = "shim/takes_input.rs"]
mod takes_input;
#[path = "shim/tells_why_not.rs"]
mod tells_why_not;
#[path = "shim/waits_for_room.rs"]
mod waits_for_room;
