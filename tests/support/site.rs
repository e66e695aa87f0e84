//! A shop put together by hand: any store, any database, any balancer.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::cache_node::CacheNode;
use crate::nginx::Nginx;
use crate::port::free_port;
use crate::postgres::Postgres;
use crate::program;
use crate::redis_server::RedisServer;
use crate::replica::Replica;
use crate::server::{READY_MAX, Server, Signal};
use crate::shop::Fleet;
use crate::visitor::Visitor;
use crate::wait;

/// A product with less in stock is not used: a checkout of it could be refused.
const STOCK_MIN: i64 = 5;

/// Where sessions and carts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The `cache-node` binary.
    CacheNode,
    /// A real Redis.
    Redis,
    /// A real Valkey.
    Valkey,
}

/// Where products, users and orders are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite,
    /// A real PostgreSQL.
    Postgres,
}

/// Who spreads the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// `demo-shop balance`.
    Own,
    /// A real nginx.
    Nginx,
}

/// The parts of a running site. The order of the fields is the order of their end.
#[derive(Debug)]
pub struct Site {
    balancer: BalancerProcess,
    /// The replicas, named A, B, C.
    pub replicas: Vec<Replica>,
    store: StoreProcess,
    _postgres: Option<Postgres>,
    database: String,
    _folder: TempDir,
}

#[derive(Debug)]
enum BalancerProcess {
    Own { _server: Server, url: String },
    Nginx(Nginx),
}

#[derive(Debug)]
enum StoreProcess {
    CacheNode(CacheNode),
    Redis(RedisServer),
}

impl Site {
    /// Starts three replicas and what they need.
    ///
    /// # Errors
    /// When a part is missing or does not start.
    pub async fn start(store: Store, database: Database, balancer: Balancer) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let store = match store {
            Store::CacheNode => StoreProcess::CacheNode(CacheNode::start(&[]).await?),
            Store::Redis => StoreProcess::Redis(RedisServer::start().await?),
            Store::Valkey => StoreProcess::Redis(RedisServer::start_valkey().await?),
        };
        let postgres = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(Postgres::start().await?),
        };
        let database = match &postgres {
            Some(postgres) => postgres.url().to_owned(),
            None => format!("sqlite:{}", folder.path().join("shop.db").display()),
        };
        let mut replicas = Vec::new();
        for name in ["A", "B", "C"] {
            replicas.push(Replica::start(name, &store.url(), &database).await?);
        }
        let balancer = match balancer {
            Balancer::Own => start_own_balancer(&replicas).await?,
            Balancer::Nginx => {
                let addresses: Vec<String> = replicas.iter().map(|replica| replica.address().to_owned()).collect();
                BalancerProcess::Nginx(Nginx::start(&addresses).await?)
            }
        };
        Ok(Self { balancer, replicas, store, _postgres: postgres, database, _folder: folder })
    }

    /// The balancer's address, `http://host:port`.
    pub fn url(&self) -> &str {
        match &self.balancer {
            BalancerProcess::Own { url, .. } => url,
            BalancerProcess::Nginx(nginx) => nginx.url(),
        }
    }

    /// The store's address, `redis://host:port`.
    pub fn store_url(&self) -> String {
        self.store.url()
    }

    /// SIGSTOP to the store: it is there and does not answer.
    pub fn freeze_store(&self) {
        self.store.server().signal(Signal::STOP);
    }

    /// SIGCONT to the store.
    pub fn thaw_store(&self) {
        self.store.server().signal(Signal::CONT);
    }

    /// SIGKILL to a replica, and after `pause` a new one with the same name and address.
    ///
    /// # Errors
    /// When the new one does not start.
    pub async fn kill_and_replace(&mut self, index: usize, pause: Duration) -> anyhow::Result<()> {
        let old = &mut self.replicas[index];
        let (name, address) = (old.name().to_owned(), old.address().to_owned());
        old.server.signal(Signal::KILL);
        old.server.ended(READY_MAX).await?;
        tokio::time::sleep(pause).await;
        self.replicas[index] = Replica::start_at(&address, &name, &self.store.url(), &self.database).await?;
        Ok(())
    }

    /// The SKUs of all products, in the shop's order.
    ///
    /// # Errors
    /// When the shop does not tell them.
    pub async fn skus(&self) -> anyhow::Result<Vec<String>> {
        skus(self.url()).await
    }
}

/// The SKUs of all products of the shop at `url` that are in stock for every test.
///
/// # Errors
/// When the shop does not tell them.
pub async fn skus(url: &str) -> anyhow::Result<Vec<String>> {
    let answer = Visitor::new().get(&format!("{url}/api/products")).await?.success()?;
    let json = answer.to_json()?;
    let products = json["products"].as_array().context("no list of products")?;
    let plenty = products.iter().filter(|product| product["stock"].as_i64() >= Some(STOCK_MIN));
    plenty.map(|product| product["sku"].as_str().map(str::to_owned).context("a product without a SKU")).collect()
}

impl StoreProcess {
    fn server(&self) -> &Server {
        match self {
            Self::CacheNode(node) => &node.server,
            Self::Redis(redis) => &redis.server,
        }
    }

    fn url(&self) -> String {
        match self {
            Self::CacheNode(node) => node.url(),
            Self::Redis(redis) => redis.url(),
        }
    }
}

async fn start_own_balancer(replicas: &[Replica]) -> anyhow::Result<BalancerProcess> {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program::built("demo-shop", "DEMO_SHOP_BIN")?);
    command.args(["balance", "--listen", &address]);
    for replica in replicas {
        command.args(["--replica", &format!("{}={}", replica.name(), replica.address())]);
    }
    let mut server = Server::spawn("demo-shop balance", command)?;
    server.listens_on(&address).await?;
    let url = format!("http://{address}");
    wait::until("the balancer to find every replica up", READY_MAX, || async {
        let fleet = Fleet::at(&url).await.ok()?;
        (fleet.up().count() == replicas.len()).then_some(())
    })
    .await?;
    Ok(BalancerProcess::Own { _server: server, url })
}
