//! Looks up the addresses of a host on a thread of its own: a name server that does not answer must
//! not hold one of the threads that sync and read files.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    thread,
};

use tokio::sync::{Semaphore, oneshot};

/// The most lookups at a time. One that is given up still counts until the system has answered.
const LOOKUPS_MAX: usize = 4;

/// Looks up hosts.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Semaphore>);

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Resolver {
    /// The addresses of `host` (a name, an IPv4 address or an IPv6 address without brackets).
    ///
    /// # Errors
    ///
    /// The host is unknown, or the kernel allows no further thread.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let turn = self.0.clone().acquire_owned().await;
        let turn = turn.map_err(io::Error::other)?;
        let (found, answer) = oneshot::channel();
        let host = host.to_owned();
        let lookup = move || {
            let addresses = (host.as_str(), port).to_socket_addrs();
            // The caller may have given up.
            let _ = found.send(addresses.map(Iterator::collect));
            drop(turn);
        };
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(lookup)?;
        answer.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names_are_found() {
        let resolver = Resolver::default();
        let four = resolver
            .addresses("127.0.0.1", 7)
            .await
            .expect("an address");
        assert_eq!(four, [SocketAddr::from(([127, 0, 0, 1], 7))]);
        assert_eq!(
            resolver
                .addresses("::1", 7)
                .await
                .expect("an address")
                .len(),
            1
        );
        let local = resolver.addresses("localhost", 7).await.expect("a name");
        assert!(local.iter().all(|address| address.ip().is_loopback()));
    }
}
