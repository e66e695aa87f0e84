//! Names of keys in the store: a prefix, a kind, and a keyed hash in place of the secret.

mod name;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tower_sessions::session::Id;

pub(crate) use self::name::Name;
use crate::{bits, generations::Generations};

/// 128 bits of the hash are kept, as many as the id has.
const TAG_CHARS: usize = bits::CHARS;
/// Characters of a remembered idempotency token: 48 bits of its keyed hash. Against the 256 that a cart remembers a new one is mistaken for an old one once in 10^12 changes.
const TOKEN_CHARS: usize = 8;
/// Characters of a session's handle: 96 bits.
const HANDLE_CHARS: usize = 16;

/// The part of a key between the braces: the hash tag, which decides the slot in a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag([u8; TAG_CHARS]);

/// A map by tags. They are keyed hashes already, of which nobody can choose some that meet.
pub(crate) type TagMap<V> = HashMap<Tag, V, BuildHasherDefault<TagHasher>>;

#[derive(Debug, Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Characters of base64 have a few bits in common, which are spread over all.
        let product = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Hash for Tag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // 48 bits of it.
        state.write_u64(self.first());
    }
}

impl Tag {
    /// `None` when the bytes do not have the form of a tag.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let tag: [u8; TAG_CHARS] = bytes.try_into().ok()?;
        tag.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).then_some(Self(tag))
    }

    /// The tag in the name of a key.
    pub(crate) fn of_key(key: &[u8]) -> Option<Self> {
        let begin = memchr::memchr(b'{', key)? + 1;
        Self::from_bytes(key.get(begin..begin + TAG_CHARS)?)
    }

    /// A number that differs from tag to tag.
    pub(crate) fn spread(&self) -> usize {
        let mut hasher = TagHasher::default();
        hasher.write_u64(self.first());
        // Other bits than those by which a map finds a place: it would find few places for what differs in the rest.
        (hasher.finish() >> 32) as usize
    }

    fn first(&self) -> u64 {
        self.0[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a tag consists of base64 characters")
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A tag is no secret, yet it tells visitors apart, which a log has no need to.
        f.write_str("Tag(..)")
    }
}

/// Keys of the hash under which sessions are looked for beside the current one. Each is one read more for an unknown id.
pub(crate) const FORMER_KEYS_MAX: usize = 4;
/// Sessions under former keys that a process remembers at least; twice as many at most.
const FOUND_REMEMBERED: usize = 16_384;

/// Makes the names of keys.
pub(crate) struct Keys {
    prefix: Box<str>,
    /// Of ids of sessions: the current one first.
    ids: Vec<Hmac<Sha256>>,
    /// Of names of users and of tokens, which must be found for much longer.
    names: Hmac<Sha256>,
    found: Generations<Tag>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Keys {
    pub(crate) fn new(prefix: &str, secret: &[u8], former: &[Vec<u8>], user_secret: &[u8]) -> Self {
        let mac = |secret: &[u8]| Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        let ids = std::iter::once(secret).chain(former.iter().map(Vec::as_slice)).map(mac).collect();
        Self { prefix: prefix.into(), ids, names: mac(user_secret), found: Generations::default() }
    }

    /// Where the session of this id is: under the current key, unless it was found under a former one.
    pub(crate) fn session_tag(&self, id: &Id) -> Tag {
        let tag = tag(&self.ids[0], b"session:", &id.0.to_le_bytes());
        if !self.has_former() {
            return tag;
        }
        self.found.get(&tag).unwrap_or(tag)
    }

    pub(crate) fn has_former(&self) -> bool {
        self.ids.len() > 1
    }

    /// Everywhere where it may be.
    pub(crate) fn session_tags(&self, id: &Id) -> impl Iterator<Item = Tag> {
        let id = id.0.to_le_bytes();
        self.ids.iter().map(move |mac| tag(mac, b"session:", &id))
    }

    /// The session of this id was found under this tag.
    pub(crate) fn found(&self, id: &Id, at: Tag) {
        let current = tag(&self.ids[0], b"session:", &id.0.to_le_bytes());
        if at == current { self.found.remove(&current) } else { self.found.insert(current, at, FOUND_REMEMBERED) }
    }

    pub(crate) fn user_tag(&self, user_id: &str) -> Tag {
        tag(&self.names, b"user:", user_id.as_bytes())
    }

    /// An idempotency token as it is remembered: fixed in length whatever the client sent.
    pub(crate) fn token(&self, token: &str) -> String {
        let mut hash = self.hash(b"token:", token.as_bytes());
        hash.truncate(TOKEN_CHARS);
        hash
    }

    pub(crate) fn session(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":session:{", tag)
    }

    /// What the name of every session begins with.
    pub(crate) fn session_prefix(&self) -> String {
        format!("{}:session:{{", self.prefix)
    }

    /// The note that a record of other software was taken over, in the slot of that record.
    pub(crate) fn taken_over(&self, theirs: &str) -> String {
        let has_hash_tag =
            theirs.split_once('{').and_then(|(_, rest)| rest.split_once('}')).is_some_and(|(tag, _)| !tag.is_empty());
        if has_hash_tag {
            format!("{}:taken-over:{theirs}", self.prefix)
        } else {
            format!("{}:taken-over:{{{theirs}}}", self.prefix)
        }
    }

    /// Where a record is that cannot be read.
    pub(crate) fn quarantine(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":quarantine:{", tag)
    }

    pub(crate) fn cart(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":cart:{", tag)
    }

    /// Tokens that users gave: as long-lived as the cart.
    pub(crate) fn cart_tokens(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":cart-tokens:{", tag)
    }

    /// Tokens that only guard an automatic retry: gone after seconds.
    pub(crate) fn cart_guards(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":cart-guards:{", tag)
    }

    /// Those that were there before them.
    pub(crate) fn cart_guards_before(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":cart-guards-before:{", tag)
    }

    /// Which anonymous lines were merged into a user's cart already.
    pub(crate) fn cart_merged(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":cart-merged:{", tag)
    }

    /// The sessions of a user.
    pub(crate) fn user_sessions(&self, tag: &Tag) -> Name<'_> {
        Name::new(&self.prefix, ":user-sessions:{", tag)
    }

    /// What a session is called where people can see it: from it neither the id nor the key can be told.
    pub(crate) fn handle(&self, session: &Tag) -> String {
        let mut hash = self.hash(b"handle:", session.as_str().as_bytes());
        hash.truncate(HANDLE_CHARS);
        hash
    }

    fn hash(&self, domain: &[u8], secret: &[u8]) -> String {
        let mut mac = self.names.clone();
        mac.update(domain);
        mac.update(secret);
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

fn tag(mac: &Hmac<Sha256>, domain: &[u8], secret: &[u8]) -> Tag {
    let mut mac = mac.clone();
    mac.update(domain);
    mac.update(secret);
    let hash = mac.finalize().into_bytes();
    let kept = hash.first_chunk().expect("the hash is longer");
    Tag(bits::text(*kept))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tower_sessions::session::Id;

    use std::hash::{BuildHasher as _, BuildHasherDefault};

    use super::{Keys, TAG_CHARS, TOKEN_CHARS, TagHasher};
    use crate::wire::Argument as _;

    #[test]
    fn keys_hide_the_id_and_share_a_slot() {
        let keys = Keys::new("shop", b"secret", &[], b"secret");
        let id = Id(42);
        let tag = keys.session_tag(&id);
        let session = keys.session(&tag).to_string();
        assert!(session.starts_with("shop:session:{") && session.ends_with('}'));
        assert!(!session.contains(&id.to_string()));
        assert_eq!(session.replace("session", "cart"), keys.cart(&tag).to_string());
        assert_eq!(tag.as_str().len(), TAG_CHARS);
        let mut packed = Vec::new();
        keys.session(&tag).pack(&mut packed);
        assert_eq!(String::from_utf8(packed).unwrap(), format!("${}\r\n{session}\r\n", session.len()));
        assert_eq!(keys.token("x").len(), TOKEN_CHARS);
    }

    #[test]
    fn tags_are_spread_over_a_map() {
        let keys = Keys::new("shop", b"secret", &[], b"secret");
        let hashes = (0..4_096).map(|id| BuildHasherDefault::<TagHasher>::default().hash_one(keys.session_tag(&Id(id))));
        let mut filled = [[0_u32; 128]; 2];
        for hash in hashes {
            // What a map takes: the lowest bits for the place, the highest seven to tell apart what is there.
            filled[0][(hash & 127) as usize] += 1;
            filled[1][(hash >> 57) as usize] += 1;
        }
        assert!(filled.iter().flatten().all(|count| (8..=64).contains(count)), "32 each, give or take: {filled:?}");
    }

    #[test]
    fn another_secret_gives_other_keys() {
        let (a, b) = (Keys::new("shop", b"one", &[], b"one"), Keys::new("shop", b"two", &[b"one".to_vec()], b"one"));
        assert_ne!(a.session_tag(&Id(42)), b.session_tag(&Id(42)));
        assert_ne!(a.user_tag("7"), a.user_tag("8"));
        assert_eq!(a.user_tag("7"), b.user_tag("7"));
        let former = b.session_tags(&Id(42)).last().unwrap();
        assert_eq!(former, a.session_tag(&Id(42)));
        b.found(&Id(42), former);
        assert_eq!(b.session_tag(&Id(42)), former);
        b.found(&Id(42), b.session_tags(&Id(42)).next().unwrap());
        assert_ne!(b.session_tag(&Id(42)), former);
    }
}
