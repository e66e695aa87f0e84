//! The setting that encrypts what the store holds of visitors.

use std::fmt;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use session_store::EncryptionKeys;
use sha2::{Digest, Sha256};

/// The environment variables that say the same as the options.
const KEYS_VARIABLE: &str = "DEMO_SHOP_ENCRYPTION_KEYS";
const MODE_VARIABLE: &str = "DEMO_SHOP_ENCRYPTION";

const KEY_BYTES: usize = 32;
const KEY_DIGITS: usize = 2 * KEY_BYTES;
/// Each key is one more field that a line of a cart may stand in, which every change of it looks up.
const KEYS_MAX: usize = 4;

/// The options of encryption, the same for every replica.
#[derive(Clone, Default, Args)]
pub(crate) struct EncryptionArgs {
    /// Encrypt the values of sessions and the SKUs in carts with this key, 64 hexadecimal digits (openssl rand -hex 32). More keys behind
    /// it, each after a comma, are read too: that is how a key is changed. Processes of other users can read a command line, and not
    /// the variable
    // Text here, and keys later: an error of the parser would show the key.
    #[arg(long, env = KEYS_VARIABLE, hide_env_values = true, value_name = "KEY[,KEY…]")]
    pub(crate) encryption_keys: Option<String>,
    /// What is done with the keys
    #[arg(long, env = MODE_VARIABLE, value_name = "MODE", value_enum)]
    pub(crate) encryption: Option<Mode>,
}

/// The deploys that turn encryption on without an error for anybody, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Read what is encrypted and write nothing so: until every replica has the keys
    Prepare,
    /// Encrypt what is written, and read what is not encrypted yet [default with keys]
    On,
    /// Refuse what is not encrypted: when no session and no cart is left from before
    Required,
}

impl fmt::Debug for EncryptionArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No key: this is part of the debug output of all options.
        f.debug_struct("EncryptionArgs").field("encryption", &self.encryption).finish_non_exhaustive()
    }
}

impl EncryptionArgs {
    /// The keys for the store; `None` when nothing is to be encrypted.
    ///
    /// # Errors
    /// When a key is none, or a mode is given and no key. No error tells anything of a key but its length.
    pub(crate) fn keys(&self) -> anyhow::Result<Option<EncryptionKeys>> {
        let mut ring = self.ring()?.into_iter();
        let Some(first) = ring.next() else {
            if let Some(mode) = self.encryption {
                bail!(
                    "encryption is to be {:?}, and there is no key: give {KEYS_VARIABLE} one (openssl rand -hex 32)",
                    mode.name()
                );
            }
            if self.encryption_keys.is_some() {
                // A secret that was not mounted looks like this.
                tracing::warn!("{KEYS_VARIABLE} is there and empty: nothing is encrypted");
            }
            return Ok(None);
        };
        let keys = ring.fold(EncryptionKeys::new(first), EncryptionKeys::and_read);
        Ok(Some(match self.encryption.unwrap_or(Mode::On) {
            Mode::Prepare => keys.only_read(),
            Mode::On => keys,
            Mode::Required => keys.only_encrypted(),
        }))
    }

    /// The keys in their order; none when nothing is to be encrypted.
    fn ring(&self) -> anyhow::Result<Vec<[u8; KEY_BYTES]>> {
        let mut ring = Vec::new();
        let Some(text) = self.encryption_keys.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(ring);
        };
        for (index, digits) in text.split(',').enumerate() {
            let place = index + 1;
            let key = parse(digits.trim()).with_context(|| format!("{KEYS_VARIABLE}: key {place}"))?;
            if let Some(same) = ring.iter().position(|other| *other == key) {
                bail!("{KEYS_VARIABLE}: key {place} is the same as key {}: leave one out", same + 1);
            }
            ring.push(key);
        }
        if ring.len() > KEYS_MAX {
            bail!(
                "{KEYS_VARIABLE} has {} keys; {KEYS_MAX} at most: leave out those that nothing is written with any more",
                ring.len()
            );
        }
        Ok(ring)
    }

    /// By what each of the keys is known to whoever may not know it: part of a hash of 32 random bytes.
    ///
    /// # Errors
    /// When a key is none.
    pub(crate) fn fingerprints(&self) -> anyhow::Result<Vec<String>> {
        let hash = |key| Sha256::new_with_prefix(b"demo-shop encryption key\0").chain_update(key).finalize();
        let fingerprint = |key| hash(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(self.ring()?.into_iter().map(fingerprint).collect())
    }

    /// Whether something is written with the first key.
    pub(crate) fn is_writing(&self) -> bool {
        self.encryption != Some(Mode::Prepare)
    }

    /// The variables with which a replica of ours is given the same: not as arguments, which every user of the machine can list.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let keys = self.encryption_keys.clone().map(|keys| (KEYS_VARIABLE, keys));
        keys.into_iter().chain(self.encryption.map(|mode| (MODE_VARIABLE, mode.name())))
    }
}

impl Mode {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

fn parse(digits: &str) -> anyhow::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if let Some(place) = digits.chars().position(|digit| !digit.is_ascii_hexdigit()) {
        bail!("what is at place {} of it is no hexadecimal digit; make one with: openssl rand -hex {KEY_BYTES}", place + 1);
    }
    if digits.len() != KEY_DIGITS {
        bail!("it has {} hexadecimal digits, and needs {KEY_DIGITS}; make one with: openssl rand -hex {KEY_BYTES}", digits.len());
    }
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = pair.iter().filter_map(|digit| char::from(*digit).to_digit(16)).fold(0, |byte, digit| byte << 4 | digit as u8);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::{EncryptionArgs, Mode, parse};

    fn given(keys: &str, encryption: Option<Mode>) -> EncryptionArgs {
        EncryptionArgs { encryption_keys: Some(keys.to_owned()), encryption }
    }

    #[test]
    fn a_key_is_its_digits() {
        let key = parse("000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1EFF").expect("a key");
        assert_eq!((key[1], key[30], key[31]), (1, 0x1e, 0xff));
    }

    #[test]
    fn what_is_no_key_is_said_without_showing_it() {
        let (one, other) = ("ab".repeat(32), "cd".repeat(32));
        for (keys, words) in [
            ("abcd".to_owned(), "key 1: it has 4 hexadecimal digits, and needs 64"),
            (format!("{one},"), "key 2: it has 0 hexadecimal digits"),
            (format!("{one}, {other}0"), "key 2: it has 65"),
            (format!("{}zz", "ab".repeat(31)), "key 1: what is at place 63 of it is no hexadecimal digit"),
            (format!("+{}", &one[1..]), "at place 1 "),
            (format!("{one},{other},{}", one.to_uppercase()), "key 3 is the same as key 1"),
            ((1..=5).map(|key| format!("{key:064x}")).collect::<Vec<_>>().join(","), "has 5 keys; 4 at most"),
        ] {
            let error = format!("{:#}", given(&keys, None).keys().expect_err("no key"));
            assert!(error.contains(words) && error.contains("DEMO_SHOP_ENCRYPTION_KEYS"), "{error}");
            assert!(!error.contains("abab") && !error.contains("abcd") && !error.contains("zz"), "{error}");
        }
        let error = given(" ", Some(Mode::Required)).keys().expect_err("no key").to_string();
        assert!(error.contains("\"required\"") && error.contains("openssl"), "{error}");
    }

    #[test]
    fn no_key_is_no_encryption() {
        assert!(EncryptionArgs::default().keys().expect("nothing is wrong").is_none());
        assert!(given("", None).keys().expect("nothing is wrong").is_none());
    }

    #[test]
    fn a_replica_is_given_the_same() {
        let args = given("abcd", Some(Mode::Prepare));
        let variables: Vec<_> = args.variables().collect();
        assert_eq!(variables, [("DEMO_SHOP_ENCRYPTION_KEYS", "abcd".to_owned()), ("DEMO_SHOP_ENCRYPTION", "prepare".to_owned())]);
        assert_eq!(EncryptionArgs::default().variables().count(), 0);
    }
}
