//! The controller's own connection to a node: a request, its answer, a deadline.

use std::{io, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::cluster::limits::{ANSWER_BYTES_MAX, CALL_MAX, CONNECT_MAX};

/// Levels of arrays in arrays that an answer may have.
const DEPTH_MAX: usize = 8;

/// What a node answered; error answers are [`LinkError::Refused`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Text(String),
    Integer(i64),
    Null,
    List(Vec<Answer>),
    Error(String),
}

/// Why a call has no answer.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the answer is not in Redis's protocol")]
    Malformed,
    /// The node's own words.
    #[error("{0}")]
    Refused(String),
}

/// One connection, one call at a time. The node obeys calls in their order, also one behind another whose answer is late.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    pending: Vec<u8>,
    /// Answers that are still to come. All but the last are those of earlier calls, for which nobody waits any more.
    owed: usize,
}

impl Link {
    pub(super) async fn open(address: SocketAddr) -> Result<Link, LinkError> {
        let stream = timeout(CONNECT_MAX, TcpStream::connect(address)).await.map_err(|_| LinkError::Late(CONNECT_MAX))??;
        stream.set_nodelay(true)?;
        Ok(Link { stream, pending: Vec::new(), owed: 0 })
    }

    /// Sends a request and waits for its answer, at most `limit`.
    pub(super) async fn call(&mut self, request: &[&str], limit: Duration) -> Result<Answer, LinkError> {
        let exchange = async {
            // The controller's requests are short, so that they find room in the socket and are never cut.
            self.stream.write_all(&encode(request)).await?;
            self.owed += 1;
            loop {
                let answer = self.answer().await?;
                self.owed -= 1;
                if self.owed == 0 {
                    return Ok(answer);
                }
            }
        };
        match timeout(limit, exchange).await {
            Ok(Ok(Answer::Error(text))) => Err(LinkError::Refused(text)),
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Late(limit)),
        }
    }

    /// Tells the node whom to follow, or that it is a primary (`NO ONE`), which a node of a cluster takes from its controller alone.
    pub(super) async fn replicaof(&mut self, host: &str, port: &str) -> Result<(), LinkError> {
        match self.call(&["REPLCONF", "supervisor", "yes"], CALL_MAX).await {
            // Another program, or an earlier version, knows no such option and needs none.
            Ok(_) | Err(LinkError::Refused(_)) => self.call(&["REPLICAOF", host, port], CALL_MAX).await.map(drop),
            Err(error) => Err(error),
        }
    }

    /// As [`Link::call`], for an answer that is text.
    pub(super) async fn text(&mut self, request: &[&str], limit: Duration) -> Result<String, LinkError> {
        match self.call(request, limit).await? {
            Answer::Text(text) => Ok(text),
            _ => Err(LinkError::Malformed),
        }
    }

    /// The value of a directive.
    pub(super) async fn directive(&mut self, name: &str) -> Result<String, LinkError> {
        match self.call(&["CONFIG", "GET", name], CALL_MAX).await? {
            Answer::List(pair) => match pair.into_iter().nth(1) {
                Some(Answer::Text(value)) => Ok(value),
                _ => Err(LinkError::Malformed),
            },
            _ => Err(LinkError::Malformed),
        }
    }

    async fn answer(&mut self) -> Result<Answer, LinkError> {
        loop {
            if let Some((answer, length)) = parse(&self.pending, 0)? {
                self.pending.drain(..length);
                return Ok(answer);
            }
            if self.pending.len() > ANSWER_BYTES_MAX {
                return Err(LinkError::Malformed);
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn encode(request: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for argument in request {
        bytes.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    bytes
}

/// The answer at the start of `bytes` and its length; `None` while it is incomplete.
fn parse(bytes: &[u8], depth: usize) -> Result<Option<(Answer, usize)>, LinkError> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (kind, line) = bytes[..end].split_first().ok_or(LinkError::Malformed)?;
    let line = String::from_utf8_lossy(line);
    let head = end + 2;
    let number = || line.parse::<i64>().map_err(|_| LinkError::Malformed);
    match kind {
        b'+' => Ok(Some((Answer::Text(line.into_owned()), head))),
        b'-' => Ok(Some((Answer::Error(line.into_owned()), head))),
        b':' => Ok(Some((Answer::Integer(number()?), head))),
        b'$' => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Some((Answer::Null, head))) };
            if length > ANSWER_BYTES_MAX {
                return Err(LinkError::Malformed);
            }
            let Some(body) = bytes.get(head..head + length + 2) else { return Ok(None) };
            Ok(Some((Answer::Text(String::from_utf8_lossy(&body[..length]).into_owned()), head + length + 2)))
        }
        b'*' if depth < DEPTH_MAX => {
            let Ok(count) = usize::try_from(number()?) else { return Ok(Some((Answer::Null, head))) };
            let mut position = head;
            let mut elements = Vec::new();
            for _ in 0..count {
                let Some((element, length)) = parse(&bytes[position..], depth + 1)? else { return Ok(None) };
                elements.push(element);
                position += length;
            }
            Ok(Some((Answer::List(elements), position)))
        }
        _ => Err(LinkError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::oneshot,
    };

    use super::{Answer, Link, LinkError, parse};

    #[tokio::test]
    async fn a_late_answer_is_not_taken_for_that_of_the_next_call() {
        let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = node.local_addr().unwrap();
        let (go_on, is_over) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let (mut client, _) = node.accept().await.unwrap();
            is_over.await.unwrap();
            let mut requests = [0; 256];
            assert!(client.read(&mut requests).await.unwrap() > 0);
            client.write_all(b"+early\r\n+late\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut link = Link::open(address).await.unwrap();
        let first = link.call(&["EARLY"], Duration::from_millis(20)).await;
        assert!(matches!(first, Err(LinkError::Late(_))), "{first:?}");
        go_on.send(()).unwrap();
        assert_eq!(link.text(&["LATE"], Duration::from_secs(20)).await.unwrap(), "late");
    }

    #[test]
    fn answers_of_every_kind_at_every_split() {
        let whole = b"*5\r\n+OK\r\n:-7\r\n$-1\r\n$3\r\na\r\n\r\n-ERR no\r\n";
        for split in 0..whole.len() {
            assert_eq!(parse(&whole[..split], 0).unwrap(), None, "split at {split}");
        }
        let (answer, length) = parse(whole, 0).unwrap().unwrap();
        assert_eq!(length, whole.len());
        let text = |text: &str| Answer::Text(text.to_owned());
        let expected = [text("OK"), Answer::Integer(-7), Answer::Null, text("a\r\n"), Answer::Error("ERR no".to_owned())];
        assert_eq!(answer, Answer::List(expected.into()));
    }

    #[test]
    fn an_answer_that_lies_is_refused() {
        for bytes in [&b"$99999999999\r\n"[..], b"?\r\n", b":x\r\n", b"\r\n", &b"*1\r\n".repeat(20)] {
            assert!(parse(bytes, 0).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
