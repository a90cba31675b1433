//! The tokens of a running server: which text is whose, and when one ends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::auth::{Token, TokenError};
use crate::{
    access::{
        Caveat, CaveatRefusal, Grant, Principal, RateBuckets, RootKey, Scopes, ValidClock,
        WireToken,
        wire::{Nonce, Tag},
    },
    data_dir::OwnDir,
    executor::{Error, Executor, NewToken, StoredToken, TokenChange},
    job::Micros,
    sys::{alarm::Alarm, clock, lock},
};

/// Principals with an expiry among which the dead ones are not looked for.
const LIVE_MIN: usize = 64;
/// How soon an expiry is tried again to be stored.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongToken {
    /// It is none of ours.
    #[error("the token is wrong")]
    Unknown,
    /// It was revoked.
    #[error("the token {0:?} was revoked; ask the administrator for another one")]
    Revoked(String),
    /// Its time is over.
    #[error("the token {0:?} has expired; ask the administrator for another one")]
    Expired(String),
    /// A holder has narrowed it by something that this version does not know.
    #[error(transparent)]
    NotUnderstood(#[from] CaveatRefusal),
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Its name.
    pub name: String,
    /// Its scopes.
    pub scopes: Scopes,
    /// What it is narrowed by.
    pub restrictions: Vec<Caveat>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Micros>,
    /// Who asks for it.
    pub created_by: String,
}

/// A token with a row.
#[derive(Debug)]
struct KnownToken {
    stored: StoredToken,
    /// Cancelled when it is revoked or replaced.
    ended: CancellationToken,
    /// Whether its expiry was seen.
    expired: AtomicBool,
}

impl KnownToken {
    fn of(stored: StoredToken) -> Arc<Self> {
        Arc::new(Self {
            expired: AtomicBool::new(stored.expired),
            ended: CancellationToken::new(),
            stored,
        })
    }

    fn is_current(&self) -> bool {
        self.stored.revoked_at.is_none()
    }

    fn has_expired(&self, now: Micros) -> bool {
        let is_over = self.stored.expires_at.is_some_and(|at| at <= now);
        is_over || self.expired.load(Ordering::SeqCst)
    }

    /// Its rights without those that its holders have given up.
    fn grant(&self) -> Result<Grant, CaveatRefusal> {
        let names = self.stored.scopes.iter().map(String::as_str);
        let mut grant = Grant {
            scopes: Scopes::read(names).unwrap_or(Scopes::NONE),
            expires: self.stored.expires_at,
            ..Grant::ALL
        };
        for (nth, text) in self.stored.restrictions.iter().enumerate() {
            // The digest names the token; the place among its own restrictions is told apart from tags.
            let mut bucket = self.stored.digest;
            bucket[0] ^= nth as u8;
            grant.narrow(self.stored.number, text, bucket)?;
        }
        Ok(grant)
    }
}

/// The tokens of a running server.
#[derive(Debug)]
pub struct Tokens {
    key: RootKey,
    clock: ValidClock,
    buckets: RateBuckets,
    /// The administrator's token, and what is cancelled when it is replaced.
    admin: RwLock<(Token, CancellationToken)>,
    known: RwLock<HashMap<Nonce, Arc<KnownToken>>>,
    /// Held while one is changed, from the look at its name to the end of its principals.
    changing: tokio::sync::Mutex<()>,
    /// Principals whose time will be over.
    live: Mutex<LivePrincipals>,
    /// Wakes the task that ends them.
    changed: Notify,
}

#[derive(Debug, Default)]
struct LivePrincipals {
    all: Vec<Weak<Principal>>,
    /// At this length the dead ones are forgotten.
    prune_at: usize,
}

impl Tokens {
    /// The tokens of a data directory.
    pub async fn load(admin: Token, key: RootKey, executor: &Executor) -> Result<Self, Error> {
        let stored = executor.tokens().await?.into_iter();
        let known = stored.map(|stored| (stored.nonce, KnownToken::of(stored)));
        Ok(Self {
            key,
            clock: ValidClock::start(),
            buckets: RateBuckets::default(),
            admin: RwLock::new((admin, CancellationToken::new())),
            known: RwLock::new(known.collect()),
            changing: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The client that shows this token.
    ///
    /// # Errors
    ///
    /// The token is wrong, or worth nothing any more.
    pub fn recognize(&self, text: &str) -> Result<Arc<Principal>, WrongToken> {
        {
            let admin = read(&self.admin);
            if admin.0.is(text) {
                return Ok(Arc::new(Principal::admin(admin.1.child_token())));
            }
        }
        let token = WireToken::parse(text).ok_or(WrongToken::Unknown)?;
        let known = read(&self.known).get(token.nonce()).cloned();
        let known = known.ok_or(WrongToken::Unknown)?;
        let tags = self.key.check(&token, &known.stored.digest);
        let tags = tags.ok_or(WrongToken::Unknown)?;
        let name = || known.stored.name.clone();
        if !known.is_current() {
            return Err(WrongToken::Revoked(name()));
        }
        if known.has_expired(self.clock.now()) {
            self.changed.notify_one();
            return Err(WrongToken::Expired(name()));
        }
        let mut grant = known.grant()?;
        for (caveat, tag) in token.caveats().iter().zip(&tags[1..]) {
            grant.narrow(known.stored.number, caveat, *tag)?;
        }
        let principal = Arc::new(Principal {
            token: Some(known.stored.number),
            name: known.stored.name.as_str().into(),
            grant,
            ended: known.ended.child_token(),
            buckets: self.buckets.clone(),
        });
        match self.is_valid(&principal) {
            true => self.watch(&principal),
            false => return Err(WrongToken::Expired(name())),
        }
        Ok(principal)
    }

    /// Whether the client's token is valid now. One whose time is over ends with that, also where no timer
    /// has told so.
    pub fn is_valid(&self, principal: &Principal) -> bool {
        let is_valid = principal.is_valid(self.clock.now());
        if !is_valid && !principal.ended.is_cancelled() {
            principal.ended.cancel();
            self.changed.notify_one();
        }
        is_valid
    }

    /// All tokens, revoked ones too, by number.
    pub fn all(&self) -> Vec<StoredToken> {
        let known = read(&self.known);
        let mut all: Vec<StoredToken> = known
            .values()
            .map(|known| StoredToken {
                expired: known.has_expired(self.clock.now()),
                ..known.stored.clone()
            })
            .collect();
        all.sort_by_key(|token| token.number);
        all
    }

    /// Makes a token; returns its row and its text, which is stored nowhere.
    pub async fn create(
        &self,
        executor: &Executor,
        request: TokenRequest,
    ) -> Result<(StoredToken, String), Error> {
        let _alone = self.changing.lock().await;
        let (nonce, digest) = self.fresh()?;
        let new = NewToken {
            name: request.name,
            nonce,
            digest,
            scopes: request
                .scopes
                .names()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            restrictions: request.restrictions.iter().map(Caveat::text).collect(),
            expires_at: request.expires_at,
            created_by: request.created_by,
            at: clock::now(),
        };
        let number = executor.add_token(new.clone()).await?;
        let stored = StoredToken {
            number,
            name: new.name,
            nonce,
            digest,
            scopes: new.scopes,
            restrictions: new.restrictions,
            created_at: new.at,
            created_by: new.created_by,
            rotated_at: None,
            expires_at: new.expires_at,
            expired: false,
            revoked_at: None,
        };
        write(&self.known).insert(nonce, KnownToken::of(stored.clone()));
        self.changed.notify_one();
        Ok((stored, self.key.issue(nonce).text()))
    }

    /// Ends a token, with every session that uses it.
    pub async fn revoke(&self, executor: &Executor, name: &str) -> Result<StoredToken, Error> {
        let _alone = self.changing.lock().await;
        let known = self.named(name)?;
        let at = clock::now();
        let change = TokenChange::Revoked(at);
        executor.change_token(known.stored.number, change).await?;
        let revoked = StoredToken {
            revoked_at: Some(at),
            ..known.stored.clone()
        };
        write(&self.known).insert(revoked.nonce, KnownToken::of(revoked.clone()));
        known.ended.cancel();
        Ok(revoked)
    }

    /// Replaces a token's text; every session that uses the old one ends. `expires_at` is the new expiry.
    pub async fn rotate(
        &self,
        executor: &Executor,
        name: &str,
        expires_at: Option<Micros>,
    ) -> Result<(StoredToken, String), Error> {
        let _alone = self.changing.lock().await;
        let known = self.named(name)?;
        let expires_at = expires_at.or(known.stored.expires_at);
        if expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(Error::Conflict(format!(
                "the token {name:?} has expired; rotate it with a new expiry"
            )));
        }
        let (nonce, digest) = self.fresh()?;
        let at = clock::now();
        let change = TokenChange::Rotated {
            nonce,
            digest,
            expires_at,
            at,
        };
        executor.change_token(known.stored.number, change).await?;
        let stored = StoredToken {
            nonce,
            digest,
            expires_at,
            rotated_at: Some(at),
            expired: false,
            ..known.stored.clone()
        };
        {
            let mut all = write(&self.known);
            all.remove(&known.stored.nonce);
            all.insert(nonce, KnownToken::of(stored.clone()));
        }
        known.ended.cancel();
        self.changed.notify_one();
        Ok((stored, self.key.issue(nonce).text()))
    }

    /// Replaces the administrator's token in its file. Every session that has shown the old one ends when the
    /// guard is dropped.
    pub async fn rotate_admin(&self, dir: &OwnDir) -> Result<(Token, DropGuard), TokenError> {
        let _alone = self.changing.lock().await;
        let token = Token::create(dir)?;
        let new = (token.clone(), CancellationToken::new());
        let old = std::mem::replace(&mut *write(&self.admin), new);
        Ok((token, old.1.drop_guard()))
    }

    /// Ends the principals whose time is over, and stores which tokens have expired, until `stopping` is
    /// cancelled.
    pub async fn end_expired(&self, executor: &Executor, stopping: &CancellationToken) {
        let alarm = match Alarm::new() {
            Ok(alarm) => Some(alarm),
            Err(error) => {
                tracing::warn!(%error, "no timer for the expiry of tokens; requests are judged all the same");
                None
            }
        };
        let watch = async {
            loop {
                let next = self.end_expired_now(executor).await;
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = self.until(alarm.as_ref(), next) => {}
                }
            }
        };
        stopping.run_until_cancelled(watch).await;
    }

    /// Waits until one of the two clocks shows `next`.
    async fn until(&self, alarm: Option<&Alarm>, next: Option<Micros>) {
        let Some(next) = next else {
            return std::future::pending().await;
        };
        let left = u64::try_from(next.0 - self.clock.now().0).unwrap_or(0);
        #[expect(clippy::disallowed_methods, reason = "the time that is left")]
        let elapsed = tokio::time::sleep(Duration::from_micros(left) + Duration::from_millis(1));
        let rings = async {
            match alarm {
                Some(alarm) if alarm.wait_until(next).await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = elapsed => {}
            () = rings => {}
        }
    }

    /// Ends what has expired; the next moment at which something does.
    async fn end_expired_now(&self, executor: &Executor) -> Option<Micros> {
        let now = self.clock.now();
        let mut next: Option<Micros> = None;
        let mut earliest = |at: Micros| next = Some(next.map_or(at, |before| before.min(at)));
        lock(&self.live).all.retain(|principal| {
            let Some(principal) = principal.upgrade() else {
                return false;
            };
            match principal.grant.expires {
                Some(at) if at <= now => principal.ended.cancel(),
                Some(at) => earliest(at),
                None => {}
            }
            !principal.ended.is_cancelled()
        });
        let unseen: Vec<Arc<KnownToken>> = read(&self.known)
            .values()
            .filter(|known| known.is_current() && !known.expired.load(Ordering::SeqCst))
            .cloned()
            .collect();
        for known in unseen {
            match known.stored.expires_at {
                Some(at) if at <= now => {
                    let seen = TokenChange::Expired(now);
                    match executor.change_token(known.stored.number, seen).await {
                        Ok(()) => {
                            known.expired.store(true, Ordering::SeqCst);
                            tracing::info!(token = known.stored.name, "a token has expired");
                        }
                        Err(error) => {
                            tracing::warn!(%error, "the expiry of a token could not be stored now");
                            earliest(Micros(now.0 + RETRY_AFTER.as_micros() as i64));
                        }
                    }
                    known.ended.cancel();
                }
                Some(at) => earliest(at),
                None => {}
            }
        }
        next
    }

    /// Remembers a principal whose time will be over.
    fn watch(&self, principal: &Arc<Principal>) {
        if principal.grant.expires.is_none() {
            return;
        }
        let mut live = lock(&self.live);
        if live.all.len() >= live.prune_at.max(LIVE_MIN) {
            live.all.retain(|principal| principal.strong_count() > 0);
            live.prune_at = 2 * live.all.len();
        }
        live.all.push(Arc::downgrade(principal));
        self.changed.notify_one();
    }

    fn named(&self, name: &str) -> Result<Arc<KnownToken>, Error> {
        let known = read(&self.known);
        let mut current = known.values().filter(|known| known.is_current());
        let found = current.find(|known| known.stored.name == name);
        found.cloned().ok_or_else(|| {
            Error::NotFound(format!(
                "there is no token {name:?}; a list of the tokens shows which there are"
            ))
        })
    }

    fn fresh(&self) -> Result<(Nonce, Tag), Error> {
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce)
            .map_err(|error| Error::Internal(format!("cannot make a token: {error}")))?;
        Ok((nonce, self.key.digest(&nonce)))
    }
}

// A panic cannot leave a map half-changed.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
