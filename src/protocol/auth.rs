//! The administrator's token and its file; the key of all other tokens and its file; and which token a
//! request shows.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::{
    access::RootKey,
    data_dir::{Access, DataDirError, OwnDir},
    spool::Layout,
};

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
/// Shortest token that is accepted in the file, bytes: an administrator may have written one.
const TOKEN_LEN_MIN: usize = 32;
/// Longest token that is accepted in the file, bytes.
const TOKEN_LEN_MAX: usize = 4096;

/// Name of a new token file while it is written.
const DRAFT: &str = "token.new";
/// The same of a new file with the key of tokens.
const KEY_DRAFT: &str = "token.key.new";
/// Longest file with the key of tokens that is read, bytes.
const KEY_LEN_MAX: u64 = 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its file cannot be created, or is refused because it is not ours alone.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// Its file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// Its file holds no usable token.
    #[error(
        "{} holds no usable token (at least {TOKEN_LEN_MIN} printable characters); remove it to get a \
         new one at the next start",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
    },
    /// The file of the key holds none.
    #[error(
        "{} holds no key ({} hexadecimal digits); put the right one back, or remove it: then every token \
         but the administrator's has to be rotated",
        path.display(), 2 * TOKEN_BYTES
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The kernel provides no random bytes.
    #[error("cannot make a token: {0}")]
    Random(getrandom::Error),
}

/// The secret that clients show on TCP. Its `Debug` does not show it.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a request shows of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// No token.
    Absent,
    /// This text.
    Token(&'a str),
    /// Several tokens, or something that can be none.
    Wrong,
}

impl<'a> Bearer<'a> {
    /// What these headers show. Anything but exactly one `Authorization: Bearer` is wrong.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        match (all.next(), all.next()) {
            (None, _) => Self::Absent,
            (Some(one), None) => {
                let guess = one.to_str().ok().and_then(bearer_token);
                guess.map_or(Self::Wrong, Self::Token)
            }
            (Some(_), Some(_)) => Self::Wrong,
        }
    }
}

impl Token {
    /// Reads the token file of a data directory; if there is none, creates it with mode 0600.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written, is not ours alone, or holds no usable token.
    pub fn load_or_create(dir: &OwnDir) -> Result<Self, TokenError> {
        match Self::load(dir)? {
            Some(token) => Ok(token),
            None => Self::create(dir),
        }
    }

    /// Reads the token file; `None` if there is none. A file that other users can read gets mode 0600.
    pub fn load(dir: &OwnDir) -> Result<Option<Self>, TokenError> {
        let path = || dir.path().join(Layout::TOKEN);
        let Some(mut file) = dir.open_file(Layout::TOKEN, Access::Read)? else {
            return Ok(None);
        };
        let read = make_private(&file).and_then(|()| {
            let mut text = Vec::new();
            file.by_ref()
                .take(TOKEN_LEN_MAX as u64 + 2)
                .read_to_end(&mut text)?;
            Ok(text)
        });
        let text = read.map_err(|source| TokenError::Read {
            path: path(),
            source,
        })?;
        let token = text.trim_ascii();
        let usable = (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&token.len());
        match std::str::from_utf8(token) {
            Ok(token) if usable && token.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Some(Self(token.to_owned())))
            }
            _ => Err(TokenError::Unusable { path: path() }),
        }
    }

    /// Creates the token file, or replaces it.
    pub fn create(dir: &OwnDir) -> Result<Self, TokenError> {
        let token = hex(&random()?);
        // A crash in between leaves no empty token file, and a draft that another process planted is not
        // used.
        dir.replace_file(Layout::TOKEN, DRAFT, format!("{token}\n").as_bytes())?;
        Ok(Self(token))
    }

    /// The secret itself.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the token; takes the same time wherever the two differ.
    pub fn is(&self, guess: &str) -> bool {
        self.0.as_bytes().ct_eq(guess.as_bytes()).into()
    }
}

/// Reads the key of all tokens of a data directory; if there is none, creates it with mode 0600.
///
/// # Errors
///
/// The file cannot be read or written, is not ours alone, or holds no key.
pub fn root_key(dir: &OwnDir) -> Result<RootKey, TokenError> {
    let path = || dir.path().join(Layout::TOKEN_KEY);
    let Some(mut file) = dir.open_file(Layout::TOKEN_KEY, Access::Read)? else {
        let key = random()?;
        dir.replace_file(
            Layout::TOKEN_KEY,
            KEY_DRAFT,
            format!("{}\n", hex(&key)).as_bytes(),
        )?;
        return Ok(RootKey(key));
    };
    let read = make_private(&file).and_then(|()| {
        let mut text = String::new();
        file.by_ref().take(KEY_LEN_MAX).read_to_string(&mut text)?;
        Ok(text)
    });
    let text = read.map_err(|source| TokenError::Read {
        path: path(),
        source,
    })?;
    let key = unhex(text.trim()).ok_or_else(|| TokenError::NoKey { path: path() })?;
    Ok(RootKey(key))
}

fn random() -> Result<[u8; TOKEN_BYTES], TokenError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    let mut bytes = [0; TOKEN_BYTES];
    if text.len() != 2 * TOKEN_BYTES || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Gives an open token file mode 0600, if other users can access it.
fn make_private(file: &fs::File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!("other users could read the file of a token or its key; its mode is now 0600");
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

fn bearer_token(value: &str) -> Option<&str> {
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
    fn only_one_bearer_shows_a_token() {
        let one = "Bearer 0123456789abcdef";
        for (values, expected) in [
            (vec![], Bearer::Absent),
            (vec![one], Bearer::Token("0123456789abcdef")),
            (
                vec!["bearer  0123456789abcdef"],
                Bearer::Token("0123456789abcdef"),
            ),
            (vec![one, one], Bearer::Wrong),
            (vec!["Bearer "], Bearer::Token("")),
            (vec!["Bearer"], Bearer::Wrong),
            (vec!["Basic 0123456789abcdef"], Bearer::Wrong),
            (vec![""], Bearer::Wrong),
        ] {
            assert_eq!(Bearer::of(&headers(&values)), expected, "{values:?}");
        }
    }

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token("0123456789abcdef".to_owned());
        assert!(token.is("0123456789abcdef"));
        for wrong in [
            "0123456789abcdeg",
            "0123456789abcde",
            "0123456789abcdef0",
            "",
        ] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_key_of_tokens_is_created_once_and_a_wrong_file_is_kept() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = OwnDir::make(root.path()).expect("ours");
        let path = root.path().join("token.key");
        let first = root_key(&dir).expect("created").0;
        assert_ne!(first, [0; 32]);
        assert_eq!(root_key(&dir).expect("read").0, first);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            fs::write(&path, wrong).expect("written");
            assert!(root_key(&dir).is_err(), "{wrong}");
            assert_eq!(fs::read_to_string(&path).expect("read"), wrong);
        }
    }

    #[test]
    fn the_file_is_created_once_and_is_ours_alone() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = OwnDir::make(root.path()).expect("ours");
        let path = root.path().join("token");
        let first = Token::load_or_create(&dir).expect("created");
        assert_eq!(first.secret().len(), 2 * TOKEN_BYTES);
        let mode = || fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let second = Token::load_or_create(&dir).expect("read");
        assert!(second.is(first.secret()));
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn an_unusable_file_is_refused_and_kept() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = OwnDir::make(root.path()).expect("ours");
        let path = root.path().join("token");
        let long = "x".repeat(TOKEN_LEN_MAX + 1);
        for text in [
            "",
            "short\n",
            "a b c d e f g h i j k l m n o p q r s t\n",
            &long,
        ] {
            fs::write(&path, text).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            assert!(Token::load_or_create(&dir).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
    }

    #[test]
    fn a_planted_draft_does_not_become_the_token() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = OwnDir::make(root.path()).expect("ours");
        let known = "0".repeat(64);
        let aside = root.path().join("aside");
        fs::write(&aside, &known).expect("written");
        fs::hard_link(&aside, root.path().join(DRAFT)).expect("linked");
        let token = Token::load_or_create(&dir).expect("created");
        assert!(!token.is(&known));
        assert_eq!(fs::read_to_string(&aside).expect("read"), known);
    }

    #[test]
    fn debug_does_not_tell() {
        assert!(!format!("{:?}", Token("secret".into())).contains("secret"));
    }
}
