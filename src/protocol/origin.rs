//! Checks Host and Origin headers: the defence against web pages that talk to servers on their visitor's
//! machine (DNS rebinding, cross-site WebSockets).
//!
//! A foreign Host is refused before any token is checked.

use std::net::{Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, Uri, header};

/// Why a request is refused before its route is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// There is no Host header, or more than one.
    #[error("there must be exactly one Host header")]
    HostCount,
    /// The Host is not one of ours or of `allowed_hosts`.
    #[error("this Host is not allowed; use localhost or add it to allowed_hosts")]
    Host,
    /// The Origin is not one of ours or of `allowed_origins`.
    #[error("this Origin is not allowed; add it to allowed_origins")]
    Origin,
}

/// A host as a header names it: in lower case, IPv6 in brackets and in its shortest form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeaderHost {
    host: String,
    port: Option<u16>,
}

/// The Hosts and Origins that are answered.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    hosts: Vec<HeaderHost>,
    origins: Vec<String>,
    port: Option<u16>,
}

impl Allowed {
    /// The rules of a server that listens on `listen`, if it does. Entries of `hosts` that are no host
    /// names match nothing.
    pub fn new(listen: Option<SocketAddr>, hosts: &[String], origins: &[String]) -> Self {
        let ours = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let address = listen.map(|listen| match listen {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        });
        let all = ours.iter().chain(address.iter()).chain(hosts);
        Self {
            hosts: all.filter_map(|host| parse(host)).collect(),
            origins: origins
                .iter()
                .map(|origin| origin.to_ascii_lowercase())
                .collect(),
            port: listen.map(|listen| listen.port()),
        }
    }

    /// Checks a request on TCP.
    pub fn check_tcp(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Foreign> {
        let host = single_value(headers, header::HOST).ok_or(Foreign::HostCount)?;
        // A request line with a host in it overrides the header (RFC 9112, 3.2.2).
        let target = uri.authority().map(axum::http::uri::Authority::as_str);
        if !self.is_host(host) || target.is_some_and(|target| !self.is_host(target)) {
            return Err(Foreign::Host);
        }
        self.check_origin(headers, |origin| self.is_own_origin(origin))
    }

    /// Checks a request on the Unix socket. No browser can reach it, so any Host is accepted. But an Origin
    /// means that some proxy has put this socket, which asks for no token, on a network: only origins in
    /// `allowed_origins` are accepted.
    pub fn check_unix(&self, headers: &HeaderMap) -> Result<(), Foreign> {
        self.check_origin(headers, |_| false)
    }

    fn check_origin(
        &self,
        headers: &HeaderMap,
        is_own: impl Fn(&str) -> bool,
    ) -> Result<(), Foreign> {
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = single_value(headers, header::ORIGIN)
            .ok_or(Foreign::Origin)?
            .to_ascii_lowercase();
        if self.origins.contains(&origin) || is_own(&origin) {
            return Ok(());
        }
        Err(Foreign::Origin)
    }

    fn is_host(&self, text: &str) -> bool {
        let Some(asked) = parse(text) else {
            return false;
        };
        self.hosts.iter().any(|ours| {
            ours.host == asked.host
                && match ours.port {
                    Some(_) => asked.port == ours.port,
                    None => asked.port.is_none() || asked.port == self.port,
                }
        })
    }

    /// Whether the page came from this server: plain HTTP, an allowed host, our port.
    fn is_own_origin(&self, origin: &str) -> bool {
        let Some(asked) = origin.strip_prefix("http://").and_then(parse) else {
            return false;
        };
        let port = asked.port.or(Some(80));
        self.hosts
            .iter()
            .any(|ours| ours.host == asked.host && port == ours.port.or(self.port))
    }
}

fn single_value(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn parse(text: &str) -> Option<HeaderHost> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (v6, rest) = rest.split_once(']')?;
            let v6: Ipv6Addr = v6.parse().ok()?;
            let port = if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':')?)
            };
            (format!("[{v6}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (text.to_ascii_lowercase(), None),
        },
    };
    let digits = |port: &&str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = match port {
        Some(port) => Some(Some(port).filter(digits)?.parse().ok()?),
        None => None,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then_some(HeaderHost { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        let listen = "127.0.0.1:8003".parse().expect("an address");
        Allowed::new(
            Some(listen),
            &["Example.com".to_owned(), "other.org:443".to_owned()],
            &["https://App.example".to_owned()],
        )
    }

    fn headers(hosts: &[&str], origins: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for host in hosts {
            map.append(header::HOST, host.parse().expect("a header"));
        }
        for origin in origins {
            map.append(header::ORIGIN, origin.parse().expect("a header"));
        }
        map
    }

    fn tcp(hosts: &[&str], origins: &[&str]) -> Result<(), Foreign> {
        allowed().check_tcp(&Uri::from_static("/ws"), &headers(hosts, origins))
    }

    #[test]
    fn our_hosts_are_answered_and_others_are_not() {
        for host in [
            "localhost",
            "LOCALHOST:8003",
            "127.0.0.1",
            "127.0.0.1:8003",
            "[::1]",
            "[::1]:8003",
            "[0:0:0:0:0:0:0:1]:8003",
            "example.com",
            "example.com:8003",
            "other.org:443",
        ] {
            assert_eq!(tcp(&[host], &[]), Ok(()), "{host}");
        }
        for host in [
            "evil.com",
            "0.0.0.0",
            "0.0.0.0:8003",
            "localhost.evil.com",
            "localhost:80",
            "localhost.",
            "localhost:",
            "localhost:8003:8003",
            "localhost@evil.com",
            "",
            "[::2]",
            "[::1",
            "[::1]x",
            "127.1",
            "other.org",
            "other.org:8003",
            "localhost:+8003",
            "127.0.0.1:99999",
            "evil.com#localhost",
            "localhost evil.com",
            "localhost,evil.com",
        ] {
            assert_eq!(tcp(&[host], &[]), Err(Foreign::Host), "{host}");
        }
    }

    #[test]
    fn there_is_exactly_one_host() {
        assert_eq!(tcp(&[], &[]), Err(Foreign::HostCount));
        assert_eq!(
            tcp(&["localhost", "localhost"], &[]),
            Err(Foreign::HostCount)
        );
        assert_eq!(
            tcp(&["localhost", "evil.com"], &[]),
            Err(Foreign::HostCount)
        );
    }

    #[test]
    fn a_host_in_the_request_line_counts_too() {
        let headers = headers(&["localhost"], &[]);
        let check = |uri: &'static str| allowed().check_tcp(&Uri::from_static(uri), &headers);
        assert_eq!(check("http://localhost:8003/ws"), Ok(()));
        assert_eq!(check("http://evil.com/ws"), Err(Foreign::Host));
        assert_eq!(check("http://a@localhost/ws"), Err(Foreign::Host));
    }

    #[test]
    fn our_origins_are_answered_and_others_are_not() {
        for origin in [
            "http://localhost:8003",
            "http://127.0.0.1:8003",
            "http://[::1]:8003",
            "http://example.com:8003",
            "http://other.org:443",
            "https://app.example",
        ] {
            assert_eq!(tcp(&["localhost"], &[origin]), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:80",
            "http://localhost.evil.com",
            "http://localhost.evil.com:8003",
            "https://localhost:8003",
            "localhost:8003",
            "http://localhost:8003/",
            "http://localhost:8003.evil.com",
            "file://",
            "http://app.example",
            "https://app.example:8003",
            "http://evil.com:8003",
        ] {
            assert_eq!(
                tcp(&["localhost"], &[origin]),
                Err(Foreign::Origin),
                "{origin}"
            );
        }
        let two = ["http://localhost:8003", "http://localhost:8003"];
        assert_eq!(tcp(&["localhost"], &two), Err(Foreign::Origin));
    }

    #[test]
    fn on_the_unix_socket_only_named_origins_are_answered() {
        let check =
            |hosts: &[&str], origins: &[&str]| allowed().check_unix(&headers(hosts, origins));
        assert_eq!(check(&[], &[]), Ok(()));
        assert_eq!(check(&["anything"], &[]), Ok(()));
        assert_eq!(check(&["a"], &["https://app.example"]), Ok(()));
        assert_eq!(
            check(&["localhost"], &["http://localhost:8003"]),
            Err(Foreign::Origin)
        );
        assert_eq!(check(&["localhost"], &["null"]), Err(Foreign::Origin));
    }

    #[test]
    fn an_ipv6_listen_address_is_answered() {
        let listen = "[fd00::5]:9".parse().expect("an address");
        let allowed = Allowed::new(Some(listen), &[], &[]);
        assert!(allowed.is_host("[fd00::5]:9") && allowed.is_host("[fd00::0005]"));
        assert!(!allowed.is_host("[fd00::6]:9"));
    }
}
