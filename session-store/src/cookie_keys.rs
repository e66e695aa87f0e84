//! The ring of keys of a signed or encrypted cookie.

use std::fmt;

use cookie::{Cookie, CookieJar, Key};
use tower_sessions::session::Id;

use crate::bits;

/// The keys of a cookie that is signed or encrypted: one that cookies are written with, and others that are accepted as well.
///
/// An id has 128 random bits and cannot be guessed, so that a cookie needs neither to be safe. What they add: ids that were not given
/// out by this application do not reach the store, and, encrypted, an id that was seen in a cookie cannot be found in a log or
/// a dump.
///
/// To change the key without anybody being logged out: give all replicas the new one with
/// [`and_accept`](Self::and_accept), then make it the first one. A visitor gets the cookie anew with the next answer that
/// has read the session.
///
/// ```
/// use session_store::{CookieKeys, SessionLayer};
/// # fn example(layer: SessionLayer, new: &[u8; 32], former: &[u8; 32]) {
/// let layer = layer.with_signed_cookie(CookieKeys::new(new).and_accept(former));
/// # }
/// ```
#[derive(Clone)]
pub struct CookieKeys {
    /// The first one writes.
    ring: Vec<Key>,
    accept_plain: bool,
}

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKeys").field("keys", &self.ring.len()).finish_non_exhaustive()
    }
}

impl CookieKeys {
    /// Cookies are written with a key derived from this secret.
    ///
    /// ```
    /// let keys = session_store::CookieKeys::new(&[7; 32]);
    /// ```
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { ring: vec![Key::derive_from(secret)], accept_plain: false }
    }

    /// Cookies that were written with this secret are accepted too.
    ///
    /// ```
    /// let keys = session_store::CookieKeys::new(&[7; 32]).and_accept(&[6; 32]);
    /// ```
    #[must_use]
    pub fn and_accept(mut self, secret: &[u8; 32]) -> Self {
        self.ring.push(Key::derive_from(secret));
        self
    }

    /// Cookies are accepted that are neither signed nor encrypted: for the time after that is turned on.
    ///
    /// ```
    /// let keys = session_store::CookieKeys::new(&[7; 32]).and_accept_plain();
    /// ```
    #[must_use]
    pub fn and_accept_plain(mut self) -> Self {
        self.accept_plain = true;
        self
    }
}

/// How an id is written into the cookie.
#[derive(Debug, Clone, Default)]
pub(crate) enum Protection {
    #[default]
    None,
    Signed(CookieKeys),
    Encrypted(CookieKeys),
}

/// An id that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: Id,
    /// It would be written in another way today.
    pub(crate) is_outdated: bool,
}

impl Protection {
    pub(crate) fn write(&self, name: &str, id: &Id) -> String {
        let plain = id.to_string();
        let mut jar = CookieJar::new();
        let cookie = Cookie::new(name.to_owned(), plain.clone());
        match self {
            Self::None => return plain,
            Self::Signed(keys) => jar.signed_mut(&keys.ring[0]).add(cookie),
            Self::Encrypted(keys) => jar.private_mut(&keys.ring[0]).add(cookie),
        }
        jar.get(name).expect("it was added above").value().to_owned()
    }

    pub(crate) fn read(&self, name: &str, value: &[u8]) -> Option<Found> {
        let found = |value: &[u8], is_outdated| Some(Found { id: bits::parse_id(value)?, is_outdated });
        let (keys, is_signed) = match self {
            Self::None => return found(value, false),
            Self::Signed(keys) => (keys, true),
            Self::Encrypted(keys) => (keys, false),
        };
        let text = std::str::from_utf8(value).ok()?;
        let jar = CookieJar::new();
        for (place, key) in keys.ring.iter().enumerate() {
            let cookie = Cookie::new(name.to_owned(), text.to_owned());
            let opened = if is_signed { jar.signed(key).verify(cookie) } else { jar.private(key).decrypt(cookie) };
            if let Some(opened) = opened {
                return found(opened.value().as_bytes(), place > 0);
            }
        }
        found(value, true).filter(|_| keys.accept_plain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tower_sessions::session::Id;

    use super::{CookieKeys, Found, Protection};

    #[test]
    fn a_protected_id_is_read_by_those_who_have_its_key() {
        let (old, new, both) =
            (CookieKeys::new(&[1; 32]), CookieKeys::new(&[2; 32]), CookieKeys::new(&[2; 32]).and_accept(&[1; 32]));
        for wrap in [Protection::Signed, Protection::Encrypted] {
            let written = wrap(old.clone()).write("id", &Id(7));
            assert_eq!(wrap(old.clone()).read("id", written.as_bytes()), Some(Found { id: Id(7), is_outdated: false }));
            assert_eq!(wrap(both.clone()).read("id", written.as_bytes()), Some(Found { id: Id(7), is_outdated: true }));
            assert_eq!(wrap(new.clone()).read("id", written.as_bytes()), None);
            assert_eq!(wrap(old.clone()).read("id", Id(7).to_string().as_bytes()), None);
            let lenient = wrap(old.clone().and_accept_plain());
            assert_eq!(lenient.read("id", Id(7).to_string().as_bytes()), Some(Found { id: Id(7), is_outdated: true }));
            for other in 0..written.len() {
                let mut forged = written.clone().into_bytes();
                forged[other] = if forged[other] == b'A' { b'B' } else { b'A' };
                assert_eq!(wrap(old.clone()).read("id", &forged).map(|found| found.id), None, "{other}");
            }
        }
        assert!(!Protection::Encrypted(old).write("id", &Id(7)).contains(&Id(7).to_string()));
    }
}
