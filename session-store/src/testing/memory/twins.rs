//! The scripts in Lua and their twins in Rust are asked the same, and must answer the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use redis::Cmd;
use time::OffsetDateTime;
use tokio::net::TcpStream;

use super::{answer::Answer, commands, keyspace::Keyspace};
use crate::{
    cart::merged::Merged,
    expiry::unix_ms,
    scripts::{self, Call, Source},
    topology::arguments,
    wire::{Item, Packed as _, Wire},
};

/// Calls of each run. Nothing ends by itself meanwhile: the shortest time is an hour.
const CALLS: usize = 1_500;
const RUNS: u64 = 3;
/// Calls after which everything that is kept is compared.
const COMPARED_EVERY: usize = 20;
/// Times that both sides reckon are as far apart as the machine was busy between them.
const TIMES_APART_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

const SESSIONS: [&str; 4] = ["a", "b", "c", "d"];
const USERS: [&str; 2] = ["u", "v"];
const FIELDS: [&str; 4] = ["color", "size", "@@own", "empty"];
const SKUS: [&str; 4] = ["TEA-1", "TEA-2", "TEA-3", "a b"];
const KINDS: [&str; 8] =
    ["session", "cart", "cart-tokens", "cart-guards", "cart-guards-before", "cart-merged", "user-sessions", "quarantine"];

fn key(kind: &str, tag: &str) -> String {
    format!("shop:{kind}:{{{tag}}}")
}

/// What is asked once.
enum Question {
    Plain(Cmd),
    Script(Call),
    /// The value of a line loses its quantity.
    Damage {
        cart: String,
        line: String,
    },
}

impl Question {
    fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        match self {
            Self::Plain(command) => command.pack(&mut packed),
            Self::Script(call) => call.pack(&mut packed),
            Self::Damage { cart, line } => redis::cmd("HSET").arg(cart).arg(line).arg(":").pack(&mut packed),
        }
        packed
    }
}

/// What is asked, drawn from few keys and values, so that they meet.
struct Questions {
    random: StdRng,
}

impl Questions {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.random).unwrap()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    fn token(&mut self) -> String {
        format!("token{:03}", self.random.random_range(0..60))
    }

    fn policy(&mut self) -> String {
        let kind = self.one(&["i", "s", "i", "a"]);
        // No absolute time ends then: which of two comes first would depend on the ms in which each side was asked.
        let begin = if kind == "a" { unix_ms(OffsetDateTime::now_utc()) + HOUR_MS / 2 } else { 0 };
        format!("{kind}{}", begin + HOUR_MS * self.random.random_range(1..4))
    }

    fn absolute(&mut self) -> String {
        if self.chance(0.7) { String::new() } else { (HOUR_MS * self.random.random_range(2..5)).to_string() }
    }

    /// What goes along, its keys added to those of the call.
    fn along(&mut self, tag: &str, keys: &mut Vec<String>) -> String {
        let user = self.one(&USERS);
        match self.random.random_range(0..4) {
            0 => {
                keys.push(key("cart", tag));
                format!("c{}", 5 * HOUR_MS)
            }
            1 => {
                keys.extend([key("cart", user), key("user-sessions", user)]);
                format!("lsc{}u2", 5 * HOUR_MS)
            }
            2 => {
                keys.push(key("user-sessions", user));
                "su0".to_owned()
            }
            _ => String::new(),
        }
    }

    /// A cart and its tokens as they are, or as they were once.
    fn as_read(&mut self, keyspace: &mut Keyspace, tag: &str) -> String {
        let cart = keyspace.hash(key("cart", tag).as_bytes()).unwrap().cloned().unwrap_or_default();
        let tokens = keyspace.string(key("cart-tokens", tag).as_bytes()).ok().flatten().unwrap_or_default();
        let cart: Vec<_> = cart.into_iter().flat_map(|(name, value)| [name, value]).collect();
        let is_there = self.chance(0.8);
        String::from_utf8(if is_there { Merged::new(&cart, &tokens) } else { Merged::default() }.packed()).unwrap()
    }

    /// `commits`: the session keeps its id.
    fn merge(&mut self, keyspace: &mut Keyspace, how: &mut Vec<String>, tag: &str, user: &str, commits: bool) -> String {
        match self.random.random_range(0..3) {
            0 => String::new(),
            1 if commits => format!("={}", self.as_read(keyspace, tag)),
            _ => {
                how.extend([key("cart", user), key("cart-merged", user), key("cart-tokens", user)]);
                let policy = self.one(&["sum", "max", "keep"]);
                if let Some(names) = self.names() {
                    let mut how = format!("{policy} {} 3 9 4 8 {names}\n", 6 * HOUR_MS);
                    let mut parts = vec![self.as_read(keyspace, tag)];
                    for _ in 0..self.random.random_range(0..3) {
                        self.line(Some(names), &mut parts);
                    }
                    how.extend(parts.iter().map(|part| format!("{}:{part}", part.len())));
                    return how;
                }
                // As many sources as there are sessions: of two that are as old, a hash does not say which goes.
                format!("{policy} {} 3 9 4 8", 6 * HOUR_MS)
            }
        }
    }

    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        for _ in 0..self.random.random_range(0..3) {
            let seal = if self.chance(0.05) { "\u{1}" } else { "" };
            fields.extend([self.one(&FIELDS).to_owned(), format!("{seal}{}", self.random.random_range(0..4))]);
        }
        if self.chance(0.2) {
            fields.extend(["@bind".to_owned(), "bound".to_owned()]);
        }
        if self.chance(0.2) {
            fields.extend(["@owner".to_owned(), self.one(&USERS).to_owned()]);
        }
        fields
    }

    /// Those that set, behind their number, and names to remove.
    fn changes(&mut self, args: &mut Vec<String>) {
        let mut set = self.fields();
        if self.chance(0.2) {
            set.splice(0..0, ["@expiry".to_owned(), self.policy()]);
        }
        args.push(set.len().to_string());
        args.extend(set);
        if self.chance(0.3) {
            args.push(self.one(&FIELDS).to_owned());
        }
    }

    /// Under how many names a line may stand, where carts are encrypted.
    fn names(&mut self) -> Option<usize> {
        self.chance(0.5).then(|| self.random.random_range(1..4))
    }

    /// Under the newer key, under the older one, or clear, whichever is the one to write with.
    fn line(&mut self, names: Option<usize>, args: &mut Vec<String>) {
        let sku = self.one(&SKUS).to_owned();
        let quantity = self.random.random_range(0..9).to_string();
        let Some(names) = names else {
            args.extend([sku, quantity]);
            return;
        };
        let mut all = [format!("\u{1}{sku}"), format!("\u{1}old {sku}"), sku];
        all.rotate_left(self.random.random_range(0..3));
        let tail = if all[0].starts_with('\u{1}') { ":sealed" } else { "" };
        args.extend([all[0].clone(), quantity, tail.to_owned()]);
        args.extend(all[1..names].iter().cloned());
    }

    /// `keyspace`: what there is, of which a caller may know.
    fn next(&mut self, keyspace: &mut Keyspace) -> Question {
        let (tag, user) = (self.one(&SESSIONS), self.one(&USERS));
        let session = key("session", tag);
        let mut keys = vec![session.clone()];
        let mut args = Vec::new();
        let script: &'static Source = match self.random.random_range(0..13) {
            0 => {
                args.extend([self.token(), self.policy(), self.absolute(), self.along(tag, &mut keys)]);
                args.extend(["@v".to_owned(), "1".to_owned()]);
                args.extend(self.fields());
                &scripts::CREATE
            }
            1 => {
                let (field, expected) = (self.one(&["", "", "color", "size"]), self.one(&["", "=1", "=2"]));
                let read_with = match keyspace.field(session.as_bytes(), b"@tok") {
                    Ok(Some(tokens)) if self.chance(0.6) => String::from_utf8(tokens).unwrap(),
                    _ if self.chance(0.5) => String::new(),
                    _ => self.token() + " ",
                };
                let revision = if read_with.is_empty() { String::new() } else { self.random.random_range(1..6).to_string() };
                let tokens: String = (0..self.random.random_range(1..9)).map(|_| self.token() + " ").collect();
                args.extend([read_with, revision, tokens]);
                if !args[0].is_empty() && self.chance(0.3) {
                    args.extend(["color".to_owned(), self.random.random_range(0..4).to_string()]);
                    args.extend(self.fields());
                    return Self::script(&scripts::CHANGE_PLAIN, &keys, args);
                }
                args.extend([field.to_owned(), expected.to_owned()]);
                self.changes(&mut args);
                match self.random.random_range(0..3) {
                    0 => return Self::script(&scripts::CHANGE_WITHIN, &keys, args),
                    1 => args.extend([self.policy(), self.absolute()]),
                    _ => args.extend([(2 * HOUR_MS).to_string(), "*".to_owned()]),
                }
                &scripts::CHANGE
            }
            2..=4 => {
                let mode = self.one(&["delta", "delta", "replace"]).to_owned();
                args.extend([self.token(), self.policy(), self.absolute(), mode, (4 * HOUR_MS).to_string()]);
                let mut users_keys = Vec::new();
                let merge = self.merge(keyspace, &mut users_keys, tag, user, true);
                if !merge.is_empty() {
                    keys.extend([key("cart", tag), key("cart-tokens", tag)]);
                    keys.extend(users_keys);
                }
                let field = self.one(&["", "", "color", "size"]).to_owned();
                let expected = self.one(&["", "=1", "=2"]).to_owned();
                let is_sealed = merge.contains('\n');
                args.extend([merge, field, expected]);
                args.push(self.along(tag, &mut keys));
                self.changes(&mut args);
                if is_sealed { &scripts::COMMIT_SEALED } else { &scripts::COMMIT }
            }
            5 => {
                let to = self.one(&SESSIONS);
                let pairs = ["cart", "cart-tokens"].into_iter().flat_map(|kind| [key(kind, tag), key(kind, to)]);
                keys.extend([key("session", to)].into_iter().chain(pairs));
                args.extend([self.token(), self.policy(), self.absolute(), (4 * HOUR_MS).to_string()]);
                let merge = self.merge(keyspace, &mut keys, tag, user, false);
                let is_sealed = merge.contains('\n');
                args.extend([merge, self.along(to, &mut keys)]);
                self.changes(&mut args);
                if is_sealed { &scripts::ROTATE_SEALED } else { &scripts::ROTATE }
            }
            6 => {
                keys.extend([key("cart", tag), key("cart-tokens", tag)]);
                if self.chance(0.5) {
                    keys.push(key("user-sessions", user));
                }
                args.extend([(4 * HOUR_MS).to_string(), self.one(&["", user]).to_owned()]);
                &scripts::END
            }
            7 => {
                args.extend([self.policy(), self.absolute(), self.along(tag, &mut keys)]);
                args.extend([self.one(&["", "due"]), self.one(&["*", "*", "", user])].map(str::to_owned));
                &scripts::TOUCH
            }
            8..=10 => {
                let at = self.one(&[tag, user]);
                let is_own = self.chance(0.5);
                keys = vec![key("cart", at)];
                if is_own {
                    keys.extend([key("cart-guards", at), key("cart-guards-before", at)]);
                } else {
                    keys.push(key("cart-tokens", at));
                }
                let has_session = self.chance(0.7);
                let mut along = String::new();
                if has_session {
                    keys.push(session);
                    if self.chance(0.3) {
                        keys.push(key("user-sessions", user));
                        along = "su2".to_owned();
                    }
                }
                let creates = has_session && self.chance(0.3);
                let operation = self.one(&["add", "set", "add", "set", "clear", "subtract", "check"]);
                let is_plain = ["add", "set"].contains(&operation) && !creates && self.chance(0.5);
                let keys_of_tokens = if is_own { "2" } else { "1" };
                args.extend([operation.to_owned(), self.token()]);
                args.extend([keys_of_tokens, "4"].map(str::to_owned));
                args.extend([5 * HOUR_MS, 6 * HOUR_MS, 3, 9].map(|number| number.to_string()));
                args.push(self.one(&["", "", user]).to_owned());
                if !is_plain {
                    args.extend([if creates { self.policy() } else { String::new() }, self.token()]);
                }
                args.extend([self.absolute(), along]);
                let names = self.names();
                if is_plain {
                    if names.is_some() {
                        args.push(self.one(&["*", "", "bound", "bound"]).to_owned());
                    }
                    self.line(names, &mut args);
                    let script = if names.is_some() { &scripts::LINE_SEALED } else { &scripts::LINE };
                    return Self::script(script, &keys, args);
                }
                if names.is_some() && self.chance(0.1) {
                    args[0] = "move".to_owned();
                }
                let count = names.map_or_else(String::new, |names| format!(" {names}"));
                args.extend([format!("2{count}"), "@v".to_owned(), "1".to_owned()]);
                if names.is_some() {
                    args.push(self.one(&["*", "", "bound", "bound"]).to_owned());
                }
                for _ in 0..self.random.random_range(1..3) {
                    self.line(names, &mut args);
                }
                if names.is_some() { &scripts::CART_SEALED } else { &scripts::CART }
            }
            11 if self.chance(0.3) => {
                keys.push(key("quarantine", tag));
                let policy = if self.chance(0.5) { self.policy() } else { String::new() };
                args.extend([(4 * HOUR_MS).to_string(), HOUR_MS.to_string(), policy, self.absolute()]);
                args.extend(["@v", "1"].map(str::to_owned));
                &scripts::QUARANTINE
            }
            11 => {
                // The tokens of a cart stand for a record of other software.
                keys.push(key("cart-tokens", user));
                args.extend([self.token() + " ", self.policy(), self.absolute(), "color".to_owned(), "7".to_owned()]);
                &scripts::TAKE_OVER
            }
            _ => return self.plain(tag, user),
        };
        Self::script(script, &keys, args)
    }

    fn script(script: &'static Source, keys: &[String], args: Vec<String>) -> Question {
        let mut call = script.call(keys);
        for arg in args {
            call.arg(arg);
        }
        Question::Script(call)
    }

    fn plain(&mut self, tag: &str, user: &str) -> Question {
        if self.chance(0.1) {
            return Question::Damage { cart: key("cart", self.one(&[tag, user])), line: format!("\u{1}{}", SKUS[0]) };
        }
        let mut command = Cmd::new();
        match self.random.random_range(0..6) {
            0 => command.arg("PING"),
            1 => command.arg("HGET").arg(key("session", tag)).arg(self.one(&FIELDS)),
            2 => command.arg("EXISTS").arg(key("session", tag)),
            3 => command.arg("GET").arg(key("session", tag)),
            4 => command.arg("ZREM").arg(key("user-sessions", user)).arg(tag).arg("nobody"),
            _ => command.arg("DEL").arg(key("session", tag)).arg(key("cart", tag)),
        };
        Question::Plain(command)
    }
}

fn in_memory(keyspace: &mut Keyspace, question: &Question) -> Vec<Item> {
    let packed = question.packed();
    let (command, _) = arguments(&packed).unwrap();
    let mut out = Vec::new();
    keyspace.begin(unix_ms(OffsetDateTime::now_utc()));
    let answer: Answer = match question {
        Question::Damage { cart, line } => {
            let is_new = keyspace.field(cart.as_bytes(), line.as_bytes()).unwrap().is_none();
            keyspace.set_field(cart.as_bytes(), line.as_bytes(), ":").unwrap();
            is_new.into()
        }
        _ => commands::run(keyspace, &command),
    };
    answer.encode(&mut out);
    items(crate::wire::Reply::new(out.into()))
}

fn items(mut reply: crate::wire::Reply) -> Vec<Item> {
    std::iter::from_fn(|| reply.next().ok()).collect()
}

async fn at_the_node(wire: &Wire, question: &Question) -> Vec<Item> {
    let mut reply = match question {
        Question::Plain(command) => wire.ask(command).await.unwrap(),
        Question::Damage { cart, line } => wire.ask(redis::cmd("HSET").arg(cart).arg(line).arg(":")).await.unwrap(),
        Question::Script(call) => wire.ask(call).await.unwrap(),
    };
    if let Question::Script(call) = question
        && reply.error().is_some_and(|error| error.code() == Some("NOSCRIPT"))
    {
        reply = wire.ask(&call.with_code()).await.unwrap();
    }
    items(reply)
}

/// Numbers as large as a time may be as far apart as the two were asked, also those in texts.
fn is_same(a: &Item, b: &Item) -> bool {
    let times = |a: i64, b: i64| a == b || (a.min(b) > HOUR_MS / 2 && (a - b).abs() < TIMES_APART_MS);
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    match (a, b) {
        (Item::Integer(a), Item::Integer(b)) => times(*a, *b),
        // Lua has no order of what was merged.
        (Item::String(a), Item::String(b)) if a.contains(&b'\n') => lines(a) == lines(b),
        (Item::String(a), Item::String(b)) => a == b || number(a).zip(number(b)).is_some_and(|(a, b)| times(a, b)),
        (Item::Error(a), Item::Error(b)) => a.split(|byte| *byte == b' ').next() == b.split(|byte| *byte == b' ').next(),
        (a, b) => a == b,
    }
}

fn lines(text: &[u8]) -> BTreeSet<&[u8]> {
    text.split(|byte| *byte == b'\n').collect()
}

/// Pairs of a hash or members of a set, whatever their order.
fn sorted(kind: &str, items: &[Item]) -> Vec<(Item, Item)> {
    let texts = |item: &Item| format!("{item:?}");
    if ["user-sessions", "cart-guards", "cart-guards-before"].contains(&kind) {
        let members: BTreeMap<_, _> = items[1..].iter().map(|item| (texts(item), (item.clone(), Item::Null))).collect();
        return members.into_values().collect();
    }
    let pairs: BTreeMap<_, _> =
        items[1..].chunks_exact(2).map(|pair| (texts(&pair[0]), (pair[0].clone(), pair[1].clone()))).collect();
    pairs.into_values().collect()
}

async fn compare(wire: &Wire, keyspace: &mut Keyspace, asked: &str) {
    for (kind, tag) in KINDS.iter().flat_map(|kind| SESSIONS.iter().chain(&USERS).map(move |tag| (*kind, *tag))) {
        let mut read = Cmd::new();
        match kind {
            "cart-tokens" => read.arg("GET").arg(key(kind, tag)),
            "cart-guards" | "cart-guards-before" => read.arg("SMEMBERS").arg(key(kind, tag)),
            "user-sessions" => read.arg("ZRANGE").arg(key(kind, tag)).arg("0").arg("-1"),
            _ => read.arg("HGETALL").arg(key(kind, tag)),
        };
        let mut left = redis::cmd("PTTL");
        left.arg(key(kind, tag));
        for command in [read, left].map(Question::Plain) {
            let (theirs, ours) = (at_the_node(wire, &command).await, in_memory(keyspace, &command));
            let is_same = if matches!(theirs[0], Item::List(_)) {
                let (theirs, ours) = (sorted(kind, &theirs), sorted(kind, &ours));
                let pair = |((a, b), (c, d)): (&(Item, Item), &(Item, Item))| is_same(a, c) && is_same(b, d);
                theirs.len() == ours.len() && theirs.iter().zip(&ours).all(pair)
            } else {
                theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(a, b)| is_same(a, b))
            };
            assert!(is_same, "{kind} of {tag} after {asked}: {theirs:?} at the node, {ours:?} in memory");
        }
    }
}

#[tokio::test]
async fn the_scripts_and_their_twins_do_the_same() {
    let mut answers = BTreeMap::<String, usize>::new();
    for seed in 0..RUNS {
        let node = cache_node::Node::spawn(cache_node::Config::for_test()).await.unwrap();
        let (wire, driver) = Wire::new(TcpStream::connect(node.addr()).await.unwrap(), 100, None);
        tokio::spawn(driver);
        let (mut keyspace, mut questions) = (Keyspace::default(), Questions { random: StdRng::seed_from_u64(seed) });
        for number in 0..CALLS {
            let call = questions.next(&mut keyspace);
            let asked = format!("{number} of run {seed}: {}", String::from_utf8_lossy(&call.packed()));
            let (theirs, ours) = (at_the_node(&wire, &call).await, in_memory(&mut keyspace, &call));
            let all_same = theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(a, b)| is_same(a, b));
            assert!(all_same, "{asked}: {theirs:?} at the node, {ours:?} in memory");
            *answers.entry(format!("{:?}", theirs.get(1))).or_default() += 1;
            if number % COMPARED_EVERY == 0 {
                compare(&wire, &mut keyspace, &asked).await;
            }
        }
        drop(wire);
        node.shutdown().await.unwrap();
    }
    let of_carts = [scripts::reply::BOUND, scripts::reply::UNREADABLE_LINE];
    for outcome in (scripts::reply::GONE..=scripts::reply::CHANGED).chain(of_carts) {
        let answer = format!("{:?}", Some(Item::<bytes::Bytes>::Integer(outcome)));
        assert!(answers.contains_key(&answer), "no call was answered {outcome}: {answers:?}");
    }
}

#[tokio::test]
async fn a_change_is_remembered_through_so_many_others_and_no_more_than_twice_as_many() {
    const REMEMBERED: i64 = 4;
    let node = cache_node::Node::spawn(cache_node::Config::for_test()).await.unwrap();
    let (wire, driver) = Wire::new(TcpStream::connect(node.addr()).await.unwrap(), 100, None);
    tokio::spawn(driver);
    let names = ["cart", "cart-guards", "cart-guards-before"].map(|kind| key(kind, "a"));
    let users = [key("cart", "a"), key("cart-tokens", "a")];
    // Without and with changes in between that have a token of the user: those are in no set, and count for the revision.
    // Behind the owner: when the session ends and what goes along, before it what creates one.
    let scripts = [
        (&*scripts::LINE, &["", "", "TEA-1", "1"][..]),
        (&*scripts::CART, &["", "", "", "", "0", "TEA-1", "1"]),
        (&*scripts::LINE_SEALED, &["", "", "*", "\u{1}TEA", "1", ":x"]),
    ];
    for ((script, line), is_mixed) in scripts.into_iter().flat_map(|script| [(script, false), (script, true)]) {
        let call = async |keys: &[String], token: i64| {
            let mut call = script.call(keys);
            call.arg("add").arg(token).arg(keys.len() - 1).arg(REMEMBERED).arg(HOUR_MS).arg(HOUR_MS).arg(9).arg(1_000);
            call.arg("").arg(line);
            // Behind the head of a list, and 1: whether it was applied; or it was, and the numbers are all that is to be said.
            let answer = at_the_node(&wire, &Question::Script(call)).await;
            answer.get(2).map_or(matches!(answer[0], Item::String(_)), |applied| *applied == Item::Integer(1))
        };
        let change = async |token: i64| {
            let is_applied = call(&names, token).await;
            assert!(!(is_applied && is_mixed) || call(&users, 10_000 + token).await);
            is_applied
        };
        for begin in 1..=2 * REMEMBERED {
            let first = 100 * begin;
            assert!(change(first).await);
            for other in 1..=REMEMBERED {
                assert!(change(first + other).await);
                assert!(!change(first).await, "{other} changes after the first of {begin}");
            }
            for name in &names[1..] {
                let mut members = Cmd::new();
                members.arg("SMEMBERS").arg(name);
                let members = at_the_node(&wire, &Question::Plain(members)).await.len() - 1;
                assert!(members <= REMEMBERED as usize, "{members} in {name}");
            }
            for other in 0..REMEMBERED {
                assert!(change(first + 50 + other).await);
            }
            assert!(change(first).await, "it is forgotten");
        }
        let mut removal = redis::cmd("DEL");
        removal.arg(&names).arg(&users);
        at_the_node(&wire, &Question::Plain(removal)).await;
    }
    drop(wire);
    node.shutdown().await.unwrap();
}
