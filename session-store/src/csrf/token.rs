//! The secret of a session, and the tokens that are made of it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;

/// 256 bits, twice what OWASP asks for.
const SECRET_BYTES: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    pub(super) fn draw() -> Self {
        Self(rand::random())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub(super) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The secret behind a mask that is drawn for this token. So no part of it comes twice in answers, whose compressed lengths
    /// would tell of it otherwise (BREACH).
    pub(super) fn token(&self) -> String {
        let mask: [u8; SECRET_BYTES] = rand::random();
        let masked = std::array::from_fn(|at| mask[at] ^ self.0[at]);
        URL_SAFE_NO_PAD.encode([mask, masked].concat())
    }

    /// Takes as long for a wrong token as for the right one.
    pub(super) fn matches(&self, token: &str) -> bool {
        // Nothing that is longer is looked at.
        if token.len() != (2 * SECRET_BYTES * 8).div_ceil(6) {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else {
            return false;
        };
        let (mask, masked) = bytes.split_at(SECRET_BYTES.min(bytes.len()));
        let unmasked: Vec<u8> = mask.iter().zip(masked).map(|(mask, masked)| mask ^ masked).collect();
        unmasked.ct_eq(&self.0).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Secret;

    #[test]
    fn each_token_is_another_one_and_matches_its_secret_alone() {
        let (secret, other) = (Secret::draw(), Secret::draw());
        let (one, two) = (secret.token(), secret.token());
        assert_ne!(one, two);
        assert!(secret.matches(&one) && secret.matches(&two));
        assert!(!other.matches(&one));
        assert!(Secret::parse(&secret.to_text()).unwrap().matches(&one));
    }

    #[test]
    fn what_is_no_token_does_not_match() {
        let secret = Secret::draw();
        let token = secret.token();
        let flipped = if token.starts_with('A') { token.replacen('A', "B", 1) } else { format!("A{}", &token[1..]) };
        for wrong in ["", "!", "AAAA", &token[1..], &format!("{token}A"), &flipped, &secret.to_text(), &"é".repeat(43)] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
        assert!(Secret::parse("AAAA").is_none() && Secret::parse("").is_none());
    }
}
