//! Commands on the connection itself.

use std::sync::atomic::Ordering;

use crate::{
    acl::DEFAULT,
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        error::printable,
        parse::{integer, is_word, timeout},
        permission, pubsub,
        subcommand::{self, Subcommand, subcommands},
        table::rows,
        transaction,
    },
    keyspace::Keys,
    node::{ClientEntry, ClientNames, PauseKind, Shared},
    protocol::{Args, Protocol, Reply},
    server::now,
};

const ANY_TIME: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST);
const HANDSHAKE: Flags = ANY_TIME.and(Flags::NO_AUTH);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "PING" -1 Flags::FAST.and(Flags::WHILE_SUBSCRIBED), "connection" NONE Client(ping) "1.0.0" "Returns the server's liveliness response.";
    "ECHO" 2 Flags::FAST.and(Flags::LOADING).and(Flags::STALE), "connection" NONE Client(echo) "1.0.0" "Returns the given string.";
    "SELECT" 2 Flags::FAST.and(Flags::LOADING).and(Flags::STALE), "connection" NONE Keys(select) "1.0.0" "Changes the selected database.";
    "AUTH" -2 HANDSHAKE, "connection" NONE Client(auth) "1.0.0" "Authenticates the connection.";
    "HELLO" -1 HANDSHAKE, "connection" NONE Client(hello) "6.0.0" "Handshakes with the Redis server.";
    "QUIT" -1 HANDSHAKE.and(Flags::WHILE_SUBSCRIBED).and(Flags::NOT_QUEUED), "connection" NONE Client(quit) "1.0.0" "Closes the connection.";
    "RESET" 1 HANDSHAKE.and(Flags::WHILE_SUBSCRIBED).and(Flags::NOT_QUEUED), "connection" NONE Client(reset) "6.2.0" "Resets the connection.";
    "CLIENT" -2 Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE), "connection" NONE Client(client) "2.4.0" "A container for client connection commands.";
};

fn ping(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if args.len() > 2 {
        return Err(CommandError::wrong_arguments("ping"));
    }
    if ctx.client.subscriptions() > 0 && ctx.client.protocol() == Protocol::Resp2 {
        // Among pushed messages a bare +PONG could not be told apart from them.
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(args.get(1).unwrap_or_default());
    } else {
        match args.get(1) {
            Some(message) => reply.bulk(message),
            None => reply.simple("PONG"),
        }
    }
    Ok(())
}

fn echo(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.bulk(args.at(1));
    Ok(())
}

fn select(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let db = usize::try_from(integer(args.at(1))?).map_err(|_| CommandError::DB_OUT_OF_RANGE)?;
    if !keys.select(db) {
        return Err(CommandError::DB_OUT_OF_RANGE);
    }
    reply.ok();
    Ok(())
}

fn auth(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (user, password) = match args.len() {
        2 => {
            if ctx.shared.acl.default_user().needs_no_password {
                return Err(CommandError::fixed(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
                ));
            }
            (DEFAULT, args.at(1))
        }
        3 => (args.at(1), args.at(2)),
        _ => return Err(CommandError::SYNTAX),
    };
    authenticate(ctx, args.at(0), user, password)?;
    reply.ok();
    Ok(())
}

/// `command`: AUTH or HELLO, as it was written.
fn authenticate(ctx: &mut Context<'_>, command: &[u8], user: &[u8], password: &[u8]) -> Outcome {
    let Some(found) = ctx.shared.acl.log_in(user, password) else {
        permission::tell_of_login(ctx, command, user);
        return Err(CommandError::WRONG_PASS);
    };
    ctx.client.log_in(found);
    Ok(())
}

fn hello(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let protocol = match args.get(1) {
        None => None,
        Some(b"2") => Some(Protocol::Resp2),
        Some(b"3") => Some(Protocol::Resp3),
        Some(version) if integer(version).is_err() => {
            return Err(CommandError::fixed("ERR Protocol version is not an integer or out of range"));
        }
        Some(_) => return Err(CommandError::fixed("NOPROTO unsupported protocol version")),
    };
    let mut rest = args.from(2).iter();
    let mut name = None;
    while let Some(option) = rest.next() {
        let invalid = || CommandError::new(format!("ERR Syntax error in HELLO option '{}'", printable(option)));
        if is_word(option, "AUTH") {
            let (Some(user), Some(password)) = (rest.next(), rest.next()) else { return Err(invalid()) };
            authenticate(ctx, args.at(0), user, password)?;
        } else if is_word(option, "SETNAME") {
            name = Some(client_name(rest.next().ok_or_else(invalid)?)?);
        } else {
            return Err(invalid());
        }
    }
    if !ctx.client.is_authenticated {
        return Err(CommandError::fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        ctx.client.entry.change_names(|names| names.name = name);
    }
    if let Some(protocol) = protocol {
        ctx.client.set_protocol(protocol);
        reply.set_protocol(protocol);
    }
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", crate::REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if reply.protocol() == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(ctx.client.entry.id as i64);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn quit(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    ctx.client.closes_after_reply = true;
    reply.ok();
    Ok(())
}

fn reset(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    ctx.client.end_transaction();
    transaction::drop_watch(ctx.shared, ctx.client, ctx.now);
    pubsub::unsubscribe_all(ctx.shared, ctx.client);
    ctx.shared.tracking.remove(&ctx.client.entry);
    ctx.client.set_db(0);
    ctx.client.set_protocol(Protocol::Resp2);
    ctx.client.log_out(&ctx.shared.acl);
    ctx.client.entry.change_names(|names| names.name.clear());
    reply.set_protocol(Protocol::Resp2);
    reply.simple("RESET");
    Ok(())
}

pub(super) const CLIENT: &[Subcommand] = subcommands! {
    "GETNAME" 2 "" "2.6.9" "Return the name of this connection.";
    "GETREDIR" 2 "" "6.0.0" "Return the connection that tracking messages are sent to: -1, there is none.";
    "ID" 2 "" "5.0.0" "Return the number of this connection.";
    "INFO" 2 "" "6.2.0" "Return information about this connection.";
    "KILL" -3 "<ip:port> | <option> <value> [<option> <value> ...]" "2.4.0" "Close connections by ID, ADDR, LADDR, USER, TYPE; SKIPME yes|no.";
    "LIST" -2 "[TYPE <type>] [ID <id> ...]" "2.4.0" "Return information about connections.";
    "NO-EVICT" 3 "ON|OFF" "7.0.0" "Accepted: connections are never evicted here.";
    "NO-TOUCH" 3 "ON|OFF" "7.2.0" "Accepted as a hint.";
    "PAUSE" -3 "<timeout> [WRITE|ALL]" "2.9.50" "Have requests wait for so many milliseconds, those that write or all.";
    "SETINFO" 4 "<LIB-NAME|LIB-VER> <value>" "7.2.0" "Set what CLIENT LIST shows of the client's library.";
    "SETNAME" 3 "<name>" "2.6.9" "Set the name of this connection.";
    "TRACKING" -3 "ON|OFF [BCAST] [PREFIX <prefix> ...]" "6.0.0" "Tell this connection of keys that change: all, or those with a prefix. Needs HELLO 3.";
    "UNPAUSE" 2 "" "6.2.0" "Let requests go on that CLIENT PAUSE has wait.";
    "HELP" 2 "" "5.0.0" "Print this help.";
};

fn client(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let subcommand = subcommand::find("CLIENT", CLIENT, args)?;
    let entry = &ctx.client.entry;
    match subcommand {
        "ID" => reply.integer(entry.id as i64),
        "GETNAME" => {
            let name = entry.names().name;
            reply.bulk_or_null((!name.is_empty()).then_some(name.as_bytes()));
        }
        "SETNAME" => {
            let name = client_name(args.at(2))?;
            entry.change_names(|names| names.name = name);
            reply.ok();
        }
        "SETINFO" => {
            set_info(entry, args.at(2), args.at(3))?;
            reply.ok();
        }
        "INFO" => reply.verbatim(&(entry.line(ctx.now) + "\n")),
        "LIST" => list(ctx, args, reply)?,
        "KILL" => kill(ctx, args, reply)?,
        "PAUSE" => {
            pause(ctx, args)?;
            reply.ok();
        }
        "UNPAUSE" => {
            ctx.shared.pause.end(&ctx.shared.gate);
            reply.ok();
        }
        "NO-EVICT" | "NO-TOUCH" => {
            if !is_word(args.at(2), "ON") && !is_word(args.at(2), "OFF") {
                return Err(CommandError::SYNTAX);
            }
            // Buffers of connections are never evicted here, and NO-TOUCH is a hint.
            reply.ok();
        }
        "GETREDIR" => reply.integer(if entry.is_tracking.load(Ordering::Relaxed) { 0 } else { -1 }),
        "TRACKING" => tracking(ctx, args, reply)?,
        _ => subcommand::help("CLIENT", CLIENT, reply),
    }
    Ok(())
}

fn pause(ctx: &Context<'_>, args: Args<'_>) -> Outcome {
    let kind = match args.get(3) {
        None => PauseKind::All,
        Some(word) if args.len() == 4 && is_word(word, "WRITE") => PauseKind::Writes,
        Some(word) if args.len() == 4 && is_word(word, "ALL") => PauseKind::All,
        Some(_) if args.len() == 4 => return Err(CommandError::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        Some(_) => return Err(CommandError::unknown_subcommand("CLIENT", args.at(1))),
    };
    if let Some(time) = timeout(args.at(2))? {
        // Not from the batch's time: what ran before it may have taken long.
        ctx.shared.pause.begin(&ctx.shared.gate, kind, now().unix_ms.saturating_add(time.as_millis() as u64));
    }
    Ok(())
}

/// CLIENT TRACKING, of which there is the broadcasting mode: the other one would have to remember what each connection has read.
fn tracking(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (client, tracking) = (&ctx.client.entry, &ctx.shared.tracking);
    let (mut is_broadcast, mut prefixes) = (false, Vec::<Box<[u8]>>::new());
    let mut rest = args.from(3).iter();
    while let Some(option) = rest.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"BCAST" => is_broadcast = true,
            b"PREFIX" => prefixes.push(Box::from(rest.next().ok_or(CommandError::SYNTAX)?)),
            b"REDIRECT" | b"OPTIN" | b"OPTOUT" | b"NOLOOP" => {
                let option = printable(option);
                return Err(CommandError::new(format!(
                    "ERR CLIENT TRACKING {option} is not supported here; take BCAST and HELLO 3"
                )));
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    if is_word(args.at(2), "OFF") {
        tracking.remove(client);
    } else if !is_word(args.at(2), "ON") {
        return Err(CommandError::SYNTAX);
    } else if !is_broadcast && !prefixes.is_empty() {
        return Err(CommandError::fixed("ERR PREFIX option requires BCAST mode to be enabled"));
    } else if !is_broadcast {
        return Err(CommandError::fixed("ERR CLIENT TRACKING without BCAST is not supported here; take BCAST and a PREFIX"));
    } else {
        check_prefixes(&prefixes, |prefix| tracking.overlapping(client, prefix))?;
        if prefixes.is_empty() {
            // Every key begins with it.
            prefixes.push(Box::default());
        }
        tracking.add(client, prefixes);
    }
    reply.ok();
    Ok(())
}

/// No key may be told twice.
fn check_prefixes(prefixes: &[Box<[u8]>], known: impl Fn(&[u8]) -> Option<Box<[u8]>>) -> Outcome {
    for (index, prefix) in prefixes.iter().enumerate() {
        if let Some(known) = known(prefix) {
            return Err(CommandError::new(format!(
                "ERR Prefix '{}' overlaps with an existing prefix '{}'. Prefixes for a single client must not overlap.",
                printable(prefix),
                printable(&known)
            )));
        }
        let other = prefixes[index + 1..].iter().find(|other| other.starts_with(prefix) || prefix.starts_with(other));
        if let Some(other) = other {
            return Err(CommandError::new(format!(
                "ERR Prefix '{}' overlaps with another provided prefix '{}'. Prefixes for a single client must not overlap.",
                printable(prefix),
                printable(other)
            )));
        }
    }
    Ok(())
}

/// Names stand in CLIENT LIST, whose fields are parted by blanks.
fn client_name(name: &[u8]) -> Result<String, CommandError> {
    const NAME_BYTES_MAX: usize = 1024;
    if name.len() > NAME_BYTES_MAX || !name.iter().all(u8::is_ascii_graphic) {
        return Err(CommandError::fixed("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn set_info(entry: &ClientEntry, attribute: &[u8], value: &[u8]) -> Outcome {
    let target: fn(&mut ClientNames) -> &mut String = if is_word(attribute, "LIB-NAME") {
        |names| &mut names.library
    } else if is_word(attribute, "LIB-VER") {
        |names| &mut names.library_version
    } else {
        return Err(CommandError::new(format!("ERR Unrecognized option '{}'", printable(attribute))));
    };
    let text = client_name(value).map_err(|_| {
        CommandError::new(format!("ERR {} cannot contain spaces, newlines or special characters.", printable(attribute)))
    })?;
    entry.change_names(|names| *target(names) = text);
    Ok(())
}

fn list(ctx: &Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let mut filter = Filter::default();
    match args.get(2) {
        None => {}
        Some(word) if is_word(word, "TYPE") && args.len() == 4 => filter.kind = Some(kind(args.at(3))?),
        Some(word) if is_word(word, "ID") && args.len() > 3 => {
            let invalid = |_| CommandError::fixed("ERR Invalid client ID");
            let ids: Result<Vec<u64>, CommandError> = args.from(3).iter().map(|id| client_id(id).map_err(invalid)).collect();
            filter.ids = Some(ids?);
        }
        Some(_) => return Err(CommandError::SYNTAX),
    }
    let mut text = String::new();
    ctx.shared.clients.for_each(|entry| {
        if filter.takes(entry) {
            text += &entry.line(ctx.now);
            text.push('\n');
        }
    });
    reply.verbatim(&text);
    Ok(())
}

/// Which connections CLIENT LIST and CLIENT KILL mean.
#[derive(Default)]
struct Filter {
    ids: Option<Vec<u64>>,
    address: Option<String>,
    local_address: Option<String>,
    user: Option<u32>,
    kind: Option<ClientKind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Normal,
    PubSub,
    Replica,
    /// The link to the primary is no connection of this list.
    Primary,
}

impl Filter {
    fn takes(&self, entry: &ClientEntry) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&entry.id))
            && self.address.as_ref().is_none_or(|address| *address == entry.address.to_string())
            && self.local_address.as_ref().is_none_or(|address| *address == entry.local_address.to_string())
            && self.user.is_none_or(|user| user == entry.user())
            && self.kind.is_none_or(|kind| kind == kind_of(entry))
    }
}

fn kind_of(entry: &ClientEntry) -> ClientKind {
    if entry.is_replica.load(Ordering::Relaxed) {
        ClientKind::Replica
    } else if entry.is_subscriber() {
        ClientKind::PubSub
    } else {
        ClientKind::Normal
    }
}

fn kind(word: &[u8]) -> Result<ClientKind, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(ClientKind::Normal),
        b"pubsub" => Ok(ClientKind::PubSub),
        b"replica" | b"slave" => Ok(ClientKind::Replica),
        b"master" => Ok(ClientKind::Primary),
        _ => Err(CommandError::new(format!("ERR Unknown client type '{}'", printable(word)))),
    }
}

fn client_id(text: &[u8]) -> Result<u64, CommandError> {
    integer(text)
        .ok()
        .and_then(|id| u64::try_from(id).ok())
        .filter(|id| *id > 0)
        .ok_or(CommandError::fixed("ERR client-id should be greater than 0"))
}

fn kill(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if args.len() == 3 {
        // The old form: one address, and OK or an error.
        let filter = Filter { address: Some(String::from_utf8_lossy(args.at(2)).into_owned()), ..Filter::default() };
        if close(ctx, &filter, false) == 0 {
            return Err(CommandError::fixed("ERR No such client"));
        }
        reply.ok();
        return Ok(());
    }
    let mut filter = Filter::default();
    let mut skips_me = true;
    let mut rest = args.from(2).iter();
    while let Some(word) = rest.next() {
        let value = rest.next().ok_or(CommandError::SYNTAX)?;
        match word.to_ascii_uppercase().as_slice() {
            b"ID" => filter.ids = Some(vec![client_id(value)?]),
            b"ADDR" => filter.address = Some(String::from_utf8_lossy(value).into_owned()),
            b"LADDR" => filter.local_address = Some(String::from_utf8_lossy(value).into_owned()),
            b"USER" => {
                let unknown = || CommandError::new(format!("ERR No such user '{}'", printable(value)));
                filter.user = Some(ctx.shared.acl.user(value).ok_or_else(unknown)?.id);
            }
            b"TYPE" => filter.kind = Some(kind(value)?),
            b"SKIPME" if is_word(value, "YES") => skips_me = true,
            b"SKIPME" if is_word(value, "NO") => skips_me = false,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    reply.count(close(ctx, &filter, skips_me));
    Ok(())
}

fn close(ctx: &mut Context<'_>, filter: &Filter, skips_me: bool) -> usize {
    let me = ctx.client.entry.id;
    let shared: &Shared = ctx.shared;
    let mut closed = 0;
    let mut closes_me = false;
    shared.clients.for_each(|entry| {
        if !filter.takes(entry) || (skips_me && entry.id == me) {
            return;
        }
        closed += 1;
        if entry.id == me {
            closes_me = true;
        } else {
            entry.outbox.close();
        }
    });
    if closes_me {
        // The answer still goes out.
        ctx.client.closes_after_reply = true;
    }
    ctx.client.entry.last_active_ms.store(ctx.now.unix_ms, Ordering::Relaxed);
    closed
}
