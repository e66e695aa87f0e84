//! The middlewares that can be measured.

use std::{fmt, time::Duration};

use anyhow::Result;
use axum::Router;
use clap::ValueEnum;
use session_store::{CacheStore, CartLimits, NearCache, POOL_SIZE_DEFAULT, SessionLayer};
use tower_sessions_014::{MemoryStore, SessionManagerLayer};
use tower_sessions_redis_store::{RedisStore, fred::prelude as fred};

use crate::{by_hand, ours, plain, theirs};

/// Connections of fred's pool: as in the documentation of `tower-sessions-redis-store`.
const FRED_CONNECTIONS: usize = 6;
/// As many as operations may be in flight by default.
const EXCLUSIVE_CONNECTIONS: usize = POOL_SIZE_DEFAULT;
/// A load that adds to one line for minutes must not reach the limit of a shop.
const CART_LIMITS: CartLimits = CartLimits { lines_max: 10_000, quantity_max: 1_000_000_000 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Mode {
    /// axum alone: what the others are compared with
    Plain,
    /// Handlers that ask the store themselves, over one multiplexed connection of redis-rs, with none of the guarantees
    ByHand,
    /// `SessionLayer`
    Ours,
    /// `SessionLayer` around the whole router, in place of `Router::layer`
    OursAround,
    /// `SessionLayer` with a connection for each operation in flight, which shares it with no other
    OursExclusive,
    /// `SessionLayer` over a store with a near cache
    NearCache,
    /// The same around the whole router
    NearCacheAround,
    /// tower-sessions 0.14 with its memory store: one replica, lost with the process
    TowerSessionsMemory,
    /// tower-sessions 0.14 with tower-sessions-redis-store 0.16
    TowerSessionsRedis,
    /// The same around the whole router
    TowerSessionsRedisAround,
}

/// What is served. A layer around a router is not put into boxes, which is all that it is measured for.
pub(crate) enum App {
    Inside(Router),
    Around(SessionLayer, Router),
    AroundTheirs(SessionManagerLayer<RedisStore<fred::Pool>>, Router),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no mode is hidden");
        f.write_str(value.get_name())
    }
}

pub(crate) async fn app(mode: Mode, store: &str) -> Result<App> {
    Ok(match mode {
        Mode::Plain => App::Inside(plain::routes()),
        Mode::ByHand => App::Inside(by_hand::routes(store).await?),
        Mode::Ours | Mode::OursAround | Mode::OursExclusive | Mode::NearCache | Mode::NearCacheAround => {
            // A machine that is busy with the load as well is slower than a shop's.
            let mut store = CacheStore::builder(store).deadline(Duration::from_secs(1));
            if matches!(mode, Mode::NearCache | Mode::NearCacheAround) {
                store = store.near_cache(NearCache::default());
            }
            if mode == Mode::OursExclusive {
                // Places in the pool are dealt to sockets in rows of the same length: of each there is one.
                store = store.pool_size(EXCLUSIVE_CONNECTIONS).sockets(EXCLUSIVE_CONNECTIONS);
            }
            let layer = SessionLayer::new(store.connect().await?).with_secure(false).with_cart_limits(CART_LIMITS);
            match mode {
                Mode::OursAround | Mode::NearCacheAround => App::Around(layer, ours::routes()),
                _ => App::Inside(ours::routes().layer(layer)),
            }
        }
        Mode::TowerSessionsMemory => {
            App::Inside(theirs::routes().layer(SessionManagerLayer::new(MemoryStore::default()).with_secure(false)))
        }
        Mode::TowerSessionsRedis | Mode::TowerSessionsRedisAround => {
            use fred::ClientLike as _;
            let pool = fred::Pool::new(fred::Config::from_url(store)?, None, None, None, FRED_CONNECTIONS)?;
            pool.init().await?;
            let layer = SessionManagerLayer::new(RedisStore::new(pool)).with_secure(false);
            match mode {
                Mode::TowerSessionsRedisAround => App::AroundTheirs(layer, theirs::routes()),
                _ => App::Inside(theirs::routes().layer(layer)),
            }
        }
    })
}
