//! An in-memory cache node that Redis clients cannot tell from the real one: embedded ([`Node`]) or as a process (`cache-node`).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = cache_node::Node::spawn(cache_node::Config::for_test()).await?;
//! let client = redis::Client::open(format!("redis://{}", node.addr()))?;
//! let mut connection = client.get_multiplexed_async_connection().await?;
//! let () = redis::cmd("SET").arg("cart").arg("2 mugs").arg("EX").arg(1800).query_async(&mut connection).await?;
//! let cart: String = redis::cmd("GET").arg("cart").query_async(&mut connection).await?;
//! assert_eq!(cart, "2 mugs");
//! node.shutdown().await?;
//! # Ok(())
//! # }
//! ```

mod acl;
mod announce;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod cli;
#[cfg(feature = "cluster")]
mod cluster;
mod command;
mod config;
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody reads the ring"))]
mod events;
mod info;
mod keyspace;
mod logging;
#[cfg(feature = "metrics")]
mod metrics;
mod node;
mod pace;
mod persistence;
mod protocol;
mod replication;
mod script;
mod server;
mod stats;
mod usage;
mod webhook;

pub use config::{Config, ConfigError};
pub use server::Node;

/// The version that INFO and HELLO tell: clients gate on it.
pub(crate) const REDIS_VERSION: &str = "7.2.4";
