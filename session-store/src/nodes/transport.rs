//! How a connection to a node is made.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
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

/// What all connections to the nodes of one store have in common.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) login: RedisConnectionInfo,
    /// Requests that may wait for their turn in one connection.
    pub(crate) queue_max: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) age_max: Duration,
    /// Whether only a primary will do.
    pub(crate) primary_only: bool,
}

/// A connection. What drives it ends with its last user.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) made: Instant,
}

impl Transport {
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
            Ok(Err(error)) => Err(connect_error(address, reason(&error))),
            Err(_) => Err(connect_error(
                address,
                format!("no answer within {} ms; is it running, and is the address right?", self.connect_timeout.as_millis()),
            )),
        }
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
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                reached.store(true, Ordering::Release);
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                self.greet(stream, on_push).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                reached.store(true, Ordering::Release);
                self.greet(stream, on_push).await
            }
        }
    }

    async fn greet<S>(&self, stream: S, on_push: Option<OnPush>) -> Result<Connection, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
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
        if self.primary_only && is_replica(&mut wire).await? {
            return Err(io::Error::other("it is a replica, and does not take writes").into());
        }
        Ok(Connection { wire, made: Instant::now() })
    }
}

/// A node that does not tell its role, because its user may not ask, is taken for a primary.
async fn is_replica(wire: &mut Wire) -> Result<bool, RedisError> {
    match redis::cmd("ROLE").query_async::<Value>(wire).await {
        Ok(Value::Array(role)) => Ok(role.first().is_some_and(|role| *role == Value::BulkString(b"slave".to_vec()))),
        Err(error) if is_broken(&error) => Err(error),
        Ok(_) | Err(_) => Ok(false),
    }
}

pub(crate) fn connect_error(address: &Address, reason: String) -> StoreError {
    StoreError::Connect { address: address.to_string(), reason }
}
