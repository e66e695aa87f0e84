//! A cart as one hash of quantities: HINCRBY of one line.

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
};

/// Lines of a cart.
const LINES: u32 = 8;
const SKU_BYTES: usize = "SKU-0000".len();

const CREATE: u8 = 0;
const INCREMENT: u8 = 1;

const VARIANTS: [Variant; 2] = [Variant::p1(Some(1.35), None), Variant::p16(None, None)];

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.keys()[0];
    let content = Content::new("cart", keys as usize, bench.options.seed);
    let about = format!("HINCRBY of one of {LINES} lines, {keys} carts");
    compare(bench, "cart", &about, &VARIANTS, &bench.peers, &|peer, _| {
        let prepared =
            Prepared { fill: Box::new(Carts::fill(&content)), load: Box::new(Carts::load(&content, bench.options.seed)) };
        Ok(peer.speaks_resp().then_some(prepared))
    })
}

/// HINCRBY over all carts, or the first HSET of each once.
pub(crate) struct Carts<'a> {
    content: &'a Content,
    create: Template,
    increment: Template,
    /// What every line is at the most: what was asked for so far, whether or not it is answered.
    asked: Vec<u32>,
    rng: SmallRng,
    /// The next cart to fill; `None` in a load.
    next: Option<u32>,
}

impl<'a> Carts<'a> {
    pub(crate) fn fill(content: &'a Content) -> Carts<'a> {
        Carts { next: Some(0), ..Carts::load(content, 0) }
    }

    pub(crate) fn load(content: &'a Content, seed: u64) -> Carts<'a> {
        let mut create = vec![Text("HSET"), Slot(KEY_BYTES)];
        create.extend((0..LINES).flat_map(|_| [Slot(SKU_BYTES), Text("1")]));
        Carts {
            content,
            create: Template::command(&create),
            increment: Template::command(&[Text("HINCRBY"), Slot(KEY_BYTES), Slot(SKU_BYTES), Text("1")]),
            asked: vec![1; content.count() * LINES as usize],
            rng: SmallRng::seed_from_u64(seed),
            next: None,
        }
    }

    /// One HINCRBY of a cart's line.
    pub(crate) fn increment(&mut self, cart: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        let line = self.rng.random_range(0..LINES);
        let mut request = self.increment.append(out);
        request.put(0, self.content.key(cart));
        request.put(1, &sku(line));
        let key = cart * LINES + line;
        self.asked[key as usize] += 1;
        expected(Expected { kind: INCREMENT, key, is_last: true });
    }
}

impl Traffic for Carts<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        match &mut self.next {
            Some(next) if *next == count => return false,
            Some(next) => {
                let key = *next;
                *next += 1;
                let mut request = self.create.append(out);
                request.put(0, self.content.key(key));
                (0..LINES).for_each(|line| request.put(line as usize + 1, &sku(line)));
                expected(Expected { kind: CREATE, key, is_last: true });
            }
            None => {
                let cart = self.rng.random_range(0..count);
                self.increment(cart, out, expected);
            }
        }
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        let Some(number) = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n")) else { return false };
        let Some(number) = std::str::from_utf8(number).ok().and_then(|number| number.parse::<u32>().ok()) else { return false };
        match expected.kind {
            CREATE => number == LINES,
            // Filled with 1, so 2 is the least; and no more than was asked for.
            _ => (2..=self.asked[expected.key as usize]).contains(&number),
        }
    }
}

fn sku(line: u32) -> [u8; SKU_BYTES] {
    let mut sku = *b"SKU-0000";
    sku[SKU_BYTES - 1] += line as u8;
    sku
}

#[cfg(test)]
mod tests {
    use super::{Carts, Content, Traffic as _};

    #[test]
    fn a_quantity_is_at_least_2_and_at_most_what_was_asked_for() {
        let content = Content::new("cart", 1, 1);
        let mut carts = Carts::load(&content, 1);
        let mut owed = Vec::new();
        carts.next(0, &mut Vec::new(), &mut |expected| owed.push(expected));
        assert!(carts.check(owed[0], b":2\r\n"));
        for wrong in [&b":1\r\n"[..], b":3\r\n", b":-2\r\n", b"$1\r\n2\r\n", b"-ERR\r\n"] {
            assert!(!carts.check(owed[0], wrong), "{}", wrong.escape_ascii());
        }
    }
}
