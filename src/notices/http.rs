//! A notice as an HTTP request: one POST on a connection of its own, no redirects, no proxy.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    backoff::PAUSE_MAX, resolve::Resolver, signature::signature, tls::Tls, types::DeliveryFailure,
};
use crate::{
    job::{Delivery, notify::check_url},
    sys::clock,
};

/// The most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much of a refusal's content is read to be shown, bytes.
const CONTENT_BYTES_MAX: usize = 1024;
/// How many characters of it are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// How long a refusal's content is waited for.
const CONTENT_WITHIN: Duration = Duration::from_secs(2);

/// Sends requests.
#[derive(Debug, Default)]
pub struct HttpClient {
    resolver: Resolver,
    tls: Tls,
}

impl HttpClient {
    /// Posts a notice; returns when the receiver has answered with a status of success (2xx).
    ///
    /// # Errors
    ///
    /// Any other answer, or none.
    pub async fn post(&self, url: &str, delivery: &Delivery) -> Result<(), DeliveryFailure> {
        check_url(url).map_err(|wrong| DeliveryFailure::new(format!("the URL {wrong}")))?;
        let uri: Uri = url.parse().map_err(|_| DeliveryFailure::new("no URL"))?;
        let request = request(&uri, delivery).map_err(DeliveryFailure::new)?;
        let response = self.exchange(&uri, request).await;
        let (response, _connection) = response.map_err(DeliveryFailure::new)?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(refusal(response).await),
        }
    }

    /// The response, and what keeps its connection open.
    async fn exchange(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), String> {
        let is_tls = uri.scheme_str() == Some("https");
        // Of an IPv6 address without its brackets.
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = self.resolver.addresses(host, port).await;
        let addresses = addresses.map_err(|error| format!("its host was not found: {error}"))?;
        let tcp = TcpStream::connect(&addresses[..]).await;
        let tcp = tcp.map_err(|error| format!("no connection: {error}"))?;
        match is_tls {
            true => send(self.tls.connect(host, tcp).await?, request).await,
            false => send(tcp, request).await,
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), String> {
    let failed = |error: hyper::Error| format!("no answer: {error}");
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = tokio::spawn(async {
        // The sender gets the same error.
        let _ = connection.await;
    });
    let connection = AbortOnDropHandle::new(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    Ok((response, connection))
}

fn request(uri: &Uri, delivery: &Delivery) -> Result<Request<Full<Bytes>>, String> {
    let seconds = clock::now().0.div_euclid(1_000_000);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::USER_AGENT,
            concat!("cc-executor/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .header("webhook-id", &delivery.id)
        .header("webhook-timestamp", seconds);
    if let Some(secret) = &delivery.secret {
        let signature = signature(secret, &delivery.id, seconds, &delivery.body);
        request = request.header("webhook-signature", signature);
    }
    let body = Full::new(Bytes::from(delivery.body.clone()));
    request.body(body).map_err(|error| error.to_string())
}

/// What an answer without success means.
async fn refusal(response: Response<Incoming>) -> DeliveryFailure {
    let status = response.status();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX));
    let content = content(response.into_body()).await;
    let mut error = format!("HTTP {status}");
    if status.is_redirection() {
        error.push_str("; redirects are not followed");
    }
    if !content.is_empty() {
        error.push_str(": ");
        error.push_str(&content);
    }
    DeliveryFailure {
        error,
        retry_after,
        is_final: status == StatusCode::GONE,
    }
}

/// The beginning of a response's content; empty where it is longer than what is read of it, or does
/// not come in time.
async fn content(body: Incoming) -> String {
    let whole = Limited::new(body, CONTENT_BYTES_MAX).collect();
    match tokio::time::timeout(CONTENT_WITHIN, whole).await {
        Ok(Ok(content)) => {
            let text = String::from_utf8_lossy(&content.to_bytes()).into_owned();
            text.trim().chars().take(SHOWN_CHARS_MAX).collect()
        }
        _ => String::new(),
    }
}
