#![doc = include_str!("lib.md")]
#![deny(missing_docs)]

mod answer;
mod backend;
mod bits;
mod builder;
pub mod cart;
mod cookie;
mod cookie_keys;
mod csrf;
mod deadline;
mod device;
mod enclosing;
mod encryption;
mod error;
mod expiry;
mod flash;
mod generations;
pub mod guides;
mod keys;
mod layer;
mod look;
mod metrics;
mod migration;
mod near_cache;
mod nodes;
mod operation;
mod outage;
mod owners;
mod pool;
mod quarantine;
mod record;
mod replica_reads;
mod rotation;
mod scope;
mod scripts;
mod seen;
mod service;
mod session_ext;
mod settings;
mod shared;
mod store;
mod streaming;
mod take_over;
#[cfg(feature = "testing")]
pub mod testing;
mod topology;
mod touches;
#[cfg(feature = "tower-sessions-014")]
mod tower_sessions_014;
mod turns;
mod unavailable;
mod unit_of_work;
mod url;
mod users;
mod whole_records;
mod wire;

/// A directive for the `EnvFilter` of `tracing-subscriber`: without it, `tower_sessions::Session` warns of each cookie whose
/// session has ended, which is what happens to every visitor who comes back late.
///
/// ```
/// use tracing_subscriber::EnvFilter;
///
/// let filter = EnvFilter::new("info").add_directive(session_store::QUIET_LOGS.parse()?);
/// # Ok::<(), tracing_subscriber::filter::ParseError>(())
/// ```
pub const QUIET_LOGS: &str = "tower_sessions_core::session=error";

pub use ::cookie::SameSite;
pub use tower_sessions::{Expiry, Session};

pub use crate::{
    builder::{
        CONNECT_TIMEOUT_DEFAULT, CONNECTION_AGE_MAX_DEFAULT, CacheStoreBuilder, DEADLINE_DEFAULT, POOL_SIZE_DEFAULT,
        PREFIX_DEFAULT, SOCKETS_DEFAULT, WAITING_MAX_DEFAULT,
    },
    cart::{Cart, CartChange, CartError, CartLimits, CartLine, CartSnapshot, Carts, IdempotencyToken, InvalidToken, MergePolicy},
    cookie_keys::CookieKeys,
    csrf::{CSRF_FIELD, CSRF_FORM_BYTES_MAX_DEFAULT, CSRF_HEADER, Csrf, CsrfLayer, CsrfService},
    encryption::EncryptionKeys,
    error::{Stage, StoreError},
    flash::{FLASH_MESSAGES_MAX, FLASH_TEXT_BYTES_MAX, Flash, FlashLevel, FlashMessage},
    layer::SessionLayer,
    near_cache::{FreshSessionLayer, FreshSessionService, NearCache, NearCacheStatus, fresh_session},
    nodes::{BreakerState, NodeStatus},
    outage::{
        Available, OUTAGE_WAIT_MAX, OutagePolicy, OutagePolicyLayer, OutagePolicyService, SessionUnavailable, outage_policy,
    },
    pool::PoolStatus,
    quarantine::QUARANTINE_TTL,
    service::{ResponseFuture, SessionService},
    session_ext::{Key, SessionExt, UPDATE_ATTEMPTS_MAX, UpdateError},
    settings::{CART_TTL_DEFAULT, EXPIRY_DEFAULT, USER_SESSIONS_MAX_DEFAULT},
    store::{CacheStore, StoreStatus},
    unavailable::Unavailable,
    users::{InvalidHandle, SessionHandle, UserSession, UserSessions},
};
