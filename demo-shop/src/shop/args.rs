//! What `demo-shop serve` takes.

use std::net::SocketAddr;

use clap::Args;

use crate::shop::encryption::EncryptionArgs;

/// The options of one replica.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one, which the ready line tells
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS", value_parser = crate::address::parse)]
    pub(crate) listen: SocketAddr,
    /// The store of sessions and carts: a cache node, Redis or Valkey
    #[arg(long, default_value = "redis://127.0.0.1:6379", value_name = "URL")]
    pub(crate) cache: String,
    /// The database of products, users and orders: sqlite:FILE or postgres://…
    #[arg(long, default_value = "sqlite:demo-shop.db", value_name = "URL")]
    pub(crate) database: String,
    /// The replica's name, shown on every page and in the x-served-by header
    #[arg(long, default_value = "A", value_name = "NAME")]
    pub(crate) name: String,
    /// End when standard input is closed, so that nothing outlives the supervisor
    #[arg(long)]
    pub(crate) with_parent: bool,
    /// Proxies in front of this replica: the address of a client is the one that the first of them wrote into
    /// X-Forwarded-For, counted from its end. With 0 it is that of the connection
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) trusted_proxies: u8,
    /// Set the cookie's Secure flag and its __Host- prefix: for every shop that is reached over https
    #[arg(long)]
    pub(crate) secure_cookies: bool,
    /// The secret that turns session ids into keys of the store; the same on every replica, at least 16 characters
    #[arg(long, env = "DEMO_SHOP_SESSION_KEY", hide_env_values = true, value_name = "SECRET")]
    pub(crate) session_key: Option<String>,
    #[command(flatten)]
    pub(crate) encryption: EncryptionArgs,
    /// Offer the routes that only tests need
    #[arg(long, hide = true)]
    pub(crate) test_hooks: bool,
}
