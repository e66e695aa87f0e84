//! Lines of carts: the field is a keyed hash of the SKU, the value the quantity, which the store reckons with, and behind it the SKU.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac as _;

use super::{EncryptionKeys, SEALED, Sealer, Vault, no_keys};
use crate::{StoreError, cart::merged::pack, keys::Tag, metrics, record::number, scripts::Call};

/// What the field of an encrypted line begins with. No SKU does, and no reserved field.
pub(crate) const SEALED_NAME: u8 = 1;
/// Bytes of the hash that are kept.
const HASH_BYTES: usize = 16;
/// What stands between the quantity and the SKU.
const SEPARATOR: u8 = b':';
/// SKUs are filled up to a multiple of so many bytes, so that their length tells little of them. They hold no zero.
const PADDED_TO_BYTES: usize = 16;

/// A line as it is sent to a script.
#[derive(Debug, PartialEq, Eq)]
struct SealedLine {
    /// The field that it is to have, then those that it may stand in: under former keys, and clear.
    names: Vec<Vec<u8>>,
    /// What stands behind its quantity.
    tail: Vec<u8>,
}

impl SealedLine {
    fn parts(&self, quantity: u32) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let (first, others) = self.names.split_first().map_or((&[][..], &[][..]), |(first, others)| (&first[..], others));
        let head = [first.into(), quantity.to_string().into_bytes().into(), (&self.tail[..]).into()];
        head.into_iter().chain(others.iter().map(|name| Cow::Borrowed(&name[..])))
    }
}

/// Reads and writes the lines of one cart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a> {
    keys: Option<&'a EncryptionKeys>,
    /// What the lines are bound to.
    binding: &'a Tag,
    /// Whether one that cannot be read is counted, and told in the log.
    is_told: bool,
}

impl Vault {
    pub(crate) fn lines<'a>(&'a self, binding: &'a Tag) -> Lines<'a> {
        Lines { keys: self.0.as_ref(), binding, is_told: true }
    }

    /// Names of a line; `None`: there are no keys, and a line stands under its SKU alone.
    pub(crate) fn names_of_a_line(&self) -> Option<usize> {
        self.0.as_ref().map(|keys| keys.ring.len() + usize::from(keys.may_be_clear()))
    }
}

impl EncryptionKeys {
    fn may_be_clear(&self) -> bool {
        self.writes_clear_lines() || !self.only_sealed
    }

    fn writes_clear_lines(&self) -> bool {
        self.clear_carts || self.only_reads
    }
}

impl Lines<'_> {
    /// For a read that is repeated when a line cannot be read: that is counted and told once, by the other one.
    pub(crate) fn silently(self) -> Self {
        Self { is_told: false, ..self }
    }

    /// Adds a line to the arguments of a script: as `standing.lua` has it, or as it is when there are no keys.
    pub(crate) fn give(&self, call: &mut Call, sku: &str, quantity: u32) -> Result<(), StoreError> {
        let Some(line) = self.seal(sku)? else {
            call.arg(sku).arg(quantity);
            return Ok(());
        };
        for part in line.parts(quantity) {
            call.arg(&part[..]);
        }
        Ok(())
    }

    /// The same in one argument, behind what it has already.
    pub(crate) fn pack(&self, packed: &mut Vec<u8>, sku: &str, quantity: u32) -> Result<(), StoreError> {
        for part in self.seal(sku)?.iter().flat_map(|line| line.parts(quantity)) {
            pack(packed, &part);
        }
        Ok(())
    }

    /// A line as it is to be written; `None` when there are no keys.
    fn seal(&self, sku: &str) -> Result<Option<SealedLine>, StoreError> {
        let Some(keys) = self.keys else {
            return Ok(None);
        };
        let mut names = Vec::with_capacity(keys.ring.len() + 1);
        names.extend(keys.ring.iter().map(|sealer| self.name(sealer, sku)));
        if keys.writes_clear_lines() {
            names.insert(0, sku.as_bytes().to_vec());
            return Ok(Some(SealedLine { names, tail: Vec::new() }));
        }
        let mut padded = sku.as_bytes().to_vec();
        padded.resize(padded.len().next_multiple_of(PADDED_TO_BYTES), 0);
        let mut tail = vec![SEPARATOR];
        tail.extend(keys.seal(&self.associated(&names[0]), &padded)?);
        if keys.may_be_clear() {
            names.push(sku.as_bytes().to_vec());
        }
        Ok(Some(SealedLine { names, tail }))
    }

    /// The SKU and the quantity of a field and its value, which no other cart and no other field can have.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnreadableCart`], which is counted and told here unless [`silently`](Self::silently) opened.
    pub(crate) fn open(&self, name: &[u8], value: &[u8]) -> Result<(String, u32), StoreError> {
        self.opened(name, value).map_err(|error| {
            let error = unreadable_cart(error);
            if self.is_told { told(error, "read") } else { error }
        })
    }

    fn opened(&self, name: &[u8], value: &[u8]) -> Result<(String, u32), StoreError> {
        let damaged = |reason: &str| StoreError::UnreadableCart { reason: reason.to_owned() };
        let text = |sku: &[u8]| String::from_utf8(sku.to_vec()).map_err(|_| damaged("a SKU is not UTF-8"));
        if name.first() != Some(&SEALED_NAME) {
            if self.keys.is_some_and(|keys| !keys.may_be_clear()) {
                return Err(damaged("a line is not encrypted"));
            }
            return Ok((text(name)?, number(value).map_err(|_| damaged("a quantity is not a number"))?));
        }
        let keys = self.keys.ok_or_else(|| no_keys("a line"))?;
        let (quantity, sealed) = memchr::memchr(SEPARATOR, value)
            .map(|at| (&value[..at], &value[at + 1..]))
            .filter(|(_, sealed)| sealed.first() == Some(&SEALED))
            .ok_or_else(|| damaged("an encrypted line is cut off"))?;
        let mut sku = keys.open(&self.associated(name), sealed)?;
        sku.truncate(sku.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        Ok((text(&sku)?, number(quantity).map_err(|_| damaged("the quantity of an encrypted line is not a number"))?))
    }

    /// Whether the line of this SKU would be given another field now than this one.
    pub(crate) fn would_move(&self, name: &[u8], sku: &str) -> bool {
        match self.keys {
            Some(keys) if !keys.writes_clear_lines() => keys.ring.first().is_some_and(|sealer| self.name(sealer, sku) != name),
            _ => name != sku.as_bytes(),
        }
    }

    fn name(&self, sealer: &Sealer, sku: &str) -> Vec<u8> {
        let mut mac = sealer.names.clone();
        for part in [self.binding.as_str().as_bytes(), b"\0", sku.as_bytes()] {
            mac.update(part);
        }
        let mut name = URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..HASH_BYTES]).into_bytes();
        name.insert(0, SEALED_NAME);
        name
    }

    /// No value of a session has the like of it.
    fn associated(&self, name: &[u8]) -> Vec<u8> {
        [b"cart\0", self.binding.as_str().as_bytes(), b"\0", name].concat()
    }
}

/// A script has met a line whose quantity it cannot read, or that is encrypted where it was told of no keys; counted and told here.
pub(crate) fn damaged_line() -> StoreError {
    let reason = "its quantity is damaged, or it is encrypted and this process has no keys; see CacheStoreBuilder::encryption";
    told(StoreError::UnreadableCart { reason: reason.to_owned() }, "changed")
}

/// Counts a line that cannot be read, or not be changed, and tells of it.
fn told(error: StoreError, done: &str) -> StoreError {
    metrics::cart_line_unreadable();
    tracing::warn!(%error, "a line of a cart cannot be {done}, and stays as it is");
    error
}

/// The same error, of a cart.
pub(crate) fn unreadable_cart(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { reason } | StoreError::Unreadable { reason } => StoreError::UnreadableCart { reason },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tower_sessions::session::Id;

    use crate::{EncryptionKeys, StoreError, encryption::Vault, keys::Keys};

    fn keys(ring: EncryptionKeys) -> Vault {
        Vault(Some(ring))
    }

    #[test]
    fn a_line_opens_in_its_cart_and_field_only_and_with_its_key_only() {
        let tags = Keys::new("shop", b"secret", &[], b"secret");
        let (cart, other) = (tags.session_tag(&Id(1)), tags.session_tag(&Id(2)));
        let vault = keys(EncryptionKeys::new([1; 32]));
        let line = vault.lines(&cart).seal("TEA-001").unwrap().unwrap();
        assert_eq!((line.names.len(), Some(2)), (2, vault.names_of_a_line()));
        assert_eq!(line.names[1], b"TEA-001");
        let value = [b"12", &line.tail[..]].concat();
        assert!(!value.windows(3).any(|part| part == b"TEA"));
        assert_eq!(vault.lines(&cart).open(&line.names[0], &value).unwrap(), ("TEA-001".to_owned(), 12));

        let elsewhere = vault.lines(&other).seal("TEA-001").unwrap().unwrap();
        assert_ne!(line.names[0], elsewhere.names[0], "one SKU in two carts");
        let another_line = vault.lines(&cart).seal("TEA-002").unwrap().unwrap();
        assert_eq!(line.tail.len(), vault.lines(&cart).seal("CUP-1").unwrap().unwrap().tail.len());
        for (binding, name) in [(&other, &line.names[0]), (&other, &elsewhere.names[0]), (&cart, &another_line.names[0])] {
            assert!(matches!(vault.lines(binding).open(name, &value), Err(StoreError::UnreadableCart { .. })));
        }
        for cut in 0..value.len() {
            assert!(vault.lines(&cart).open(&line.names[0], &value[..cut]).is_err());
        }
        for vault in [Vault(None), keys(EncryptionKeys::new([2; 32]))] {
            assert!(matches!(vault.lines(&cart).open(&line.names[0], &value), Err(StoreError::UnreadableCart { .. })));
        }
    }

    #[test]
    fn a_line_is_looked_for_under_every_key_and_clear_where_it_may_be() {
        let cart = Keys::new("shop", b"secret", &[], b"secret").session_tag(&Id(1));
        let name = |ring| keys(ring).lines(&cart).seal("TEA").unwrap().unwrap().names.remove(0);
        let (old, new, clear) = (name(EncryptionKeys::new([1; 32])), name(EncryptionKeys::new([2; 32])), b"TEA".to_vec());
        let both = || EncryptionKeys::new([2; 32]).and_read([1; 32]);
        for (ring, names) in [
            (both(), vec![&new, &old, &clear]),
            (both().only_encrypted(), vec![&new, &old]),
            (both().clear_carts(), vec![&clear, &new, &old]),
            (both().only_encrypted().only_read(), vec![&clear, &new, &old]),
            (both().only_encrypted().clear_carts(), vec![&clear, &new, &old]),
        ] {
            let vault = keys(ring);
            let line = vault.lines(&cart).seal("TEA").unwrap().unwrap();
            assert_eq!(line.names.iter().collect::<Vec<_>>(), names);
            assert_eq!(vault.names_of_a_line(), Some(names.len()));
            assert_eq!(line.tail.is_empty(), names[0] == &clear);
            let opens = vault.lines(&cart).open(&clear, b"3");
            assert_eq!(opens.is_ok(), names.contains(&&clear));
        }
        assert_eq!(Vault(None).lines(&cart).seal("TEA").unwrap(), None);
    }
}
