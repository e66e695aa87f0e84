//! A shop of some replicas on one store and one database, and the forms of its pages.

use std::process::Command;

use end_to_end::redis_server::RedisServer;
use end_to_end::server::Server;
use end_to_end::visitor::{Answer, Visitor};
use http::StatusCode;
use tempfile::TempDir;

pub(crate) const SESSION_KEY: &str = "the session key of a test, long enough";

pub(crate) struct Shop {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) redis: RedisServer,
    pub(crate) database: String,
    _folder: TempDir,
}

pub(crate) struct Replica {
    pub(crate) server: Server,
    pub(crate) url: String,
}

impl Shop {
    /// Replicas A, B, … on a new SQLite file.
    pub(crate) async fn start(replicas: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let database = format!("sqlite:{}", folder.path().join("shop.db").display());
        Self::on(replicas, database, folder).await
    }

    /// The same on a database that is there.
    pub(crate) async fn start_on(replicas: usize, database: &str) -> Self {
        Self::on(replicas, database.to_owned(), TempDir::new().unwrap()).await
    }

    async fn on(replicas: usize, database: String, folder: TempDir) -> Self {
        let redis = RedisServer::start().await.unwrap();
        // All are started before any is waited for: they race for the migrations.
        let names = ["A", "B", "C"];
        let mut starting: Vec<Server> = names[..replicas].iter().map(|name| spawn(name, &redis.url(), &database, &[])).collect();
        let mut replicas = Vec::new();
        for mut server in starting.drain(..) {
            let url = ready(&mut server).await;
            replicas.push(Replica { server, url });
        }
        Shop { replicas, redis, database, _folder: folder }
    }

    pub(crate) fn url(&self, replica: usize) -> &str {
        &self.replicas[replica].url
    }

    /// The stock of a product as the shop tells it.
    pub(crate) async fn stock(&self, sku: &str) -> i64 {
        let answer = Visitor::new().get(&format!("{}/api/products", self.url(0))).await.unwrap();
        let products = answer.to_json().unwrap();
        let product = products["products"].as_array().unwrap().iter().find(|product| product["sku"] == sku).unwrap();
        product["stock"].as_i64().unwrap()
    }

    /// Sets a directive of the store.
    pub(crate) fn redis_config(&self, directive: &str, value: &str) {
        let (host, port) = self.redis.address().split_once(':').unwrap();
        let output = Command::new(end_to_end::program::installed("redis-cli", "redis-tools").unwrap())
            .args(["-h", host, "-p", port, "config", "set", directive, value])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK", "{output:?}");
    }
}

/// Starts a replica, which is not ready yet.
pub(crate) fn spawn(name: &str, cache: &str, database: &str, more: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-shop"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--name", name, "--cache", cache, "--database", database])
        .args(more)
        .env("DEMO_SHOP_SESSION_KEY", SESSION_KEY);
    Server::spawn(&format!("replica {name}"), command).unwrap()
}

/// Waits for the ready line; the replica's `http://host:port`.
pub(crate) async fn ready(server: &mut Server) -> String {
    let line = server.line_with("ready on ").await.unwrap();
    let address = line.split_once("ready on ").unwrap().1.split(' ').next().unwrap();
    assert_eq!(line, format!("replica {} ready on {address} (pid {})", name_in(&line), server.pid()));
    format!("http://{address}")
}

fn name_in(line: &str) -> &str {
    line.strip_prefix("replica ").unwrap().split(' ').next().unwrap()
}

/// A form of a page.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) action: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Form {
    /// The first form of the page with this action and this text somewhere inside.
    pub(crate) fn on(page: &Answer, action: &str, containing: &str) -> Self {
        let html = page.text();
        let form = html
            .split("<form ")
            .skip(1)
            .map(|rest| rest.split("</form>").next().unwrap())
            .find(|form| form.contains(&format!("action=\"{action}\"")) && form.contains(containing))
            .unwrap_or_else(|| panic!("no form {action} with {containing:?} on:\n{html}"));
        let fields = form
            .split('<')
            .filter(|tag| tag.starts_with("input ") || tag.starts_with("select "))
            .map(|tag| (attribute(tag, "name").unwrap(), attribute(tag, "value").unwrap_or_default()))
            .collect();
        Form { action: action.to_owned(), fields }
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        &self.fields.iter().find(|(field, _)| field == name).unwrap().1
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.iter_mut().find(|(field, _)| field == name).unwrap().1 = value.to_owned();
        self
    }

    pub(crate) async fn send(&self, visitor: &Visitor, shop: &str) -> Answer {
        let fields: Vec<(&str, &str)> = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        visitor.form(&format!("{shop}{}", self.action), &fields).await.unwrap()
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split('"').next()?;
    Some(value.replace("&#38;", "&").replace("&#34;", "\"").replace("&#39;", "'").replace("&#60;", "<"))
}

/// Adds through the form on the product's page.
pub(crate) async fn add(visitor: &Visitor, shop: &str, sku: &str, quantity: u32) {
    let page = visitor.get(&format!("{shop}/products/{sku}")).await.unwrap();
    let form = Form::on(&page, "/cart/add", sku).with("quantity", &quantity.to_string());
    let answer = form.send(visitor, shop).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
}

/// The filled checkout form.
pub(crate) async fn checkout(visitor: &Visitor, shop: &str) -> Form {
    let page = visitor.get(&format!("{shop}/checkout")).await.unwrap();
    address_on(&page)
}

/// The form of the checkout's page, filled.
pub(crate) fn address_on(page: &Answer) -> Form {
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    Form::on(page, "/checkout", "token")
        .with("email", "ada@example.com")
        .with("recipient", "Ada & Co")
        .with("street", "Analytical Row 1")
        .with("postcode", "2100")
        .with("city", "København")
        .with("country", "Denmark")
}

/// The filled form that makes an account.
pub(crate) async fn registration(visitor: &Visitor, shop: &str, email: &str) -> Form {
    let page = visitor.get(&format!("{shop}/register")).await.unwrap();
    Form::on(&page, "/register", "password")
        .with("name", "Ada Lovelace")
        .with("email", email)
        .with("password", "correct horse battery")
}

/// Makes an account; the visitor is signed in then.
pub(crate) async fn register(visitor: &Visitor, shop: &str, email: &str) {
    let answer = registration(visitor, shop, email).await.send(visitor, shop).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/account"), "{}", answer.text());
}

/// Sends the login form.
pub(crate) async fn log_in(visitor: &Visitor, shop: &str, email: &str, password: &str) -> Answer {
    let page = visitor.get(&format!("{shop}/login")).await.unwrap();
    Form::on(&page, "/login", "password").with("email", email).with("password", password).send(visitor, shop).await
}

/// The text of the element with this id.
pub(crate) fn text_of(page: &Answer, id: &str) -> String {
    let html = page.text();
    let rest = html.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no #{id} on:\n{html}")).1;
    rest.split_once('>').unwrap().1.split('<').next().unwrap().trim().to_owned()
}
