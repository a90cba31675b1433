//! A TCP proxy before a server that loses connections: each has a fate. It knows nothing of messages: a
//! client asks when it sends anything after the head of its upgrade.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It works.
    Lives,
    /// It is closed as soon as it is made.
    Closed,
    /// Its upgrade is refused with 401.
    Refused,
    /// It is closed when its client asks; the server gets nothing of it.
    Deaf,
    /// It is closed when the server replies; the client gets nothing of it.
    ReplyLost,
    /// The server gets what is asked, and its client gets nothing for as long as it waits.
    Mute,
    /// It is closed as soon as the client has got the beginning of a reply, which is mostly all of it.
    Brief,
    /// It is closed after so many bytes that came after the client had asked.
    Cut(usize),
}

/// The proxy, for as long as this lives.
pub struct Proxy {
    /// `HOST:PORT`.
    pub listen: String,
    accepted: Arc<Mutex<Vec<Instant>>>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy before the server at `to`; `fate` says what becomes of the connection with this number,
    /// counted from 0.
    pub fn start(to: &str, fate: impl Fn(usize) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let listen = listener.local_addr().expect("an address").to_string();
        let (accepted, is_over) = <(Arc<Mutex<Vec<Instant>>>, Arc<AtomicBool>)>::default();
        let (times, over, to) = (accepted.clone(), is_over.clone(), to.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let mut times = times.lock().expect("no panic");
                let fate = fate(times.len());
                times.push(Instant::now());
                drop(times);
                let (client, to) = (client.expect("a client"), to.clone());
                // An error means that one side has left.
                thread::spawn(move || drop(treat(client, &to, fate)));
            }
        });
        Self {
            listen,
            accepted,
            is_over,
        }
    }

    /// When each connection was made.
    pub fn accepted(&self) -> Vec<Instant> {
        self.accepted.lock().expect("no panic").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // So that it looks.
        let _ = TcpStream::connect(&self.listen);
    }
}

fn treat(mut client: TcpStream, to: &str, fate: Fate) -> std::io::Result<()> {
    if fate == Fate::Closed {
        return Ok(());
    }
    let own = client.local_addr()?.to_string();
    // A server answers only to its own name.
    let head = head(&mut client)?.replace(&own, to);
    if fate == Fate::Refused {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(refusal.as_bytes());
    }
    let mut server = TcpStream::connect(to)?;
    server.write_all(head.as_bytes())?;
    let has_asked = Arc::new(AtomicBool::new(false));
    let (from, into, asked) = (server.try_clone()?, client.try_clone()?, has_asked.clone());
    let down = thread::spawn(move || pass_down(from, into, &asked, fate));
    let _ = pass_up(&client, &server, &has_asked, fate);
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
    down.join().expect("no panic")
}

/// The head of a request, with the empty line at its end.
fn head(client: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).expect("a head is ASCII"))
}

fn pass_up(
    mut client: &TcpStream,
    mut server: &TcpStream,
    has_asked: &AtomicBool,
    fate: Fate,
) -> std::io::Result<()> {
    let mut bytes = [0; 1 << 16];
    loop {
        let length = client.read(&mut bytes)?;
        if length == 0 || fate == Fate::Deaf {
            return Ok(());
        }
        has_asked.store(true, Ordering::SeqCst);
        server.write_all(&bytes[..length])?;
    }
}

fn pass_down(
    mut server: TcpStream,
    mut client: TcpStream,
    has_asked: &AtomicBool,
    fate: Fate,
) -> std::io::Result<()> {
    let mut bytes = [0; 1 << 16];
    let mut left = match fate {
        Fate::Cut(bytes) => bytes,
        _ => usize::MAX,
    };
    loop {
        let length = server.read(&mut bytes)?;
        let is_reply = has_asked.load(Ordering::SeqCst);
        let passed = if is_reply { length.min(left) } else { length };
        match fate {
            Fate::Mute if is_reply && length > 0 => continue,
            Fate::ReplyLost if is_reply => {}
            _ => client.write_all(&bytes[..passed])?,
        }
        if is_reply {
            left -= passed;
        }
        let is_lost = is_reply && matches!(fate, Fate::ReplyLost | Fate::Brief);
        if length == 0 || left == 0 || is_lost {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
            return Ok(());
        }
    }
}
