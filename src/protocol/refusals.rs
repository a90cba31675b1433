//! Logs refused clients: for each peer and reason the first refusal at once, then counts at growing
//! intervals. A client that is refused all the time cannot fill the log.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::peer::Peer;

use crate::sys::lock;

/// How many pairs of a peer and a reason are remembered. Further peers count together.
const PAIRS_MAX: usize = 64;
/// How long after the first refusal the next count is reported; each further interval is twice as long.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The longest time between two counts.
const INTERVAL_MAX: Duration = Duration::from_secs(300);
/// The time between two checks for counts that are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why something was refused, or a connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// There is not exactly one Host, or it is not allowed.
    Host,
    /// The Origin is not allowed.
    Origin,
    /// Another user connected to the Unix socket.
    OtherUser,
    /// A wrong token in `Authorization`.
    WrongBearer,
    /// A wrong token as a sub-protocol.
    WrongSubProtocol,
    /// A wrong token in `session.authenticate`.
    WrongToken,
    /// A request that needs a token came without one.
    NoToken,
    /// A token among the sub-protocols, without `cc-executor` beside it.
    SubProtocol,
    /// The bytes were no HTTP request.
    Malformed,
    /// All connection slots are taken.
    Connections,
    /// All session slots are taken.
    Sessions,
    /// A connection or session without a token was displaced by another one.
    GaveWay,
    /// A session did not authenticate in time.
    AuthTimeout,
    /// A session sent too much before it had authenticated.
    UnauthenticatedBytes,
    /// A message was too long.
    TooLong,
    /// Text was no UTF-8.
    NotText,
    /// A frame broke the protocol.
    NotAllowed,
}

impl RefusalReason {
    /// Whether the client lacks a right, unlike one that breaks the protocol or meets a bound.
    pub fn is_of_rights(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::Origin
                | Self::OtherUser
                | Self::WrongBearer
                | Self::WrongSubProtocol
                | Self::WrongToken
                | Self::NoToken
                | Self::AuthTimeout
        )
    }

    /// The name for programs that read the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::OtherUser => "other_user",
            Self::WrongBearer => "wrong_bearer",
            Self::WrongSubProtocol => "wrong_sub_protocol",
            Self::WrongToken => "wrong_token",
            Self::NoToken => "no_token",
            Self::SubProtocol => "sub_protocol",
            Self::Malformed => "malformed",
            Self::Connections => "connections_max",
            Self::Sessions => "sessions_max",
            Self::GaveWay => "gave_way",
            Self::AuthTimeout => "auth_timeout",
            Self::UnauthenticatedBytes => "unauthenticated_bytes_max",
            Self::TooLong => "message_bytes_max",
            Self::NotText => "no_utf8",
            Self::NotAllowed => "frame",
        }
    }

    /// The reason for human readers of the log.
    fn describe(self) -> &'static str {
        match self {
            Self::Host => "its Host is not one that is answered (allowed_hosts)",
            Self::Origin => "its Origin is not one that is answered (allowed_origins)",
            Self::OtherUser => "another user is not answered on the Unix socket",
            Self::WrongBearer => "the token in its Authorization header is wrong",
            Self::WrongSubProtocol => "the token among its sub-protocols is wrong",
            Self::WrongToken => "the token in its session.authenticate is wrong",
            Self::NoToken => "it has not shown the token",
            Self::SubProtocol => "it offers a token as sub-protocol without cc-executor beside it",
            Self::Malformed => "what it sent is no HTTP request",
            Self::Connections => "there are too many connections",
            Self::Sessions => "there are too many sessions",
            Self::GaveWay => "it had not shown the token and was displaced by a newer one",
            Self::AuthTimeout => "it did not authenticate in time",
            Self::UnauthenticatedBytes => "it sent too much before it had authenticated",
            Self::TooLong => "a message was too long",
            Self::NotText => "its text is not UTF-8",
            Self::NotAllowed => "a frame broke the protocol",
        }
    }
}

/// What refusals are counted by: without the port, which changes with every connection, and for IPv6 by
/// network, because a client with one address has all 2^64 of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalSource {
    /// An address, or a network of IPv6.
    Net(IpAddr),
    /// A user on this machine.
    User(u32),
    /// All peers beyond [`PAIRS_MAX`].
    Others,
}

impl RefusalSource {
    /// The source of a connection.
    pub fn of(peer: Peer) -> Self {
        match peer {
            Peer::Unix { uid, .. } => Self::User(uid),
            Peer::Tcp(address) => Self::Net(match address.ip().to_canonical() {
                IpAddr::V6(v6) if !v6.is_loopback() => {
                    let network = u128::from(v6) & !u128::from(u64::MAX);
                    IpAddr::V6(Ipv6Addr::from(network))
                }
                address => address,
            }),
        }
    }
}

impl fmt::Display for RefusalSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::User(uid) => write!(f, "unix uid {uid}"),
            Self::Others => f.write_str("others"),
        }
    }
}

/// Refusals, with those that are not reported yet.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<RefusalCounts>);

impl RefusalLog {
    /// Counts a refusal; logs it at once if it is the first.
    pub fn report(&self, peer: Peer, reason: RefusalReason) {
        let source = RefusalSource::of(peer);
        let first = self.counts().refused(source, reason, Instant::now());
        if let Some(source) = first {
            let (why, what) = (reason.name(), reason.describe());
            tracing::warn!(peer = %source, reason = why, "refused: {what}");
        }
    }

    /// Reports counts that are due, until `stopping` is cancelled; then reports the rest.
    pub async fn report_counts(&self, stopping: &CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let look = async {
            loop {
                looks.tick().await;
                let due = self.counts().due(Instant::now());
                due.iter().for_each(Count::report);
            }
        };
        stopping.run_until_cancelled(look).await;
        let rest = self.counts().rest(Instant::now());
        rest.iter().for_each(Count::report);
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, RefusalCounts> {
        // A panic cannot leave it half-changed.
        lock(&self.0)
    }
}

/// What is counted, by source and reason.
#[derive(Debug, Default)]
struct RefusalCounts(BTreeMap<(RefusalSource, RefusalReason), RefusalEntry>);

#[derive(Debug)]
struct RefusalEntry {
    /// When the first refusal or a count was last reported.
    reported_at: Instant,
    /// How long after that the next count is due.
    interval: Duration,
    /// Refusals since then.
    count: u64,
    newest_at: Instant,
}

/// A count that is to be reported.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    source: RefusalSource,
    reason: RefusalReason,
    count: u64,
    over: Duration,
}

impl Count {
    fn report(&self) {
        let (why, what) = (self.reason.name(), self.reason.describe());
        tracing::warn!(
            peer = %self.source,
            reason = why,
            count = self.count,
            seconds = self.over.as_secs(),
            "refused repeatedly: {what}"
        );
    }
}

impl RefusalCounts {
    /// Counts one refusal; returns its source if it is the first.
    fn refused(
        &mut self,
        source: RefusalSource,
        reason: RefusalReason,
        now: Instant,
    ) -> Option<RefusalSource> {
        let is_known = self.0.contains_key(&(source, reason));
        let source = match is_known || self.0.len() < PAIRS_MAX {
            true => source,
            false => RefusalSource::Others,
        };
        if let Some(entry) = self.0.get_mut(&(source, reason)) {
            entry.count += 1;
            entry.newest_at = now;
            return None;
        }
        let entry = RefusalEntry {
            reported_at: now,
            interval: INTERVAL_MIN,
            count: 0,
            newest_at: now,
        };
        self.0.insert((source, reason), entry);
        Some(source)
    }

    /// The counts that are due. Sources without refusals for [`INTERVAL_MAX`] are forgotten.
    fn due(&mut self, now: Instant) -> Vec<Count> {
        self.0
            .retain(|_, entry| entry.count > 0 || now - entry.newest_at < INTERVAL_MAX);
        self.take(now, |entry| now - entry.reported_at >= entry.interval)
    }

    /// All counts.
    fn rest(&mut self, now: Instant) -> Vec<Count> {
        self.take(now, |_| true)
    }

    fn take(&mut self, now: Instant, is_due: impl Fn(&RefusalEntry) -> bool) -> Vec<Count> {
        let due = self.0.iter_mut();
        due.filter(|(_, entry)| entry.count > 0 && is_due(entry))
            .map(|((source, reason), entry)| {
                let count = Count {
                    source: *source,
                    reason: *reason,
                    count: entry.count,
                    over: now - entry.reported_at,
                };
                (entry.reported_at, entry.count) = (now, 0);
                entry.interval = (entry.interval * 2).min(INTERVAL_MAX);
                count
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(last: u8) -> RefusalSource {
        RefusalSource::Net(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_are_counted_ever_more_seldom() {
        let mut counts = RefusalCounts::default();
        let began = Instant::now();
        let first = counts.refused(net(1), RefusalReason::Host, began);
        assert_eq!(first, Some(net(1)));
        let mut reported = Vec::new();
        for second in 0..3600 {
            let now = began + Duration::from_secs(second);
            for _ in 0..1000 {
                assert_eq!(counts.refused(net(1), RefusalReason::Host, now), None);
            }
            reported.extend(counts.due(now));
        }
        assert!(reported.len() < 25, "{}", reported.len());
        assert_eq!(
            (reported[0].count, reported[0].over),
            (6000, Duration::from_secs(5))
        );
        reported.extend(counts.rest(began + Duration::from_secs(3600)));
        let sum: u64 = reported.iter().map(|count| count.count).sum();
        assert_eq!(sum, 3_600_000, "none is forgotten");
    }

    #[test]
    fn peers_and_reasons_are_told_apart_and_many_peers_count_together() {
        let mut counts = RefusalCounts::default();
        let now = Instant::now();
        assert!(counts.refused(net(1), RefusalReason::Host, now).is_some());
        assert!(counts.refused(net(1), RefusalReason::Origin, now).is_some());
        assert!(counts.refused(net(2), RefusalReason::Host, now).is_some());
        let mut firsts = Vec::new();
        for address in 0..100_000_u32 {
            let source = RefusalSource::Net(IpAddr::from(address.to_be_bytes()));
            firsts.extend(counts.refused(source, RefusalReason::WrongBearer, now));
        }
        assert_eq!(firsts.len(), PAIRS_MAX - 3 + 1);
        assert_eq!(firsts.last(), Some(&RefusalSource::Others));
        assert!(counts.0.len() <= PAIRS_MAX + 1);
        let counted = counts.due(now + INTERVAL_MIN);
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].source, RefusalSource::Others);
    }

    #[test]
    fn who_keeps_still_is_forgotten_and_makes_room() {
        let mut counts = RefusalCounts::default();
        let now = Instant::now();
        assert!(counts.refused(net(1), RefusalReason::Host, now).is_some());
        assert_eq!(counts.due(now + INTERVAL_MAX), []);
        assert!(counts.0.is_empty());
    }

    #[test]
    fn one_peer_is_one_address_or_one_network_of_ipv6() {
        let of = |address: &str| {
            let address = address.parse().expect("an address");
            RefusalSource::of(Peer::Tcp(address)).to_string()
        };
        assert_eq!(of("10.0.0.1:5"), of("[::ffff:10.0.0.1]:6"));
        assert_eq!(of("[2001:db8:1:2:3:4:5:6]:5"), of("[2001:db8:1:2::1]:6"));
        assert_ne!(of("[2001:db8:1:3::1]:5"), of("[2001:db8:1:2::1]:5"));
        assert_eq!(of("[::1]:5"), "::1");
    }
}
