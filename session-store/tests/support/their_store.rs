//! The published Redis store of tower-sessions, which is on version 0.14.

use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{Builder, ClientLike as _, Config, Pool},
};

use super::Server;

pub async fn their_store(server: &Server) -> RedisStore<Pool> {
    let config = Config::from_url(&server.url()).unwrap();
    let pool: Pool = Builder::from_config(config).build_pool(1).unwrap();
    pool.init().await.unwrap();
    RedisStore::new(pool)
}
