//! Which path is answered by what.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use session_store::SessionLayer;

use crate::shop::app::App;
use crate::shop::{api, assets, failure, headers, metrics, pages, probes, test_hooks};

/// The largest body that any form or JSON document here needs, with room.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// All routes of a replica.
pub(crate) fn all(app: App, sessions: SessionLayer, with_test_hooks: bool) -> Router {
    let mut visitors = Router::new()
        .route("/", get(pages::home::show))
        .route("/products/{sku}", get(pages::product::show))
        .route("/cart", get(pages::cart::show))
        .route("/cart/add", post(pages::cart::add))
        .route("/cart/update", post(pages::cart::update))
        .route("/cart/remove", post(pages::cart::remove))
        .route("/checkout", get(pages::checkout::show).post(pages::checkout::submit))
        .route("/orders", get(pages::orders::list))
        .route("/orders/{id}", get(pages::orders::show))
        .route("/register", get(pages::account::show_register).post(pages::account::register))
        .route("/login", get(pages::account::show_login).post(pages::account::log_in))
        .route("/logout", post(pages::account::log_out))
        .route("/account", get(pages::account::show))
        .route("/account/devices/log-out", post(pages::devices::log_out))
        .route("/account/devices/log-out-others", post(pages::devices::log_out_others))
        .route("/api/cart", get(api::cart::show))
        .route("/api/cart/lines", post(api::cart::add))
        .route("/api/cart/lines/{sku}", put(api::cart::set).delete(api::cart::remove));
    if with_test_hooks {
        visitors = visitors.route("/api/slow-write", post(test_hooks::slow_write));
    }
    let visitors = visitors
        .fallback(failure::not_found)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), failure::dress))
        .layer(from_fn(headers::same_origin_only))
        .layer(sessions)
        .layer(from_fn_with_state(app.clone(), failure::dress_commit));
    // What is the same for everyone has no business with a session.
    Router::new()
        .route("/static/{hash}/{name}", get(assets::serve))
        .route("/pictures/{file}", get(pages::pictures::show))
        .route("/api/products", get(api::products))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(metrics::show))
        .merge(visitors)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(app.clone(), headers::every_answer))
        .with_state(app)
}
