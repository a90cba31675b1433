//! JSON-RPC 2.0: reads a text frame as a request, and writes replies. Parameters are in `params`.

use std::fmt;

use serde::{
    Serialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{error::Refusal, strict_json};
use crate::protocol::ErrorKind;

/// Longest `id`, bytes as written: the reply repeats it, and has a bound itself.
pub const ID_BYTES_MAX: usize = 64 << 10;

/// A request's `id`, exactly as it was written.
pub type Id = Box<RawValue>;

/// A well-formed request.
#[derive(Debug)]
pub struct Request {
    /// Copied into the reply.
    pub id: Id,
    /// The name of the method.
    pub method: String,
    /// The parameters: an object, as it was written, if there is one.
    params: Option<Box<RawValue>>,
    /// How many arrays and objects the message has, not counting itself.
    pub containers: usize,
}

impl Request {
    /// The parameters as values; empty if there are none.
    pub fn params(&self) -> Map<String, Value> {
        let Some(params) = &self.params else {
            return Map::new();
        };
        // `read` has parsed the whole text with the same parser.
        #[allow(clippy::expect_used)]
        serde_json::from_str(params.get()).expect("an object that has been read before")
    }
}

/// What a text frame is.
#[derive(Debug)]
pub enum IncomingFrame {
    /// To be executed and answered.
    Request(Request),
    /// A request without an `id`: neither executed nor answered.
    Notification,
    /// To be answered with an error, which has the `id` if there is a valid one.
    Refused(Option<Id>, Refusal),
}

/// Reads a text frame that may nest up to `depth_max` levels.
pub fn read(text: &str, depth_max: u64) -> IncomingFrame {
    let not_json = |message: String| {
        IncomingFrame::Refused(None, Refusal::new(ErrorKind::ParseError, message))
    };
    let Some(containers) = strict_json::containers(text, depth_max) else {
        return not_json(format!("nested deeper than {depth_max} levels"));
    };
    match Members::read(text) {
        Err(error) => not_json(format!("not JSON: {error}")),
        Ok(None) => refused(
            None,
            "must be one JSON object: a request; batches are not supported",
        ),
        Ok(Some((members, repeated))) => members.check(repeated, containers),
    }
}

fn refused(id: Option<Id>, message: &str) -> IncomingFrame {
    IncomingFrame::Refused(id, Refusal::new(ErrorKind::InvalidRequest, message))
}

/// The members of the object that a frame should be; other members are ignored.
#[derive(Default)]
struct Members<'a> {
    id: Option<&'a RawValue>,
    id_repeated: bool,
    jsonrpc: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    /// The members, and whether any key is repeated; `None` for JSON that is no object.
    fn read(text: &'a str) -> Result<Option<(Self, bool)>, serde_json::Error> {
        let repeated = strict_json::has_repeated_keys(text)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = deserializer.deserialize_any(FrameVisitor)?;
        Ok(members.map(|members| (members, repeated)))
    }

    fn check(self, repeated: bool, containers: usize) -> IncomingFrame {
        let id = self
            .id
            .filter(|id| !self.id_repeated && is_valid_id(id.get()))
            .map(ToOwned::to_owned);
        if self.id.is_some() && id.is_none() {
            return refused(None, "id must be a string or an integer, given once");
        }
        if repeated {
            return refused(id, "an object has the same key twice");
        }
        if self.jsonrpc.and_then(text_of).as_deref() != Some("2.0") {
            return refused(id, "jsonrpc must be \"2.0\"");
        }
        let Some(method) = self.method.and_then(text_of) else {
            return refused(id, "method must be a string");
        };
        let Some(id) = id else {
            return IncomingFrame::Notification;
        };
        let is_object = |params: &&RawValue| params.get().starts_with('{');
        if self.params.is_some_and(|params| !is_object(&params)) {
            let refusal = Refusal::new(ErrorKind::InvalidParams, "params must be an object");
            return IncomingFrame::Refused(Some(id), refusal);
        }
        IncomingFrame::Request(Request {
            id,
            method,
            params: self.params.map(ToOwned::to_owned),
            containers: containers.saturating_sub(1),
        })
    }
}

/// The text of a JSON string.
fn text_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Whether this is a string or an integer, as written.
fn is_valid_id(raw: &str) -> bool {
    let integer = || {
        raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && !raw.contains(['.', 'e', 'E'])
    };
    raw.len() <= ID_BYTES_MAX && (raw.starts_with('"') || integer())
}

/// Reads a frame: `Some` for an object, `None` for any other JSON.
struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = Option<Members<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(key) = access.next_key::<String>()? {
            let value = Some(access.next_value()?);
            match key.as_str() {
                "id" => {
                    members.id_repeated |= members.id.is_some();
                    members.id = value;
                }
                "jsonrpc" => members.jsonrpc = value,
                "method" => members.method = value,
                "params" => members.params = value,
                _ => {}
            }
        }
        Ok(Some(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[derive(Serialize)]
struct ResponseBody<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Refusal>,
}

/// The reply to a request, as JSON.
pub fn reply(id: &RawValue, result: Result<&RawValue, &Refusal>) -> String {
    response(Some(id), result)
}

/// An error reply, as JSON; `id` is null for a message without a valid one.
pub fn error(id: Option<&RawValue>, refusal: &Refusal) -> String {
    response(id, Err(refusal))
}

fn response(id: Option<&RawValue>, result: Result<&RawValue, &Refusal>) -> String {
    to_json(&ResponseBody {
        jsonrpc: "2.0",
        id,
        result: result.ok(),
        error: result.err(),
    })
}

/// One of our own values as JSON.
pub fn to_json<T: Serialize>(value: &T) -> String {
    // Our own types have no map with other keys than strings, and no serializer that fails.
    #[allow(clippy::expect_used)]
    serde_json::to_string(value).expect("our own values serialise")
}

/// One of our own values as the JSON of a result.
pub fn to_raw<T: Serialize>(value: &T) -> Box<RawValue> {
    #[allow(clippy::expect_used)]
    serde_json::value::to_raw_value(value).expect("our own values serialise")
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
