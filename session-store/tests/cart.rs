//! The cart: exact under concurrency, bounded, once per token, merged at login.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use axum::Router;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use session_store::{CartLimits, EncryptionKeys, SessionLayer, cart::RETRIES_REMEMBERED};
use support::{Server, Visitor, each_server, replica, replica_with, send};

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"))
}

/// Replicas that encrypt what is in carts.
async fn encrypted(server: &Server) -> [Router; 2] {
    let replica = async || {
        let store = support::patient(server.url()).prefix("encrypted").encryption(EncryptionKeys::new([1; 32]));
        support::app::router().layer(SessionLayer::new(store.connect().await.unwrap()))
    };
    [replica().await, replica().await]
}

/// So many POST requests with one cookie at once, alternating between the replicas.
async fn at_once(replicas: &[Router], cookie: &str, paths: impl Iterator<Item = String>) -> Vec<support::Answer> {
    let mut requests = tokio::task::JoinSet::new();
    for (i, path) in paths.enumerate() {
        let (app, cookie) = (replicas[i % replicas.len()].clone(), cookie.to_owned());
        requests.spawn(async move { send(&app, Method::POST, &path, Some(&cookie)).await });
    }
    requests.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_change_makes_a_session_and_every_replica_sees_the_cart() {
    each_server(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        server.reset_commands().await;
        let answer = visitor.post(&a, "/cart/add/TEA/2").await.ok();
        assert_eq!(json(&answer.body), json!({"revision": 1, "quantity": 2, "lines": 1, "count": 2, "applied": true}));
        assert!(answer.set_cookie().unwrap().starts_with("__Host-id="));
        let answer = visitor.post(&b, "/cart/add/CUP/1").await.ok();
        assert_eq!(json(&answer.body), json!({"revision": 2, "quantity": 1, "lines": 2, "count": 3, "applied": true}));
        assert_eq!(answer.set_cookie(), None);
        assert_eq!(visitor.get(&a, "/cart").await.body, "CUP=1,TEA=2");
        assert_eq!(visitor.get(&b, "/page").await.body, "-:3");

        visitor.post(&b, "/cart/set/TEA/5").await.ok();
        visitor.post(&a, "/cart/remove/CUP").await.ok();
        assert_eq!(visitor.get(&b, "/cart").await.body, "TEA=5");
        visitor.post(&a, "/cart/subtract/TEA/3").await.ok();
        assert_eq!(visitor.get(&b, "/cart").await.body, "TEA=2");
        let answer = visitor.post(&b, "/cart/subtract/TEA/9").await.ok();
        assert_eq!(json(&answer.body)["lines"], 0);
        visitor.post(&b, "/cart/add/TEA/1").await.ok();
        let answer = visitor.post(&a, "/cart/clear").await.ok();
        assert_eq!(
            json(&answer.body),
            json!({"revision": 8, "quantity": 0, "lines": 0, "count": 0, "applied": true}),
            "the revision outlives the lines"
        );
        let answer = visitor.post(&b, "/cart/add/TEA/1").await.ok();
        assert_eq!(json(&answer.body)["revision"], 9);
        assert_eq!(server.keys("*:session:*").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_adds_at_once_over_two_replicas_are_exact() {
    exact_adds(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fifty trials take minutes"]
async fn two_hundred_adds_at_once_over_two_replicas_are_exact_fifty_times() {
    exact_adds(50).await;
}

/// Two hundred on each of two replicas at once: of one SKU, of two hundred, and of both together.
async fn exact_adds(trials: usize) {
    each_server(async |server| {
        let limits = CartLimits { lines_max: 300, quantity_max: 1_000 };
        let with_limits = |layer: SessionLayer| layer.with_cart_limits(limits);
        let replicas = [replica_with(&server, with_limits).await, replica_with(&server, with_limits).await];
        for trial in 0..trials {
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/cart/add/FIRST/1").await.ok();
            let cookie = visitor.cookie.clone().unwrap();
            let one = || (0..400).map(|_| "/cart/add/ONE/1".to_owned());
            // Each of them on each of the replicas.
            let many = || (0..400).map(|i| format!("/cart/add/SKU{}/{}", i / 2, i / 2 % 3 + 1));
            for answer in at_once(&replicas, &cookie, one()).await {
                answer.ok();
            }
            assert_eq!(visitor.get(&replicas[trial % 2], "/cart").await.ok().body, "FIRST=1,ONE=400");
            for answer in at_once(&replicas, &cookie, many()).await {
                answer.ok();
            }
            for answer in at_once(&replicas, &cookie, one().zip(many()).flat_map(|(one, many)| [one, many]).take(400)).await {
                answer.ok();
            }
            let body = visitor.get(&replicas[trial % 2], "/cart").await.ok().body;
            let lines: std::collections::HashMap<_, _> = body.split(',').map(|line| line.split_once('=').unwrap()).collect();
            assert_eq!(lines.len(), 202);
            assert_eq!(lines["ONE"], "600");
            for i in 0..200 {
                let times = if i < 100 { 4 } else { 2 };
                assert_eq!(lines[&*format!("SKU{i}")], (times * (i % 3 + 1)).to_string());
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_under_concurrency() {
    each_server(async |server| {
        let limits = CartLimits { lines_max: 10, quantity_max: 7 };
        let with_limits = |layer: SessionLayer| layer.with_cart_limits(limits);
        let replicas = [replica_with(&server, with_limits).await, replica_with(&server, with_limits).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/cart/add/ONE/1").await.ok();
        let cookie = visitor.cookie.clone().unwrap();
        let count = |answers: &[support::Answer], status| answers.iter().filter(|a| a.status == status).count();
        let answers = at_once(&replicas, &cookie, (0..40).map(|_| "/cart/add/ONE/1".to_owned())).await;
        assert_eq!(count(&answers, StatusCode::OK), 6);
        assert_eq!(count(&answers, StatusCode::UNPROCESSABLE_ENTITY), 34);
        assert!(answers.iter().any(|answer| answer.body == "a line of the cart holds at most 7"));
        let answers = at_once(&replicas, &cookie, (0..40).map(|i| format!("/cart/add/SKU{i}/1"))).await;
        assert_eq!(count(&answers, StatusCode::OK), 9);
        assert!(answers.iter().any(|answer| answer.body == "the cart holds at most 10 different items"));
        let page = visitor.get(&replicas[0], "/page").await.ok();
        assert_eq!(page.body, "-:16");
        for (path, text) in [
            ("/cart/set/ONE/8", "a line of the cart holds at most 7"),
            ("/cart/add/ONE/0", "the quantity must be at least 1"),
            ("/cart/add/@rev/1", "the SKU must be"),
            ("/cart/add/a%20b/1", "the SKU must be"),
        ] {
            let answer = visitor.post(&replicas[1], path).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
            assert!(answer.body.starts_with(text), "{}", answer.body);
        }
        // Refused at the first change: no session was made for it.
        let mut other = Visitor::default();
        other.post(&replicas[1], "/cart/add/ONE/8").await;
        assert_eq!(other.cookie, None);
        assert_eq!(server.keys("*:session:*").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_once() {
    each_server(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/cart/add/CUP/1").await.ok();
        let cookie = visitor.cookie.clone().unwrap();
        let answers = at_once(&replicas, &cookie, (0..30).map(|_| "/cart/add/TEA/2/click".to_owned())).await;
        let applied = answers.iter().filter(|answer| json(&answer.body)["applied"] == true).count();
        assert_eq!(applied, 1);
        assert!(answers.iter().all(|answer| json(&answer.body)["quantity"] == 2));
        // Remembered across many other changes without a token, and past a new id.
        for _ in 0..70 {
            visitor.post(&replicas[1], "/cart/add/CUP/1").await.ok();
        }
        visitor.post(&replicas[1], "/cycle").await.ok();
        let answer = visitor.post(&replicas[0], "/cart/add/TEA/2/click").await.ok();
        assert_eq!(json(&answer.body)["applied"], false);
        assert_eq!(visitor.get(&replicas[0], "/cart").await.body, "CUP=71,TEA=2");
        // The memory is bounded: with as many newer ones the token is forgotten.
        for i in 0..session_store::cart::TOKENS_REMEMBERED {
            visitor.post(&replicas[0], &format!("/cart/set/POT/{}", i % 9 + 1)).await.ok();
            visitor.post(&replicas[0], &format!("/cart/add/POT/1/token{i}")).await.ok();
        }
        let answer = visitor.post(&replicas[0], "/cart/add/TEA/2/click").await.ok();
        assert_eq!(json(&answer.body)["applied"], true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_merges_once_and_follows_the_user() {
    each_server(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut home = Visitor::default();
        home.post(&a, "/cart/add/TEA/2").await.ok();
        let before = home.cookie.clone().unwrap();
        let answer = home.post(&b, "/login/ada").await.ok();
        assert_eq!(answer.body, "TEA=2");
        assert_ne!(home.cookie.as_deref().unwrap(), before);
        assert_eq!(home.get(&a, "/page").await.body, "ada:2");
        home.post(&a, "/cart/add/TEA/1").await.ok();

        // The second device has something in its cart too.
        let mut phone = Visitor::default();
        phone.post(&b, "/cart/add/TEA/1").await.ok();
        phone.post(&b, "/cart/add/CUP/4").await.ok();
        let sent_twice = phone.clone();
        assert_eq!(phone.post(&a, "/login/ada").await.ok().body, "CUP=4,TEA=4");
        assert_eq!(home.get(&b, "/cart").await.body, "CUP=4,TEA=4");

        // The same login once more, with the cookie from before: too late, and nothing is counted again.
        let late = sent_twice.clone().post(&b, "/login/ada").await;
        assert_eq!((late.status, late.set_cookie()), (StatusCode::CONFLICT, None));
        assert_eq!(phone.post(&a, "/login/ada").await.ok().body, "CUP=4,TEA=4", "a login of the same user again");
        assert_eq!(home.get(&b, "/cart").await.body, "CUP=4,TEA=4");

        // Logout: an empty cart for the visitor, the user's is kept for the next login.
        home.post(&a, "/logout").await.ok();
        assert_eq!(home.cookie, None);
        assert_eq!(home.get(&a, "/page").await.body, "-:0");
        home.post(&a, "/cart/add/POT/1").await.ok();
        assert_eq!(home.get(&b, "/cart").await.body, "POT=1");
        assert_eq!(home.post(&b, "/login/ada").await.ok().body, "CUP=4,POT=1,TEA=4");

        // Somebody else on the same device gets their own cart, and nothing of Ada's.
        assert_eq!(home.post(&a, "/login/bob").await.ok().body, "");
        assert_eq!(phone.get(&b, "/cart").await.body, "CUP=4,POT=1,TEA=4");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_before_the_login_counts_once_after_it() {
    each_server(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/TEA/2/click").await.ok();
        visitor.post(&app, "/cart/add/CUP/1/tap").await.ok();
        visitor.post(&app, "/cart/remove/CUP").await.ok();
        visitor.post(&app, "/login/ada").await.ok();
        // The same forms once more, as by a browser whose answer was lost.
        for path in ["/cart/add/TEA/2/click", "/cart/add/CUP/1/tap"] {
            let answer = visitor.post(&app, path).await.ok();
            assert_eq!(json(&answer.body)["applied"], false, "{path}");
        }
        assert_eq!(visitor.get(&app, "/cart").await.body, "TEA=2");

        // Also when nothing was left to merge.
        let mut phone = Visitor::default();
        phone.post(&app, "/cart/add/POT/1/swipe").await.ok();
        phone.post(&app, "/cart/clear").await.ok();
        phone.post(&app, "/login/ada").await.ok();
        let answer = phone.post(&app, "/cart/add/POT/1/swipe").await.ok();
        assert_eq!(json(&answer.body)["applied"], false);
        assert_eq!(visitor.get(&app, "/cart").await.body, "TEA=2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logins_at_once_merge_once_and_leave_one_session() {
    each_server(async |server| {
        let shops = [[replica(&server).await, replica(&server).await], encrypted(&server).await];
        for round in 0..20 {
            let replicas = &shops[round % 2];
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/cart/add/TEA/2").await.ok();
            let cookie = visitor.cookie.clone().unwrap();
            let paths = [
                format!("/login/user{round}"),
                format!("/login/user{round}"),
                "/cart/add/CUP/1".to_owned(),
                "/cart/add/CUP/1".to_owned(),
            ];
            let answers = at_once(replicas, &cookie, paths.into_iter()).await;
            let live: Vec<_> = answers.iter().filter_map(support::Answer::cookie).collect();
            assert_eq!(live.len(), 1, "{answers:?}");
            let added = answers.iter().filter(|a| a.status == StatusCode::OK && a.body.contains("applied")).count();
            let mut user = Visitor { cookie: Some(live[0].clone()) };
            let expected = if added == 0 { "TEA=2".to_owned() } else { format!("CUP={added},TEA=2") };
            assert_eq!(user.get(&replicas[1], "/cart").await.body, expected, "every acknowledged line is there once");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_settles_what_is_in_both_carts() {
    each_server(async |server| {
        let limits = CartLimits { lines_max: 4, quantity_max: 9 };
        let replicas = [
            replica_with(&server, |layer| layer.with_cart_limits(limits)).await,
            replica_with(&server, |layer| layer.with_cart_limits(limits)).await,
        ];
        for (policy, merged) in [("sum", "CUP=4,POT=9,TEA=5"), ("max", "CUP=3,POT=8,TEA=5"), ("keep", "CUP=1,POT=8,TEA=5")] {
            let mut home = Visitor::default();
            for path in ["/cart/add/CUP/1", "/cart/add/POT/8"] {
                home.post(&replicas[0], path).await.ok();
            }
            home.post(&replicas[1], &format!("/login/{policy}/sum")).await.ok();
            let mut phone = Visitor::default();
            for path in ["/cart/add/CUP/3", "/cart/add/POT/4", "/cart/add/TEA/5"] {
                phone.post(&replicas[1], path).await.ok();
            }
            let again = phone.clone();
            assert_eq!(phone.post(&replicas[0], &format!("/login/{policy}/{policy}")).await.ok().body, merged, "{policy}");
            assert_eq!(again.clone().post(&replicas[1], &format!("/login/{policy}/{policy}")).await.status, StatusCode::CONFLICT);
            assert_eq!(home.get(&replicas[1], "/cart").await.ok().body, merged, "{policy}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layers_policy_is_that_of_a_login_without_one() {
    each_server(async |server| {
        let keep = |layer: SessionLayer| layer.with_merge_policy(session_store::MergePolicy::Keep);
        let replicas = [replica_with(&server, keep).await, replica_with(&server, keep).await];
        let (mut home, mut phone) = (Visitor::default(), Visitor::default());
        home.post(&replicas[0], "/cart/add/TEA/1").await.ok();
        home.post(&replicas[1], "/login/ada").await.ok();
        phone.post(&replicas[1], "/cart/add/TEA/5").await.ok();
        assert_eq!(phone.post(&replicas[0], "/login/ada").await.ok().body, "TEA=1");
    })
    .await;
}

/// Two tabs, in which two people log in at once: what the browser put into its cart goes to one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_goes_to_one_user_only() {
    each_server(async |server| {
        let shops = [[replica(&server).await, replica(&server).await], encrypted(&server).await];
        for login in ["login", "login-blindly", "login-here"] {
            for round in 0..16 {
                let replicas = &shops[round % 2];
                let mut visitor = Visitor::default();
                visitor.post(&replicas[0], "/cart/add/TEA/2").await.ok();
                let cookie = visitor.cookie.clone().unwrap();
                let paths = ["ada", "bob"].map(|user| format!("/{login}/{user}-{login}-{round}"));
                at_once(replicas, &cookie, paths.into_iter()).await;
                let mut units = 0;
                for user in ["ada", "bob"] {
                    let mut elsewhere = Visitor::default();
                    let cart = elsewhere.post(&replicas[1], &format!("/login/{user}-{login}-{round}")).await.ok().body;
                    units += cart.strip_prefix("TEA=").map_or(0, |quantity| quantity.parse::<u32>().unwrap());
                }
                assert_eq!(units, 2, "{login}, round {round}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_the_request_of_the_login_finds_the_merged_cart() {
    each_server(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/cart/add/TEA/2").await.ok();
        assert_eq!(visitor.post(&b, "/login-and-add/ada/TEA").await.ok().body, "TEA=3");
        assert_eq!(visitor.get(&a, "/cart").await.ok().body, "TEA=3");
        assert_eq!(visitor.get(&b, "/page").await.ok().body, "ada:3");
        assert_eq!(server.keys("*:cart:*").await.len(), 2, "the anonymous one is kept for a moment");
    })
    .await;
}

/// Its time is its own, and longer: who comes back after the session has ended finds it, on another device too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_cart_outlives_the_session() {
    each_server(async |server| {
        // On a busy machine the session may have ended before the login: once more with a longer one.
        for seconds in [1, 4, 16] {
            let idle = std::time::Duration::from_secs(seconds);
            let short = |layer: SessionLayer| {
                let expiry = session_store::Expiry::OnInactivity(time::Duration::try_from(idle).unwrap());
                layer.with_expiry(expiry).with_cart_ttl(time::Duration::seconds(60))
            };
            let replicas = [replica_with(&server, short).await, replica_with(&server, short).await];
            let (mut at_home, mut at_work) = (Visitor::default(), Visitor::default());
            let (began, login) = (std::time::Instant::now(), format!("/login/ada-{seconds}"));
            at_home.post(&replicas[0], "/cart/add/TEA/2").await.ok();
            at_home.post(&replicas[0], &login).await;
            if began.elapsed() >= idle {
                assert!(seconds < 16, "it has ended before the login");
                continue;
            }
            tokio::time::sleep(idle * 6 / 5).await;
            assert_eq!(at_home.get(&replicas[1], "/get/user").await.ok().body, "-");
            assert_eq!(at_home.get(&replicas[1], "/cart").await.ok().body, "");
            // The carts of users are looked for long before the second's session ends.
            let replica = replica(&server).await;
            at_work.post(&replica, &login).await.ok();
            assert_eq!(at_work.get(&replica, "/cart").await.ok().body, "TEA=2");
            break;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_cart_is_found_without_a_session() {
    each_server(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/TEA/2").await.ok();
        let carts = support::patient_store(&server).await.carts();
        assert_eq!(carts.of_user("ada").await.unwrap(), session_store::CartSnapshot::default());
        visitor.post(&app, "/login/ada").await.ok();
        visitor.post(&app, "/logout").await.ok();
        let cart = carts.of_user("ada").await.unwrap();
        assert_eq!((cart.revision, cart.count(), &*cart.lines[0].sku), (1, 2, "TEA"));
        assert_eq!(carts.of_user("eve").await.unwrap().revision, 0);
        carts.forget_user("ada").await.unwrap();
        assert_eq!(carts.of_user("ada").await.unwrap().revision, 0);
        assert_eq!(visitor.post(&app, "/login/ada").await.ok().body, "");
    })
    .await;
}

/// Every second change has a token of the user, which is in no set of our own, and counts for the revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_remembered_are_bounded_also_between_changes_with_tokens() {
    each_server(async |server| {
        let app = replica_with(&server, |layer| layer.with_cart_limits(CartLimits { lines_max: 10, quantity_max: 10_000 })).await;
        let mut visitor = Visitor::default();
        let changes = RETRIES_REMEMBERED + 8;
        for i in 0..changes {
            visitor.post(&app, "/cart/add/TEA/1").await.ok();
            visitor.post(&app, &format!("/cart/add/TEA/1/token{i}")).await.ok();
        }
        let mut connection = server.connection().await;
        let mut sizes = Vec::new();
        for key in server.keys("*:cart-guards*").await {
            sizes.push(redis::cmd("SCARD").arg(&key).query_async::<usize>(&mut connection).await.unwrap());
        }
        assert!(sizes.iter().all(|&size| size <= RETRIES_REMEMBERED), "{sizes:?}");
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, format!("TEA={}", 2 * changes));
    })
    .await;
}

/// The rights that suffice on Redis and Valkey, there with TLS, suffice on the node: nothing that the library sends is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_few_rights_keeps_sessions_and_carts_on_a_node() {
    let mut config = cache_node::Config::for_test();
    let rights = support::fleet::RIGHTS;
    assert!(include_str!("../../README.md").contains(rights), "the README recommends others than these: {rights}");
    let shop: Vec<&str> = ["shop", "on", ">sesame"].into_iter().chain(rights.split(' ')).collect();
    for user in [&shop[..], &["operator", "on", "nopass", "+@all"], &["default", "off"]] {
        config.set("user", user).unwrap();
    }
    let node = cache_node::Node::spawn(config).await.unwrap();
    let url = |user: &str| format!("redis://{user}:sesame@{}", node.addr());
    let store = support::connected(support::patient(url("shop")).prefix("shop")).await;
    let app = support::app::router().layer(SessionLayer::new(store));
    let mut visitor = Visitor::default();
    visitor.post(&app, "/set/name/ada").await.ok();
    visitor.post(&app, "/cart/add/TEA/2/a-token").await.ok();
    visitor.post(&app, "/login/ada").await.ok();
    assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=2");
    assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
    let mut operator = redis::Client::open(url("operator")).unwrap().get_multiplexed_async_connection().await.unwrap();
    let refused: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query_async(&mut operator).await.unwrap();
    assert_eq!(refused, []);
    // Who has a shop's password cannot harm others with it.
    let mut thief = redis::Client::open(url("shop")).unwrap().get_multiplexed_async_connection().await.unwrap();
    for line in
        ["FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "CLIENT LIST", "SCRIPT FLUSH"]
    {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        let refused = words.fold(&mut command, |command, word| command.arg(word)).exec_async(&mut thief).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("no permissions")), "{line}");
    }
    node.shutdown().await.unwrap();
}
