//! The Sentinel port: clients that ask Sentinels for the primary ask here.
//!
//! The commands and the form of their answers are those of Redis's Sentinel; behind them stands one controller instead of a quorum.

mod answer;
mod channel;
mod instance;

use std::{io, net::SocketAddr};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::broadcast,
    time::timeout,
};

use crate::{
    cluster::{
        events::Event,
        limits::{SENTINEL_ARGUMENTS_MAX, SENTINEL_BULK_BYTES_MAX, SENTINEL_CONNECTIONS_MAX, SENTINEL_STALL_MAX},
        operation::Desk,
        sentinel::{answer::Session, channel::Messages},
    },
    protocol::{Limits, Reply, RequestParser},
    server::{
        MAX_CLIENTS,
        accept::{Places, accept},
    },
};

/// What the Sentinel port answers from.
#[derive(Clone, Debug)]
pub(super) struct Sentinel {
    pub(super) desk: Desk,
    /// Where it listens, which it tells of itself.
    pub(super) address: SocketAddr,
}

const LIMITS: Limits = Limits { bulk_bytes_max: SENTINEL_BULK_BYTES_MAX, arguments_max: SENTINEL_ARGUMENTS_MAX };

/// Serves until the task is aborted.
pub(super) async fn serve(listener: TcpListener, sentinel: Sentinel) {
    accept(listener, Places::new(SENTINEL_CONNECTIONS_MAX), MAX_CLIENTS, move |client, peer| {
        let sentinel = sentinel.clone();
        async move {
            if let Err(error) = converse(client, sentinel).await {
                tracing::debug!(%peer, %error, "a client of the Sentinel port");
            }
        }
    })
    .await;
}

async fn converse(mut client: TcpStream, sentinel: Sentinel) -> io::Result<()> {
    client.set_nodelay(true)?;
    // Followed from the beginning: what happens between SUBSCRIBE and its answer is not missed.
    let mut events = sentinel.desk.events.follow();
    let mut messages = Messages::new(&sentinel.desk.seen());
    let mut session = Session::new(sentinel);
    let mut received = BytesMut::new();
    let mut parser = RequestParser::default();
    let mut reply = Reply::default();
    loop {
        tokio::select! {
            read = client.read_buf(&mut received) => if read? == 0 { return Ok(()) },
            event = events.recv() => {
                publish(event, &mut messages, &session, &mut reply);
                send(&mut client, &mut reply).await?;
                continue;
            }
        }
        loop {
            match parser.parse(&received, LIMITS, true) {
                Ok(None) => break,
                Ok(Some(consumed)) => {
                    session.run(parser.args(&received), &mut reply).await;
                    received.advance(consumed);
                    if session.is_over {
                        return send(&mut client, &mut reply).await;
                    }
                }
                Err(error) => {
                    reply.error(&format!("ERR {error}"));
                    return send(&mut client, &mut reply).await;
                }
            }
        }
        send(&mut client, &mut reply).await?;
    }
}

/// Sentinel's messages about an event, for what the client has subscribed to.
fn publish(event: Result<Event, broadcast::error::RecvError>, messages: &mut Messages, session: &Session, reply: &mut Reply) {
    // A follower that missed events learns where the primary is from what it sees now.
    let seen = event.ok();
    for (channel, text) in messages.after(seen.as_ref(), &session.view()) {
        session.subscriptions.publish(channel, &text, reply);
    }
}

async fn send(client: &mut TcpStream, reply: &mut Reply) -> io::Result<()> {
    timeout(SENTINEL_STALL_MAX, client.write_all(reply.bytes())).await.map_err(|_| io::ErrorKind::TimedOut)??;
    reply.clear();
    Ok(())
}
