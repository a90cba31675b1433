//! A receiver of notices: an HTTP server of one thread that answers as the test says, and keeps what
//! it got. With TLS, if the test wants it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{CEILING, until};

/// A request that came.
#[derive(Debug, Clone)]
pub struct Received {
    /// `POST /path HTTP/1.1`.
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Received {
    /// A header that must be there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().filter(|(known, _)| known == name);
        let found: Vec<_> = found.map(|(_, value)| value.as_str()).collect();
        assert_eq!(found.len(), 1, "{name} in {:?}", self.headers);
        found[0]
    }

    /// Whether a header is there.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// The signature that it must have with this secret, as the specification of Standard Webhooks computes it.
    #[track_caller]
    pub fn signed_with(&self, secret: &str) -> String {
        let key = STANDARD.decode(&secret["whsec_".len()..]).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        let (id, at) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        mac.update(format!("{id}.{at}.{}", self.body).as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

type Answer = Box<dyn Fn(&Received, usize) -> String + Send>;

/// The receiver. It ends when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    scheme: &'static str,
}

impl Receiver {
    /// One that answers 204 to everything.
    pub fn new() -> Self {
        Self::answering(0, |_, _| "204 No Content\r\n".to_owned())
    }

    /// One on this port (0: any) that answers with a status and headers, each with its line end. The
    /// function gets the number of requests before this one.
    #[track_caller]
    pub fn answering(
        port: u16,
        answer: impl Fn(&Received, usize) -> String + Send + 'static,
    ) -> Self {
        Self::start(port, Box::new(answer), None)
    }

    /// One with TLS, whose certificate in `directory` is for `localhost`; it answers 204.
    #[track_caller]
    pub fn with_tls(directory: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(directory.join("server.pem"));
        let chain = chain.expect("a file").collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_file(directory.join("server.key"));
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(chain.expect("PEM"), key.expect("a key"));
        let config = Arc::new(config.expect("they fit"));
        Self::start(
            0,
            Box::new(|_, _| "204 No Content\r\n".to_owned()),
            Some(config),
        )
    }

    #[track_caller]
    fn start(port: u16, answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (received, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let thread = thread::spawn({
            let (received, ended) = (Arc::clone(&received), Arc::clone(&ended));
            move || {
                for stream in listener.incoming().flatten() {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    stream.set_read_timeout(Some(CEILING)).expect("a timeout");
                    match &tls {
                        None => serve(stream, &answer, &received),
                        Some(config) => {
                            let session = ServerConnection::new(config.clone());
                            let session = session.expect("a session");
                            serve(StreamOwned::new(session, stream), &answer, &received);
                        }
                    }
                }
            }
        });
        Self {
            address,
            received,
            ended,
            thread: Some(thread),
            scheme,
        }
    }

    /// Its port, for another one later.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its URL with this path.
    pub fn url(&self, path: &str) -> String {
        let host = if self.scheme == "https" {
            "localhost"
        } else {
            "127.0.0.1"
        };
        format!("{}://{host}:{}{path}", self.scheme, self.port())
    }

    /// What it got so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// Waits until it has got so many requests; returns them.
    #[track_caller]
    pub fn wait_for(&self, requests: usize) -> Vec<Received> {
        until("requests", || {
            let received = self.received();
            (received.len() >= requests).then_some(received)
        })
    }
}

/// Reads one request and answers it. What comes incomplete, after a kill, is none.
fn serve(stream: impl Read + Write, answer: &Answer, received: &Mutex<Vec<Received>>) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream) else {
        return;
    };
    let answer = {
        let mut received = received.lock().expect("no panic");
        let answer = answer(&request, received.len());
        received.push(request);
        answer
    };
    let text = format!("HTTP/1.1 {answer}Content-Length: 0\r\nConnection: close\r\n\r\n");
    // The server may have been killed.
    let _ = stream.get_mut().write_all(text.as_bytes());
    let _ = stream.get_mut().flush();
}

fn read(stream: &mut impl BufRead) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let length = stream.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" if length > 0 => break,
            "" => return None,
            line => lines.push(line.to_owned()),
        }
    }
    let headers = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length")?;
    let mut body = vec![0; length.1.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(Received {
        line: lines.first()?.clone(),
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Lets it look.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
