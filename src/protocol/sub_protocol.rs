//! WebSocket sub-protocols: `cc-executor`, `mcp`, and the token that a web page sends as one, because a browser
//! lets it set no header.

use axum::http::{HeaderMap, header};

use super::auth::Bearer;

/// The protocol of docs/protocol.md.
const NAME: &str = "cc-executor";
/// MCP, without a greeting.
const MCP: &str = "mcp";
/// Prefix of the sub-protocol that carries the token.
const BEARER: &str = "cc-executor.bearer.";

/// What a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The methods and notifications of docs/protocol.md.
    Native,
    /// MCP.
    Mcp,
}

/// The sub-protocols that a client offers.
#[derive(Debug, PartialEq, Eq)]
pub struct SubProtocolOffer {
    /// The one that is selected; `None` if the client offers none that the server has.
    pub selected: Option<&'static str>,
    guesses: Vec<String>,
}

impl SubProtocolOffer {
    /// The offer in these headers (RFC 6455, 4.1: several lines are one list).
    pub fn read(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let text: Vec<_> = lines
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        let offered = || text.iter().flat_map(|line| line.split(',')).map(str::trim);
        Self {
            selected: [NAME, MCP]
                .into_iter()
                .find(|ours| offered().any(|name| name == *ours)),
            guesses: offered()
                .filter_map(|name| name.strip_prefix(BEARER))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// What the session speaks.
    pub fn dialect(&self) -> Dialect {
        match self.selected {
            Some(MCP) => Dialect::Mcp,
            _ => Dialect::Native,
        }
    }

    /// What the offer shows of its client. Anything but exactly one token is wrong.
    pub fn bearer(&self) -> Bearer<'_> {
        match self.guesses.as_slice() {
            [] => Bearer::Absent,
            [guess] => Bearer::Token(guess),
            _ => Bearer::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lines: &[&str]) -> SubProtocolOffer {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = line.parse().expect("a header");
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, line);
        }
        SubProtocolOffer::read(&headers)
    }

    #[test]
    fn ours_and_the_token_are_found_in_any_order_and_in_any_lines() {
        let token = Bearer::Token("0123456789abcdef");
        let right = "cc-executor.bearer.0123456789abcdef";
        let (ours, mcp) = (Some("cc-executor"), Some("mcp"));
        for (lines, selected, bearer) in [
            (vec![], None, Bearer::Absent),
            (vec!["mcp"], mcp, Bearer::Absent),
            (vec!["CC-Executor"], None, Bearer::Absent),
            (vec!["cc-executor"], ours, Bearer::Absent),
            (vec!["cc-executor, ", right], ours, token),
            (vec![right, "mcp,cc-executor"], ours, token),
            (vec![right], None, token),
            (vec![right, "mcp"], mcp, token),
            (vec![right, right, "cc-executor"], ours, Bearer::Wrong),
            (vec!["cc-executor.bearer."], None, Bearer::Token("")),
            (
                vec!["cc-executor", "cc-executor.bearer.0123456789abcdeg"],
                ours,
                Bearer::Token("0123456789abcdeg"),
            ),
        ] {
            let offered = offer(&lines);
            assert_eq!(
                (offered.selected, offered.bearer()),
                (selected, bearer),
                "{lines:?}"
            );
        }
    }
}
