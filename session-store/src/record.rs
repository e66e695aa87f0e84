//! How a session is laid out in its hash.
//!
//! One field per key of the session, its value as JSON. Names that begin with `@` are reserved; a key of the
//! application that begins so is stored with one more `@` in front.
//!
//! | field | meaning |
//! |---|---|
//! | `@v` | version of this layout |
//! | `@rev` | revision: grows with each commit. A hash without it is no session |
//! | `@created` | when the session began, in ms since 1970 by the store's clock; survives a new id |
//! | `@until` | when it ends at the latest, likewise |
//! | `@capped` | the time to live reaches to `@until` already |
//! | `@expiry` | the policy: `i` idle, `a` at a time, `s` for a browser session; then ms |
//! | `@bind` | what encrypted values are bound to, once the session got a new id; encrypted itself |
//! | `@d` | version of the application's data, see `SessionLayer::with_migration` |
//! | `@clean` | when this session took the place of one that could not be read |
//! | `@owner` | the tag of the user whose cart this session uses |
//! | `@device`, `@network` | the classes of the device and of the address from which that user logged in |
//! | `@login`, `@seen` | when that was, and when the user was last seen, by the store's clock; the latter within an hour |
//! | `@tok` | tokens of the last commits, so that a repeated one counts once; whoever writes a field of the application is one: while they are the same a session is as it was read |
//! | `@taking`, `@placed` | it is being made of a record of other software: by whom and until when, and that the fields are there |
//! | `@ended` | the session ended; the hash stays for a grace period. The tag of the new id, if it got one |

mod field;

use std::{borrow::Cow, cell::OnceCell, collections::HashMap, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use redis::Value;
use serde_json::Value as Json;
use smallvec::SmallVec;

pub(crate) use self::field::RawField;
use crate::{
    StoreError,
    expiry::ExpiryPolicy,
    keys::Tag,
    wire::{self, Item, Malformed, Place, Reply},
};

/// The layout that this version writes. One that it does not know is refused, not guessed at.
pub(crate) const VERSION: u32 = 1;

/// The key of the CSRF secret. It is of one id: a new one begins without it, unless the request that asks for the new id has drawn
/// another.
pub(crate) const CSRF_KEY: &str = "session-store.csrf";

/// Fields of a session up to which each is looked for among all.
const LOOKED_THROUGH_MAX: usize = 16;

/// A session as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredSession {
    /// `None`: there is no session, or it has ended.
    pub(crate) revision: Option<u64>,
    pub(crate) ended: bool,
    /// It ended by getting a new id: the tag of that.
    pub(crate) successor: Option<Tag>,
    /// It ended, and no id that followed lives: nothing of it is shown.
    pub(crate) shut: bool,
    pub(crate) expiry: Option<ExpiryPolicy>,
    /// When it began and when it ends at the latest, in ms since 1970.
    pub(crate) created_ms: Option<i64>,
    pub(crate) until_ms: Option<i64>,
    /// No touch can extend it any more.
    pub(crate) capped: bool,
    pub(crate) owner: Option<Tag>,
    /// As it is stored, until the session was opened; see `encryption`.
    pub(crate) bind_field: Option<Bytes>,
    /// What the values are bound to when they are encrypted; `None` until they were looked at.
    pub(crate) binding: Option<Tag>,
    /// Of the last commits, as they are stored; none where it is kept for longer than a request.
    pub(crate) tokens: Bytes,
    /// The version of the application's data; `None` before its first migration.
    pub(crate) data_version: Option<u32>,
    /// The fields of the application, as stored.
    // Shared: the near cache gives it to one request after the other.
    pub(crate) fields: Arc<Vec<RawField>>,
    /// Time to live in ms.
    pub(crate) remaining_ms: i64,
}

impl StoredSession {
    /// The answers to HGETALL and PTTL.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] for what nobody will ever be able to read.
    pub(crate) fn parse(reply: &mut Reply) -> Result<Self, StoreError> {
        let pairs = pairs(reply, "a session is not a hash")?;
        let (mut session, mut fields) = (Self::default(), Vec::with_capacity(pairs));
        let (mut version, mut corrupt) = (Ok(()), Ok(()));
        for _ in 0..pairs {
            // What is of the layer is read in place: to keep a part of an answer costs more than to look at it.
            let (name, value) = (text(reply)?, text(reply)?);
            match reply.at(&name) {
                b"@v" => version = check_version(reply.at(&value)),
                field if !is_reserved(field) => fields.push(RawField::placed(reply, &name, &value)),
                field if corrupt.is_ok() => corrupt = session.take_field(reply, field, &value),
                _ => {}
            }
        }
        let Item::Integer(remaining_ms) = next(reply)? else { return Err(unreadable("an answer is not an integer")) };
        // Into the one that is there already.
        *Arc::make_mut(&mut session.fields) = fields;
        session.remaining_ms = remaining_ms;
        // First the version: a later one may write everything else in another way.
        version?;
        corrupt.map_err(StoreError::into_corrupt)?;
        Ok(session)
    }

    /// A copy that keeps nothing else alive: what was read is part of the buffer that it arrived in.
    pub(crate) fn compact(&self) -> Self {
        let mut all = BytesMut::with_capacity(self.bytes());
        for field in self.fields.iter() {
            all.extend_from_slice(field.name());
            all.extend_from_slice(field.value());
        }
        let mut all = all.freeze();
        let fields = self.fields.iter().map(|field| {
            let mut kept = RawField::joined(all.split_to(field.name().len() + field.value().len()), field.name().len());
            kept.stored = field.stored.as_deref().map(Bytes::copy_from_slice);
            kept
        });
        Self { fields: Arc::new(fields.collect()), tokens: Bytes::new(), ..self.clone() }
    }

    /// Bytes of the names and values.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |field: &RawField| field.name().len() + field.value().len() + field.stored.as_ref().map_or(0, Bytes::len);
        self.fields.iter().map(bytes).sum()
    }

    fn take_field(&mut self, reply: &Reply, name: &[u8], value: &Place) -> Result<(), StoreError> {
        let bytes = reply.at(value);
        match name {
            b"@rev" => self.revision = Some(number(bytes)?),
            b"@expiry" => self.expiry = Some(ExpiryPolicy::parse(bytes)?),
            b"@created" => self.created_ms = Some(number(bytes)?),
            b"@until" => self.until_ms = Some(number(bytes)?),
            b"@capped" => self.capped = true,
            b"@owner" => self.owner = Tag::from_bytes(bytes),
            b"@bind" => self.bind_field = Some(reply.kept(value)),
            b"@tok" => self.tokens = reply.kept(value),
            b"@d" => self.data_version = Some(number(bytes)?),
            b"@ended" => {
                self.ended = true;
                self.successor = Tag::from_bytes(bytes);
            }
            // Written by a later version that reads this layout too.
            _ => {}
        }
        Ok(())
    }
}

/// Whether a field is of the layer: a key of the application has no `@` in front, or two.
fn is_reserved(name: &[u8]) -> bool {
    name.first() == Some(&b'@') && name.get(1) != Some(&b'@')
}

/// The next value of an answer; an error of the server is one.
pub(crate) fn next(reply: &mut Reply) -> Result<Item, StoreError> {
    match reply.next().map_err(malformed)? {
        Item::Error(line) => Err(refused(&line)),
        item => Ok(item),
    }
}

fn refused(line: &[u8]) -> StoreError {
    unreadable(&format!("the store answered {}", String::from_utf8_lossy(line).trim()))
}

/// How many fields and values the hash has that is the next value of an answer; they follow it. `otherwise`: the error where it is none.
pub(crate) fn pairs(reply: &mut Reply, otherwise: &str) -> Result<usize, StoreError> {
    match next(reply)? {
        Item::List(length) => Ok(length / 2),
        Item::Map(pairs) => Ok(pairs),
        _ => Err(unreadable(otherwise)),
    }
}

/// Where the string is that is the next value of an answer.
#[inline]
pub(crate) fn text(reply: &mut Reply) -> Result<Place, StoreError> {
    if let Some(place) = reply.next_string() {
        return Ok(place);
    }
    match reply.next_placed().map_err(malformed)? {
        Item::String(place) => Ok(place),
        Item::Error(place) => Err(refused(reply.at(&place))),
        _ => Err(unreadable("a field is not a string")),
    }
}

fn check_version(value: &[u8]) -> Result<(), StoreError> {
    let version: u32 = number(value).map_err(StoreError::into_corrupt)?;
    if version > VERSION {
        return Err(unreadable(&format!(
            "a session has layout {version}, and this version reads up to {VERSION}; update this process"
        )));
    }
    Ok(())
}

/// The keys and values that the application sees.
pub(crate) fn decode(fields: &[RawField]) -> Result<HashMap<String, Json>, StoreError> {
    let mut data = HashMap::with_capacity(fields.len());
    for field in fields {
        let name = app_key(field.name())?;
        // Once for the value, and not for each string in it.
        let value = std::str::from_utf8(field.value()).map_err(|_| corrupt("a field of a session is not UTF-8"))?;
        let value =
            serde_json::from_str(value).map_err(|error| corrupt(&format!("a field of a session is not JSON: {error}")))?;
        data.insert(name.to_owned(), value);
    }
    Ok(data)
}

/// The key of the application that a field is for.
fn app_key(name: &[u8]) -> Result<&str, StoreError> {
    let key = name.strip_prefix(b"@").unwrap_or(name);
    std::str::from_utf8(key).map_err(|_| corrupt("the name of a field is not UTF-8"))
}

/// The name of the field for a key of the application.
pub(crate) fn field_name(key: &str) -> Cow<'_, str> {
    if key.starts_with('@') { Cow::Owned(format!("@{key}")) } else { Cow::Borrowed(key) }
}

/// The application's data as fields.
pub(crate) fn encode(data: &HashMap<String, Json>) -> Result<Vec<RawField>, StoreError> {
    data.iter().map(|(key, value)| RawField::of(key, value)).collect()
}

/// The application's data as fields, where most are as they were read: those are taken over as they are, in their order, and
/// nothing is allocated for them.
pub(crate) fn encode_beside(data: &HashMap<String, Json>, before: &[RawField]) -> Result<Vec<RawField>, StoreError> {
    let mut fields = Vec::with_capacity(data.len());
    for field in before {
        // What is no key of the application is not in its data either.
        if let Some((key, value)) = app_key(field.name()).ok().and_then(|key| data.get_key_value(key)) {
            fields.push(if is_written_so(value, field.value()) { field.clone() } else { RawField::of(key, value)? });
        }
    }
    if fields.len() < data.len() {
        let known = ByName::of(before);
        for (key, value) in data.iter().filter(|(key, _)| known.find(field_name(key).as_bytes()).is_none()) {
            fields.push(RawField::of(key, value)?);
        }
    }
    Ok(fields)
}

/// Fields to be looked for by their names: among all when they are few, which is cheaper than to hash them.
pub(crate) enum ByName<'a> {
    Few(&'a [RawField]),
    Many(HashMap<&'a [u8], &'a RawField>),
}

impl<'a> ByName<'a> {
    pub(crate) fn of(fields: &'a [RawField]) -> Self {
        match fields.len() {
            ..=LOOKED_THROUGH_MAX => Self::Few(fields),
            _ => Self::Many(fields.iter().map(|field| (field.name(), field)).collect()),
        }
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<&'a RawField> {
        match self {
            Self::Few(fields) => find_field(fields, name),
            Self::Many(fields) => fields.get(name).copied(),
        }
    }
}

/// The field of this name, looked for among all: for one of them, where [`ByName`] is for many.
pub(crate) fn find_field<'a>(fields: &'a [RawField], name: &[u8]) -> Option<&'a RawField> {
    fields.iter().find(|field| field.name() == name)
}

pub(crate) fn value_of<'a>(fields: &'a [RawField], name: &[u8]) -> Option<&'a [u8]> {
    find_field(fields, name).map(RawField::value)
}

/// Whether the value is these bytes when it is written as JSON.
fn is_written_so(value: &Json, bytes: &[u8]) -> bool {
    struct Rest<'a>(&'a [u8]);

    impl io::Write for Rest<'_> {
        fn write(&mut self, written: &[u8]) -> io::Result<usize> {
            self.0 = self.0.strip_prefix(written).ok_or(io::ErrorKind::InvalidData)?;
            Ok(written.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut rest = Rest(bytes);
    serde_json::to_writer(&mut rest, value).is_ok() && rest.0.is_empty()
}

/// What changed between two states of a session.
pub(crate) struct Delta<'a> {
    // Of most commits one.
    pub(crate) set: SmallVec<[&'a RawField; 2]>,
    pub(crate) removed: Vec<&'a [u8]>,
}

impl<'a> Delta<'a> {
    pub(crate) fn between(before: &'a [RawField], after: &'a [RawField]) -> Self {
        // Most are in the same place: what is in another is looked for by its name.
        let (old, new) = (OnceCell::new(), OnceCell::new());
        let before_of = |place: usize, name: &[u8]| match before.get(place) {
            Some(field) if field.name() == name => Some(field),
            _ => old.get_or_init(|| ByName::of(before)).find(name),
        };
        let is_there = |place: usize, name: &[u8]| {
            after.get(place).is_some_and(|field| field.name() == name)
                || new.get_or_init(|| ByName::of(after)).find(name).is_some()
        };
        let is_news =
            |(place, field): &(usize, &RawField)| before_of(*place, field.name()).is_none_or(|old| old.value() != field.value());
        let is_gone = |(place, name): &(usize, &[u8])| !is_there(*place, name);
        Self {
            set: after.iter().enumerate().filter(is_news).map(|(_, field)| field).collect(),
            removed: before.iter().map(RawField::name).enumerate().filter(is_gone).map(|(_, name)| name).collect(),
        }
    }

    /// Removes what the store may have by now under this name, unless it is set.
    pub(crate) fn remove(&mut self, name: &'a [u8]) {
        if !self.set.iter().any(|field| field.name() == name) && !self.removed.contains(&name) {
            self.removed.push(name);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

pub(crate) fn corrupt(reason: &str) -> StoreError {
    StoreError::Corrupt { reason: reason.to_owned() }
}

pub(crate) fn unreadable(reason: &str) -> StoreError {
    StoreError::Unreadable { reason: reason.to_owned() }
}

#[allow(clippy::needless_pass_by_value, reason = "map_err hands it over")]
pub(crate) fn malformed(error: Malformed) -> StoreError {
    unreadable(&error.to_string())
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(unreadable("a field is not a string")),
    }
}

pub(crate) fn integer(value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(integer) => Ok(*integer),
        _ => Err(unreadable("an answer is not an integer")),
    }
}

pub(crate) fn number<T: TryFrom<i64>>(value: &[u8]) -> Result<T, StoreError> {
    wire::number(value).and_then(|number| number.try_into().ok()).ok_or_else(|| unreadable("a reserved field is not a number"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::HashMap;

    use serde_json::json;

    use super::{Delta, LOOKED_THROUGH_MAX, RawField, StoredSession, decode, encode, encode_beside};
    use crate::wire::Reply;

    fn answer(pairs: &[(&str, &str)], pttl: i64) -> Reply {
        let strings = pairs.iter().flat_map(|(k, v)| [k, v]).map(|s| format!("${}\r\n{s}\r\n", s.len()));
        let answer = format!("*{}\r\n{}:{pttl}\r\n", 2 * pairs.len(), strings.collect::<String>());
        Reply::new(answer.into())
    }

    #[test]
    fn keys_of_the_application_cannot_reach_a_reserved_field() {
        let data = HashMap::from([("@owner".to_owned(), json!("eve")), ("@@".to_owned(), json!(1))]);
        let fields = encode(&data).unwrap();
        assert!(fields.iter().all(|field| field.name().starts_with(b"@@")));
        assert_eq!(decode(&fields).unwrap(), data);
    }

    #[test]
    fn a_layout_of_the_future_is_refused() {
        let error = StoredSession::parse(&mut answer(&[("@v", "2"), ("@rev", "1")], 1)).unwrap_err();
        assert!(error.to_string().contains("update this process"), "{error}");
    }

    #[test]
    fn only_what_differs_is_in_the_delta() {
        let before = encode(&HashMap::from([("a".into(), json!(1)), ("b".into(), json!(2))])).unwrap();
        let after = encode(&HashMap::from([("a".into(), json!(1)), ("c".into(), json!(3))])).unwrap();
        let delta = Delta::between(&before, &after);
        assert_eq!(delta.set.len(), 1);
        assert_eq!(delta.set[0].name(), b"c");
        assert_eq!(delta.removed, [b"b"]);
        assert!(Delta::between(&after, &after).is_empty());
    }

    #[test]
    fn large_sessions_have_the_same_delta() {
        let all = |fields: usize| (0..fields).map(|n| (format!("key {n}"), json!(n))).collect::<HashMap<_, _>>();
        for fields in [LOOKED_THROUGH_MAX - 1, LOOKED_THROUGH_MAX, LOOKED_THROUGH_MAX + 1, 3 * LOOKED_THROUGH_MAX] {
            let before = encode(&all(fields)).unwrap();
            let mut data = all(fields);
            data.remove("key 3");
            data.insert("key 4".into(), json!("other"));
            data.insert("new".into(), json!(null));
            let after = encode_beside(&data, &before).unwrap();
            assert_eq!(decode(&after).unwrap(), data);
            let delta = Delta::between(&before, &after);
            let mut set: Vec<_> = delta.set.iter().map(|field| field.name()).collect();
            set.sort_unstable();
            assert_eq!(set, [&b"key 4"[..], b"new"]);
            assert_eq!(delta.removed, [b"key 3"]);
        }
    }

    #[test]
    fn what_was_read_is_taken_over_and_what_differs_is_written() {
        let value = json!({"b": [1, 2.5, null, "\u{e9}\n"], "a": {"deep": true}});
        let data = HashMap::from([
            ("same".to_owned(), value.clone()),
            ("longer".to_owned(), json!([1, 2])),
            ("shorter".to_owned(), json!(1)),
            ("gone".to_owned(), json!(0)),
            ("@escaped".to_owned(), json!("x")),
        ]);
        let before = encode(&data).unwrap();
        assert_eq!(encode_beside(&data, &before).unwrap(), before);
        let mut now = data;
        now.remove("gone");
        now.insert("longer".into(), json!([1, 2, 3]));
        now.insert("shorter".into(), json!(12));
        now.insert("@new".into(), json!({}));
        let after = encode_beside(&now, &before).unwrap();
        assert_eq!(decode(&after).unwrap(), now);
        let is_taken_over = |name: &[u8]| {
            let find = |fields: &[RawField]| fields.iter().find(|field| field.name() == name).unwrap().value().as_ptr();
            find(&before) == find(&after)
        };
        assert!(is_taken_over(b"same") && is_taken_over(b"@@escaped") && !is_taken_over(b"longer"));
        // Bytes that mean the same and are not the same are written anew, as they always were.
        let spaced = [RawField::new("same", value.to_string().replace(':', ": "))];
        assert_ne!(encode_beside(&now, &spaced).unwrap()[0], spaced[0]);
    }
}
