//! Passwords: only their SHA-256 is kept, and it is what `#…` stands for in rules.

use sha2::{Digest as _, Sha256};

const HASH_BYTES: usize = 32;

/// A password's SHA-256. Nothing shows it but [`PasswordHash::hexadecimal`].
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PasswordHash([u8; HASH_BYTES]);

impl PasswordHash {
    pub(super) fn of(password: &[u8]) -> PasswordHash {
        PasswordHash(Sha256::digest(password).into())
    }

    /// From 64 hexadecimal digits in small letters.
    pub(super) fn parse(digits: &[u8]) -> Option<PasswordHash> {
        let value = |digit: &u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        if digits.len() != 2 * HASH_BYTES {
            return None;
        }
        let mut hash = [0; HASH_BYTES];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(&pair[0])? << 4 | value(&pair[1])?;
        }
        Some(PasswordHash(hash))
    }

    pub(super) fn hexadecimal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compares without telling by the time taken how much was right.
    pub(super) fn is_same(&self, other: &PasswordHash) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::PasswordHash;

    #[test]
    fn a_hash_is_that_of_sha256sum_and_is_read_back() {
        let hash = PasswordHash::of(b"sesame");
        let digits = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
        assert_eq!(hash.hexadecimal(), digits);
        assert!(PasswordHash::parse(digits.as_bytes()).is_some_and(|read| read.is_same(&hash) && read == hash));
        for wrong in [&digits[1..], &digits.to_ascii_uppercase(), &digits.replace('d', "g"), ""] {
            assert_eq!(PasswordHash::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(!format!("{hash:?}").contains("d0c0"));
    }
}
