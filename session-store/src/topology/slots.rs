//! Slots of a cluster: a number for each key, the same for all keys with the same hash tag.

/// Slots of a cluster, by its protocol.
pub(crate) const SLOTS: usize = 16_384;

const CRC: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u16);

impl Slot {
    pub(crate) fn of_key(key: &[u8]) -> Self {
        Self(CRC.checksum(tag(key).unwrap_or(key)) % SLOTS as u16)
    }
}

/// What is between the first `{` and the first `}` after it, if it is anything.
fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

#[cfg(test)]
mod tests {
    use super::Slot;

    #[test]
    fn slots_are_those_of_the_protocol() {
        // As CLUSTER KEYSLOT answers.
        for (key, slot) in [("123456789", 12_739), ("foo", 12_182), ("{foo}.bar", 12_182), ("foo{}", 5_542), ("{}", 15_257)] {
            assert_eq!(Slot::of_key(key.as_bytes()), Slot(slot), "{key}");
        }
    }
}
