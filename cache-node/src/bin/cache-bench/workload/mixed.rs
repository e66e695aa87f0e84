//! All of a shop's traffic at once.

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES},
    load::{Expected, Traffic},
    report::Report,
    request::{
        Part::{Slot, Text},
        Template,
    },
    throughput::{Prepared, Variant, compare},
    workload::{
        cart::Carts,
        hash::{self, Hashes},
        script::{CHANGE, Commits, load_script},
        string::Strings,
    },
};

/// Shares of 100: string sessions, hash sessions, carts, commits, short-lived keys.
const SHARES: [u32; 5] = [50, 30, 10, 5, 5];

const VARIANTS: [Variant; 2] = [Variant::p1(None, None), Variant::p16(None, None)];

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let seed = bench.options.seed;
    // Four kinds of keys: a quarter of each.
    let keys = bench.options.keys()[0] as usize / 4;
    let [strings, hashes, carts, commits] =
        [0, 1, 2, 3].map(|part| Content::new(["string", "hash", "cart", "commit"][part], keys, seed + part as u64));
    let [string, hash, cart, script, short] = SHARES;
    let about = format!(
        "{string} % string and {hash} % hash sessions, {cart} % HINCRBY, {script} % commits, {short} % SET and DEL, {} keys",
        4 * keys
    );
    compare(bench, "mixed", &about, &VARIANTS, &bench.peers, &|peer, server| {
        if !peer.speaks_resp() {
            return Ok(None);
        }
        let sha = load_script(server, CHANGE)?;
        let fill: Vec<Box<dyn Traffic + '_>> = vec![
            Box::new(Strings::fill(&strings, server.protocol)),
            Box::new(Hashes::fill(&hashes, hash::FIELDS)),
            Box::new(Carts::fill(&carts)),
            Box::new(Commits::fill(&commits, CHANGE, &sha)),
        ];
        let load: Vec<Box<dyn Traffic + '_>> = vec![
            Box::new(Strings::load(&strings, server.protocol, seed)),
            Box::new(Hashes::load(&hashes, hash::FIELDS, seed)),
            Box::new(Carts::load(&carts, seed)),
            Box::new(Commits::load(&commits, CHANGE, &sha, bench.options.connections, seed)),
            Box::new(ShortLived::new()),
        ];
        let rng = SmallRng::seed_from_u64(seed);
        Ok(Some(Prepared {
            fill: Box::new(Mixed { parts: fill, order: Order::OneAfterAnother { part: 0 } }),
            load: Box::new(Mixed { parts: load, order: Order::Shares(rng) }),
        }))
    })
}

enum Order {
    OneAfterAnother { part: usize },
    Shares(SmallRng),
}

/// Several traffics as one. The upper half of an expectation's kind tells which part it belongs to.
struct Mixed<'a> {
    parts: Vec<Box<dyn Traffic + 'a>>,
    order: Order,
}

impl Traffic for Mixed<'_> {
    fn next(&mut self, connection: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let part = match &mut self.order {
            Order::OneAfterAnother { part } => *part,
            Order::Shares(rng) => pick(rng.random_range(0..100)),
        };
        let Some(traffic) = self.parts.get_mut(part) else { return false };
        let has_more = traffic.next(connection, out, &mut |it| expected(Expected { kind: it.kind | (part as u8) << 4, ..it }));
        match &mut self.order {
            Order::OneAfterAnother { part } if !has_more => {
                *part += 1;
                self.next(connection, out, expected)
            }
            _ => has_more,
        }
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        let part = usize::from(expected.kind >> 4);
        self.parts[part].check(Expected { kind: expected.kind & 15, ..expected }, reply)
    }
}

/// The part that a number from 0 to 99 falls to.
fn pick(number: u32) -> usize {
    let mut sum = 0;
    SHARES
        .iter()
        .position(|share| {
            sum += share;
            number < sum
        })
        .expect("the shares are 100 together")
}

/// A key of each connection that is set and deleted: locks and nonces do so.
struct ShortLived {
    both: Template,
}

impl ShortLived {
    fn new() -> ShortLived {
        let set = Template::command(&[Text("SET"), Slot(KEY_BYTES), Text("1"), Text("PX"), Text("5000")]);
        ShortLived { both: set.then(&Template::command(&[Text("DEL"), Slot(KEY_BYTES)])) }
    }
}

impl Traffic for ShortLived {
    fn next(&mut self, connection: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        const SET: u8 = 0;
        const DEL: u8 = 1;
        let name = format!("lock:{connection:0width$}", width = KEY_BYTES - "lock:".len());
        let mut request = self.both.append(out);
        request.put(0, name.as_bytes());
        request.put(1, name.as_bytes());
        expected(Expected { kind: SET, key: 0, is_last: false });
        expected(Expected { kind: DEL, key: 0, is_last: true });
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        // A DEL of what the SET before it has set, five seconds at the most ago.
        if expected.is_last { reply == b":1\r\n" } else { reply == b"+OK\r\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::{SHARES, pick};

    #[test]
    fn the_shares_are_100_together_and_each_number_falls_to_its_part() {
        assert_eq!(SHARES.iter().sum::<u32>(), 100);
        for (part, share) in SHARES.iter().enumerate() {
            assert_eq!((0..100).filter(|&number| pick(number) == part).count(), *share as usize);
        }
    }
}
