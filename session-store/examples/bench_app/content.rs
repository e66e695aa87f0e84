//! What `/seed` puts into a session.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// The key that `/read` reads.
pub(crate) const READ_KEY: &str = "name";
/// The key that `/write` counts in.
pub(crate) const WRITE_KEY: &str = "count";
/// What `/read` finds.
pub(crate) const NAME: &str = "Ada Lovelace";

/// Keys and values of a new session: about 300 bytes of JSON.
pub(crate) fn seed() -> [(&'static str, Json); 4] {
    [
        (READ_KEY, json!(NAME)),
        (WRITE_KEY, json!(0)),
        ("csrf", json!("Zm9yIGEgbWVhc3VyZW1lbnQgYW55IHRva2VuIHdpbGwgZG8")),
        (
            "preferences",
            json!({
                "language": "en-GB", "currency": "EUR", "theme": "dark", "newsletter": false,
                "recently_viewed": ["TEA-001", "CUP-003", "POT-017", "TIN-020", "SPOON-2", "KETTLE-9"],
                "country": "DE", "sort": "price-ascending",
            }),
        ),
    ]
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sku {
    pub(crate) sku: String,
}

/// A line of the cart in an answer, and in the session of a middleware that has no carts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) quantity: u32,
}

#[test]
fn a_session_has_about_300_bytes() {
    let bytes: usize = seed().iter().map(|(key, value)| key.len() + value.to_string().len()).sum();
    assert!((270..=330).contains(&bytes), "{bytes}");
}
