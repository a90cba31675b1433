//! Who has asked for something, and through which interface: what the audit trail says of it.

use super::TokenNumber;

/// Who has asked for something, and through which interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientOrigin {
    /// The name of its token; `admin` for the administrator, `server` for the server itself.
    pub name: String,
    /// The number of its token.
    pub token: Option<TokenNumber>,
    /// The user at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// The process at the other end of a Unix socket when it connected.
    pub pid: Option<i32>,
    /// The interface: `unix`, `tcp`, `mcp-unix`, `mcp-tcp`, `schedule` or `server`.
    pub door: &'static str,
    /// The address at the other end of a TCP connection, without its port.
    pub peer: Option<String>,
    /// The session, as the job's events name it, such as `ws:0198…`.
    pub session: Option<String>,
}

impl ClientOrigin {
    /// The server itself.
    pub fn server() -> Self {
        Self::within("server", "server")
    }

    /// Something in the server that acts for somebody, such as a schedule.
    pub fn within(door: &'static str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            token: None,
            uid: None,
            pid: None,
            door,
            peer: None,
            session: None,
        }
    }
}
