//! Applies a stream of requests to the keyspace: the log when it is loaded, a primary's stream on a replica. No replies, no refusal for
//! memory, and keys go only when the stream says so.

use thiserror::Error;

use crate::{
    command::{Run, hashed_keys, lock_for, names, table},
    keyspace::{Keys, Now},
    node::Shared,
    protocol::{Args, Limits, OwnedRequest, ProtocolError, Reply, RequestParser},
};

/// Bounds on a request of a stream: it comes from a node and was within the bounds that its clients had.
const LIMITS: Limits = Limits { bulk_bytes_max: u32::MAX as usize / 2, arguments_max: i32::MAX as usize };

/// Commands of Redis that change no keys, and which this node does not have.
const PASSED_OVER: [&str; 2] = ["FUNCTION", "SPUBLISH"];

/// Why a stream cannot be applied any further.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ApplyError {
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("Protocol error: expected '*', a request begins with its number of arguments")]
    NotAnArray,
    #[error("unknown command '{0}'")]
    UnknownCommand(String),
    #[error("wrong number of arguments for '{0}'")]
    Arity(String),
    #[error("MULTI, EXEC or DISCARD where none may stand")]
    Nesting,
    #[error("the request there is longer than the file, but whole ones stand behind it, at byte {0}")]
    Behind(u64),
    #[error("there is no database {0}; raise 'databases'")]
    Database(String),
    #[error("another primary is followed, or none")]
    Superseded,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was applied, or waits for its EXEC.
    Yes,
    /// It is none about keys (PING, REPLCONF, PUBLISH), also where it stands in a transaction: left to the caller.
    NotAboutKeys,
}

/// Where a request comes from, when it is the stream of a primary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// What is handed on to this node's own stream under the same locks: the request, or the whole transaction that it ends. So a
    /// snapshot has a request if and only if its offset is behind it.
    pub(crate) raw: &'a [u8],
    /// The epoch of the link: nothing is applied after it.
    pub(crate) epoch: u64,
}

impl Origin<'_> {
    fn check(origin: Option<Origin<'_>>, shared: &Shared) -> Result<(), ApplyError> {
        match origin {
            Some(origin) if origin.epoch != shared.replication.epoch() => Err(ApplyError::Superseded),
            _ => Ok(()),
        }
    }

    fn hand_on(origin: Option<Origin<'_>>, shared: &Shared, db: usize) {
        if let Some(origin) = origin {
            shared.replication.set_stream_db(db);
            shared.journal.append_raw(origin.raw, true);
        }
    }
}

/// Where a stream stands: its database and its open transaction.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    db: usize,
    transaction: Option<Vec<(usize, OwnedRequest)>>,
    parser: RequestParser,
    reply: Reply,
}

impl Applier {
    /// A stream that goes on in `db`.
    pub(crate) fn in_database(db: usize) -> Applier {
        Applier { db, ..Applier::default() }
    }

    /// The database that the stream has selected.
    pub(crate) fn db(&self) -> usize {
        self.db
    }

    /// Whether a MULTI waits for its EXEC.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Bytes of the first request in `bytes`; `None` when it is not whole. Between calls the caller keeps an incomplete request's bytes
    /// and appends to them.
    pub(crate) fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, ApplyError> {
        if bytes.first().is_some_and(|first| *first != b'*') {
            return Err(ApplyError::NotAnArray);
        }
        Ok(self.parser.parse(bytes, LIMITS, true)?)
    }

    /// The arguments of the request that [`Applier::parse`] found in the same bytes.
    pub(crate) fn args<'a>(&'a self, bytes: &'a [u8]) -> Args<'a> {
        self.parser.args(bytes)
    }

    /// Whether the request that [`Applier::parse`] found in the same bytes is of a command that may stand in a stream.
    pub(crate) fn is_known(&self, bytes: &[u8]) -> bool {
        self.args(bytes).get(0).is_some_and(|name| names::find(name).is_some() || is_passed_over(name))
    }

    /// Applies the request that [`Applier::parse`] found in the same bytes. What a command answers, errors too, is dropped: it is what
    /// the writer's own clients were told.
    pub(crate) fn apply(&mut self, shared: &Shared, bytes: &[u8], now: Now) -> Result<Applied, ApplyError> {
        self.apply_from(shared, bytes, now, None)
    }

    /// As [`Applier::apply`], for the stream of a primary.
    pub(crate) fn apply_from(
        &mut self,
        shared: &Shared,
        bytes: &[u8],
        now: Now,
        origin: Option<Origin<'_>>,
    ) -> Result<Applied, ApplyError> {
        let Applier { db, transaction, parser, reply } = self;
        let args = parser.args(bytes);
        let Some(name) = args.get(0) else { return Ok(Applied::Yes) };
        if is_passed_over(name) {
            return Ok(Applied::NotAboutKeys);
        }
        let printable = || String::from_utf8_lossy(name).into_owned();
        let index = names::find(name).ok_or_else(|| ApplyError::UnknownCommand(printable()))?;
        let spec = &table::TABLE[index];
        spec.check_arity(args).map_err(|_| ApplyError::Arity(printable()))?;
        match spec.name {
            "MULTI" if transaction.is_none() => *transaction = Some(Vec::new()),
            "EXEC" => {
                let queue = transaction.take().ok_or(ApplyError::Nesting)?;
                let mut keys = shared.keyspace.lock_all(*db, now, shared);
                Origin::check(origin, shared)?;
                keys.apply_only();
                for (index, request) in &queue {
                    run(&mut keys, *index, request.args(), reply)?;
                }
                *db = keys.db();
                Origin::hand_on(origin, shared, *db);
            }
            "MULTI" | "DISCARD" => return Err(ApplyError::Nesting),
            _ => {
                let Run::Keys(_) = spec.run else { return Ok(Applied::NotAboutKeys) };
                if let Some(queue) = transaction {
                    queue.push((index, args.to_owned()));
                    return Ok(Applied::Yes);
                }
                let mut hashed = hashed_keys(shared, spec, args);
                if hashed.is_empty() {
                    // SELECT: some shard. A file of the log, or a snapshot, that says the stream's database begins under the locks of all,
                    // and what stands in it must be of that one.
                    hashed.push(shared.keyspace.hashed(b""));
                }
                let mut keys = lock_for(shared, spec, &hashed, *db, now);
                Origin::check(origin, shared)?;
                keys.apply_only();
                run(&mut keys, index, args, reply)?;
                *db = keys.db();
                Origin::hand_on(origin, shared, *db);
            }
        }
        Ok(Applied::Yes)
    }
}

fn is_passed_over(name: &[u8]) -> bool {
    PASSED_OVER.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn run(keys: &mut Keys<'_>, index: usize, args: Args<'_>, reply: &mut Reply) -> Result<(), ApplyError> {
    let spec = &table::TABLE[index];
    let Run::Keys(run) = spec.run else { return Ok(()) };
    reply.clear();
    let outcome = run(keys, args, reply);
    match outcome {
        Err(_) if spec.name == "SELECT" => Err(ApplyError::Database(String::from_utf8_lossy(args.at(1)).into_owned())),
        _ => Ok(()),
    }
}
