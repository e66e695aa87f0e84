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
    /// ARGV between the absolute time and the number of arguments that set.
    between: &'static [&'static str],
    goal: Option<f64>,
}

/// What runs when a request changed fields and nothing else, nearly always: no field that must not have changed.
pub(crate) const CHANGE: Script = Script {
    name: "script",
    about: "the commit of changed fields",
    code: include_str!("change.lua"),
    between: &["", ""],
    goal: Some(1.5),
};

/// What also compares, merges carts and keeps lists of sessions, none of which is asked of it here: no absolute end, 'delta', grace,
/// no cart, no field that must not have changed, nothing that goes along.
pub(crate) const COMMIT: Script = Script {
    name: "script-whole",
    about: "the commit that can do all",
    code: include_str!("commit.lua"),
    between: &["delta", "10000", "", "", "", ""],
    goal: None,
};

/// Bytes of a field's value.
const VALUE_BYTES: usize = 60;
/// Fields of a session beside the reserved ones.
const FIELDS: u8 = 9;
/// Bytes of the token that makes a commit count once.
const TOKEN_BYTES: usize = 8;
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
                load: Box::new(Commits::load(&content, script, &sha, bench.options.seed)),
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
    /// The last commit's number: no token is used twice.
    commits: u32,
    rng: SmallRng,
    /// The next session to create; `None` in a load.
    next: Option<u32>,
}

impl<'a> Commits<'a> {
    pub(crate) fn fill(content: &'a Content, script: Script, sha: &str) -> Commits<'a> {
        Commits { next: Some(0), ..Commits::load(content, script, sha, 0) }
    }

    pub(crate) fn load(content: &'a Content, script: Script, sha: &str, seed: u64) -> Commits<'a> {
        let names: Vec<String> = (0..FIELDS).map(|field| format!("field:{field}")).collect();
        let mut create = vec![Text("HSET"), Slot(KEY_BYTES), Text("@rev"), Text("1"), Text("@tok"), Text("creation ")];
        create.extend(names.iter().flat_map(|name| [Text(name), Slot(VALUE_BYTES)]));
        let expire = Template::command(&[Text("PEXPIRE"), Slot(KEY_BYTES), Text(TTL_MS)]);
        // KEYS: session. ARGV: token, policy, no absolute end, what the script wants besides, two arguments that set, those.
        let mut commit = vec![Text("EVALSHA"), Text(sha), Text("1"), Slot(KEY_BYTES), Slot(TOKEN_BYTES), Text(POLICY), Text("")];
        commit.extend(script.between.iter().map(|argument| Text(argument)));
        commit.extend([Text("2"), Slot("field:0".len()), Slot(VALUE_BYTES)]);
        Commits {
            content,
            create: Template::command(&create).then(&expire),
            commit: Template::command(&commit),
            commits: 0,
            rng: SmallRng::seed_from_u64(seed),
            next: None,
        }
    }

    /// One commit to a session.
    pub(crate) fn commit(&mut self, key: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        self.commits += 1;
        let field = self.rng.random_range(0..FIELDS);
        let mut name = *b"field:0";
        name[6] += field;
        let mut request = self.commit.append(out);
        request.put(0, self.content.key(key));
        request.put(1, format!("{:08x}", self.commits).as_bytes());
        request.put(2, &name);
        self.content.write_value(key, field, request.slot(3));
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
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        match &mut self.next {
            Some(next) if *next == count => return false,
            Some(next) => {
                *next += 1;
                let key = *next - 1;
                self.create(key, out, expected);
            }
            None => {
                let key = self.rng.random_range(0..count);
                self.commit(key, out, expected);
            }
        }
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        match expected.kind {
            CREATE => reply == format!(":{}\r\n", FIELDS + 2).as_bytes(),
            EXPIRE => reply == b":1\r\n",
            // Done, the revision after it, which is never the first, the time to live, no quantities without room and no sessions too many.
            _ => reply
                .strip_prefix(b"*5\r\n:1\r\n:")
                .and_then(|rest| rest.strip_suffix(format!("\r\n:{TTL_MS}\r\n:0\r\n:0\r\n").as_bytes()))
                .is_some_and(|revision| revision != b"1" && !revision.contains(&b'\n')),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use super::{CHANGE, COMMIT, Commits, Content, Expected, Traffic as _};
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
            let mut commits = Commits::load(&content, script, &sha, 1);
            for _ in 0..10 {
                let (mut commit, mut expected) = (Vec::new(), None);
                commits.next(0, &mut commit, &mut |reply: Expected| expected = Some(reply));
                engine.run(&commit, |reply| assert!(commits.check(expected.unwrap(), reply), "{}", reply.escape_ascii()));
            }
        }
    }
}
