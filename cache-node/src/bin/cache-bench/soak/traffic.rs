//! A shop's keys as they come and go: sessions of all sizes, hashes, carts; written anew, read, ended, expired, evicted.

use std::ops::RangeInclusive;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    content::{Content, VALUE_BYTES_MAX},
    load::{Expected, Traffic},
    request::append,
};

/// Bytes of a string session, in turns: what the sizes of one time leave behind has to serve those of the next.
pub(crate) const SIZES: [RangeInclusive<usize>; 2] = [1_000..=VALUE_BYTES_MAX, 100..=1_000];
/// Bytes of a hash session's field.
const FIELD_BYTES: RangeInclusive<usize> = 20..=200;
/// Fields of a hash session.
const FIELDS: u8 = 10;
/// Lines of a cart; of one cart in [`LARGE_CART_ONE_IN`] the second, which is too many for a packed hash.
const LINES: [u32; 2] = [8, 200];
const LARGE_CART_ONE_IN: u32 = 50;
/// Of 10 sessions so many live for seconds, the others for half an hour: those end by eviction.
const SHORT_LIVED_OF_10: u32 = 3;
const SHORT_SECONDS: RangeInclusive<u32> = 1..=20;
const LONG_SECONDS: u32 = 1_800;

/// What is done, and of 100 operations how many do it.
const SHARES: [(Action, u32); 8] = [
    (Action::Read, 40),
    (Action::Create, 12),
    (Action::Overwrite, 8),
    (Action::ReadHash, 14),
    (Action::CreateHash, 4),
    (Action::WriteHash, 6),
    (Action::Cart, 12),
    (Action::End, 4),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read,
    Create,
    Overwrite,
    ReadHash,
    CreateHash,
    WriteHash,
    Cart,
    End,
}

/// What a reply must be.
const VALUE: u8 = 0;
const OK: u8 = 1;
const HASH: u8 = 2;
const COUNT: u8 = 3;

/// Keys of one kind in the order in which they begin. The last one is followed by the first again, which is long gone by then.
struct Ring {
    content: Content,
    head: u32,
}

impl Ring {
    fn new(prefix: &str, keys: u32, seed: u64) -> Ring {
        Ring { content: Content::new(prefix, keys as usize, seed), head: 0 }
    }

    fn begin(&mut self) -> u32 {
        self.head = (self.head + 1) % self.content.count() as u32;
        self.head
    }

    /// A key that has begun before, rather a late one than an early one.
    fn recent(&self, rng: &mut SmallRng) -> u32 {
        let count = self.content.count() as u32;
        let age = (rng.random_range(0.0_f64..1.0).powi(3) * f64::from(count)) as u32;
        (self.head + count - age.min(count - 1)) % count
    }
}

/// The traffic of a soak. It never ends by itself.
pub(crate) struct Churn {
    strings: Ring,
    hashes: Ring,
    carts: Ring,
    rng: SmallRng,
    sizes: RangeInclusive<usize>,
    value: Vec<u8>,
    /// Replies to GET, and those that had a value.
    pub(crate) reads: u64,
    pub(crate) hits: u64,
}

impl Churn {
    /// With so many keys of each kind before the first comes again.
    pub(crate) fn new(keys: u32, seed: u64) -> Churn {
        Churn {
            strings: Ring::new("string", keys, seed),
            hashes: Ring::new("hash", keys, seed + 1),
            carts: Ring::new("cart", keys, seed + 2),
            rng: SmallRng::seed_from_u64(seed),
            sizes: SIZES[0].clone(),
            value: Vec::new(),
            reads: 0,
            hits: 0,
        }
    }

    /// String sessions have these sizes from now on.
    pub(crate) fn set_sizes(&mut self, sizes: RangeInclusive<usize>) {
        self.sizes = sizes;
    }

    fn seconds(&mut self) -> String {
        let is_short = self.rng.random_range(0..10) < SHORT_LIVED_OF_10;
        if is_short { self.rng.random_range(SHORT_SECONDS) } else { LONG_SECONDS }.to_string()
    }

    fn set(&mut self, key: u32, out: &mut Vec<u8>) {
        let seconds = self.seconds();
        self.value.resize(self.rng.random_range(self.sizes.clone()), 0);
        self.strings.content.write_value(key, 0, &mut self.value);
        append(out, &[b"SET", self.strings.content.key(key), &self.value, b"EX", seconds.as_bytes()]);
    }

    fn set_fields(&mut self, key: u32, fields: &[u8], out: &mut Vec<u8>) {
        let names: Vec<String> = fields.iter().map(|field| format!("field:{field}")).collect();
        let values: Vec<Vec<u8>> = fields
            .iter()
            .map(|&field| {
                let mut value = vec![0; self.rng.random_range(FIELD_BYTES)];
                self.hashes.content.write_value(key, field, &mut value);
                value
            })
            .collect();
        let name = self.hashes.content.key(key);
        let pairs = names.iter().zip(&values).flat_map(|(name, value)| [name.as_bytes(), value]);
        append(out, &[b"HSET", name].into_iter().chain(pairs).collect::<Vec<&[u8]>>());
        let seconds = self.seconds();
        append(out, &[b"EXPIRE", self.hashes.content.key(key), seconds.as_bytes()]);
    }

    fn add_to_cart(&mut self, key: u32, out: &mut Vec<u8>) {
        let lines = LINES[usize::from(key.is_multiple_of(LARGE_CART_ONE_IN))];
        let line = format!("SKU-{:04}", self.rng.random_range(0..lines));
        append(out, &[b"HINCRBY", self.carts.content.key(key), line.as_bytes(), b"1"]);
        let seconds = self.seconds();
        append(out, &[b"EXPIRE", self.carts.content.key(key), seconds.as_bytes()]);
    }
}

impl Traffic for Churn {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let action = pick(self.rng.random_range(0..100));
        let (kind, key, replies) = match action {
            Action::Read => {
                let key = self.strings.recent(&mut self.rng);
                append(out, &[b"GET", self.strings.content.key(key)]);
                (VALUE, key, 1)
            }
            Action::Create | Action::Overwrite => {
                let key = if action == Action::Create { self.strings.begin() } else { self.strings.recent(&mut self.rng) };
                self.set(key, out);
                (OK, key, 1)
            }
            Action::ReadHash => {
                let key = self.hashes.recent(&mut self.rng);
                append(out, &[b"HGETALL", self.hashes.content.key(key)]);
                (HASH, key, 1)
            }
            Action::CreateHash => {
                let key = self.hashes.begin();
                self.set_fields(key, &std::array::from_fn::<u8, { FIELDS as usize }, _>(|field| field as u8), out);
                (COUNT, key, 2)
            }
            Action::WriteHash => {
                let key = self.hashes.recent(&mut self.rng);
                let field = self.rng.random_range(0..FIELDS);
                self.set_fields(key, &[field], out);
                (COUNT, key, 2)
            }
            Action::Cart => {
                let is_new = self.rng.random_range(0..4) == 0;
                let key = if is_new { self.carts.begin() } else { self.carts.recent(&mut self.rng) };
                self.add_to_cart(key, out);
                (COUNT, key, 2)
            }
            Action::End => {
                let key = self.strings.recent(&mut self.rng);
                append(out, &[b"DEL", self.strings.content.key(key)]);
                (COUNT, key, 1)
            }
        };
        for reply in 1..=replies {
            expected(Expected { kind, key, is_last: reply == replies });
        }
        true
    }

    /// Any key may be gone. What is there must be the key's own, whole.
    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        match expected.kind {
            VALUE => {
                self.reads += 1;
                if reply == b"$-1\r\n" {
                    return true;
                }
                self.hits += 1;
                bulk(reply).is_some_and(|(value, rest)| rest.is_empty() && self.strings.content.is_value(expected.key, 0, value))
            }
            OK => reply == b"+OK\r\n",
            HASH => is_right_hash(&self.hashes.content, expected.key, reply),
            _ => number(reply, b':').is_some_and(|(_, rest)| rest.is_empty()),
        }
    }
}

/// The action that a number from 0 to 99 falls to.
fn pick(number: u32) -> Action {
    let mut sum = 0;
    let found = SHARES.iter().find(|(_, share)| {
        sum += share;
        number < sum
    });
    found.expect("the shares are 100 together").0
}

fn is_right_hash(content: &Content, key: u32, reply: &[u8]) -> bool {
    let Some((count, mut rest)) = number(reply, b'*') else { return false };
    for _ in 0..count / 2 {
        let Some((name, after)) = bulk(rest) else { return false };
        let Some((value, after)) = bulk(after) else { return false };
        rest = after;
        let Some([digit]) = name.strip_prefix(b"field:") else { return false };
        if !content.is_value(key, digit.wrapping_sub(b'0'), value) {
            return false;
        }
    }
    rest.is_empty() && count % 2 == 0 && count <= 2 * usize::from(FIELDS)
}

/// A number behind its mark, and what follows its line.
fn number(reply: &[u8], mark: u8) -> Option<(usize, &[u8])> {
    let (&first, rest) = reply.split_first()?;
    let end = rest.iter().position(|&byte| byte == b'\r')?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    (first == mark).then_some((number, rest.get(end + 2..)?))
}

/// A string, and what follows it.
fn bulk(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(reply, b'$')?;
    Some((rest.get(..length)?, rest.get(length..)?.strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use std::time::Duration;

    use super::{Churn, Expected, HASH, SHARES, Traffic as _, VALUE, pick};
    use crate::{
        load::{Load, Pace, Plan},
        reply::Protocol,
        request::append,
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_gives_right_replies_while_keys_and_connections_come_and_go() {
        let mut config = cache_node::Config::for_test();
        for (name, value) in [("maxmemory", "2mb"), ("maxmemory-policy", "volatile-lru")] {
            config.set(name, &[value]).unwrap();
        }
        let node = cache_node::Node::spawn(config).await.unwrap();
        let addr = node.addr();
        tokio::task::spawn_blocking(move || {
            let mut churn = Churn::new(1_000, 1);
            let mut load = Load::connect(addr, Protocol::Resp, 4).unwrap();
            for turn in 0..8 {
                let plan = Plan { depth: 8, pace: Pace::Batch, duration: Some(Duration::from_millis(50)) };
                let outcome = load.run(&mut churn, plan).unwrap();
                assert!(outcome.operations > 0, "{turn}");
                load.replace(turn % 4, addr).unwrap();
            }
            assert!(churn.hits > 0 && churn.hits < churn.reads, "{} of {}", churn.hits, churn.reads);
        })
        .await
        .unwrap();
        node.shutdown().await.unwrap();
    }

    #[test]
    fn the_shares_are_100_together_and_each_number_falls_to_its_part() {
        assert_eq!(SHARES.iter().map(|(_, share)| share).sum::<u32>(), 100);
        for (action, share) in SHARES {
            assert_eq!((0..100).filter(|&number| pick(number) == action).count(), share as usize);
        }
    }

    #[test]
    fn a_key_may_be_gone_but_never_have_what_belongs_to_another() {
        let mut churn = Churn::new(100, 1);
        let expected = |kind, key| Expected { kind, key, is_last: true };
        let mut value = vec![0; 900];
        churn.strings.content.write_value(7, 0, &mut value);
        let mut reply = Vec::new();
        append(&mut reply, &[&value]);
        let reply = &reply[b"*1\r\n".len()..];
        assert!(churn.check(expected(VALUE, 7), reply) && churn.check(expected(VALUE, 7), b"$-1\r\n"));
        assert!(!churn.check(expected(VALUE, 8), reply), "another key's value");
        assert!(!churn.check(expected(VALUE, 7), &reply[..reply.len() - 2]), "a part");
        assert_eq!((churn.reads, churn.hits), (4, 3));

        let mut value = vec![0; 50];
        churn.hashes.content.write_value(7, 3, &mut value);
        let mut reply = Vec::new();
        append(&mut reply, &[b"field:3", &value]);
        assert!(churn.check(expected(HASH, 7), &reply) && churn.check(expected(HASH, 7), b"*0\r\n"));
        assert!(!churn.check(expected(HASH, 8), &reply), "another key's value");
        assert!(!churn.check(expected(HASH, 7), &reply[..reply.len() - 1]));
    }

    #[test]
    fn late_keys_are_met_more_often_than_early_ones() {
        let mut churn = Churn::new(1_000, 1);
        (0..500).for_each(|_| _ = churn.strings.begin());
        let mut late = 0;
        for _ in 0..1_000 {
            late += usize::from((376..=500).contains(&churn.strings.recent(&mut churn.rng)));
        }
        assert!((400..600).contains(&late), "an eighth of the keys is half of what is asked for: {late}");
    }
}
