//! What a request needs to know, and what that is when nothing else is said.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{Extensions, HeaderMap, Request};
use time::Duration;
use tower_sessions::Expiry;

use crate::{CartLimits, MergePolicy, OutagePolicy, cookie::CookieSettings, migration::Migrations};

/// How long a session without requests is kept when nothing else is said.
///
/// ```
/// use session_store::{EXPIRY_DEFAULT, Expiry};
/// assert!(matches!(EXPIRY_DEFAULT, Expiry::OnInactivity(idle) if idle == time::Duration::days(14)));
/// ```
pub const EXPIRY_DEFAULT: Expiry = Expiry::OnInactivity(Duration::days(14));
/// How long a cart is kept after its last change: longer than the session, since a user comes back to it.
///
/// ```
/// assert_eq!(session_store::CART_TTL_DEFAULT, time::Duration::days(30));
/// ```
pub const CART_TTL_DEFAULT: Duration = Duration::days(30);

/// How many sessions a user may have at once when nothing else is said.
///
/// ```
/// assert_eq!(session_store::USER_SESSIONS_MAX_DEFAULT, 64);
/// ```
pub const USER_SESSIONS_MAX_DEFAULT: u32 = 64;

/// How the application finds the address of a client.
#[derive(Clone)]
pub(crate) struct ClientAddress(Arc<FindAddress>);

type FindAddress = dyn Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync;

impl ClientAddress {
    pub(crate) fn new(find: impl Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    pub(crate) fn of<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        (self.0)(request.headers(), request.extensions())
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAddress(..)")
    }
}

/// What a request needs to know, shared by all of them.
// Its count of references is on a cache line of its own, as that of the store is.
#[derive(Debug, Clone)]
#[repr(align(128))]
pub(crate) struct Settings {
    pub(crate) cookie: CookieSettings,
    pub(crate) cookie_name: String,
    /// The name of the cookie that says what the client has seen, for reads from replicas.
    pub(crate) seen_name: String,
    pub(crate) expiry: Expiry,
    /// The longest life of a session, in ms.
    pub(crate) absolute_ms: Option<i64>,
    pub(crate) limits: CartLimits,
    pub(crate) cart_ttl_ms: i64,
    pub(crate) merge_policy: MergePolicy,
    pub(crate) outage: OutagePolicy,
    pub(crate) user_sessions_max: u32,
    pub(crate) client_address: Option<ClientAddress>,
    pub(crate) migrations: Migrations,
    /// Where sessions of tower-sessions-redis-store are: what comes before the id.
    pub(crate) taken_over: Option<Box<str>>,
    /// The name of a cookie that is read beside our own.
    pub(crate) former_cookie: Option<Box<str>>,
    /// Whether the request gets the session of tower-sessions 0.14 too.
    #[cfg(feature = "tower-sessions-014")]
    pub(crate) gives_014: bool,
}

impl Settings {
    /// The version of the application's data that new sessions have; `None` for the first one.
    pub(crate) fn data_version(&self) -> Option<u32> {
        Some(self.migrations.version()).filter(|version| *version > 0)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let cookie = CookieSettings::default();
        Self {
            cookie_name: cookie.full_name(),
            seen_name: cookie.seen_name(),
            cookie,
            expiry: EXPIRY_DEFAULT,
            absolute_ms: None,
            limits: CartLimits::default(),
            cart_ttl_ms: milliseconds(CART_TTL_DEFAULT),
            merge_policy: MergePolicy::default(),
            outage: OutagePolicy::default(),
            user_sessions_max: USER_SESSIONS_MAX_DEFAULT,
            client_address: None,
            migrations: Migrations::default(),
            taken_over: None,
            former_cookie: None,
            #[cfg(feature = "tower-sessions-014")]
            gives_014: false,
        }
    }
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    // Ten years at most, as for sessions: larger ones overflow in some stores.
    i64::try_from(duration.whole_milliseconds().min(Duration::days(3_650).whole_milliseconds()))
        .expect("ten years in milliseconds fit")
        .max(1)
}
