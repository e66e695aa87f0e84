//! Values that only the replicas can read.

mod bindings;
mod lines;

use std::{fmt, sync::Arc};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

pub(crate) use self::{
    bindings::Bindings,
    lines::{Lines, SEALED_NAME, damaged_line, unreadable_cart},
};
use crate::{
    StoreError,
    keys::Tag,
    record::{ByName, RawField, corrupt, unreadable},
};

/// What a sealed value begins with. JSON never does.
const SEALED: u8 = 1;
/// Bytes that tell which key of the ring it was.
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;
/// The reserved field that says what the values of a session are bound to, when that is not its own tag.
pub(crate) const BIND_FIELD: &[u8] = b"@bind";

/// The keys with which the values of sessions and the lines of carts are encrypted (XChaCha20-Poly1305): one that is written with,
/// and others that are read as well.
///
/// Each value is bound to its session and to its key in it, so that whoever can write to the store can neither read a value nor
/// put it in another place. So is the SKU of a line to its cart; its field is a keyed hash (HMAC-SHA-256), by which nobody can tell
/// that two carts have something in common. What is not encrypted: the names of the keys, times, how many lines a cart has, and
/// their quantities. The store adds to them itself, in the one step that makes each of two changes at once count; a dump tells how
/// many of something somebody wants, and not of what.
///
/// To change the key without anybody being logged out: give all replicas the new one with [`and_read`](Self::and_read), then
/// make it the first one and the former one `and_read`, and leave the former one out when the sessions and carts of its time have
/// ended. A value or a line is encrypted anew when it changes.
///
/// A line that no key opens is an error, [`StoreError::UnreadableCart`], and counted; it stays as it is.
///
/// ```
/// use session_store::{CacheStore, EncryptionKeys};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), session_store::StoreError> {
/// let (new, former) = ([1; 32], [2; 32]); // of a secret manager
/// let store = CacheStore::builder("redis://127.0.0.1:6379")
///     .encryption(EncryptionKeys::new(new).and_read(former))
///     .connect_lazy()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EncryptionKeys {
    /// The first one writes.
    ring: Vec<Sealer>,
    only_sealed: bool,
    clear_carts: bool,
    only_reads: bool,
}

#[derive(Clone)]
struct Sealer {
    id: [u8; KEY_ID_BYTES],
    cipher: XChaCha20Poly1305,
    /// Makes the fields of lines of SKUs.
    names: Hmac<Sha256>,
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKeys").field("keys", &self.ring.len()).finish_non_exhaustive()
    }
}

impl EncryptionKeys {
    /// Values are written with this key.
    ///
    /// ```
    /// let keys = session_store::EncryptionKeys::new([7; 32]);
    /// ```
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { ring: vec![Sealer::new(&key)], only_sealed: false, clear_carts: false, only_reads: false }
    }

    /// Values that were written with this key are read too.
    ///
    /// ```
    /// let keys = session_store::EncryptionKeys::new([7; 32]).and_read([6; 32]);
    /// ```
    #[must_use]
    pub fn and_read(mut self, key: [u8; 32]) -> Self {
        self.ring.push(Sealer::new(&key));
        self
    }

    /// Refuses values and lines that are not encrypted. For when no session and no cart is left from before encryption was turned
    /// on: until then they are read, and whoever can write to the store can put one there. A clear line is an error then, and stays.
    ///
    /// ```
    /// let keys = session_store::EncryptionKeys::new([7; 32]).only_encrypted();
    /// ```
    #[must_use]
    pub fn only_encrypted(mut self) -> Self {
        self.only_sealed = true;
        self
    }

    /// Leaves carts as they are without encryption: SKUs are in the store, and whoever has a dump of it can read them. Encrypted lines
    /// are read all the same, and become clear ones when they change.
    ///
    /// For the deploy that brings the encryption of carts to replicas that have encrypted sessions alone so far: those cannot read such
    /// a line, so that all are to have been replaced before the first one is written. And for shops whose carts others read in the store.
    ///
    /// ```
    /// let keys = session_store::EncryptionKeys::new([7; 32]).clear_carts();
    /// ```
    #[must_use]
    pub fn clear_carts(mut self) -> Self {
        self.clear_carts = true;
        self
    }

    /// Reads what is encrypted, and writes everything clear. For the deploy that gives all replicas the keys: a replica without them answers
    /// with an error for what others have encrypted, so that none is to be left when the next deploy turns encryption on by leaving this out.
    /// It is the way to turn encryption off again, too. [`only_encrypted`](Self::only_encrypted) says nothing beside it.
    ///
    /// ```
    /// let keys = session_store::EncryptionKeys::new([7; 32]).only_read();
    /// ```
    #[must_use]
    pub fn only_read(mut self) -> Self {
        self.only_reads = true;
        self
    }

    fn seal(&self, aad: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let Some(sealer) = self.ring.first() else {
            return Err(StoreError::Unwritable { reason: "there is no key to encrypt with".to_owned() });
        };
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let sealed = sealer.cipher.encrypt(&XNonce::from(nonce), Payload { msg: value, aad });
        let sealed = sealed.map_err(|_| StoreError::Unwritable { reason: "it is too long to be encrypted".to_owned() })?;
        Ok([&[SEALED], &sealer.id[..], &nonce[..], &sealed].concat())
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let cut = || corrupt("an encrypted value is cut off");
        let (id, rest) = sealed.get(1..).and_then(|rest| rest.split_at_checked(KEY_ID_BYTES)).ok_or_else(cut)?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or_else(cut)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| cut())?;
        let Some(sealer) = self.ring.iter().find(|sealer| sealer.id == id) else {
            // Perhaps a key that is being rolled out, so that nothing is put away.
            return Err(unreadable(
                "a value is encrypted with a key that this process does not have; give it to all replicas first",
            ));
        };
        let opened = sealer.cipher.decrypt(&XNonce::from(nonce), Payload { msg: text, aad });
        opened.map_err(|_| corrupt("an encrypted value is not what was written in its place"))
    }
}

/// Whether a stored value is an encrypted one.
pub(crate) fn is_sealed(value: &[u8]) -> bool {
    value.first() == Some(&SEALED)
}

impl Sealer {
    fn new(key: &[u8; 32]) -> Self {
        let hash = Sha256::new().chain_update(b"session-store key id").chain_update(key).finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash[..KEY_ID_BYTES]);
        let mac = |key: &[u8]| <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
        let names = mac(key).chain_update(b"session-store lines of carts").finalize().into_bytes();
        Self { id, cipher: XChaCha20Poly1305::new(&(*key).into()), names: mac(&names) }
    }
}

/// Where a value belongs: neither part can be moved into the other.
fn associated(binding: &[u8], name: &[u8]) -> Vec<u8> {
    [binding, b"\0", name].concat()
}

pub(crate) fn no_keys(what: &str) -> StoreError {
    unreadable(&format!("{what} is encrypted, and this process has no keys; see CacheStoreBuilder::encryption"))
}

/// Encrypts and decrypts, or does nothing when there are no keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vault(pub(crate) Option<EncryptionKeys>);

impl Vault {
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What the values of a session are bound to: the tag that it was created under, however often it got a new id since.
    pub(crate) fn binding(&self, tag: &Tag, bind_field: Option<&[u8]>) -> Result<Tag, StoreError> {
        match (&self.0, bind_field) {
            (Some(keys), Some(sealed)) => {
                let binding = keys.open(&associated(tag.as_str().as_bytes(), BIND_FIELD), sealed)?;
                Tag::from_bytes(&binding).ok_or_else(|| corrupt("the binding of a session is no tag"))
            }
            // Whoever cannot tell what the values and lines are bound to must not give them a new id.
            (None, Some(_)) => Err(no_keys("a session")),
            (_, None) => Ok(*tag),
        }
    }

    /// The field with which a session under a new tag tells what its values are bound to. `needed`: it has some, or lines in its cart. Where
    /// nothing is encrypted yet it would be in the way of replicas without the keys.
    pub(crate) fn bind_field(&self, new: &Tag, binding: &Tag, needed: bool) -> Result<Option<Vec<u8>>, StoreError> {
        if !needed && self.0.as_ref().is_some_and(|keys| keys.only_reads) {
            return Ok(None);
        }
        let aad = associated(new.as_str().as_bytes(), BIND_FIELD);
        let seal = |keys: &EncryptionKeys| keys.seal(&aad, binding.as_str().as_bytes());
        self.0.as_ref().map(seal).transpose()
    }

    pub(crate) fn open(&self, binding: &Tag, field: &mut RawField) -> Result<(), StoreError> {
        let is_sealed = is_sealed(field.value());
        match &self.0 {
            None if is_sealed => Err(no_keys("a value")),
            None => Ok(()),
            Some(keys) if !is_sealed && keys.only_sealed && !keys.only_reads => Err(corrupt("a value is not encrypted")),
            Some(_) if !is_sealed => Ok(()),
            Some(keys) => {
                let value = keys.open(&associated(binding.as_str().as_bytes(), field.name()), field.value())?;
                let sealed = field.kept_value();
                *field = field.with_value(&value);
                field.stored = Some(sealed);
                Ok(())
            }
        }
    }

    /// The fields as they go to the store. What has not changed stays as it is there.
    pub(crate) fn seal(
        &self,
        binding: &Tag,
        before: &[RawField],
        mut fields: Arc<Vec<RawField>>,
    ) -> Result<Arc<Vec<RawField>>, StoreError> {
        let Some(keys) = &self.0 else {
            return Ok(fields);
        };
        let before = ByName::of(before);
        for field in Arc::make_mut(&mut fields) {
            field.stored = match before.find(field.name()).filter(|old| old.value() == field.value()) {
                Some(old) => old.stored.clone(),
                None if keys.only_reads => None,
                None => {
                    let aad = associated(binding.as_str().as_bytes(), field.name());
                    Some(keys.seal(&aad, field.value())?.into())
                }
            };
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{EncryptionKeys, SEALED, associated};
    use crate::StoreError;

    #[test]
    fn a_value_opens_in_its_place_only_and_with_its_key_only() {
        let keys = EncryptionKeys::new([1; 32]);
        let place = associated(b"session", b"name");
        let sealed = keys.seal(&place, b"\"ada\"").unwrap();
        assert_eq!(sealed[0], SEALED);
        assert!(!sealed.windows(3).any(|part| part == b"ada"));
        assert_ne!(sealed, keys.seal(&place, b"\"ada\"").unwrap());
        assert_eq!(keys.open(&place, &sealed).unwrap(), b"\"ada\"");
        for (binding, name) in [(&b"other"[..], &b"name"[..]), (b"session", b"role"), (b"sessio", b"nname")] {
            assert!(matches!(keys.open(&associated(binding, name), &sealed), Err(StoreError::Corrupt { .. })));
        }
        for cut in 0..sealed.len() {
            assert!(keys.open(&place, &sealed[..cut]).is_err());
        }
        let rotated = EncryptionKeys::new([2; 32]);
        assert!(matches!(rotated.open(&place, &sealed), Err(StoreError::Unreadable { .. })));
        assert_eq!(rotated.and_read([1; 32]).open(&place, &sealed).unwrap(), b"\"ada\"");
    }
}
