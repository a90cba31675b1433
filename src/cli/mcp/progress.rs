//! Keeps progress increasing for the client (MCP asks for that) when a request was sent again and the
//! server counts from the beginning. Pure.

use std::collections::VecDeque;

use serde_json::{Value, json, value::RawValue};

use super::ids::MessageId;

/// How many tokens are remembered; a task's stays in use after its request was answered.
const TOKENS_MAX: usize = 256;

/// The last progress of a token.
#[derive(Debug)]
struct TokenProgress {
    token: MessageId,
    /// What the client was told last.
    told: Option<f64>,
    /// Added to what the server tells: what was told over earlier connections.
    base: f64,
}

/// The progress of all requests.
#[derive(Debug, Default)]
pub struct ProgressFilter {
    tokens: VecDeque<TokenProgress>,
}

/// What becomes of a progress notification.
#[derive(Debug, PartialEq)]
pub enum ProgressVerdict {
    /// Passed on as it is.
    Pass,
    /// Passed on with these parameters.
    Rewrite(Value),
    /// Dropped, because it is not above the last one.
    Drop,
}

impl ProgressFilter {
    /// A request with this token begins.
    pub fn begin(&mut self, token: &MessageId) {
        self.tokens.retain(|known| known.token != *token);
        if self.tokens.len() == TOKENS_MAX {
            self.tokens.pop_front();
        }
        self.tokens.push_back(TokenProgress {
            token: token.clone(),
            told: None,
            base: 0.0,
        });
    }

    /// The connection is lost: the server will count from the beginning.
    pub fn restart(&mut self) {
        for token in &mut self.tokens {
            token.base = token.told.unwrap_or(0.0);
        }
    }

    /// Decides about the parameters of a `notifications/progress`. Those of unknown tokens pass.
    pub fn check(&mut self, params: Option<&RawValue>) -> ProgressVerdict {
        let read = params.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        let Some(mut params) = read else {
            return ProgressVerdict::Pass;
        };
        let token = serde_json::from_value(params["progressToken"].clone()).ok();
        let known = self
            .tokens
            .iter_mut()
            .find(|known| Some(&known.token) == token.as_ref());
        let (Some(known), Some(progress)) = (known, params["progress"].as_f64()) else {
            return ProgressVerdict::Pass;
        };
        let progress = known.base + progress;
        if known.told.is_some_and(|told| progress <= told) {
            return ProgressVerdict::Drop;
        }
        known.told = Some(progress);
        if known.base == 0.0 {
            return ProgressVerdict::Pass;
        }
        params["progress"] = json!(progress);
        if let Some(total) = params["total"].as_f64() {
            params["total"] = json!(known.base + total);
        }
        ProgressVerdict::Rewrite(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &mut ProgressFilter, token: i64, progress: f64) -> ProgressVerdict {
        let params = json!({"progressToken": token, "progress": progress, "message": "m"});
        let raw = serde_json::value::to_raw_value(&params).expect("JSON");
        filter.check(Some(&raw))
    }

    fn rewritten(token: i64, progress: f64) -> ProgressVerdict {
        let params = json!({"progressToken": token, "progress": progress, "message": "m"});
        ProgressVerdict::Rewrite(params)
    }

    #[test]
    fn progress_goes_on_from_where_it_was_after_a_loss() {
        let mut filter = ProgressFilter::default();
        filter.begin(&MessageId::Number(1));
        assert_eq!(check(&mut filter, 1, 15.0), ProgressVerdict::Pass);
        assert_eq!(check(&mut filter, 1, 15.0), ProgressVerdict::Drop);
        assert_eq!(check(&mut filter, 1, 30.0), ProgressVerdict::Pass);
        filter.restart();
        assert_eq!(check(&mut filter, 1, 0.0), ProgressVerdict::Drop);
        assert_eq!(check(&mut filter, 1, 15.0), rewritten(1, 45.0));
        filter.restart();
        filter.restart();
        assert_eq!(check(&mut filter, 1, 5.0), rewritten(1, 50.0));
        // The same token for another request begins anew.
        filter.begin(&MessageId::Number(1));
        assert_eq!(check(&mut filter, 1, 1.0), ProgressVerdict::Pass);
    }

    #[test]
    fn a_total_moves_along_and_what_is_not_known_passes() {
        let mut filter = ProgressFilter::default();
        filter.begin(&MessageId::Number(1));
        assert_eq!(check(&mut filter, 1, 4.0), ProgressVerdict::Pass);
        filter.restart();
        let raw = r#"{"progressToken":1,"progress":2,"total":10}"#;
        let raw: &RawValue = serde_json::from_str(raw).expect("JSON");
        let ProgressVerdict::Rewrite(params) = filter.check(Some(raw)) else {
            panic!("not rewritten");
        };
        assert_eq!(
            (params["progress"].as_f64(), params["total"].as_f64()),
            (Some(6.0), Some(14.0))
        );
        assert_eq!(check(&mut filter, 2, 1.0), ProgressVerdict::Pass);
        assert_eq!(check(&mut filter, 2, 1.0), ProgressVerdict::Pass);
        assert_eq!(filter.check(None), ProgressVerdict::Pass);
    }

    #[test]
    fn only_the_newest_tokens_are_remembered() {
        let mut filter = ProgressFilter::default();
        for token in 0..2 * TOKENS_MAX as i64 {
            filter.begin(&MessageId::Number(token));
        }
        assert_eq!(filter.tokens.len(), TOKENS_MAX);
    }
}
