//! What a dump of the store shows of the shop's visitors, and keys that change while the shop is open.

use std::process::Command;

use end_to_end::program;
use end_to_end::server::Server;
use end_to_end::visitor::Visitor;
use http::StatusCode;
use tempfile::TempDir;
use tower_sessions::session::Id;

use crate::support::{SESSION_KEY, Shop, add, ready, register, spawn};

const OLD: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const NEW: &str = "0202020202020202020202020202020202020202020202020202020202020202";
const EMAIL: &str = "ada@example.com";

impl Shop {
    /// One replica more, with these options.
    async fn replica_with(&self, options: &[&str]) -> (Server, String) {
        let mut server = spawn("E", &self.redis.url(), &self.database, options);
        let url = ready(&mut server).await;
        (server, url)
    }

    /// The file that a replica of the store would be given, with its strings as they are.
    fn dump(&self) -> Vec<u8> {
        self.redis_config("rdbcompression", "no");
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("dump.rdb");
        let (host, port) = self.redis.address().split_once(':').unwrap();
        let status = Command::new(program::installed("redis-cli", "redis-tools").unwrap())
            .args(["-h", host, "-p", port, "--rdb"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        std::fs::read(file).unwrap()
    }
}

/// Ids of sessions that this visitor had, in each form in which one could be written; SKUs; and what sessions hold.
async fn visit(shop: &str) -> (Visitor, Vec<Vec<u8>>) {
    let visitor = Visitor::new();
    let mut found = Vec::new();
    let mut note_id = || {
        let cookies: Vec<String> = visitor.cookies().into_values().collect();
        let id: Id = cookies[0].parse().unwrap();
        found.extend([cookies[0].clone(), format!("{:032x}", id.0), id.0.to_string()].map(String::into_bytes));
        found.extend([id.0.to_le_bytes().to_vec(), id.0.to_be_bytes().to_vec()]);
    };
    // The form leaves a message for the next page in the session.
    add(&visitor, shop, "tide-mug", 2).await;
    note_id();
    register(&visitor, shop, EMAIL).await;
    note_id();
    add(&visitor, shop, "moss-vase", 1).await;
    (visitor, found)
}

/// What the session of a visitor who has signed in and the cart hold, by the words of it that tell something.
const VALUES: [&str; 5] = ["tide-mug", "moss-vase", EMAIL, "Ada Lovelace", "is in your cart"];

fn holds(dump: &[u8], what: &[u8]) -> bool {
    dump.windows(what.len()).any(|window| window == what)
}

#[tokio::test]
async fn a_dump_of_the_store_shows_no_id_no_sku_and_no_value() {
    let shop = Shop::start(1).await;
    let (_, ids) = visit(shop.url(0)).await;
    let clear = shop.dump();
    for value in VALUES {
        assert!(holds(&clear, value.as_bytes()), "{value} would be seen if it were there");
    }
    assert!(ids.iter().all(|id| !holds(&clear, id)), "ids are never in the store");

    let other = Shop::start(1).await;
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-shop"));
    command
        .args(["up", "--replicas", "1", "--listen", "127.0.0.1:0", "--cache", &other.redis.url(), "--data"])
        .arg(folder.path())
        .env("DEMO_SHOP_SESSION_KEY", SESSION_KEY)
        .env("DEMO_SHOP_ENCRYPTION_KEYS", OLD);
    let mut up = Server::spawn("up", command).unwrap();
    let line = up.line_with(" ready on ").await.unwrap();
    let encrypted = line.split_once(" ready on ").unwrap().1.split_whitespace().next().unwrap();
    let (visitor, ids) = visit(encrypted).await;
    let dump = other.dump();
    for value in VALUES {
        assert!(!holds(&dump, value.as_bytes()), "{value}");
    }
    assert!(ids.iter().all(|id| !holds(&dump, id)), "ids are never in the store");
    assert!(holds(&dump, b"shop:"), "the dump is of this store");
    let cart = visitor.cart(encrypted).await.unwrap().lines;
    assert_eq!(cart.into_iter().collect::<Vec<_>>(), [("moss-vase".to_owned(), 1), ("tide-mug".to_owned(), 2)]);
    assert!(visitor.get(&format!("{encrypted}/account")).await.unwrap().text().contains(EMAIL));
}

#[tokio::test]
async fn encryption_is_turned_on_and_its_key_changed_while_the_shop_is_open() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    register(&visitor, shop.url(0), EMAIL).await;
    let mut expected = 0;
    let (old_new, new_old) = (format!("{OLD},{NEW}"), format!("{NEW},{OLD}"));
    // Two neighbours of a deploy serve at the same time.
    let deploys: [&[&str]; 6] = [
        &[],
        &["--encryption-keys", OLD, "--encryption", "prepare"],
        &["--encryption-keys", OLD],
        &["--encryption-keys", &old_new],
        &["--encryption-keys", &new_old],
        &["--encryption-keys", NEW, "--encryption", "required"],
    ];
    let (mut before, mut before_url) = shop.replica_with(deploys[0]).await;
    for options in &deploys[1..5] {
        let (server, url) = shop.replica_with(options).await;
        for replica in [&before_url, &url, &before_url, &url] {
            visitor.add(replica, "tide-mug", 1).await.unwrap();
            expected += 1;
            for reader in [&before_url, &url] {
                assert_eq!(visitor.cart(reader).await.unwrap().lines["tide-mug"], expected, "{options:?}");
                let account = visitor.get(&format!("{reader}/account")).await.unwrap();
                assert_eq!((account.status, account.text().contains(EMAIL)), (StatusCode::OK, true), "{options:?}");
            }
        }
        (before, before_url) = (server, url);
    }
    let (later, later_email) = (Visitor::new(), "grace@example.com");
    register(&later, &before_url, later_email).await;
    later.add(&before_url, "moss-vase", 3).await.unwrap();
    let (_last, last) = shop.replica_with(deploys[5]).await;
    assert_eq!(later.cart(&last).await.unwrap().lines["moss-vase"], 3);
    assert!(later.get(&format!("{last}/account")).await.unwrap().text().contains(later_email));
    // This one has signed in before encryption was turned on, and that is not taken for true any more.
    assert!(!visitor.get(&format!("{last}/account")).await.unwrap().text().contains(EMAIL));
    drop(before);
}
