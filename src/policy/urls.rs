//! URLs to which notices are sent: what a rule lists, compared by scheme, host, port and the parts of the path.

use hyper::Uri;

use super::words::shown;
use crate::job::{Requester, notify::check_url};

/// A URL to which the server would send a notice.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedUrl {
    /// The URL.
    pub url: String,
    /// The queue of the job of which it is told.
    pub queue: String,
    /// Who asked for that.
    pub requester: Requester,
}

/// The URLs that a rule lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlSet {
    /// Every URL.
    Any,
    /// One that begins as one of these.
    Listed(Vec<UrlPattern>),
}

impl UrlSet {
    /// Whether this URL is one of them.
    pub fn has(&self, url: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(patterns) => patterns.iter().any(|pattern| pattern.matches(url)),
        }
    }

    /// Why a job that is told of at these URLs is not allowed; without a set none is.
    pub fn first_failure(set: Option<&Self>, urls: &[String]) -> Option<String> {
        let is_listed = |url: &&String| set.is_some_and(|set| set.has(url));
        let refused = urls.iter().find(|url| !is_listed(url))?;
        let url = shown(refused);
        Some(match set {
            None => format!("notices would be sent to {url}, and the rule has no notify_urls"),
            Some(_) => {
                format!("notices would be sent to {url}, which is not in the rule's notify_urls")
            }
        })
    }
}

/// The beginning of URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPattern {
    place: UrlPlace,
    /// Without a slash at its end.
    path: String,
}

/// What has to be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UrlPlace {
    is_tls: bool,
    host: String,
    port: u16,
}

impl UrlPlace {
    fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?.trim_end_matches('.');
        Some(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
        })
    }
}

impl UrlPattern {
    /// Reads a URL of a rule.
    ///
    /// # Errors
    ///
    /// It is none, or has a part that is not compared.
    pub fn read(text: &str) -> Result<Self, String> {
        check_url(text)?;
        let uri: Uri = text.parse().map_err(|_| "must be a URL".to_owned())?;
        if uri.query().is_some() {
            return Err("must not have a query (?): every query fits".to_owned());
        }
        if text.contains('*') {
            return Err("must not have a star: a URL stands for all that begin with it".to_owned());
        }
        if has_detour(uri.path()) {
            return Err("must be a path without \".\", \"..\" and encoded slashes".to_owned());
        }
        let place = UrlPlace::of(&uri).ok_or("must be a URL")?;
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { place, path })
    }

    /// Whether a URL begins with it.
    fn matches(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<Uri>() else {
            return false;
        };
        if check_url(url).is_err() || UrlPlace::of(&uri).as_ref() != Some(&self.place) {
            return false;
        }
        if self.path.is_empty() {
            return true;
        }
        let rest = uri.path().strip_prefix(self.path.as_str());
        // A receiver may resolve a detour to another path.
        let fits = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        fits && !has_detour(uri.path())
    }
}

/// Whether a path may mean another one.
fn has_detour(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "\\"];
    encoded.iter().any(|part| lower.contains(part))
        || path.split('/').any(|part| [".", ".."].contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_compared_by_its_parts() {
        let hooks = UrlPattern::read("https://hooks.example.com/ci/").expect("a URL");
        for fits in [
            "https://hooks.example.com/ci",
            "https://hooks.example.com/ci/",
            "https://HOOKS.example.com:443/ci/build?x=/..",
        ] {
            assert!(hooks.matches(fits), "{fits}");
        }
        for other in [
            "http://hooks.example.com/ci/",
            "https://hooks.example.com:444/ci/",
            "https://hooks.example.com.evil.org/ci/",
            "https://hooks.example.com/cin",
            "https://hooks.example.com/CI/",
            "https://hooks.example.com/",
            "https://hooks.example.com/ci/../admin",
            "https://hooks.example.com/ci/%2e%2E/admin",
            "https://hooks.example.com/ci/..%2fadmin",
            "https://hooks.example.com@evil.org/ci/",
            "https://evil.org/https://hooks.example.com/ci/",
            "no URL",
        ] {
            assert!(!hooks.matches(other), "{other}");
        }
        let host = UrlPattern::read("http://localhost:8080").expect("a URL");
        assert!(host.matches("http://localhost:8080/any/../thing"));
        assert!(!host.matches("http://localhost/"));
    }

    #[test]
    fn what_is_not_compared_is_no_pattern() {
        for wrong in [
            "hooks.example.com",
            "https://*.example.com/",
            "https://example.com/?a=b",
            "https://example.com/a/../b",
            "ftp://example.com/",
            "https://user@example.com/",
        ] {
            assert!(UrlPattern::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_list_no_url_is_allowed() {
        let urls = ["https://a.example/".to_owned()];
        assert_eq!(UrlSet::first_failure(None, &[]), None);
        assert!(UrlSet::first_failure(None, &urls).is_some());
        assert_eq!(UrlSet::first_failure(Some(&UrlSet::Any), &urls), None);
        let other = UrlSet::Listed(vec![UrlPattern::read("https://b.example").expect("a URL")]);
        assert!(UrlSet::first_failure(Some(&other), &urls).is_some());
    }
}
