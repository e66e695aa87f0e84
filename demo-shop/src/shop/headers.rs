//! What every answer carries, and what an unsafe request must.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use crate::shop::app::App;
use crate::shop::failure::{Failure, RETRY_AFTER_SECONDS};

const X_SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Everything comes from the shop itself; pictures in `data:` URLs are the marks inside Pico's form controls.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; \
     font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The longest that a request may take, its body included. The store's deadline and the pool's are far shorter: only a
/// database that accepts statements and does not answer, or a body that arrives drop by drop, comes as far.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// Security headers and the replica's name, on every answer, also on that of a handler that panicked.
pub(crate) async fn every_answer(State(app): State<App>, request: Request, next: Next) -> Response {
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(REQUEST_DEADLINE, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("a handler panicked");
            (StatusCode::INTERNAL_SERVER_ERROR, "Something broke on our side. Your cart is safe; please try again.\n")
                .into_response()
        }
        Err(_) => {
            tracing::error!("a request took longer than {REQUEST_DEADLINE:?}");
            let later = [(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))];
            (StatusCode::SERVICE_UNAVAILABLE, later, "This took too long. Please try again.\n").into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The name was checked when the replica started.
    if let Ok(name) = HeaderValue::from_str(&app.name) {
        headers.insert(X_SERVED_BY, name);
    }
    response
}

/// The address of a client behind so many proxies, each of which adds the one that it sees at the end of X-Forwarded-For.
/// What stands before those is the client's own word.
pub(crate) fn client_address(headers: &HeaderMap, extensions: &Extensions, proxies: u8) -> Option<IpAddr> {
    let Some(place) = proxies.checked_sub(1) else {
        return extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    };
    let fields = headers.get_all("x-forwarded-for").iter().filter_map(|field| field.to_str().ok());
    let addresses: Vec<&str> = fields.flat_map(|field| field.split(',')).map(str::trim).collect();
    addresses.iter().rev().nth(place.into())?.parse().ok()
}

/// Refuses a change that another site's page asks for.
///
/// Beside the cookie's SameSite=Lax. Clients that are no browsers send neither header and pass: they have no
/// cookies that someone else could ride on.
pub(crate) async fn same_origin_only(request: Request, next: Next) -> Response {
    if request.method().is_safe() || comes_from_here(request.headers()) {
        return next.run(request).await;
    }
    Failure::Refused {
        status: StatusCode::FORBIDDEN,
        message: "This request came from another site, so nothing was done.".to_owned(),
    }
    .into_response()
}

fn comes_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else {
        return true;
    };
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    // A balancer may have put its own name into Host and the browser's into X-Forwarded-Host.
    !authority.is_empty() && (text("host") == Some(authority) || text("x-forwarded-host") == Some(authority))
}

#[cfg(test)]
mod tests {
    use axum::extract::ConnectInfo;
    use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};

    use super::{client_address, comes_from_here};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn another_sites_page_is_refused() {
        assert!(!comes_from_here(&headers(&[("sec-fetch-site", "cross-site"), ("host", "shop")])));
        assert!(!comes_from_here(&headers(&[("sec-fetch-site", "same-site")])));
        assert!(!comes_from_here(&headers(&[("origin", "https://evil.example"), ("host", "shop")])));
        assert!(!comes_from_here(&headers(&[("origin", "null"), ("host", "shop")])));
    }

    #[test]
    fn a_client_cannot_choose_its_address() {
        let mut connection = Extensions::new();
        connection.insert(ConnectInfo(std::net::SocketAddr::from(([192, 0, 2, 9], 50_000))));
        let sent = headers(&[("x-forwarded-for", "10.9.8.7, 203.0.113.5 , 198.51.100.2")]);
        for (proxies, address) in [(0, "192.0.2.9"), (1, "198.51.100.2"), (2, "203.0.113.5")] {
            let found = client_address(&sent, &connection, proxies).map(|address| address.to_string());
            assert_eq!(found.as_deref(), Some(address), "{proxies}");
        }
        assert_eq!(client_address(&sent, &connection, 4), None);
        assert_eq!(client_address(&headers(&[("x-forwarded-for", "?")]), &connection, 1), None);
    }

    #[test]
    fn the_shops_own_pages_and_programs_pass() {
        assert!(comes_from_here(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(comes_from_here(&headers(&[("origin", "http://shop:8080"), ("host", "shop:8080")])));
        assert!(comes_from_here(&headers(&[
            ("origin", "https://shop"),
            ("host", "10.0.0.7:8081"),
            ("x-forwarded-host", "shop")
        ])));
        assert!(comes_from_here(&headers(&[("host", "shop")])));
    }
}
