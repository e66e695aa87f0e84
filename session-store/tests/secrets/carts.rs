//! Encrypted carts: what a dump shows of them, that they are as exact as clear ones, and lines that cannot be read.

use std::collections::HashMap;

use axum::{Router, extract::Path, routing::post};
use http::{Method, StatusCode};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use session_store::{CacheStore, CacheStoreBuilder, Cart, CartError, CartLimits, EncryptionKeys, Session, SessionLayer};

use super::{
    NEW, OLD, builder, dump, encrypted, holds, replica,
    support::{
        Server, Visitor, each_backend,
        hold::{Hold, pause},
        meter::Meter,
        send,
    },
};

type Connection = redis::aio::MultiplexedConnection;

pub(super) async fn with(server: &Server, keys: EncryptionKeys) -> Router {
    replica(server, |builder| builder.key(OLD).encryption(keys), |layer| layer).await
}

pub(super) async fn clear(server: &Server) -> Router {
    replica(server, |builder| builder.key(OLD), |layer| layer).await
}

pub(super) async fn hash(connection: &mut Connection, key: &str) -> HashMap<Vec<u8>, Vec<u8>> {
    redis::cmd("HGETALL").arg(key).query_async(connection).await.unwrap()
}

/// Fields of a cart's lines.
pub(super) fn fields(cart: &HashMap<Vec<u8>, Vec<u8>>) -> Vec<Vec<u8>> {
    cart.keys().filter(|field| **field != b"@").cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_the_store_holds_no_sku() {
    each_backend(async |server| {
        let app = replica(&server, encrypted, |layer| layer).await;
        let skus = ["TEA-EARL-GREY", "cup/blue:0.3l", "X-1815-12-10"];
        let mut carts = Vec::new();
        for number in 0..2 {
            let mut visitor = Visitor::default();
            for (quantity, sku) in (3..).zip(skus) {
                let sku = sku.replace('/', "%2F");
                visitor.post(&app, &format!("/cart/add/{sku}/{quantity}/token{quantity}")).await.ok();
                visitor.post(&app, &format!("/cart/set/{sku}/{}", quantity + 1)).await.ok();
            }
            let key = server.keys("*:cart:*").await.into_iter().find(|key| !carts.iter().any(|(known, _)| known == key)).unwrap();
            carts.push((key.clone(), hash(&mut server.connection().await, &key).await));
            // What was merged from where is noted, too.
            visitor.post(&app, &format!("/login/user-{number}")).await.ok();
            assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA-EARL-GREY=4,X-1815-12-10=6,cup/blue:0.3l=5");
        }
        assert_eq!(server.keys("*:cart-merged:*").await.len(), 2);
        let dump = dump(&server).await;
        for sku in skus {
            let hex: String = sku.bytes().map(|byte| format!("{byte:02x}")).collect();
            let decimal = u128::from_str_radix(&hex, 16).unwrap().to_string();
            for form in [sku.to_owned(), hex.to_uppercase(), hex, decimal, sku.to_lowercase()] {
                assert!(!holds(&dump, &form), "{form}");
            }
        }
        let [first, second] = [fields(&carts[0].1), fields(&carts[1].1)];
        assert_eq!((first.len(), second.len()), (3, 3));
        assert!(first.iter().all(|field| !second.contains(field)), "one SKU in two carts is nothing that they have in common");
        assert!(carts[0].1.values().any(|value| value.starts_with(b"4:")), "the store reckons with quantities");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_at_once_over_two_replicas_are_exact() {
    each_backend(async |server| {
        let limits = |layer: SessionLayer| layer.with_cart_limits(CartLimits { lines_max: 300, quantity_max: 1_000 });
        let replicas = [replica(&server, encrypted, limits).await, replica(&server, encrypted, limits).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/cart/add/ONE/1").await.ok();
        // Its lines stay bound to where the session began.
        visitor.post(&replicas[0], "/cycle").await.ok();
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..400 {
            let (app, cookie) = (replicas[i % 2].clone(), visitor.cookie.clone());
            let path = if i < 200 { "/cart/add/ONE/1".to_owned() } else { format!("/cart/add/SKU{}/2", (i - 200) / 4) };
            requests.spawn(async move { send(&app, Method::POST, &path, cookie.as_deref()).await.ok() });
        }
        requests.join_all().await;
        let mut skus: Vec<_> = (0..50).map(|i| format!("SKU{i}")).collect();
        skus.sort();
        let lines: Vec<_> = std::iter::once("ONE=201".to_owned()).chain(skus.into_iter().map(|sku| format!("{sku}=8"))).collect();
        for app in &replicas {
            assert_eq!(visitor.get(app, "/cart").await.ok().body, lines.join(","));
        }
    })
    .await;
}

/// Random shoppers do the same in a clear shop, in one whose replicas are at all stages of a change of keys, and in one on a node in
/// memory; and see the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_an_encrypted_cart_is_what_a_clear_one_is() {
    const SHOPPERS: u64 = 6;
    const STEPS: usize = 50;
    each_backend(async |server| {
        let limits = |layer: SessionLayer| layer.with_cart_limits(CartLimits { lines_max: 4, quantity_max: 12 });
        let shop = async |prefix: &str, rings: Vec<Option<EncryptionKeys>>| {
            let mut replicas = Vec::new();
            for ring in rings {
                let settings = |builder: CacheStoreBuilder| match ring {
                    Some(ring) => builder.prefix(prefix).encryption(ring),
                    None => builder.prefix(prefix),
                };
                replicas.push(replica(&server, settings, limits).await);
            }
            replicas
        };
        let former = || EncryptionKeys::new(OLD).and_read(NEW);
        let current = || EncryptionKeys::new(NEW).and_read(OLD);
        let plain = shop("plain", vec![None, None]).await;
        let changing = shop("changing", vec![Some(former()), Some(current()), Some(former().clear_carts())]).await;
        let node = session_store::testing::MemoryNode::new();
        let in_memory: Vec<Router> = [former(), current(), current().clear_carts()]
            .map(|ring| {
                let store = node.builder().deadline(super::support::LONG_DEADLINE).encryption(ring).connect_lazy().unwrap();
                super::router().layer(limits(SessionLayer::new(store)))
            })
            .into();
        for seed in 0..SHOPPERS {
            let mut random = StdRng::seed_from_u64(seed);
            let mut visitors = [Visitor::default(), Visitor::default(), Visitor::default()];
            let mut done = Vec::new();
            for step in 0..STEPS {
                let sku = ["A", "BB", "CCC", "DDDD", "EEEEEEEEEEEEEEEEEEEEEEE"].choose(&mut random).unwrap();
                let (quantity, user) = (random.random_range(1..5), seed * 10 + random.random_range(0..2));
                let policy = ["sum", "max", "keep"].choose(&mut random).unwrap();
                let path = match random.random_range(0..20) {
                    0..=7 => format!("/cart/add/{sku}/{quantity}"),
                    8..=9 => format!("/cart/set/{sku}/{}", quantity - 1),
                    10 => format!("/cart/remove/{sku}"),
                    11..=12 => format!("/cart/subtract/{sku}/{quantity}"),
                    13 => format!("/cart/add/{sku}/1/token{}", random.random_range(0..4)),
                    14 if random.random_bool(0.3) => "/cart/clear".to_owned(),
                    15 => "/cycle".to_owned(),
                    16..=17 => format!("/login/user{user}/{policy}"),
                    18 => "/logout".to_owned(),
                    _ => format!("/login-and-add/user{user}/{sku}"),
                };
                done.push(path.clone());
                let mut answers = Vec::new();
                for (visitor, replicas) in visitors.iter_mut().zip([&plain, &changing, &in_memory]) {
                    let app = replicas.choose(&mut random).unwrap();
                    let answer = visitor.post(app, &path).await;
                    let cart = visitor.get(replicas.choose(&mut random).unwrap(), "/cart").await.ok().body;
                    let page = visitor.get(replicas.choose(&mut random).unwrap(), "/page").await.ok().body;
                    answers.push((answer.status, answer.body, cart, page));
                }
                for other in &answers[1..] {
                    assert_eq!(answers[0], *other, "shopper {seed}, step {step}: {done:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_no_key_opens_is_an_error_and_stays() {
    each_backend(async |server| {
        let app = with(&server, EncryptionKeys::new(OLD)).await;
        let mut connection = server.connection().await;
        for damage in ["cut off", "another's", "another line's", "no quantity", "key gone", "no keys"] {
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            let (mut other, mut visitor) = (Visitor::default(), Visitor::default());
            visitor.post(&app, "/cart/add/TEA/2").await.ok();
            let key = server.keys("*:cart:*").await.remove(0);
            let line = fields(&hash(&mut connection, &key).await).remove(0);
            visitor.post(&app, "/cart/add/CUP/1").await.ok();
            other.post(&app, "/cart/add/TEA/2").await.ok();
            let theirs = server.keys("*:cart:*").await.into_iter().find(|other| *other != key).unwrap();
            let cart = hash(&mut connection, &key).await;
            let value = match damage {
                "cut off" => cart[&line][..20].to_vec(),
                "another's" => {
                    let theirs = hash(&mut connection, &theirs).await;
                    theirs[&fields(&theirs)[0]].clone()
                }
                "another line's" => cart[fields(&cart).iter().find(|field| **field != line).unwrap()].clone(),
                "no quantity" => b":".to_vec(),
                _ => cart[&line].clone(),
            };
            redis::cmd("HSET").arg(&key).arg(&line).arg(value).exec_async(&mut connection).await.unwrap();
            let damaged = hash(&mut connection, &key).await;
            let reader = match damage {
                "key gone" => with(&server, EncryptionKeys::new(NEW)).await,
                "no keys" => clear(&server).await,
                _ => app.clone(),
            };
            // The page shows the session and the cart, which comes along with it.
            for path in ["/cart", "/page"] {
                let answer = visitor.get(&reader, path).await;
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{damage} {path}: {}", answer.body);
                assert!(answer.body.contains("a line of the cart cannot be read"), "{damage}: {}", answer.body);
            }
            // Nor is it lost by a new id or a login on a replica without the keys.
            if damage == "no keys" {
                for path in ["/cycle", "/login/ada", "/login-here/ada"] {
                    assert_ne!(visitor.clone().post(&reader, path).await.status, StatusCode::OK, "{path}");
                }
            }
            assert_eq!(hash(&mut connection, &key).await, damaged, "{damage}: a read changes nothing");
            match damage {
                "no quantity" => {
                    let answer = visitor.post(&app, "/cart/add/TEA/1").await;
                    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
                    assert_eq!(visitor.post(&app, "/login/ada").await.status, StatusCode::SERVICE_UNAVAILABLE);
                    visitor.post(&app, "/cart/add/CUP/1").await.ok();
                    visitor.post(&app, "/cart/clear").await.ok();
                    assert_eq!(visitor.get(&app, "/cart").await.ok().body, "");
                }
                "key gone" | "no keys" => {
                    visitor.post(&app, "/cycle").await.ok();
                    assert_eq!(visitor.get(&app, "/cart").await.ok().body, "CUP=1,TEA=2", "{damage}");
                }
                _ => {
                    let had = if damage == "another line's" { 1 } else { 2 };
                    visitor.post(&app, "/cart/add/TEA/1").await.ok();
                    assert_eq!(visitor.get(&app, "/cart").await.ok().body, format!("CUP=1,TEA={}", had + 1), "{damage}");
                }
            }
        }
    })
    .await;
}

/// A whole cart in the place of another is not shown to its visitor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_was_copied_is_not_believed() {
    each_backend(async |server| {
        let app = with(&server, EncryptionKeys::new(OLD)).await;
        let mut connection = server.connection().await;
        let (mut ada, mut eve) = (Visitor::default(), Visitor::default());
        ada.post(&app, "/cart/add/TEA/2").await.ok();
        ada.post(&app, "/login/ada").await.ok();
        let theirs = server.keys("*:cart:*").await;
        eve.post(&app, "/cart/add/CUP/1").await.ok();
        let own = server.keys("*:cart:*").await.into_iter().find(|key| !theirs.contains(key)).unwrap();
        for cart in &theirs {
            redis::cmd("COPY").arg(cart).arg(&own).arg("REPLACE").exec_async(&mut connection).await.unwrap();
            let answer = eve.get(&app, "/cart").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_cart_costs_the_same_round_trips() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let store = async || builder(meter.url()).key(OLD).encryption(EncryptionKeys::new(OLD)).connect().await.unwrap();
        let app = super::router().layer(SessionLayer::new(store().await));
        // The store learns the scripts.
        let mut warm = Visitor::default();
        for path in ["/cart/add/TEA/1", "/cart/add/TEA/1", "/login-blindly/bob"] {
            warm.post(&app, path).await.ok();
        }
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        meter.take();
        for path in ["/cart/add/TEA/1", "/cart/set/CUP/2", "/cart/remove/CUP", "/cart/subtract/TEA/1", "/cart/clear"] {
            visitor.post(&app, path).await.ok();
            assert_eq!(meter.take(), 1, "{path}");
        }
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        visitor.post(&app, "/cycle").await.ok();
        meter.take();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        assert_eq!(meter.take(), 1, "this process has made the new id");
        assert_eq!(visitor.get(&app, "/page").await.ok().body, "-:2");
        assert_eq!(meter.take(), 1, "the cart comes along");
        let other = super::router().layer(SessionLayer::new(store().await));
        meter.take();
        for round_trips in [2, 1] {
            visitor.post(&other, "/cart/add/TEA/1").await.ok();
            assert_eq!(meter.take(), round_trips, "what it is bound to is remembered");
        }
        visitor.post(&other, "/login-blindly/ada").await.ok();
        assert_eq!(meter.take(), 3, "session; anonymous cart; commit");
        visitor.post(&other, "/cart/add/TEA/1").await.ok();
        assert_eq!(visitor.get(&other, "/page").await.ok().body, "ada:5");
        assert_eq!(meter.take(), 2);
    })
    .await;
}

/// Requests under way with an id that was followed by another one go on reading what was there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_id_shows_its_cart_as_long_as_a_clear_one() {
    each_backend(async |server| {
        let replicas = [replica(&server, encrypted, |layer| layer).await, replica(&server, encrypted, |layer| layer).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/cart/add/TEA/2").await.ok();
        let mut former = Vec::new();
        for _ in 0..3 {
            former.push(visitor.clone());
            visitor.post(&replicas[0], "/cycle").await.ok();
        }
        for mut former in former {
            for app in &replicas {
                assert_eq!(former.get(app, "/cart").await.ok().body, "TEA=2");
                assert_eq!(former.get(app, "/page").await.ok().body, "-:2");
                assert_eq!(former.post(app, "/cart/add/TEA/1").await.status, StatusCode::CONFLICT);
            }
        }
        assert_eq!(visitor.get(&replicas[1], "/cart").await.ok().body, "TEA=2");
    })
    .await;
}

/// The record that goes into quarantine has what the lines are bound to, and the empty session in its place needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cart_of_a_session_in_quarantine_stays_readable() {
    each_backend(async |server| {
        let store: CacheStore = encrypted(builder(&server.url())).connect().await.unwrap();
        let app = super::router().layer(SessionLayer::new(store.clone()));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/TEA/2").await.ok();
        visitor.post(&app, "/cycle").await.ok();
        let mut connection = server.connection().await;
        for key in server.keys("*:session:*").await {
            redis::cmd("HSET").arg(key).arg("name").arg(b"\x01cut").exec_async(&mut connection).await.unwrap();
        }
        let another = super::router().layer(SessionLayer::new(encrypted(builder(&server.url())).connect().await.unwrap()));
        assert_eq!(visitor.get(&another, "/page").await.ok().body, "-:2");
        visitor.post(&another, "/cart/add/TEA/1").await.ok();
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=3");
        assert_eq!(server.keys("*:quarantine:*").await.len(), 1);
    })
    .await;
}

/// Of a cart that could not be changed any more the rest of the handler sees what the next request would: not an empty one, and no empty session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_change_was_refused_reads_what_the_former_id_shows() {
    each_backend(async |server| {
        let refused = async |session: Session, cart: Cart| {
            let added = cart.add("TEA", 1).await;
            assert!(matches!(added, Err(CartError::SessionEnded)), "{added:?}");
            let (snapshot, note) = (cart.snapshot().await.unwrap(), session.get::<String>("note").await.unwrap());
            let again = cart.add("TEA", 1).await;
            assert!(matches!(again, Err(CartError::SessionEnded)), "{again:?}");
            let lines: Vec<_> = snapshot.lines.iter().map(|line| format!("{}={}", line.sku, line.quantity)).collect();
            format!("{} {note:?}", lines.join(","))
        };
        let note_first = async |session: Session, cart: Cart| {
            assert!(matches!(cart.add("TEA", 1).await, Err(CartError::SessionEnded)));
            format!("{:?}", session.get::<String>("note").await.unwrap())
        };
        for store in [encrypted, |builder: CacheStoreBuilder| builder.key(OLD).prefix("clear")] {
            // Which knows of no session and no owner.
            let replica = async || {
                let routes = super::router().route("/refused", post(refused)).route("/note-first", post(note_first));
                routes.layer(SessionLayer::new(store(builder(&server.url())).connect().await.unwrap()))
            };
            let app = replica().await;
            for login in [None, Some("/login/ada")] {
                let mut visitor = Visitor::default();
                visitor.post(&app, "/set/note/here").await.ok();
                visitor.post(&app, "/cart/add/TEA/2").await.ok();
                if let Some(login) = login {
                    visitor.post(&app, login).await.ok();
                }
                let mut former = visitor.clone();
                visitor.post(&app, "/cycle").await.ok();
                for replica in [&app, &replica().await] {
                    let answer = former.post(replica, "/refused").await.ok();
                    assert_eq!((&*answer.body, answer.set_cookie()), ("TEA=2 Some(\"here\")", None), "{login:?}");
                }
                assert_eq!(former.post(&replica().await, "/note-first").await.ok().body, "Some(\"here\")", "{login:?}");
                assert_eq!(former.get(&replica().await, "/cart").await.ok().body, "TEA=2", "{login:?}");
                // After a logout there is nothing left to be read.
                visitor.post(&app, "/logout").await.ok();
                assert_eq!(former.post(&replica().await, "/refused").await.ok().body, " None", "{login:?}");
            }
        }
    })
    .await;
}

/// As when a replica that lacked the cart's last change has taken its primary's place while somebody logs in, and another change was made there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_merges_no_cart_that_is_another_at_the_same_revision() {
    let slow_login = async |session: Session, cart: Cart, Path((ms, id)): Path<(u64, String)>| {
        if id == "new" {
            session.cycle_id().await.unwrap();
        }
        cart.log_in("ada").await.unwrap();
        pause(ms).await;
    };
    each_backend(async |server| {
        let store = builder(&server.url()).key(OLD).encryption(EncryptionKeys::new(NEW)).connect().await.unwrap();
        let routes = super::support::app::router().route("/slow-login/{ms}/{id}", post(slow_login));
        let app = routes.layer(SessionLayer::new(store));
        let mut connection = server.connection().await;
        for id in ["new", "the-same"] {
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&app, "/cart/add/TEA/1").await.ok();
            let anonymous = server.keys("*:cart:*").await.remove(0);
            let hold = Hold::new();
            let login = tokio::spawn({
                let (app, mut visitor, path) = (app.clone(), visitor.clone(), format!("/slow-login/{hold}/{id}"));
                async move {
                    visitor.post(&app, &path).await.ok();
                    visitor
                }
            });
            hold.reached().await;
            visitor.post(&app, "/cart/add/CUP/1").await.ok();
            redis::cmd("HSET").arg(&anonymous).arg("@").arg("1 2 2").exec_async(&mut connection).await.unwrap();
            hold.release();
            let mut visitor = login.await.unwrap();
            assert_eq!(visitor.get(&app, "/cart").await.ok().body, "CUP=1,TEA=1", "{id}");
        }
    })
    .await;
}
