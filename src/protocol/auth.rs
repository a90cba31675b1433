//! The bearer token: its file, and whether somebody knows it.
//!
//! Which door asks for it is not known here.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
/// Shortest token that is accepted in the file: somebody may have written their own.
const TOKEN_LEN_MIN: usize = 32;
/// Longest one.
const TOKEN_LEN_MAX: usize = 4096;

/// The secret that opens TCP. Its `Debug` does not show it.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a request says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// Nothing.
    Absent,
    /// It knows the token.
    Right,
    /// It claims to know one and does not.
    Wrong,
}

impl Token {
    /// Reads the token file; creates it, readable by us alone, where there is none.
    ///
    /// Fails where the file cannot be read or written, or holds no usable token.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match Self::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }

    /// Reads the token file. A file that others could read is made ours alone.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others could read the token file; closing it");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
        let text = fs::read_to_string(path)?;
        let token = text.trim();
        let usable = (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&token.len());
        if !usable || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} holds no usable token (at least {TOKEN_LEN_MIN} printable characters); \
                     remove it to get a new one at the next start",
                    path.display()
                ),
            ));
        }
        Ok(Self(token.to_owned()))
    }

    fn create(path: &Path) -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        // Written aside and renamed: a kill in between leaves no empty token file.
        let aside = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&aside)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        Ok(Self(token))
    }

    /// The secret itself.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the token; takes the same time wherever it differs.
    pub fn is(&self, guess: &str) -> bool {
        self.0.as_bytes().ct_eq(guess.as_bytes()).into()
    }

    /// What these headers say. Anything but exactly one right `Authorization: Bearer` is wrong.
    pub fn check(&self, headers: &HeaderMap) -> Bearer {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        match (all.next(), all.next()) {
            (None, _) => Bearer::Absent,
            (Some(one), None) => {
                let guess = one.to_str().ok().and_then(bearer);
                if guess.is_some_and(|guess| self.is(guess)) {
                    Bearer::Right
                } else {
                    Bearer::Wrong
                }
            }
            (Some(_), Some(_)) => Bearer::Wrong,
        }
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn only_one_right_bearer_is_right() {
        let token = Token("0123456789abcdef".to_owned());
        let right = "Bearer 0123456789abcdef";
        for (values, expected) in [
            (vec![], Bearer::Absent),
            (vec![right], Bearer::Right),
            (vec!["bearer  0123456789abcdef"], Bearer::Right),
            (vec![right, right], Bearer::Wrong),
            (vec!["Bearer 0123456789abcdeg"], Bearer::Wrong),
            (vec!["Bearer 0123456789abcde"], Bearer::Wrong),
            (vec!["Bearer 0123456789abcdef0"], Bearer::Wrong),
            (vec!["Bearer "], Bearer::Wrong),
            (vec!["Bearer"], Bearer::Wrong),
            (vec!["Basic 0123456789abcdef"], Bearer::Wrong),
            (vec![""], Bearer::Wrong),
        ] {
            assert_eq!(token.check(&headers(&values)), expected, "{values:?}");
        }
    }

    #[test]
    fn the_file_is_created_once_and_is_ours_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("token");
        let first = Token::load_or_create(&path).expect("created");
        assert_eq!(first.secret().len(), 2 * TOKEN_BYTES);
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let second = Token::load_or_create(&path).expect("read");
        assert!(second.is(first.secret()));
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn an_unusable_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("token");
        for text in ["", "short\n", "a b c d e f g h i j k l m n o p q r s t\n"] {
            fs::write(&path, text).expect("write");
            assert!(Token::load_or_create(&path).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
    }

    #[test]
    fn debug_does_not_tell() {
        assert!(!format!("{:?}", Token("secret".into())).contains("secret"));
    }
}
