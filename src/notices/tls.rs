//! TLS for requests: certificates are checked against the authorities that this machine trusts.

use std::sync::Arc;

use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

use crate::sys::threads::blocking;

/// Makes TLS connections. The authorities are read at the first one.
#[derive(Debug, Default)]
pub struct Tls(OnceCell<TlsSettings>);

#[derive(Debug)]
struct TlsSettings(Arc<ClientConfig>);

impl Tls {
    /// TLS over a connection to `host`.
    ///
    /// # Errors
    ///
    /// There are no authorities, or the host's certificate is not valid for it; a sentence.
    pub async fn connect(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let settings = self.0.get_or_try_init(TlsSettings::load).await?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| "the URL's host is no name that a certificate can have")?;
        let connector = TlsConnector::from(settings.0.clone());
        let connected = connector.connect(name, tcp).await;
        connected.map_err(|error| format!("TLS failed: {error}"))
    }
}

impl TlsSettings {
    async fn load() -> Result<Self, String> {
        let found = blocking(|| Ok(rustls_native_certs::load_native_certs())).await;
        let found = found.map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let why = found.errors.first().map(|error| format!(" ({error})"));
            return Err(format!(
                "this machine trusts no certificate authority: install ca-certificates, or set \
                 SSL_CERT_FILE for the server{}",
                why.unwrap_or_default()
            ));
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        Ok(Self(Arc::new(config.with_no_client_auth())))
    }
}
