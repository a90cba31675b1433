//! What a relay has to know of parameters. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ids::MessageId;

/// What a request's parameters tell a relay.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CallParams<'a> {
    #[serde(rename = "_meta")]
    meta: CallMeta,
    /// The tool of a `tools/call`.
    name: Option<String>,
    /// The tool's arguments.
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallMeta {
    #[serde(rename = "progressToken")]
    progress_token: Option<MessageId>,
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    revision: Option<String>,
}

impl<'a> CallParams<'a> {
    /// Reads them; what is missing or of another type is left out.
    pub fn read(params: Option<&'a RawValue>) -> Self {
        params.and_then(parsed).unwrap_or_default()
    }

    /// The tool of a `tools/call`.
    pub fn tool(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Names the request in its progress notifications.
    pub fn progress_token(&self) -> Option<&MessageId> {
        self.meta.progress_token.as_ref()
    }

    /// Whether the request names its protocol revision, as clients of 2026-07-28 and later do. Results
    /// for them have a `resultType`.
    pub fn names_its_revision(&self) -> bool {
        self.meta.revision.is_some()
    }
}

/// The `requestId` in the parameters of `notifications/cancelled`.
pub fn cancelled_id(params: Option<&RawValue>) -> Option<MessageId> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(rename = "requestId")]
        request_id: MessageId,
    }
    params
        .and_then(parsed::<Params>)
        .map(|params| params.request_id)
}

fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_tell_what_a_relay_needs() {
        let text = r#"{"name":"run","arguments":{"command":"make"},"_meta":{"progressToken":4,
            "io.modelcontextprotocol/protocolVersion":"2026-07-28","other":[]}}"#;
        let raw: &RawValue = serde_json::from_str(text).expect("JSON");
        let params = CallParams::read(Some(raw));
        assert_eq!(params.tool(), Some("run"));
        assert_eq!(params.progress_token(), Some(&MessageId::Number(4)));
        assert!(params.names_its_revision() && params.arguments.is_some());
        let odd: &RawValue = serde_json::from_str("[1]").expect("JSON");
        for params in [None, Some(odd)] {
            let params = CallParams::read(params);
            assert!(params.tool().is_none() && !params.names_its_revision());
        }
    }
}
