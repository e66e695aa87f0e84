//! The layer, and how its settings are made.

use std::{borrow::Cow, collections::HashMap, net::IpAddr, sync::Arc};

use cookie::SameSite;
use http::{Extensions, HeaderMap};
use time::Duration;
use tower_layer::Layer;
use tower_sessions::Expiry;

use crate::{
    CacheStore, CartLimits, MergePolicy, OutagePolicy, SessionService,
    cookie::CookieSettings,
    cookie_keys::{CookieKeys, Protection},
    settings::{ClientAddress, Settings, milliseconds},
    shared::Shared,
};

/// Gives every request a [`Session`](crate::Session) and a [`Cart`](crate::Cart), and commits what changed in one step.
///
/// Defaults: a cookie `__Host-id` with Secure, HttpOnly, SameSite=Lax and Path=/; sessions end after 14 days without a
/// request; a cart is kept for 30 days after its last change.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use session_store::{CacheStore, Session, SessionLayer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = CacheStore::connect("redis://127.0.0.1:6379").await?;
/// let app: Router = Router::new()
///     .route("/", get(async |session: Session| format!("{:?}", session.get::<u32>("visits").await)))
///     .layer(SessionLayer::new(store));
/// # Ok(())
/// # }
/// ```
///
/// # Around a router
///
/// `Router::layer` puts the layer and the future of each request into boxes. Around the whole router it needs none, which spares a quarter of
/// what the layer costs a request that asks for nothing. Handlers, extractors, what is not found and the layers of routes, such as
/// [`outage_policy`](crate::outage_policy), are the same; layers that belong outside of it are put around it likewise. Each connection gets a
/// service and a router of its own, with `with_state(())` made ready, as axum does it itself with a router that it serves: routes would be made
/// ready for each request otherwise, and cores would take from each other the count of references to the one that all share.
///
/// ```no_run
/// use std::{convert::Infallible, future::ready};
/// use axum::{Router, routing::get, serve::IncomingStream};
/// use session_store::{CacheStore, SessionLayer};
/// use tokio::net::TcpListener;
/// use tower::{Layer as _, service_fn};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = SessionLayer::new(CacheStore::connect("redis://127.0.0.1:6379").await?);
/// let router = Router::new().route("/", get(async || "hello"));
/// let connections = service_fn(move |_: IncomingStream<'_, TcpListener>| {
///     ready(Ok::<_, Infallible>(layer.layer(router.clone().with_state(()))))
/// });
/// axum::serve(TcpListener::bind("127.0.0.1:3000").await?, connections).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is added to a router"]
pub struct SessionLayer {
    shared: Arc<Shared>,
}

impl SessionLayer {
    /// A layer with the default settings.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// use session_store::{CacheStore, SessionLayer};
    ///
    /// let store = CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// let layer = SessionLayer::new(store);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(store: CacheStore) -> Self {
        Self { shared: Arc::new(Shared::new(store, Settings::default())) }
    }

    /// The name of the cookie, without the prefix. Default: `id`.
    ///
    /// A layer within a layer of the same name, next to it or with others in between, is no session of its own: on the same store the outer
    /// layer's session, with its settings, is that of both, and on another one requests are answered with 500, since each layer would replace
    /// the other's cookie.
    ///
    /// `__Host-` is put in front when the cookie is secure, its path is `/` and it has no domain, unless the name begins
    /// with `__` already.
    ///
    /// # Panics
    ///
    /// When the name is empty or has characters that RFC 6265 does not allow in one.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_name("basket");
    /// # }
    /// ```
    pub fn with_name(self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(is_token), "`{name}` cannot be the name of a cookie");
        self.cookie(|cookie| cookie.name = name)
    }

    /// Whether browsers send the cookie over TLS only. Default: `true`; `false` is for development without TLS.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_secure(false);
    /// # }
    /// ```
    pub fn with_secure(self, secure: bool) -> Self {
        self.cookie(|cookie| cookie.secure = secure)
    }

    /// Whether the cookie is kept from scripts. Default: `true`, and there is hardly a reason to change it.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_http_only(true);
    /// # }
    /// ```
    pub fn with_http_only(self, http_only: bool) -> Self {
        self.cookie(|cookie| cookie.http_only = http_only)
    }

    /// Whether other sites' links and forms carry the cookie. Default: `Lax`, with which a link to the shop finds the
    /// visitor's cart, and a foreign form does not.
    ///
    /// ```
    /// use session_store::SameSite;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_same_site(SameSite::Strict);
    /// # }
    /// ```
    pub fn with_same_site(self, same_site: SameSite) -> Self {
        self.cookie(|cookie| cookie.same_site = same_site)
    }

    /// The path under which the cookie is sent. Default: `/`.
    ///
    /// # Panics
    ///
    /// When the path does not begin with `/`, or has a `;` or a control character in it.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_path("/shop");
    /// # }
    /// ```
    pub fn with_path(self, path: impl Into<Cow<'static, str>>) -> Self {
        let path = path.into();
        assert!(path.starts_with('/') && is_attribute(&path), "`{path}` cannot be the path of a cookie");
        self.cookie(|cookie| cookie.path = path)
    }

    /// The domain whose hosts all get the cookie. Default: none, so that only the host that set it does.
    ///
    /// # Panics
    ///
    /// When the domain is empty, or has a `;` or a control character in it.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_domain("example.com");
    /// # }
    /// ```
    pub fn with_domain(self, domain: impl Into<Cow<'static, str>>) -> Self {
        let domain = domain.into();
        assert!(!domain.is_empty() && is_attribute(&domain), "`{domain}` cannot be the domain of a cookie");
        self.cookie(|cookie| cookie.domain = Some(domain))
    }

    /// Signs the cookie, so that an id that this application has not given out does not reach the store. Default: it is not.
    ///
    /// ```
    /// use session_store::CookieKeys;
    /// # fn example(layer: session_store::SessionLayer, secret: &[u8; 32]) {
    /// let layer = layer.with_signed_cookie(CookieKeys::new(secret));
    /// # }
    /// ```
    pub fn with_signed_cookie(self, keys: CookieKeys) -> Self {
        self.cookie(|cookie| cookie.protection = Protection::Signed(keys))
    }

    /// Encrypts the cookie, so that it shows no id either. Default: it is not.
    ///
    /// ```
    /// use session_store::CookieKeys;
    /// # fn example(layer: session_store::SessionLayer, secret: &[u8; 32]) {
    /// let layer = layer.with_encrypted_cookie(CookieKeys::new(secret));
    /// # }
    /// ```
    pub fn with_encrypted_cookie(self, keys: CookieKeys) -> Self {
        self.cookie(|cookie| cookie.protection = Protection::Encrypted(keys))
    }

    /// When sessions end. Default: [`EXPIRY_DEFAULT`](crate::EXPIRY_DEFAULT). A session can have its own with `Session::set_expiry`, which lasts.
    ///
    /// Of several requests that choose one the last to commit decides, also where it chooses what it has read; a request that chooses none leaves it
    /// to the others. A choice is committed, so that choosing in each request costs a round trip in each. A session whose time passes while a request
    /// runs, an idle timeout or an `AtDateTime`, has ended like any other: what the request changes is refused
    /// ([`StoreError::SessionEnded`](crate::StoreError::SessionEnded), 409), for the store has dropped it, and a part of it would be all
    /// that is left. A request that may take longer than its session has left chooses a later end and saves before.
    ///
    /// An idle timeout counts from the last request that read or changed the session. It is extended once a sixteenth of
    /// it has passed, by a change earlier, so that a session may end that much earlier than the full time after its last request.
    ///
    /// ```
    /// use session_store::Expiry;
    /// use time::Duration;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_expiry(Expiry::OnInactivity(Duration::minutes(30)));
    /// # }
    /// ```
    pub fn with_expiry(self, expiry: Expiry) -> Self {
        self.change(|settings| settings.expiry = expiry)
    }

    /// The longest life of a session from its beginning, however much it is used; a new id does not put it off. Default:
    /// none.
    ///
    /// For sessions that began before this was set it counts as well, from their beginning. Of several settings that a
    /// session has met, the earliest end counts.
    ///
    /// # Panics
    ///
    /// When the time is not positive.
    ///
    /// ```
    /// use time::Duration;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_absolute_timeout(Duration::hours(12));
    /// # }
    /// ```
    pub fn with_absolute_timeout(self, timeout: Duration) -> Self {
        assert!(timeout.is_positive(), "a session must live for some time");
        self.change(|settings| settings.absolute_ms = Some(milliseconds(timeout)))
    }

    /// The next version of the application's own data, and what makes it of the one before. The first call leads from version 0,
    /// which is what sessions have without any, to version 1, the second one to version 2.
    ///
    /// A session is brought up to date when it is first read, in one more round trip, and once however many requests see it.
    /// While old and new replicas run side by side, an old one reads what a new one has made, and what it changes is of its own
    /// version again: a migration therefore meets old values beside new ones, of which the old ones are more recent, and
    /// must leave alone what is new already. Remove no call while there may be sessions of the version before it.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// // Version 1 has a list in place of a single address.
    /// let layer = layer.with_migration(|data| {
    ///     if let Some(address) = data.remove("address") {
    ///         data.insert("addresses".to_owned(), serde_json::json!([address]));
    ///     }
    /// });
    /// # }
    /// ```
    pub fn with_migration(self, migrate: impl Fn(&mut HashMap<String, serde_json::Value>) + Send + Sync + 'static) -> Self {
        self.change(|settings| settings.migrations.push(Arc::new(migrate)))
    }

    /// Reads sessions that tower-sessions-redis-store has written into the same store, and makes them sessions of this layer.
    ///
    /// `prefix` is what its keys have in front of the id, as a rule nothing; `cookie` the name of its cookie, `id` by default.
    /// The id stays, and the visitor gets our cookie for it. The old record goes in the same step, so that replicas with the
    /// old software do not find it any more: end them first. Only visitors who send an id that is not known cost a round trip
    /// more, two in a cluster; leave the setting out again when the old sessions have expired.
    ///
    /// In a cluster, where old and new keys are on different nodes, it takes more steps, and comes to the same: a process may die
    /// after any of them, and the next request finds the session once. Do not change the [`key`](crate::CacheStoreBuilder::key) of the
    /// store while sessions are being taken over there.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_tower_sessions_records("", "id");
    /// # }
    /// ```
    pub fn with_tower_sessions_records(self, prefix: impl Into<String>, cookie: impl Into<String>) -> Self {
        self.change(|settings| {
            settings.taken_over = Some(prefix.into().into());
            settings.former_cookie = Some(cookie.into().into());
        })
    }

    /// Gives requests the session of tower-sessions 0.14 as well, which axum-login 0.18 and axum-messages 0.8 ask for. Default: not.
    ///
    /// Both handles are one session: one read, one commit, one cookie, and `cycle_id`, `flush`, `delete`, `clear` and `set_expiry` do
    /// the same through either. Each keeps a copy of the data, which neither version shares with anybody. So the other handle shows
    /// what ours has when it is first asked, and what is changed through it comes to ours when it is saved, at the latest before the
    /// commit; of a key that was changed through both, the other handle's value stays. In between, a key that was changed through one
    /// handle should not be read through the other.
    ///
    /// `flush`, `delete` and `cycle_id` count at once, whichever handle they come by. What the other handle has not saved by then is not part of
    /// that: an `insert` through it stands against a `flush` through ours, also when it was made before, and is all that the visitor's next
    /// session has. Where a request changes through both, log out through the other handle, as axum-login's `logout` does, or save it
    /// first: nothing is left then.
    ///
    /// After axum-login's `login`, call [`Cart::log_in`](crate::Cart::log_in) too: it puts the session into the user's list, so that it can be ended from everywhere.
    ///
    /// ```
    /// use axum::Router;
    /// use axum_login::{AuthManager, AuthnBackend};
    /// use axum_messages::MessagesManagerLayer;
    /// use session_store::{CacheStore, SessionLayer};
    /// use tower::layer::layer_fn;
    ///
    /// fn app(routes: Router, users: impl AuthnBackend + 'static, store: CacheStore) -> Router {
    ///     routes
    ///         .layer(MessagesManagerLayer)
    ///         .layer(layer_fn(move |inner| AuthManager::new(inner, users.clone(), "axum-login.data")))
    ///         .layer(SessionLayer::new(store).with_tower_sessions_014())
    /// }
    /// ```
    #[cfg(feature = "tower-sessions-014")]
    pub fn with_tower_sessions_014(self) -> Self {
        self.change(|settings| settings.gives_014 = true)
    }

    /// How large carts may become.
    ///
    /// ```
    /// use session_store::CartLimits;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_cart_limits(CartLimits { lines_max: 20, quantity_max: 10 });
    /// # }
    /// ```
    pub fn with_cart_limits(self, limits: CartLimits) -> Self {
        self.change(|settings| settings.limits = limits)
    }

    /// How long a cart is kept after its last change. Default: [`CART_TTL_DEFAULT`](crate::CART_TTL_DEFAULT).
    ///
    /// # Panics
    ///
    /// When the time is not positive.
    ///
    /// ```
    /// use time::Duration;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_cart_ttl(Duration::days(90));
    /// # }
    /// ```
    pub fn with_cart_ttl(self, ttl: Duration) -> Self {
        assert!(ttl.is_positive(), "a cart must be kept for some time");
        self.change(|settings| settings.cart_ttl_ms = milliseconds(ttl))
    }

    /// What becomes of a product that is in both carts when a visitor logs in. Default: [`MergePolicy::Sum`].
    ///
    /// ```
    /// use session_store::MergePolicy;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_merge_policy(MergePolicy::Max);
    /// # }
    /// ```
    pub fn with_merge_policy(self, policy: MergePolicy) -> Self {
        self.change(|settings| settings.merge_policy = policy)
    }

    /// What becomes of a request while the store is out of reach. Default: [`OutagePolicy::FailClosed`]. Routes can have
    /// their own with [`outage_policy`](crate::outage_policy).
    ///
    /// ```
    /// use std::time::Duration;
    /// use session_store::OutagePolicy;
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_outage_policy(OutagePolicy::Wait { max: Duration::from_secs(5) });
    /// # }
    /// ```
    pub fn with_outage_policy(self, policy: OutagePolicy) -> Self {
        self.change(|settings| settings.outage = policy)
    }

    /// How many sessions a user may have at once. Default: [`USER_SESSIONS_MAX_DEFAULT`](crate::USER_SESSIONS_MAX_DEFAULT). A login beyond that ends the one
    /// whose time would be over first.
    ///
    /// # Panics
    ///
    /// When it is not 1 to 1,024.
    ///
    /// ```
    /// # fn example(layer: session_store::SessionLayer) {
    /// let layer = layer.with_user_sessions_max(5);
    /// # }
    /// ```
    pub fn with_user_sessions_max(self, max: u32) -> Self {
        assert!((1..=1_024).contains(&max), "a user can have 1 to 1024 sessions, not {max}");
        self.change(|settings| settings.user_sessions_max = max)
    }

    /// How to find the address of a client, whose network is shown in the list of a user's sessions: the first 24 bits of an
    /// IPv4 address, or 48 of an IPv6 one. Nothing more of it is kept. Default: not at all, since behind a balancer the
    /// peer of the connection is the balancer, and a header is to be believed only when a proxy of one's own has set it.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    ///
    /// # fn example(layer: session_store::SessionLayer) {
    /// // Served with `into_make_service_with_connect_info::<SocketAddr>()`, without a proxy:
    /// let layer = layer.with_client_address(|_, extensions| {
    ///     extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
    /// });
    /// // Behind one proxy that appends to X-Forwarded-For:
    /// let layer = layer.with_client_address(|headers, _| {
    ///     headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    /// });
    /// # }
    /// ```
    pub fn with_client_address(self, find: impl Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.change(|settings| settings.client_address = Some(ClientAddress::new(find)))
    }

    fn cookie(self, change: impl FnOnce(&mut CookieSettings)) -> Self {
        self.change(|settings| {
            change(&mut settings.cookie);
            settings.cookie_name = settings.cookie.full_name();
            settings.seen_name = settings.cookie.seen_name();
        })
    }

    fn change(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self { shared: Arc::new(Shared::new(self.shared.store.clone(), settings)) }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, Arc::clone(&self.shared))
    }
}

fn is_attribute(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';')
}
