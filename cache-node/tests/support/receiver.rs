//! A receiver of webhooks: a real HTTP server that answers as the test says.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value as Json;
use sha2::Sha256;

/// How a connection is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treat {
    /// Answered with this status.
    Answer(u16),
    /// Closed without an answer.
    Close,
    /// Never answered.
    Hang,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub path: String,
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub content_type: String,
    pub body: String,
}

impl Delivery {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Whether it is signed with this secret, among others perhaps.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        self.signature.split(' ').any(|signature| {
            let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
            let mut mac: Hmac<Sha256> = Hmac::new_from_slice(&key).unwrap();
            mac.update(format!("{}.{}.{}", self.id, self.timestamp, self.body).as_bytes());
            mac.verify_slice(&signature).is_ok()
        })
    }
}

/// How long nothing is answered where it is never answered.
pub const HANG: Duration = Duration::from_secs(60);

/// Treats the first connections as it is told, and answers all others with 204.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub address: SocketAddr,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

impl Receiver {
    pub fn start(treats: &[Treat]) -> Receiver {
        Receiver::start_with(treats, None)
    }

    /// Answers this kind of event with 503, and all others with 204.
    pub fn refusing(kind: &'static str) -> Receiver {
        Receiver::start_with(&[], Some(kind))
    }

    fn start_with(treats: &[Treat], refused: Option<&'static str>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Receiver { address: listener.local_addr().unwrap(), deliveries: Arc::default() };
        let (mut treats, deliveries) = (VecDeque::from(treats.to_vec()), Arc::clone(&receiver.deliveries));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let treat = treats.pop_front().unwrap_or(Treat::Answer(204));
                let deliveries = Arc::clone(&deliveries);
                thread::spawn(move || serve(stream, treat, refused, &deliveries));
            }
        });
        receiver
    }

    /// What has come, tries that it refused included.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks/cache?for=tests", self.address)
    }
}

fn serve(mut stream: TcpStream, mut treat: Treat, refused: Option<&str>, deliveries: &Mutex<Vec<Delivery>>) {
    // A client may leave before it has said all.
    if let Some(delivery) = read(&stream) {
        if refused.is_some_and(|kind| delivery.kind() == kind) {
            treat = Treat::Answer(503);
        }
        deliveries.lock().unwrap().push(delivery);
    }
    match treat {
        Treat::Close => {}
        Treat::Hang => thread::sleep(HANG),
        Treat::Answer(status) => {
            let answer = format!("HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()));
        }
    }
}

/// Reads one request.
pub fn read(stream: impl std::io::Read) -> Option<Delivery> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let lines = head.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Delivery {
        path: head[0].split(' ').nth(1)?.to_owned(),
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        content_type: header("content-type"),
        body: String::from_utf8(body).ok()?,
    })
}
