//! Instructions per operation, counted by valgrind: the same on a busy machine, so they guard against what time cannot tell.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use cache_node::Config;
pub(crate) use cache_node::bench::Engine;

use crate::{
    content::Content,
    load::Traffic,
    reply::Protocol,
    table,
    workload::{
        hash::{self, Hashes},
        script::{CHANGE, COMMIT, Commits, Script},
        string::Strings,
    },
};

/// The hidden first argument with which this program runs one case; its name and a number of operations follow.
pub(crate) const CASE_ARGUMENT: &str = "instructions-case";

/// Operations of the short run; the long one has twice as many, and what both do before them cancels out.
const OPERATIONS: usize = 2_048;
/// Keys, so few that filling them takes valgrind no time.
const KEYS: u32 = 1_000;
/// The counts that were committed.
const EXPECTED: &str = include_str!("instructions.txt");
/// More than this above what was committed fails. Hashes are seeded anew in each process, which makes a few percent of difference, where
/// SETs evict an eighth in either direction (the committed counts are the highest of nine runs), and the C library differs from machine to
/// machine.
const TOLERANCE_PERCENT: u64 = 10;

/// A workload, and how many of its operations arrive at once.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    depth: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    String,
    /// Strings of a user who may only do that: each request is looked at.
    Limited,
    /// `maxmemory` reached: each SET evicts.
    Eviction,
    Hash,
    Commit(Script),
}

const CASES: [Case; 10] = [
    Case { name: "string-1", depth: 1, kind: Kind::String },
    Case { name: "string-16", depth: 16, kind: Kind::String },
    Case { name: "limited-1", depth: 1, kind: Kind::Limited },
    Case { name: "limited-16", depth: 16, kind: Kind::Limited },
    Case { name: "eviction-16", depth: 16, kind: Kind::Eviction },
    Case { name: "hash-1", depth: 1, kind: Kind::Hash },
    Case { name: "hash-16", depth: 16, kind: Kind::Hash },
    Case { name: "commit-1", depth: 1, kind: Kind::Commit(CHANGE) },
    Case { name: "commit-16", depth: 16, kind: Kind::Commit(CHANGE) },
    Case { name: "whole-commit-1", depth: 1, kind: Kind::Commit(COMMIT) },
];

/// Counts, and compares with what was committed. `write` puts the new counts into a file instead.
///
/// # Errors
/// When valgrind is missing, or an operation takes more instructions than it did.
pub(crate) fn run(write: Option<&Path>) -> Result<()> {
    let expected = expected()?;
    let mut counts = String::new();
    let mut worse = Vec::new();
    for case in CASES {
        let count = count(case)?;
        counts.push_str(&format!("{} {count}\n", case.name));
        let before = expected.get(case.name).copied();
        let shown = |count: u64| table::number(count as f64, 0);
        println!(
            "{:<12} {:>8} instructions per operation, {} before",
            case.name,
            shown(count),
            before.map_or("-".to_owned(), shown)
        );
        match before {
            Some(before) if count * 100 > before * (100 + TOLERANCE_PERCENT) => worse.push(case.name),
            Some(before) if count * (100 + TOLERANCE_PERCENT) < before * 100 => {
                println!("{:<12} fewer: commit the new count", "");
            }
            _ => {}
        }
    }
    if let Some(path) = write {
        return fs::write(path, counts).with_context(|| format!("cannot write {}", path.display()));
    }
    ensure!(
        worse.is_empty(),
        "{} take over {TOLERANCE_PERCENT} % more instructions than before; if that is worth it, commit the new counts: \
         cache-bench instructions --write cache-node/src/bin/cache-bench/instructions.txt",
        worse.join(", ")
    );
    Ok(())
}

fn expected() -> Result<BTreeMap<&'static str, u64>> {
    let parse = |line: &'static str| {
        let (name, count) = line.split_once(' ')?;
        Some((name, count.parse().ok()?))
    };
    EXPECTED.lines().map(|line| parse(line).with_context(|| format!("instructions.txt: '{line}' is no name and count"))).collect()
}

/// Instructions per operation.
fn count(case: Case) -> Result<u64> {
    let (short, long) = (valgrind(case, OPERATIONS)?, valgrind(case, 2 * OPERATIONS)?);
    Ok(long.saturating_sub(short) / OPERATIONS as u64)
}

fn valgrind(case: Case, operations: usize) -> Result<u64> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .args([CASE_ARGUMENT, case.name, &operations.to_string()])
        .output()
        .context("cannot run valgrind (apt-get install valgrind)")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let total =
        text.lines().find_map(|line| line.split_once("refs:")).and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    match total {
        Some(total) if output.status.success() => Ok(total),
        _ => bail!("{}: valgrind ended with {}: {text}", case.name, output.status),
    }
}

/// Runs `operations` of a case in this process; for valgrind to count.
///
/// # Errors
/// When there is no such case, or a reply is wrong.
pub(crate) fn run_case(name: &str, operations: &str) -> Result<()> {
    let case = CASES.into_iter().find(|case| case.name == name).with_context(|| format!("no case '{name}'"))?;
    let operations: usize = operations.parse().context("a number of operations")?;
    let mut config = Config::default();
    let keys = if matches!(case.kind, Kind::Eviction) { 8 * KEYS } else { KEYS };
    if matches!(case.kind, Kind::Eviction) {
        // Room for a quarter of the keys, beside what an empty node takes.
        for (name, value) in [("maxmemory", "1300kb"), ("maxmemory-policy", "allkeys-lru")] {
            config.set(name, &[value]).with_context(|| format!("{name} {value}"))?;
        }
    }
    if matches!(case.kind, Kind::Limited) {
        let rules = ["default", "on", "nopass", "~cart:*", "~session:*", "-@all", "+@read", "+@write"];
        config.set("user", &rules).context("the user")?;
    }
    let mut engine = Engine::new(config);
    let content = Content::new("session", keys as usize, 1);
    let (fill, load): (Box<dyn Traffic>, Box<dyn Traffic>) = match case.kind {
        Kind::String | Kind::Limited | Kind::Eviction => {
            (Box::new(Strings::fill(&content, Protocol::Resp)), Box::new(Strings::load(&content, Protocol::Resp, 1)))
        }
        Kind::Hash => (Box::new(Hashes::fill(&content, hash::FIELDS)), Box::new(Hashes::load(&content, hash::FIELDS, 1))),
        Kind::Commit(script) => {
            let sha = load_script(&mut engine, script)?;
            (Box::new(Commits::fill(&content, script, &sha)), Box::new(Commits::load(&content, script, &sha, 1, 1)))
        }
    };
    for batch in batches(fill, 1, usize::MAX) {
        run_batch(&mut engine, &batch)?;
    }
    // As many are made whatever is run, so that making them cancels out.
    let batches = batches(load, case.depth, 2 * OPERATIONS);
    for batch in batches.iter().take(operations / case.depth) {
        run_batch(&mut engine, batch)?;
    }
    Ok(())
}

fn run_batch(engine: &mut Engine, batch: &[u8]) -> Result<()> {
    engine.run(batch, |replies| {
        ensure!(!replies.is_empty() && replies[0] != b'-', "'{}'", replies.escape_ascii());
        Ok(())
    })
}

/// A traffic's operations, `depth` to a batch.
fn batches(mut traffic: Box<dyn Traffic + '_>, depth: usize, operations_max: usize) -> Vec<Vec<u8>> {
    let mut batches = vec![Vec::new()];
    for operation in 1..=operations_max {
        let batch = batches.last_mut().expect("one was there before");
        if !traffic.next(0, batch, &mut |_| {}) {
            break;
        }
        if operation % depth == 0 {
            batches.push(Vec::new());
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

/// Gives a script to a node; what EVALSHA calls it by.
///
/// # Errors
/// When the node does not take it.
pub(crate) fn load_script(engine: &mut Engine, script: Script) -> Result<String> {
    let request = format!("*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n${}\r\n{}\r\n", script.code.len(), script.code);
    engine.run(request.as_bytes(), |reply| {
        let sha = reply.strip_prefix(b"$40\r\n").and_then(|rest| rest.strip_suffix(b"\r\n"));
        sha.map(|sha| String::from_utf8_lossy(sha).into_owned()).context("SCRIPT LOAD gave no SHA-1")
    })
}
