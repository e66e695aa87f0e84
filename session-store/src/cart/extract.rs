//! The extractor.

use axum_core::extract::FromRequestParts;
use http::{StatusCode, request::Parts};

use super::Cart;

impl<S: Send + Sync> FromRequestParts<S> for Cart {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let cart = parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or((StatusCode::INTERNAL_SERVER_ERROR, "There is no cart in this request. Is `SessionLayer` on this route?"))?;
        if parts.method.is_safe() {
            // A page that asks for the cart will show it: it may come along with the session.
            cart.unit.expect_cart();
        }
        Ok(cart)
    }
}
