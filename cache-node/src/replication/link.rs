//! Following a primary: the handshake, a snapshot where it must be, then its stream.

use std::{
    io::{self, Read},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    command::apply::{Applied, Applier, ApplyError, Origin},
    node::{EventKind, Hindrance, Shared},
    persistence::{
        Expired, load_while,
        rdb::{Decoder, RdbError},
    },
    replication::{FailoverState, LinkState, PositionFields, PrimaryAddress, wire::PrimaryWire},
    server::now,
};

/// Pause before the link is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How often the primary is told how far this node is, when nothing comes.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// What Redis says to `PSYNC … FAILOVER` when it is a primary already.
const IS_PRIMARY: &str = "PSYNC FAILOVER can't be sent to a master";

/// Why a link ended.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("nothing came for {0:?}, longer than repl-timeout")]
    Silent(Duration),
    #[error("it answered {1} to {0}")]
    Refused(&'static str, String),
    #[error("protocol error: {0}")]
    Protocol(String),
    #[error("its snapshot cannot be loaded: {0}")]
    Snapshot(#[from] RdbError),
    #[error("its stream cannot be applied: {0}")]
    Apply(#[from] ApplyError),
    /// Another primary is followed, or none, or the node ends.
    #[error("it is not followed any more")]
    NotWanted,
}

/// Starts the thread that follows a primary whenever there is one.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("cache-node-link".to_owned()).spawn(move || {
        // It is tried again and again: that it is down is told once for each time that it was up, and for each primary.
        let mut told = None;
        while let Some((address, epoch)) = shared.replication.wait_for_primary(&shared) {
            let error = follow(&shared, &address, epoch);
            shared.replication.change_link(|link| {
                if link.state == LinkState::Connected {
                    link.down_since_ms = now().unix_ms;
                    told = None;
                }
                link.state = LinkState::Connect;
            });
            shared.replication.judge(&shared, now());
            if !matches!(error, LinkError::NotWanted) {
                // Who follows port 0 is to follow nobody for now: a node that is fenced.
                if told.replace(epoch) == Some(epoch) || address.port == 0 {
                    tracing::warn!(primary = %address.host, port = address.port, %error, "the link to the primary is down");
                } else {
                    let text = format!("the link to the primary {}:{} is down: {error}", address.host, address.port);
                    shared.tell(EventKind::PrimaryLinkLost, text);
                }
                shared.replication.pause(epoch, RETRY);
            }
        }
    })
}

/// Follows a primary until that ends, and says why.
fn follow(shared: &Shared, address: &PrimaryAddress, epoch: u64) -> LinkError {
    shared.replication.change_link(|link| link.state = LinkState::Connecting);
    let outcome = PrimaryWire::connect(shared, address, epoch).and_then(|mut wire| {
        shared.replication.change_link(|link| link.state = LinkState::Handshake);
        introduce(shared, &mut wire)?;
        let db = synchronize(shared, &mut wire, epoch)?;
        shared.replication.change_link(|link| link.state = LinkState::Connected);
        shared.replication.judge(shared, now());
        let offset = shared.journal.offset();
        let text = format!("following the stream of the primary {}:{} from offset {offset} on", address.host, address.port);
        shared.tell(EventKind::PrimaryLinkUp, text);
        apply_stream(shared, &mut wire, epoch, db)
    });
    match outcome {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Who this node is, before it asks for the stream.
fn introduce(shared: &Shared, wire: &mut PrimaryWire<'_>) -> Result<(), LinkError> {
    let config = shared.config();
    let answer = wire.ask(&[b"PING"])?;
    // Without a password yet, or while it loads, it lives as well.
    let lives = ["+", "-NOAUTH", "-NOPERM", "-ERR operation not permitted", "-LOADING", "-MASTERDOWN"];
    if !lives.iter().any(|prefix| answer.starts_with(prefix)) {
        return Err(LinkError::Refused("PING", answer));
    }
    if let Some(password) = &config.masterauth {
        let answer = match &config.masteruser {
            Some(user) => wire.ask(&[b"AUTH", user.as_bytes(), password.as_bytes()])?,
            None => wire.ask(&[b"AUTH", password.as_bytes()])?,
        };
        if !answer.starts_with('+') {
            // A server that does not know AUTH repeats what it was sent, and this is logged.
            return Err(LinkError::Refused("AUTH with masterauth", answer.replace(password.as_str(), "(hidden)")));
        }
    }
    let port = config.replica_announce_port.unwrap_or(shared.address.port()).to_string();
    // Those that do not know an option answer with an error: it is a hint then that nobody needs.
    wire.ask(&[b"REPLCONF", b"listening-port", port.as_bytes()])?;
    if let Some(address) = &config.replica_announce_ip {
        wire.ask(&[b"REPLCONF", b"ip-address", address.as_bytes()])?;
    }
    // `confirms` is this node's own word: others ignore what they do not know.
    wire.ask(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2", b"capa", b"confirms"])?;
    Ok(())
}

/// Asks for the stream, and takes a snapshot first where it cannot be gone on with. Gives the database that the stream has selected.
fn synchronize(shared: &Shared, wire: &mut PrimaryWire<'_>, epoch: u64) -> Result<usize, LinkError> {
    let replication = &shared.replication;
    // Offsets count from 1 here: the one of the next byte.
    let (id, next) = (replication.ids().id, (shared.journal.offset() + 1).to_string());
    let is_failover = replication.failover_state() == FailoverState::InProgress;
    let mut answer = match shared.journal.backlog() {
        // It becomes the primary by this.
        Some(_) if is_failover => wire.ask(&[b"PSYNC", id.as_bytes(), next.as_bytes(), b"FAILOVER"])?,
        Some(_) => wire.ask(&[b"PSYNC", id.as_bytes(), next.as_bytes()])?,
        None => wire.ask(&[b"PSYNC", b"?", b"-1"])?,
    };
    if is_failover {
        let mut is_taken = answer.starts_with("+CONTINUE") || answer.starts_with("+FULLRESYNC");
        if answer.contains(IS_PRIMARY) {
            // It may have taken over by an earlier request, whose answer was lost. If it has, it goes on with the stream from its very end.
            answer = wire.ask(&[b"PSYNC", id.as_bytes(), next.as_bytes()])?;
            is_taken = answer.starts_with("+CONTINUE");
        }
        replication.successor_answered(shared, is_taken);
        if !is_taken {
            return Err(LinkError::Refused("PSYNC", answer));
        }
    }
    let words: Vec<&str> = answer.split(' ').collect();
    match words[..] {
        ["+CONTINUE"] => Ok(replication.stream_db()),
        ["+CONTINUE", id] => {
            replication.adopt(shared, id, None);
            Ok(replication.stream_db())
        }
        ["+FULLRESYNC", id, offset] => {
            let offset = offset.parse().map_err(|_| LinkError::Protocol(answer.clone()))?;
            receive_snapshot(shared, wire, epoch, id, offset)
        }
        _ => Err(LinkError::Refused("PSYNC", answer)),
    }
}

/// Puts the primary's data in the place of what is here.
fn receive_snapshot(shared: &Shared, wire: &mut PrimaryWire<'_>, epoch: u64, id: &str, offset: u64) -> Result<usize, LinkError> {
    let replication = &shared.replication;
    replication.change_link(|link| {
        link.state = LinkState::Sync;
        link.sync_bytes = 0;
    });
    // While a file is made on the other side only signs of life come.
    let header = wire.line()?;
    let form = match header.strip_prefix('$').map(|rest| (rest.strip_prefix("EOF:"), rest.parse::<u64>())) {
        Some((Some(mark), _)) => Form::Marked(mark.to_owned()),
        Some((None, Ok(length))) => Form::Counted(length),
        _ => return Err(LinkError::Refused("PSYNC", header)),
    };
    tracing::info!(offset, "receiving a snapshot from the primary");
    {
        let mut keys = shared.keyspace.lock_all(0, now(), shared);
        if replication.epoch() != epoch {
            return Err(LinkError::NotWanted);
        }
        shared.gate.set(Hindrance::Loading, true);
        replication.set_lacks_data(true);
        keys.apply_only();
        let flushed = keys.flush_all();
        // From here on there is neither the old data nor the new.
        replication.adopt(shared, &super::new_id(), Some(0));
        drop(keys);
        drop(flushed);
    }
    let started = Instant::now();
    shared.loading.begin(now(), if let Form::Counted(length) = form { length } else { 0 });
    let outcome = load_snapshot(shared, wire, epoch, &form);
    let keys = shared.keyspace.lock_all(0, now(), shared);
    if replication.epoch() != epoch {
        return Err(LinkError::NotWanted);
    }
    match outcome {
        Ok((db, count)) => {
            replication.adopt(shared, id, Some(offset));
            shared.journal.open_backlog(shared.config().repl_backlog_size);
            replication.set_stream_db(db);
            replication.set_lacks_data(false);
            shared.gate.set(Hindrance::Loading, false);
            // What is on disk is other data: it stays until the log has begun again.
            shared.log.want_renewal();
            shared.journal.call_log();
            drop(keys);
            tracing::info!(keys = count, took = ?started.elapsed(), "the primary's snapshot is loaded");
            Ok(db)
        }
        Err(error) => {
            // A part of the data is worse than none.
            let mut keys = keys;
            keys.apply_only();
            let flushed = keys.flush_all();
            shared.gate.set(Hindrance::Loading, false);
            drop(keys);
            drop(flushed);
            Err(error)
        }
    }
}

/// How a snapshot says where it ends.
enum Form {
    Counted(u64),
    Marked(String),
}

/// Gives the stream's database and the number of keys.
fn load_snapshot(shared: &Shared, wire: &mut PrimaryWire<'_>, epoch: u64, form: &Form) -> Result<(usize, u64), LinkError> {
    let mut fields = PositionFields::default();
    let aux = |name: &[u8], value: &[u8]| fields.take(name, value);
    let is_wanted = || shared.replication.epoch() == epoch;
    let databases = shared.keyspace.databases();
    let loaded = match form {
        Form::Counted(length) => {
            let mut limited = Read::take(&mut *wire, *length);
            let mut decoder = Decoder::new(&mut limited, databases)?;
            let loaded = load_while(shared, &mut decoder, Expired::Keep, is_wanted, aux)?;
            // Nothing of it may be taken for the stream.
            io::copy(&mut limited, &mut io::sink())?;
            loaded
        }
        Form::Marked(mark) => {
            let mut decoder = Decoder::new(&mut *wire, databases)?;
            let loaded = load_while(shared, &mut decoder, Expired::Keep, is_wanted, aux)?;
            let mut found = vec![0; mark.len()];
            wire.read_exact(&mut found)?;
            if found != mark.as_bytes() {
                return Err(LinkError::Protocol("another mark stands behind the snapshot".to_owned()));
            }
            loaded
        }
    };
    Ok((fields.db().unwrap_or(0), loaded.keys))
}

enum Never {}

/// Applies the stream for as long as it comes.
fn apply_stream(shared: &Shared, wire: &mut PrimaryWire<'_>, epoch: u64, db: usize) -> Result<Never, LinkError> {
    let mut applier = Applier::in_database(db);
    let mut confirmed: Option<Instant> = None;
    // Bytes of a transaction that waits for its EXEC, and of what stands behind.
    let mut stream: Vec<u8> = Vec::new();
    let mut parsed = 0;
    loop {
        if confirmed.is_none_or(|at| at.elapsed() >= CONFIRMATION) {
            confirm(shared, wire)?;
            confirmed = Some(Instant::now());
        }
        if wire.unread().is_empty() && !wire.try_fill()? {
            continue;
        }
        stream.extend_from_slice(wire.unread());
        wire.consume(wire.unread().len());
        let mut unit = 0;
        while let Some(length) = applier.parse(&stream[parsed..])? {
            let request = parsed..parsed + length;
            parsed += length;
            let origin = Origin { raw: &stream[unit..parsed], epoch };
            match applier.apply_from(shared, &stream[request.clone()], now(), Some(origin))? {
                Applied::Yes => {}
                Applied::NotAboutKeys => {
                    let args = applier.args(&stream[request]);
                    let is_question = args.len() > 1
                        && args.at(0).eq_ignore_ascii_case(b"REPLCONF")
                        && args.at(1).eq_ignore_ascii_case(b"GETACK");
                    if args.at(0).eq_ignore_ascii_case(b"PUBLISH") && args.len() == 3 {
                        let limit = shared.config().pubsub_buffer_limit;
                        shared.pubsub.publish(args.at(1), args.at(2), limit);
                    }
                    if !applier.is_in_transaction() {
                        shared.journal.append_raw(&stream[unit..parsed], false);
                    }
                    if is_question {
                        confirm(shared, wire)?;
                    }
                }
            }
            if !applier.is_in_transaction() {
                unit = parsed;
            }
        }
        stream.drain(..unit);
        parsed -= unit;
        if unit > 0 {
            // At once, and not only each second: writes may wait for it.
            confirm(shared, wire)?;
            confirmed = Some(Instant::now());
        }
    }
}

fn confirm(shared: &Shared, wire: &mut PrimaryWire<'_>) -> Result<(), LinkError> {
    let offset = shared.journal.offset().to_string();
    if shared.journal.barrier.has_log() {
        let synced = shared.journal.barrier.synced_offset().to_string();
        return wire.send(&[b"REPLCONF", b"ACK", offset.as_bytes(), b"FACK", synced.as_bytes()]);
    }
    wire.send(&[b"REPLCONF", b"ACK", offset.as_bytes()])
}
