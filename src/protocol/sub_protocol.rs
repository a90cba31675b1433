//! WebSocket sub-protocols: `cc-executor`, and the token that a web page sends as one, because a browser
//! lets it set no header.

use axum::http::{HeaderMap, header};

use super::auth::{Bearer, Token};

/// The only sub-protocol that is ever selected.
pub const NAME: &str = "cc-executor";
/// Prefix of the sub-protocol that carries the token.
const BEARER: &str = "cc-executor.bearer.";

/// The sub-protocols that a client offers.
#[derive(Debug, PartialEq, Eq)]
pub struct SubProtocolOffer {
    /// Whether [`NAME`] is among them.
    pub is_ours: bool,
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
            is_ours: offered().any(|name| name == NAME),
            guesses: offered()
                .filter_map(|name| name.strip_prefix(BEARER))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// What the offer says about its client. Anything but exactly one right token is wrong.
    pub fn check(&self, token: &Token) -> Bearer {
        match self.guesses.as_slice() {
            [] => Bearer::Absent,
            [guess] if token.is(guess) => Bearer::Right,
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
        let token = Token::for_test("0123456789abcdef");
        let right = "cc-executor.bearer.0123456789abcdef";
        for (lines, is_ours, bearer) in [
            (vec![], false, Bearer::Absent),
            (vec!["mcp"], false, Bearer::Absent),
            (vec!["CC-Executor"], false, Bearer::Absent),
            (vec!["cc-executor"], true, Bearer::Absent),
            (vec!["cc-executor, ", right], true, Bearer::Right),
            (vec![right, "mcp,cc-executor"], true, Bearer::Right),
            (vec![right], false, Bearer::Right),
            (vec![right, right, "cc-executor"], true, Bearer::Wrong),
            (vec!["cc-executor.bearer."], false, Bearer::Wrong),
            (
                vec!["cc-executor", "cc-executor.bearer.0123456789abcdeg"],
                true,
                Bearer::Wrong,
            ),
        ] {
            let offered = offer(&lines);
            assert_eq!(
                (offered.is_ours, offered.check(&token)),
                (is_ours, bearer),
                "{lines:?}"
            );
        }
    }
}
