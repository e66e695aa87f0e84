//! How a connection to a node is made.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{RedisConnectionInfo, RedisError, Value};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{Address, is_broken, reason};
use crate::{
    StoreError,
    wire::{OnPush, Wire},
};

/// After a minute without traffic the system asks whether the peer is still there, so that routers do not forget the
/// connection.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Requests without a reply that one connection takes, for each operation that may be in flight, and at least: the replies
/// that nobody waits for any more are among them.
const REQUESTS_PER_PLACE: usize = 4;
const REQUESTS_MIN: usize = 1_024;

const HINT: &str = "is it running, and is the address right?";

/// What all connections to the nodes of one store have in common.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) login: RedisConnectionInfo,
    /// Requests that may wait for their turn in one connection.
    pub(crate) queue_max: usize,
    pub(crate) connect_timeout: Duration,
    /// What requests wait for an answer: a node that is slower is as good as none.
    pub(crate) answer_within: Duration,
    pub(crate) age_max: Duration,
    /// Counts the connections of requests that have another one in their place.
    pub(crate) replaced: Arc<AtomicU64>,
    /// Whether only a primary will do.
    pub(crate) primary_only: bool,
    /// Whether the nodes are replicas of a cluster, which serve reads only to those who say that they know.
    pub(crate) readonly: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tokio_rustls::TlsConnector>,
    /// What [`Address::Memory`] leads to.
    #[cfg(feature = "testing")]
    pub(crate) memory: Option<crate::testing::MemoryNode>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}

/// What connections are made of: TCP, TLS over it, a socket of the file system, or the memory that a test has a node in.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection. What drives it ends with its last user.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) made: Instant,
}

impl Transport {
    /// `now`: as of a moment ago.
    pub(super) fn is_old(&self, connection: &Connection, now: Instant) -> bool {
        now.saturating_duration_since(connection.made) > self.age_max
    }

    /// A connection over which the node has answered, within the time that an attempt may take.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Connection, StoreError> {
        let reached = AtomicBool::new(false);
        let attempts = async {
            match self.open(address, &reached).await {
                // Closed during the handshake, as by a server that is going down or has just come up: once more.
                Err(error) if is_broken(&error) && !error.is_connection_refusal() => self.open(address, &reached).await,
                opened => opened,
            }
        };
        match timeout(self.connect_timeout, attempts).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(connect_error(address, self.explained(&error))),
            Err(_) => Err(connect_error(address, self.late())),
        }
    }

    /// What an attempt ended with, and what to do about it.
    pub(crate) fn explained(&self, error: &RedisError) -> String {
        let reason = reason(error);
        #[cfg(feature = "tls")]
        if self.tls.is_some() && is_broken(error) && !error.is_connection_refusal() {
            return format!(
                "{reason}; a server that wants a client's certificate does so: cert=/path/to/cert.pem&key=/path/to/key.pem"
            );
        }
        reason
    }

    /// What to say when nothing came within the time that an attempt may take.
    fn late(&self) -> String {
        #[cfg(feature = "tls")]
        let hint = if self.tls.is_some() { "is it running, is the address right, and does it speak TLS there?" } else { HINT };
        #[cfg(not(feature = "tls"))]
        let hint = HINT;
        format!("no answer within {} ms; {hint}", self.connect_timeout.as_millis())
    }

    /// `reached` is set as soon as the peer's system has accepted the connection.
    pub(crate) async fn open(&self, address: &Address, reached: &AtomicBool) -> Result<Connection, RedisError> {
        self.open_with(address, reached, None).await
    }

    /// With `on_push` over RESP3, which is what pushes are part of.
    pub(crate) async fn open_with(
        &self,
        address: &Address,
        reached: &AtomicBool,
        on_push: Option<OnPush>,
    ) -> Result<Connection, RedisError> {
        let stream = self.stream(address, reached).await?;
        self.greet(stream, on_push).await
    }

    /// The stream alone, before anything is said over it.
    pub(crate) async fn stream(&self, address: &Address, reached: &AtomicBool) -> io::Result<Box<dyn Stream>> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                reached.store(true, Ordering::Release);
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.tls {
                    return Ok(Box::new(tls.connect(super::tls::server_name(host)?, stream).await?));
                }
                Ok(Box::new(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                reached.store(true, Ordering::Release);
                Ok(Box::new(stream))
            }
            #[cfg(feature = "testing")]
            Address::Memory => {
                let node = self.memory.as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
                reached.store(true, Ordering::Release);
                Ok(Box::new(node.connect()?))
            }
        }
    }

    async fn greet(&self, stream: Box<dyn Stream>, on_push: Option<OnPush>) -> Result<Connection, RedisError> {
        // Requests that ran out of time still have their replies to come.
        let pushes = on_push.is_some();
        let (mut wire, driver) = Wire::new(stream, (REQUESTS_PER_PLACE * self.queue_max).max(REQUESTS_MIN), on_push);
        tokio::spawn(driver);
        if let Some(password) = self.login.password() {
            let mut auth = redis::cmd("AUTH");
            if let Some(user) = self.login.username() {
                auth.arg(user);
            }
            auth.arg(password).exec_async(&mut wire).await?;
        }
        if pushes {
            redis::cmd("HELLO").arg(3).exec_async(&mut wire).await?;
        }
        if self.login.db() != 0 {
            redis::cmd("SELECT").arg(self.login.db()).exec_async(&mut wire).await?;
        }
        // Shows a server that wants a password or is still loading.
        redis::cmd("PING").exec_async(&mut wire).await?;
        if self.readonly {
            redis::cmd("READONLY").exec_async(&mut wire).await?;
        }
        if self.primary_only && is_replica(&mut wire).await? {
            return Err(io::Error::other("it is a replica, and does not take writes").into());
        }
        Ok(Connection { wire, made: Instant::now() })
    }
}

/// A node that does not tell its role, because its user may not ask, is taken for a primary.
async fn is_replica(wire: &mut Wire) -> Result<bool, RedisError> {
    Ok(role(wire).await?.is_some_and(|role| role == b"slave"))
}

/// `master` or `slave`, as nodes say; `None` when this one does not.
pub(crate) async fn role(wire: &mut Wire) -> Result<Option<Vec<u8>>, RedisError> {
    match redis::cmd("ROLE").query_async::<Value>(wire).await {
        Ok(Value::Array(role)) => Ok(role.into_iter().next().and_then(|role| redis::from_redis_value(role).ok())),
        Err(error) if is_broken(&error) => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

pub(crate) fn connect_error(address: &Address, reason: String) -> StoreError {
    StoreError::Connect { address: address.to_string(), reason }
}
