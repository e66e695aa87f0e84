//! The replies of a turn, in which a thread serves all of its connections that have something to say: they are sent when all were served.
//!
//! A client that gets its reply at once wakes up on another core, and what it does there and what the thread does next are in each
//! other's way, as often as there are connections. With io_uring the ring does the same.

use std::{cell::RefCell, collections::HashMap, io::ErrorKind, rc::Rc, sync::Arc};

use tokio::net::TcpStream;

use crate::{node::ClientEntry, protocol::Reply};

/// A longer reply is worth a system call of its own, and no copy.
const BYTES_MAX: usize = 16 * 1024;
/// So many bytes are sent before the turn's end: those that lie in the processor's cache are sent faster.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// And so many replies: more of them bring nothing.
const WAITING_MAX: usize = 256;
/// A reply of so many bytes waits in the memory that it was written into, which another takes the place of; a shorter one is copied.
const OWN_BYTES_MIN: usize = 2 * 1024;
/// Memory that is more stays with whoever writes replies.
const OWN_CAPACITY_MAX: usize = 2 * BYTES_MAX;
/// Empty buffers that are kept for the next ones.
const SPARE_MAX: usize = WAITING_BYTES_MAX / OWN_BYTES_MIN / 2;

/// What one thread's connections have to be sent.
#[derive(Debug, Default)]
pub(super) struct TurnReplies {
    waiting: RefCell<Waiting>,
    /// By the connection's number: what its socket did not take. It sends that itself.
    rests: RefCell<HashMap<u64, Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Short replies, one behind the other.
    copied: Vec<u8>,
    replies: Vec<Waits>,
    /// Of all of them.
    bytes: usize,
    spare: Vec<Reply>,
}

#[derive(Debug)]
struct Waits {
    stream: Rc<TcpStream>,
    client: Arc<ClientEntry>,
    lies: Lies,
}

/// Where a reply is.
#[derive(Debug)]
enum Lies {
    /// Among those that were copied, up to this end.
    Copied(usize),
    Own(Reply),
}

impl TurnReplies {
    /// Takes a reply that is to be sent, if it may wait: `false` when it is too long, or something of its connection has to go first.
    ///
    /// The reply may be empty then.
    pub(super) fn take(&self, stream: &Rc<TcpStream>, client: &Arc<ClientEntry>, reply: &mut Reply) -> bool {
        if reply.len() > BYTES_MAX || self.has_rest(client.id) {
            return false;
        }
        let waiting = &mut *self.waiting.borrow_mut();
        waiting.bytes += reply.len();
        let lies = if reply.len() >= OWN_BYTES_MIN && reply.capacity() <= OWN_CAPACITY_MAX {
            let mut own = waiting.spare.pop().unwrap_or_default();
            own.exchange(reply);
            Lies::Own(own)
        } else {
            waiting.copied.extend_from_slice(reply.bytes());
            Lies::Copied(waiting.copied.len())
        };
        waiting.replies.push(Waits { stream: Rc::clone(stream), client: Arc::clone(client), lies });
        if waiting.bytes >= WAITING_BYTES_MAX || waiting.replies.len() >= WAITING_MAX {
            self.send_all(waiting);
        }
        true
    }

    /// Sends what waits.
    pub(super) fn send(&self) {
        self.send_all(&mut self.waiting.borrow_mut());
    }

    fn send_all(&self, waiting: &mut Waiting) {
        let mut start = 0;
        for Waits { stream, client, lies } in waiting.replies.drain(..) {
            let reply = match &lies {
                Lies::Copied(end) => &waiting.copied[std::mem::replace(&mut start, *end)..*end],
                Lies::Own(reply) => reply.bytes(),
            };
            // Never past what has to go first.
            let outcome = if self.has_rest(client.id) { Ok(0) } else { stream.try_write(reply) };
            let sent = match outcome {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => {
                    // Whatever it was: with a reply missing, each that follows would be taken for that of another request.
                    client.outbox.close();
                    reply.len()
                }
            };
            if sent < reply.len() {
                self.rests.borrow_mut().entry(client.id).or_default().extend_from_slice(&reply[sent..]);
                client.outbox.wake();
            }
            if let Lies::Own(mut own) = lies
                && waiting.spare.len() < SPARE_MAX
            {
                own.clear();
                waiting.spare.push(own);
            }
        }
        waiting.copied.clear();
        waiting.bytes = 0;
    }

    pub(super) fn has_rest(&self, client: u64) -> bool {
        let rests = self.rests.borrow();
        !rests.is_empty() && rests.contains_key(&client)
    }

    /// What has to go to a connection before anything else.
    pub(super) fn take_rest(&self, client: u64) -> Option<Vec<u8>> {
        let mut rests = self.rests.borrow_mut();
        if rests.is_empty() { None } else { rests.remove(&client) }
    }
}
