//! Whom the jobs of the run notify: a server of HTTP that takes most notices, refuses some and hangs
//! up on some. Records what it was sent and judges nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::random::Random;

/// How long a connection may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A notice that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    pub id: String,
    /// The id of the event that it tells of.
    pub event: u64,
    pub job_id: String,
    pub state: String,
    /// It was answered with success.
    pub taken: bool,
}

/// Listens until the process ends.
#[derive(Debug)]
pub struct Receiver {
    pub url: String,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

impl Receiver {
    /// One whose answers follow from the run's seed.
    pub fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let (taken, mut random) = (deliveries.clone(), Random::new(seed, 0x4ec1));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (taken, choice) = (taken.clone(), random.below(100));
                thread::spawn(move || serve(stream, choice, &taken));
            }
        });
        Self {
            url: format!("http://{address}/hook"),
            deliveries,
        }
    }

    /// What has come.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().expect("the deliveries").clone()
    }
}

/// Takes one request. It counts as taken before the answer is sent: nobody knows whether that arrives.
fn serve(mut stream: TcpStream, choice: u64, deliveries: &Mutex<Vec<Delivery>>) {
    let _ = stream.set_read_timeout(Some(SILENCE_MAX));
    let Some(mut delivery) = read(&stream) else {
        return;
    };
    let answer = match choice {
        0..2 => "HTTP/1.1 500 No\r\n",
        2..4 => "",
        _ => "HTTP/1.1 204 Taken\r\n",
    };
    delivery.taken = answer.contains("204");
    deliveries.lock().expect("the deliveries").push(delivery);
    if !answer.is_empty() {
        let _ = write!(
            stream,
            "{answer}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
}

fn read(stream: &TcpStream) -> Option<Delivery> {
    let mut stream = BufReader::new(stream);
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "webhook-id" => id = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Delivery {
        id,
        event: body["data"]["event"].as_u64().unwrap_or_default(),
        job_id: text(&body["data"]["job"]["id"]),
        state: text(&body["data"]["job"]["state"]),
        taken: false,
    })
}
