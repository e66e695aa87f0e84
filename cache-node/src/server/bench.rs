//! A node without sockets, for benchmarks of what lies between them: bytes in, bytes out, on the caller's thread. And of that the first
//! step alone.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    command::REQUESTS_MAX,
    config::{Config, load_users},
    node::{Client, ClientEntry, Shared},
    protocol::{Limits, RequestParser, Requests},
    server::{
        connection::{ARGUMENTS_MAX, Stop, gather, run_batch},
        now,
        worker::Worker,
    },
};

/// A node and one connection to it. Nothing runs beside the caller: no key expires before it is met.
pub struct Engine {
    worker: Worker,
    client: Client,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// A node with this configuration; addresses are ignored.
    ///
    /// # Panics
    /// When a user of it is not right.
    pub fn new(config: Config) -> Engine {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let users = load_users(&config).expect("the users of a benchmark are right");
        let shared = Arc::new(Shared::new(config, nowhere, now()));
        shared.acl.begin(users, false);
        let entry = Arc::new(ClientEntry::new(1, nowhere, nowhere, now()));
        let client = Client::new(entry, &shared.acl);
        Engine { worker: Worker::new(shared, 0), client }
    }

    /// Runs whole requests as one batch that has arrived, and looks at the replies.
    ///
    /// # Panics
    /// When the last request is not whole.
    pub fn run<R>(&mut self, requests: &[u8], look: impl FnOnce(&[u8]) -> R) -> R {
        let scratch = &mut *self.worker.scratch.borrow_mut();
        let (consumed, stop) =
            run_batch(&self.worker, &mut self.client, &mut scratch.parser, &mut scratch.requests, requests, &mut scratch.reply);
        assert!(
            matches!(stop, Stop::Drained) && consumed == requests.len(),
            "a batch is whole, and its replies are below the bound"
        );
        look(scratch.reply.bytes())
    }
}

/// Finds the requests of a batch as a connection does, and runs none.
#[derive(Debug)]
pub struct Parser {
    parser: RequestParser,
    requests: Requests,
    limits: Limits,
}

impl Parser {
    /// One with the limits of a configuration.
    pub fn new(config: &Config) -> Parser {
        let limits = Limits { bulk_bytes_max: config.proto_max_bulk_len, arguments_max: ARGUMENTS_MAX };
        Parser { parser: RequestParser::default(), requests: Requests::default(), limits }
    }

    /// How many whole requests stand in `bytes`, 64 at the most.
    pub fn count(&mut self, bytes: &[u8]) -> usize {
        gather(&mut self.parser, &mut self.requests, bytes, self.limits, true, REQUESTS_MAX);
        self.requests.len()
    }
}
