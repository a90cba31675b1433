//! `job.submit_many` over a WebSocket: a batch that is longer than a message comes in parts.
//! `protocol::methods::submit_many` stores it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Outcome;
use crate::protocol::{
    jsonrpc::{error::Refusal, params::Params},
    methods::submit_many::Batch,
    ws::session::Session,
};

pub use crate::protocol::methods::submit_many::ID_BYTES_MAX;

const KEYS: [&str; 4] = ["jobs", "defaults", "part", "more"];
/// Keys that say which part of a batch a request is.
const PART_KEYS: [&str; 2] = ["part", "more"];
/// Largest number of a part.
const PART_MAX: u64 = 10_000;

/// The reply to every part but the last one.
#[derive(Serialize)]
struct HeldReply {
    /// How many jobs the session holds.
    held: usize,
}

/// Holds a part, or stores all of them with the last one.
pub async fn execute(
    session: &Session,
    mut params: Map<String, Value>,
) -> Result<Outcome, Refusal> {
    Params::new(&params, &KEYS)?;
    let (part, more) = take_place(&mut params)?;
    let held = session.parts.take(part)?;
    if more {
        let held = session.parts.hold(held, &params)?;
        return Ok(Outcome::of(&HeldReply { held }));
    }
    let mut batch = Batch::new(&session.caller);
    for part in held {
        batch.add(&part).await?;
    }
    batch.add(&params).await?;
    drop(params);
    Ok(batch.store().await?.into())
}

/// Takes the number of the part out of the parameters, and whether more parts follow.
fn take_place(params: &mut Map<String, Value>) -> Result<(u64, bool), Refusal> {
    let place: Map<String, Value> = PART_KEYS
        .iter()
        .filter_map(|key| params.remove_entry(*key))
        .collect();
    let place = Params::new(&place, &PART_KEYS)?;
    let part = place.number("part", 0, PART_MAX)?.unwrap_or(0);
    Ok((part, place.flag("more")?.unwrap_or(false)))
}
