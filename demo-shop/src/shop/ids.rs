//! Names that the application makes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use session_store::IdempotencyToken;

/// The characters of an order number: Crockford's base 32, which has no letters that look like digits.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 60 random bits: enough to be unique, short enough to be read out on the telephone.
const ORDER_ID_LENGTH: usize = 12;
/// The length of [`random_id`]: 128 bits in base 64.
pub(crate) const RANDOM_ID_LENGTH: usize = 22;

/// 128 random bits, as text for URLs and forms.
pub(crate) fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

/// Whether `text` looks like a [`random_id`].
pub(crate) fn is_random_id(text: &str) -> bool {
    text.len() == RANDOM_ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A new order's number, like `7K3Q-9XWP-A2MV`.
pub(crate) fn order_id() -> String {
    let mut id = String::with_capacity(ORDER_ID_LENGTH + 2);
    for (index, byte) in rand::random::<[u8; ORDER_ID_LENGTH]>().into_iter().enumerate() {
        if index > 0 && index % 4 == 0 {
            id.push('-');
        }
        id.push(char::from(CROCKFORD[usize::from(byte & 31)]));
    }
    id
}

/// The token of a form, as the cart takes it; `None` when it is none that the cart would accept.
pub(crate) fn form_token(text: &str) -> Option<IdempotencyToken> {
    if is_random_id(text) { parse_token(text) } else { None }
}

/// A client's `Idempotency-Key`.
pub(crate) fn parse_token(text: &str) -> Option<IdempotencyToken> {
    IdempotencyToken::parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::{is_random_id, order_id, random_id};

    #[test]
    fn what_is_made_is_recognised() {
        assert!(is_random_id(&random_id()));
        assert!(!is_random_id("1"));
        assert!(!is_random_id(&"/".repeat(22)));
        assert_eq!(order_id().len(), 14);
        assert_ne!(order_id(), order_id());
    }
}
