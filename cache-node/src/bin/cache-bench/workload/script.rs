//! The commit of a session: EVALSHA of the scripts with which session-store writes what one request changed.

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES},
    control::Control,
    load::{Expected, Traffic},
    peer::Server,
    report::Report,
    request::{
        Part::{Slot, Text},
        Template,
    },
    throughput::{Prepared, Variant, compare},
};

/// A script of the library with all that it is put together from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    name: &'static str,
    about: &'static str,
    pub(crate) code: &'static str,
    /// ARGV before the field and its value.
    head: Head,
    goal: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Head {
    /// What the caller has read: the session's tokens, its next revision and its next tokens.
    Read,
    /// The commit's token, the policy, no absolute end, these, and the number of arguments that set.
    Told(&'static [&'static str]),
}

/// What runs when a request set fields and nothing else, nearly always, and hardly any of the session's time has passed: no field must not
/// have changed, and none is removed.
pub(crate) const CHANGE: Script = Script {
    name: "script",
    about: "the commit of changed fields",
    code: include_str!("change.lua"),
    head: Head::Read,
    goal: Some(1.5),
};

/// What also compares, merges carts and keeps lists of sessions, none of which is asked of it here: no absolute end, 'delta', grace,
/// no cart, no field that must not have changed, nothing that goes along.
pub(crate) const COMMIT: Script = Script {
    name: "script-whole",
    about: "the commit that can do all",
    code: include_str!("commit.lua"),
    head: Head::Told(&["delta", "10000", "", "", "", ""]),
    goal: None,
};

/// Bytes of a field's value.
const VALUE_BYTES: usize = 60;
/// Fields of a session beside the reserved ones.
const FIELDS: u8 = 9;
/// Bytes of the token that makes a commit count once.
const TOKEN_BYTES: usize = 8;
/// Tokens that a session remembers, each with a space behind it.
const TOKENS: u32 = 7;
const TOKENS_BYTES: usize = TOKENS as usize * (TOKEN_BYTES + 1);
/// The revision that a session is created with, as one that was committed to before: as long as all that follow.
const FIRST_REVISION: u32 = 1_000_000;
const REVISION_BYTES: usize = 7;
/// Half an hour, as PEXPIRE takes it, and as a policy of the script: idle so long.
const TTL_MS: &str = "1800000";
const POLICY: &str = "i1800000";

const CREATE: u8 = 0;
const EXPIRE: u8 = 1;
const RUN: u8 = 2;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.keys()[0];
    let content = Content::new("session", keys as usize, bench.options.seed);
    let mut reports = Vec::new();
    for script in [CHANGE, COMMIT] {
        let about = format!("EVALSHA of {}, one field of {FIELDS} changed, {keys} keys", script.about);
        let variants = [Variant::p1(script.goal, None), Variant::p16(None, None)];
        reports.extend(compare(bench, script.name, &about, &variants, &bench.peers, &|peer, server| {
            if !peer.speaks_resp() {
                return Ok(None);
            }
            let sha = load_script(server, script)?;
            Ok(Some(Prepared {
                fill: Box::new(Commits::fill(&content, script, &sha)),
                load: Box::new(Commits::load(&content, script, &sha, bench.options.connections, bench.options.seed)),
            }))
        })?);
    }
    Ok(reports)
}

/// Gives a script to the server; what EVALSHA calls it by.
///
/// # Errors
/// When the server does not take it.
pub(crate) fn load_script(server: &Server, script: Script) -> Result<String> {
    let reply = Control::connect(server)?.call(&["SCRIPT", "LOAD", script.code])?;
    let sha = reply.strip_prefix(b"$40\r\n").and_then(|rest| rest.strip_suffix(b"\r\n"));
    sha.and_then(|sha| String::from_utf8(sha.to_vec()).ok())
        .with_context(|| format!("SCRIPT LOAD: '{}' is no SHA-1", reply.escape_ascii()))
}

/// Commits to all sessions, or the creation of each once.
pub(crate) struct Commits<'a> {
    content: &'a Content,
    create: Template,
    commit: Template,
    head: Head,
    /// A session is committed to by one connection, as nearly every visitor has one request at a time: what a commit says that it has
    /// read is what the one before it left.
    connections: u32,
    /// Commits to each session that were sent, and that were answered.
    sent: Vec<u32>,
    answered: Vec<u32>,
    rng: SmallRng,
    /// The next session to create; `None` in a load.
    next: Option<u32>,
}

impl<'a> Commits<'a> {
    pub(crate) fn fill(content: &'a Content, script: Script, sha: &str) -> Commits<'a> {
        Commits { next: Some(0), ..Commits::load(content, script, sha, 1, 0) }
    }

    /// Commits over so many connections.
    pub(crate) fn load(content: &'a Content, script: Script, sha: &str, connections: u16, seed: u64) -> Commits<'a> {
        let names: Vec<String> = (0..FIELDS).map(|field| format!("field:{field}")).collect();
        let (revision, tokens) = (FIRST_REVISION.to_string(), tokens(FIRST_REVISION));
        let mut create = vec![Text("HSET"), Slot(KEY_BYTES), Text("@rev"), Text(&revision), Text("@tok"), Text(&tokens)];
        create.extend(names.iter().flat_map(|name| [Text(name), Slot(VALUE_BYTES)]));
        let expire = Template::command(&[Text("PEXPIRE"), Slot(KEY_BYTES), Text(TTL_MS)]);
        // KEYS: session. ARGV: the head, a field and its value.
        let mut commit = vec![Text("EVALSHA"), Text(sha), Text("1"), Slot(KEY_BYTES)];
        match script.head {
            Head::Read => commit.extend([Slot(TOKENS_BYTES), Slot(REVISION_BYTES), Slot(TOKENS_BYTES)]),
            Head::Told(rest) => {
                commit.extend([Slot(TOKEN_BYTES), Text(POLICY), Text("")]);
                commit.extend(rest.iter().map(|argument| Text(argument)));
                commit.push(Text("2"));
            }
        }
        commit.extend([Slot("field:0".len()), Slot(VALUE_BYTES)]);
        Commits {
            content,
            create: Template::command(&create).then(&expire),
            commit: Template::command(&commit),
            head: script.head,
            connections: u32::from(connections).min(content.count() as u32),
            sent: vec![0; content.count()],
            answered: vec![0; content.count()],
            rng: SmallRng::seed_from_u64(seed),
            next: None,
        }
    }

    /// One commit to a session.
    pub(crate) fn commit(&mut self, key: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        let sent = &mut self.sent[key as usize];
        *sent += 1;
        let revision = FIRST_REVISION + *sent;
        let field = self.rng.random_range(0..FIELDS);
        let mut name = *b"field:0";
        name[6] += field;
        let mut request = self.commit.append(out);
        request.put(0, self.content.key(key));
        let next = match self.head {
            Head::Read => {
                request.put(1, tokens(revision - 1).as_bytes());
                request.put(2, revision.to_string().as_bytes());
                request.put(3, tokens(revision).as_bytes());
                4
            }
            Head::Told(_) => {
                request.put(1, token(revision).as_bytes());
                2
            }
        };
        request.put(next, &name);
        self.content.write_value(key, field, request.slot(next + 1));
        expected(Expected { kind: RUN, key, is_last: true });
    }

    fn create(&self, key: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        let mut request = self.create.append(out);
        request.put(0, self.content.key(key));
        for field in 0..FIELDS {
            self.content.write_value(key, field, request.slot(usize::from(field) + 1));
        }
        request.put(usize::from(FIELDS) + 1, self.content.key(key));
        expected(Expected { kind: CREATE, key, is_last: false });
        expected(Expected { kind: EXPIRE, key, is_last: true });
    }
}

impl Traffic for Commits<'_> {
    fn next(&mut self, connection: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        match &mut self.next {
            Some(next) if *next == count => return false,
            Some(next) => {
                *next += 1;
                let key = *next - 1;
                self.create(key, out, expected);
            }
            None => {
                let turn = self.rng.random_range(0..count / self.connections);
                self.commit(turn * self.connections + connection as u32 % self.connections, out, expected);
            }
        }
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        match expected.kind {
            CREATE => reply == format!(":{}\r\n", FIELDS + 2).as_bytes(),
            EXPIRE => reply == b":1\r\n",
            _ => {
                let answered = &mut self.answered[expected.key as usize];
                *answered += 1;
                let revision = FIRST_REVISION + *answered;
                match self.head {
                    Head::Read => reply == format!("${REVISION_BYTES}\r\n{revision}\r\n").as_bytes(),
                    // Done, the revision after it, the time to live, no quantities without room and no sessions too many.
                    Head::Told(_) => reply == format!("*5\r\n:1\r\n:{revision}\r\n:{TTL_MS}\r\n:0\r\n:0\r\n").as_bytes(),
                }
            }
        }
    }
}

/// What a session of this revision remembers.
fn tokens(revision: u32) -> String {
    (0..TOKENS).map(|back| token(revision - back) + " ").collect()
}

/// The token of the commit that made this revision.
fn token(revision: u32) -> String {
    format!("{revision:08x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use super::{CHANGE, COMMIT, Commits, Content, Expected, Head, Traffic as _};
    use crate::instructions::{self, Engine};

    #[test]
    fn the_scripts_take_what_is_sent_and_answer_what_is_expected() {
        for script in [CHANGE, COMMIT] {
            let content = Content::new("session", 3, 1);
            let mut engine = Engine::new(cache_node::Config::for_test());
            let sha = instructions::load_script(&mut engine, script).unwrap();
            let mut commits = Commits::fill(&content, script, &sha);
            let mut create = Vec::new();
            while commits.next(0, &mut create, &mut |_| {}) {}
            engine.run(&create, |replies| assert!(!replies.contains(&b'-'), "{}", replies.escape_ascii()));
            let mut commits = Commits::load(&content, script, &sha, 3, 1);
            for turn in 0..10 {
                let (mut commit, mut expected) = (Vec::new(), None);
                commits.next(turn, &mut commit, &mut |reply: Expected| expected = Some(reply));
                engine.run(&commit, |reply| assert!(commits.check(expected.unwrap(), reply), "{}", reply.escape_ascii()));
            }
            // What the caller says that it has read is what is there: nothing but the tokens had to be looked at.
            let looks = match script.head {
                Head::Read => "cmdstat_hget:calls=10,",
                Head::Told(_) => "cmdstat_hmget:calls=10,",
            };
            let only_those = |statistics: &str| {
                statistics.contains(looks)
                    && statistics.matches("cmdstat_hget:").count() + statistics.matches("cmdstat_hmget:").count() == 1
            };
            engine.run(b"INFO commandstats\r\n", |statistics| {
                assert!(only_those(&String::from_utf8_lossy(statistics)), "{}", statistics.escape_ascii());
            });
        }
    }
}
