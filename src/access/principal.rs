//! The client of a request as far as its rights go.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    Caveat, CaveatRefusal, Rate, RateBuckets, RateRefusal, Reach, Scope, Scopes, TokenNumber,
    rate::BucketKey,
};
use crate::job::Micros;

/// What a token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its scopes.
    pub scopes: Scopes,
    /// The jobs that it reaches.
    pub reach: Reach,
    /// From when on it is worth nothing.
    pub expires: Option<Micros>,
    /// How many jobs it may submit, with the name of each rate's bucket.
    pub rates: Vec<(BucketKey, Rate)>,
}

impl Grant {
    /// All rights.
    pub const ALL: Self = Self {
        scopes: Scopes::ALL,
        reach: Reach {
            own: None,
            queues: None,
            labels: std::collections::BTreeSet::new(),
        },
        expires: None,
        rates: Vec::new(),
    };

    /// Takes away what the text of a caveat says; `tag` names the place in the chain where it stands.
    ///
    /// # Errors
    ///
    /// The text is not understood: then the token must not be accepted at all.
    pub fn narrow(
        &mut self,
        token: TokenNumber,
        text: &str,
        tag: BucketKey,
    ) -> Result<(), CaveatRefusal> {
        match Caveat::read(text)? {
            Caveat::Own => self.reach.own = Some(token),
            Caveat::Scopes(scopes) => self.scopes = self.scopes.and(scopes),
            Caveat::Queues(queues) => {
                self.reach.queues = Some(match self.reach.queues.take() {
                    Some(before) => before.intersection(&queues).cloned().collect(),
                    None => queues,
                });
            }
            Caveat::Label(key, value) => drop(self.reach.labels.insert((key, value))),
            Caveat::Expires(at) => {
                self.expires = Some(self.expires.map_or(at, |before| before.min(at)));
            }
            Caveat::Rate(rate) => self.rates.push((tag, rate)),
        }
        Ok(())
    }
}

/// The client of a request as far as its rights go.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Its token; `None`: the administrator, who needs none or has that of the file.
    pub token: Option<TokenNumber>,
    /// The name of the token; `admin` for the administrator.
    pub name: Arc<str>,
    /// What it may do.
    pub grant: Grant,
    /// Cancelled when its token was revoked, replaced or has expired.
    pub ended: CancellationToken,
    /// The buckets of rates.
    pub buckets: RateBuckets,
}

/// Why a principal is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessDenied {
    /// A scope is missing.
    #[error("the token {name:?} does not have the scope {}", scope.name())]
    Scope {
        /// The token's name.
        name: String,
        /// The first scope that is missing.
        scope: Scope,
    },
    /// Its rate has no room.
    #[error("{0}")]
    Rate(String),
}

impl Principal {
    /// The name of a client that has shown no token.
    pub const NOBODY: &str = "nobody";

    /// The administrator.
    pub fn admin(ended: CancellationToken) -> Self {
        Self {
            token: None,
            name: "admin".into(),
            grant: Grant::ALL,
            ended,
            buckets: RateBuckets::default(),
        }
    }

    /// A client that has shown no token yet.
    pub fn nobody() -> Self {
        Self {
            name: Self::NOBODY.into(),
            grant: Grant {
                scopes: Scopes::NONE,
                ..Grant::ALL
            },
            ..Self::admin(CancellationToken::new())
        }
    }

    /// Whether its token is valid at this moment.
    pub fn is_valid(&self, now: Micros) -> bool {
        !self.ended.is_cancelled() && self.grant.expires.is_none_or(|expires| now < expires)
    }

    /// Whether it has all of these scopes.
    ///
    /// # Errors
    ///
    /// Names the first one that is missing.
    pub fn require(&self, scopes: &[Scope]) -> Result<(), AccessDenied> {
        match self.grant.scopes.missing(scopes) {
            None => Ok(()),
            Some(scope) => Err(AccessDenied::Scope {
                name: self.name.to_string(),
                scope,
            }),
        }
    }

    /// Whether it may do everything.
    pub fn is_administrator(&self) -> bool {
        self.grant.reach.is_all() && self.require(&[Scope::Admin]).is_ok()
    }

    /// Counts new jobs among those that its rates allow.
    ///
    /// # Errors
    ///
    /// One of them has no room; then none is counted.
    pub fn count_jobs(&self, jobs: usize) -> Result<(), AccessDenied> {
        let taken = self.buckets.take(&self.grant.rates, jobs);
        taken.map_err(|(rate, why)| {
            let name = &self.name;
            AccessDenied::Rate(match why {
                RateRefusal::Wait(wait) => format!(
                    "the token {name:?} may submit {rate}; try again in {:.1} s",
                    wait.as_secs_f64().max(0.1)
                ),
                RateRefusal::TooMany => format!(
                    "the token {name:?} may submit {rate}, and these are {jobs} jobs at once"
                ),
                RateRefusal::Buckets => format!(
                    "the rate {rate} of the token {name:?} cannot be counted now: too many rates are in use"
                ),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(caveats: &[Caveat]) -> Grant {
        let mut grant = Grant::ALL;
        for (at, caveat) in caveats.iter().enumerate() {
            let tag = [at as u8; 32];
            grant.narrow(7, &caveat.text(), tag).expect("known");
        }
        grant
    }

    #[test]
    fn each_caveat_takes_away_and_none_gives_back() {
        let queues =
            |names: &[&str]| Caveat::Queues(names.iter().map(|n| (*n).to_owned()).collect());
        let grant = narrowed(&[
            Caveat::Scopes(Scopes::of(&[Scope::Read, Scope::Submit])),
            Caveat::Scopes(Scopes::ALL),
            Caveat::Scopes(Scopes::of(&[Scope::Read, Scope::Control])),
            queues(&["a", "b"]),
            queues(&["b", "c"]),
            Caveat::Expires(Micros(5)),
            Caveat::Expires(Micros(9)),
            Caveat::Own,
        ]);
        assert_eq!(grant.scopes.names(), ["read"]);
        assert_eq!(grant.reach.queues, Some(["b".to_owned()].into()));
        assert_eq!((grant.expires, grant.reach.own), (Some(Micros(5)), Some(7)));
        let nothing = narrowed(&[queues(&["a"]), queues(&["b"])]);
        assert!(!nothing.reach.has_queue("a") && !nothing.reach.has_queue("b"));
    }

    #[test]
    fn an_unknown_caveat_is_an_error() {
        let mut grant = Grant::ALL;
        assert!(grant.narrow(1, r#"{"host":"a"}"#, [0; 32]).is_err());
    }

    #[test]
    fn a_principal_ends_with_its_time_and_with_its_token() {
        let ended = CancellationToken::new();
        let principal = Principal {
            grant: narrowed(&[Caveat::Expires(Micros(10))]),
            ..Principal::admin(ended.clone())
        };
        assert!(principal.is_valid(Micros(9)) && !principal.is_valid(Micros(10)));
        ended.cancel();
        assert!(!principal.is_valid(Micros(9)));
        assert!(Principal::nobody().require(&[Scope::Read]).is_err());
        assert_eq!(Principal::nobody().require(&[]), Ok(()));
    }
}
