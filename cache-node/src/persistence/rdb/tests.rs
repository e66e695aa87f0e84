//! What is written is read; what is damaged is refused, without a panic and without taking memory for what is not there.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::{Decoder, Encoder, Entry, Item, RdbError, RdbWriter, packed, undump};
use crate::keyspace::{Collection as _, Encode as _, End, EntryRef, Hash, List, Set, SortedSet, Usage, Value, ValueRef};

const DATABASES: usize = 16;

fn reference(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Str(text) => ValueRef::Str(&text.0),
        Value::Hash(hash) => ValueRef::Hash((&**hash).into()),
        Value::Set(set) => ValueRef::Set(set),
        Value::SortedSet(set) => ValueRef::SortedSet(set),
        Value::List(list) => ValueRef::List(list),
    }
}

/// A value in words: equal for equal contents.
fn words(value: &Value) -> String {
    match value {
        Value::Str(text) => format!("string {:?}", text.0),
        Value::Hash(hash) => {
            format!("hash {:?}", crate::keyspace::HashRef::from(&**hash).iter().collect::<BTreeMap<_, _>>())
        }
        Value::Set(set) => format!("set {:?}", set.iter().collect::<std::collections::BTreeSet<_>>()),
        Value::SortedSet(set) => {
            format!("zset {:?}", set.iter().map(|member| (member.score, &*member.name)).collect::<Vec<_>>())
        }
        Value::List(list) => format!("list {:?}", list.iter().collect::<Vec<_>>()),
    }
}

/// Texts of every form that a string may take in a file.
fn texts() -> Vec<Vec<u8>> {
    let numbers = [0, 1, -1, 127, 128, -128, -129, 32_767, 32_768, 2_147_483_647, 2_147_483_648, -2_147_483_648, i64::MAX];
    let mut texts: Vec<Vec<u8>> = numbers.iter().map(|number| number.to_string().into_bytes()).collect();
    texts.extend(["", "-", "-0", "007", "+1", "1.5", " 1"].map(|text| text.as_bytes().to_vec()));
    texts.extend([20, 21, 63, 64, 300, 16_383, 16_384, 70_000].map(|length| vec![b'z'; length]));
    texts.push((0..=255).cycle().take(1_000).map(|byte: u32| ((byte * 7_919) >> 3) as u8).collect());
    texts
}

fn values() -> Vec<Value> {
    let texts = texts();
    let mut values: Vec<Value> = texts.iter().map(|text| Value::string(text)).collect();
    for count in [1, 5, texts.len()] {
        let (mut hash, mut set, mut sorted, mut list) = (Hash::default(), Set::default(), SortedSet::default(), List::default());
        for (index, text) in texts.iter().take(count).enumerate() {
            hash.insert(text, &texts[texts.len() - 1 - index]);
            set.insert(text);
            sorted.insert(text, [0.1, -3.0, f64::INFINITY, f64::NEG_INFINITY, 1e300][index % 5]);
            list.push(End::Right, text);
        }
        values.extend([hash.into_value(), set.into_value(), sorted.into_value(), list.into_value()]);
    }
    let mut large = Hash::default();
    (0..400_u32).for_each(|number| {
        large.insert(number.to_string().as_bytes(), b"value");
    });
    values.push(large.into_value());
    values
}

fn file(compresses: bool, has_checksum: bool) -> Vec<u8> {
    let encoder = Encoder { compresses };
    let mut bytes = Vec::new();
    let mut writer =
        RdbWriter::new(&mut bytes, has_checksum, &[("redis-ver", "7.2.4".to_owned())]).expect("memory takes everything");
    writer.announce_db(3, values().len(), 1).expect("memory takes everything");
    let mut chunk = Vec::new();
    encoder.select_db(3, &mut chunk);
    for (index, value) in values().iter().enumerate() {
        let expires_at_ms = (index % 3 == 0).then_some(1_795_000_000_000 + index as u64);
        let usage = [Usage::Unknown, Usage::IdleSeconds(index as u64 * 50), Usage::Frequency(index as u8)][index % 3];
        let key = format!("key-{index}");
        encoder.entry(EntryRef { key: key.as_bytes(), value: reference(value), expires_at_ms, usage }, &mut chunk);
    }
    writer.write(&chunk).expect("memory takes everything");
    let written = writer.finish().expect("memory takes everything");
    assert_eq!(written, bytes.len() as u64);
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<(usize, Entry)>, RdbError> {
    let mut decoder = Decoder::new(bytes, DATABASES)?;
    let mut entries = Vec::new();
    let mut db = 0;
    loop {
        match decoder.next()? {
            Item::Db(next) => db = next,
            Item::Entry(entry) => entries.push((db, entry)),
            Item::Aux(..) | Item::Skipped => {}
            Item::End => return Ok(entries),
        }
    }
}

#[test]
fn what_was_written_is_read() {
    for (compresses, has_checksum) in [(true, true), (false, true), (true, false)] {
        let entries = read(&file(compresses, has_checksum)).expect("it was just written");
        assert_eq!(entries.len(), values().len());
        for (index, (value, (db, entry))) in values().iter().zip(&entries).enumerate() {
            assert_eq!((*db, entry.key.as_slice()), (3, format!("key-{index}").as_bytes()));
            assert_eq!(words(&entry.value), words(value));
            assert_eq!(entry.expires_at_ms, (index % 3 == 0).then_some(1_795_000_000_000 + index as u64));
            let usage = [Usage::Unknown, Usage::IdleSeconds(index as u64 * 50), Usage::Frequency(index as u8)][index % 3];
            assert_eq!(entry.usage, usage);
        }
    }
    for value in values() {
        let dumped = Encoder { compresses: true }.dump(reference(&value));
        assert_eq!(undump(&dumped).map(|value| words(&value)), Some(words(&value)));
        assert!(undump(&dumped[1..]).is_none());
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let bytes = file(true, true);
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..300 {
        let length = random.random_range(0..bytes.len());
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        let mut damaged = bytes.clone();
        let at = random.random_range(0..bytes.len());
        damaged[at] ^= 1 << random.random_range(0..8);
        // The digits of the version may become those of another one that is read.
        assert!(read(&damaged).is_err() || (5..9).contains(&at), "a bit of byte {at} was flipped");
    }
}

/// Without a checksum nothing stands between the bytes and what reads them.
#[test]
fn nonsense_is_an_error_or_a_value_and_never_a_panic() {
    let bytes = file(true, false);
    let mut random = SmallRng::seed_from_u64(2);
    for _ in 0..400 {
        let mut damaged = bytes.clone();
        let start = random.random_range(9..bytes.len());
        for _ in 0..random.random_range(1..20) {
            let at = (start + random.random_range(0..60)).min(bytes.len() - 1);
            damaged[at] = random.random();
        }
        drop(read(&damaged));
    }
    for _ in 0..20_000 {
        let mut noise = b"REDIS0010".to_vec();
        let kind = [random.random_range(0..26), random.random()][usize::from(random.random_range(0..4_u8) == 0)];
        noise.extend([kind, 1, b'k']);
        noise.extend((0..random.random_range(0..60)).map(|_| random.random::<u8>()));
        drop(read(&noise));
        let block: Vec<u8> = (0..random.random_range(0..60)).map(|_| random.random()).collect();
        for walk in [packed::listpack, packed::ziplist, packed::zipmap, packed::intset] {
            let _ = walk(&block, &mut |_| Ok(()));
            // With the right length in front, so that the elements are looked at.
            let mut framed = (block.len() as u32 + 4).to_le_bytes().to_vec();
            framed.extend_from_slice(&block);
            let _ = walk(&framed, &mut |_| Ok(()));
        }
    }
}

#[test]
fn lengths_that_are_not_there_take_no_memory() {
    // A string of 500 MB, a compressed one, a list of 2^60 elements: each followed by nothing.
    for tail in [
        &[0, 1, b'k', 0x80, 0x1D, 0xCD, 0x65, 0x00][..],
        &[0, 1, b'k', 0xC3, 4, 0x80, 0x1D, 0xCD, 0x65, 0x00, 0, b'a', 0, b'b'],
        &[1, 1, b'k', 0x81, 0x10, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let bytes = [b"REDIS0010", tail].concat();
        assert!(matches!(read(&bytes), Err(RdbError::Truncated { .. } | RdbError::Corrupt { .. })), "{tail:?}");
    }
}

fn elements(walk: packed::Walk, block: &[u8]) -> Vec<String> {
    let mut elements = Vec::new();
    walk(block, &mut |element| {
        elements.push(String::from_utf8_lossy(element).into_owned());
        Ok(())
    })
    .expect("a whole collection");
    elements
}

/// Forms that servers of today do not write any more.
#[test]
fn packed_forms_of_older_versions_are_read() {
    let ziplist = b"\x29\0\0\0\x24\0\0\0\x08\0\
        \0\x02ab\x04\xF1\x02\xFD\x02\xFE\x80\x03\xC0\x00\x80\x04\xF0\x00\x00\x80\x05\xD0\xFF\xFF\xFF\x7F\x06\xE0\0\0\0\0\0\0\0\x80\xFF";
    let mut block = ziplist.to_vec();
    let length = block.len() as u32;
    block[..4].copy_from_slice(&length.to_le_bytes());
    let expected = ["ab", "0", "12", "-128", "-32768", "-8388608", "2147483647", "-9223372036854775808"];
    assert_eq!(elements(packed::ziplist, &block), expected);
    assert_eq!(elements(packed::zipmap, b"\x02\x03foo\x03\x00bar\x01a\x01\x02b..\xFF"), ["foo", "bar", "a", "b"]);
    let intset = [&[2, 0, 0, 0, 3, 0, 0, 0][..], &[0xFF, 0xFF, 1, 0, 0, 0x7F]].concat();
    assert_eq!(elements(packed::intset, &intset), ["-1", "1", "32512"]);
    // Scores as texts, with a length or a sign for what has no digits.
    let sorted = [b"REDIS0002\x03\x01k\x03\x01a\x031.5\x01b\xFF\x01c\xFE".as_slice(), &[0xFF]].concat();
    let entries = read(&sorted).expect("a whole file");
    assert_eq!(words(&entries[0].1.value), format!("zset {:?}", [(f64::NEG_INFINITY, b"b"), (1.5, b"a"), (f64::INFINITY, b"c")]));
}

#[test]
fn what_this_node_does_not_have_is_named() {
    let error = |tail: &[u8]| read(&[b"REDIS0011", tail].concat()).expect_err("it is refused").to_string();
    assert_eq!(error(b"\x15\x06orders\x00"), "the key 'orders' is a stream, which this node does not have");
    assert_eq!(error(b"\x07\x01m\x00"), "the key 'm' is of a module's type, which this node does not have");
    assert_eq!(error(b"\xFE\x20"), "it has a database 32, and this node has 16: raise 'databases'");
    assert_eq!(
        read(b"REDIS0099").expect_err("too new").to_string(),
        "it is of RDB version 99, and versions up to 12 are understood"
    );
    assert_eq!(read(b"hello, world").expect_err("no RDB").to_string(), RdbError::NotRdb.to_string());
    // A module's data beside the keys, and a library of functions, are passed over.
    let skipped = b"\xF7\x05\x02\x02\x05\x03abc\x04\0\0\0\0\0\0\0\0\x00\xF5\x03lib\x00\x01k\x01v\xFF\0\0\0\0\0\0\0\0";
    assert_eq!(read(&[b"REDIS0011", skipped.as_slice()].concat()).expect("a whole file").len(), 1);
}
