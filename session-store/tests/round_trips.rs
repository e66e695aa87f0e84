//! What a request costs: counted on the wire, and in commands by the server.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use session_store::{Expiry, SessionLayer};
use support::{Engine, Server, Visitor, app, each_backend, meter::Meter, replica, replica_with, server::Backend, two_replicas};

/// The commands that a request sends, by name: scripts as `evalsha`, what they call inside left out.
const READ: &[&str] = &["hgetall", "pttl"];
const READ_WITH_CART: &[&str] = &["hgetall", "hgetall", "pttl"];
const SCRIPT: &[&str] = &["evalsha"];
const READ_CART: &[&str] = &["hgetall"];

#[tokio::test]
async fn none_untouched_one_to_read_one_to_commit() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let store = support::patient(meter.url()).connect().await.unwrap();
        let app = app::router().layer(SessionLayer::new(store));
        let mut visitor = Visitor::default();
        // The scripts are known to the server after this, and all connections are open.
        let first = ["/set/name/ada", "/set/name/bob", "/cart/add/TEA/1", "/cycle", "/login/ada", "/cycle", "/logout"];
        for path in first.into_iter().chain(["/cart/add/TEA/1", "/login-here/ada", "/logout"]) {
            visitor.post(&app, path).await.ok();
        }

        for (method, path, round_trips) in [
            ("GET", "/plain", &[][..]),
            ("GET", "/extract", &[]),
            ("GET", "/page", &[]),
            ("POST", "/set/name/ada", &[SCRIPT]),
            ("GET", "/plain", &[]),
            ("GET", "/extract", &[]),
            ("GET", "/get/name", &[READ]),
            ("POST", "/set/name/bob", &[READ, SCRIPT]),
            ("POST", "/set/name/bob", &[READ]),
            ("POST", "/remove/absent", &[READ]),
            ("POST", "/cart/add/TEA/1", &[SCRIPT]),
            ("POST", "/cart/set/CUP/2", &[SCRIPT]),
            ("GET", "/cart", &[READ_WITH_CART]),
            ("GET", "/page", &[READ_WITH_CART]),
            ("POST", "/cycle", &[READ, SCRIPT]),
            ("POST", "/login-blindly/bob", &[READ, SCRIPT]),
            ("GET", "/page", &[READ_WITH_CART]),
            ("POST", "/cart/add/TEA/1", &[SCRIPT]),
            ("GET", "/get/user", &[READ]),
            ("POST", "/logout", &[SCRIPT]),
            ("POST", "/cart/add/TEA/1", &[SCRIPT]),
            ("POST", "/login-here/bob", &[READ, SCRIPT]),
            ("POST", "/logout", &[SCRIPT]),
            ("POST", "/cart/add/CUP/1", &[SCRIPT]),
            ("POST", "/login/bob", &[READ, SCRIPT, READ_CART]),
        ] {
            meter.take();
            let before = server.commands().await;
            let answer = match method {
                "GET" => visitor.get(&app, path).await,
                _ => visitor.post(&app, path).await,
            };
            answer.ok();
            assert_eq!(meter.take(), round_trips.len() as u64, "{method} {path}");
            let mut expected: Vec<&str> = round_trips.concat();
            expected.sort_unstable();
            let after = server.commands().await;
            let sent = sent(&before, &after);
            if expected.contains(&"evalsha") {
                // What a script calls is counted as well.
                for name in ["evalsha", "eval"] {
                    let calls = |names: &[&str]| names.iter().filter(|sent| **sent == name).count();
                    assert_eq!(calls(&sent), calls(&expected), "{method} {path}: {sent:?}");
                }
            } else {
                assert_eq!(sent, expected, "{method} {path}");
            }
        }
    })
    .await;
}

/// What a store of Redis' kind keeps in one piece is a third of the memory of a table, which a single long value makes of it. One with the tokens
/// of eight commits, as there were once, is a table for good; it works on, and remembers seven from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_session_is_kept_in_one_piece_through_twenty_commits() {
    for engine in [Engine::Redis, Engine::Valkey] {
        let server = Server::start(Backend::Real(engine)).await;
        let app = two_replicas(&server).await;
        let mut connection = server.connection().await;
        for (tokens_of, encoding) in [(0, "listpack"), (8, "hashtable")] {
            redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&app, "/set/name/ada").await.ok();
            let key = server.keys("*:session:*").await.remove(0);
            if tokens_of > 0 {
                let tokens: String = (0..tokens_of).map(|number| format!("former{number:02} ")).collect();
                redis::cmd("HSET").arg(&key).arg("@tok").arg(tokens).exec_async(&mut connection).await.unwrap();
            }
            for (number, field) in ["lang", "theme", "seen", "lang"].into_iter().cycle().take(20).enumerate() {
                visitor.post(&app, &format!("/set/{field}/{number}")).await.ok();
                assert_eq!(visitor.get(&app, &format!("/get/{field}")).await.ok().body, number.to_string());
            }
            let kept: String = redis::cmd("OBJECT").arg("ENCODING").arg(&key).query_async(&mut connection).await.unwrap();
            assert_eq!(kept, encoding, "{engine:?}, {tokens_of} tokens");
            let tokens: String = redis::cmd("HGET").arg(&key).arg("@tok").query_async(&mut connection).await.unwrap();
            assert!(tokens.len() == 63 && !tokens.contains("former"), "{tokens}");
        }
    }
}

/// The only session beside the known ones that is no mark of a former one.
async fn new_session(server: &Server, known: &[String]) -> String {
    let mut connection = server.connection().await;
    for key in server.keys("*:session:*").await {
        let is_alive: bool = redis::cmd("HEXISTS").arg(&key).arg("@rev").query_async(&mut connection).await.unwrap();
        if is_alive && !known.contains(&key) {
            return key;
        }
    }
    panic!("there is no session");
}

/// The names of the commands that were called between two looks at the statistics, once for each call.
fn sent<'a>(before: &[(String, u64)], after: &'a [(String, u64)]) -> Vec<&'a str> {
    after
        .iter()
        .flat_map(|(name, calls)| {
            let earlier = before.iter().find(|(known, _)| known == name).map_or(0, |(_, calls)| *calls);
            std::iter::repeat_n(name.as_str(), (calls - earlier) as usize)
        })
        .collect()
}

/// What a touch costs: nothing where it is not due, nothing where the session is committed or its cart changed at the end, and one
/// script where it is due and the request only reads, or goes on after its last change. That answer brings a cookie, for which the
/// session must be alive when the handler has ended.
#[tokio::test]
async fn a_touch_costs_a_round_trip_where_it_is_due_and_nothing_is_written_at_the_end() {
    const IDLE_MS: i64 = 600_000;
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let replica = async || {
            let store = support::patient(meter.url()).connect().await.unwrap();
            app::router().layer(SessionLayer::new(store).with_expiry(Expiry::OnInactivity(time::Duration::minutes(10))))
        };
        let replicas = [replica().await, replica().await];
        let mut connection = server.connection().await;
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/name/ada").await.ok();
        let key = server.keys("*:session:*").await.remove(0);
        let requests = [
            // The scripts are known to the server after these, and all connections are open.
            (true, "GET", "/get/name", None),
            (true, "GET", "/get/name", None),
            (true, "POST", "/set/name/bob", None),
            (true, "POST", "/cart/add/TEA/1", None),
            (true, "POST", "/cart/add/TEA/1", None),
            // Round trips, and scripts among them.
            (true, "GET", "/get/name", Some((2, 1))),
            // Throttled, whichever replica did it.
            (false, "GET", "/get/name", Some((1, 0))),
            (false, "GET", "/page", Some((1, 0))),
            (false, "GET", "/get/name", Some((1, 0))),
            (true, "GET", "/page", Some((2, 1))),
            (false, "GET", "/page", Some((1, 0))),
            (true, "POST", "/set/name/cyd", Some((2, 1))),
            (true, "POST", "/set/name/dan", Some((2, 1))),
            (true, "POST", "/cart/add/TEA/1", Some((1, 1))),
            (true, "POST", "/save-twice/eve", Some((2, 1))),
            // These go on for a while afterwards.
            (true, "POST", "/cart/add-slowly/1/TEA", Some((2, 2))),
            (true, "POST", "/update-slowly/1", Some((3, 2))),
            (true, "GET", "/plain", Some((0, 0))),
        ];
        for (number, (is_due, method, path, cost)) in requests.into_iter().enumerate() {
            let app = &replicas[number % 2];
            if is_due {
                redis::cmd("PEXPIRE").arg(&key).arg(IDLE_MS / 2).exec_async(&mut connection).await.unwrap();
            }
            meter.take();
            let before = server.commands().await;
            let answer = if method == "GET" { visitor.get(app, path).await } else { visitor.post(app, path).await }.ok();
            let taken = meter.take();
            let after = server.commands().await;
            let evaluated = sent(&before, &after).into_iter().filter(|name| name.starts_with("eval")).count();
            assert!(
                cost.is_none_or(|cost| (taken, evaluated) == cost),
                "{method} {path}: {taken} round trips, {evaluated} scripts"
            );
            let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            let is_extended = is_due && path != "/plain";
            assert_eq!(left > IDLE_MS * 15 / 16 - 5_000, is_extended || !is_due, "{method} {path}: {left} ms are left");
            assert_eq!(answer.set_cookie().is_some(), is_extended, "{method} {path}");
        }
    })
    .await;
}

/// What a change costs inside the store: its revision is looked at and the fields are written, and the session's time is set only where
/// that puts its end off by more than an eighth of the time between two touches.
#[tokio::test]
async fn a_change_extends_the_session_where_its_end_is_put_off_by_more_than_a_little() {
    const IDLE_MS: i64 = 6_000_000;
    const LONGER_MS: i64 = 12_000_000;
    each_backend(async |server| {
        let layer = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(time::Duration::milliseconds(IDLE_MS)));
        let replicas = [replica_with(&server, layer).await, replica_with(&server, layer).await];
        let mut connection = server.connection().await;
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/name/ada").await.ok();
        let key = server.keys("*:session:*").await.remove(0);
        let left = redis::cmd("PTTL").arg(&key).clone();
        // What is left of the session's time, and what the change gives it when it extends it.
        let requests = [
            // The scripts are known to the server after these.
            (IDLE_MS, "/set/name/bob", None),
            (IDLE_MS, "/remove/name", None),
            (IDLE_MS - 90_000, "/set/name/cyd", None),
            (IDLE_MS - 90_000, "/set/name/cem", None),
            (IDLE_MS, "/set/name/dan", Some(None)),
            // An eighth of the time between two touches is 47 s.
            (IDLE_MS - 20_000, "/set/name/eve", Some(None)),
            (IDLE_MS - 20_000, "/set/name/fay", Some(None)),
            (IDLE_MS - 20_000, "/remove/name", Some(None)),
            (IDLE_MS - 90_000, "/set/name/gus", Some(Some(IDLE_MS))),
            (IDLE_MS - 20_000, "/set/name/hal", Some(None)),
            // The time is to be another one: at once, however little of it has passed.
            (IDLE_MS, "/remember/12000", Some(Some(LONGER_MS))),
            (LONGER_MS - 20_000, "/set/name/ida", Some(None)),
            (LONGER_MS - 180_000, "/set/name/joe", Some(Some(LONGER_MS))),
            (LONGER_MS, "/forget/6000", Some(Some(IDLE_MS))),
            (IDLE_MS - 20_000, "/set/name/kim", Some(None)),
            // Longer than its policy says.
            (IDLE_MS + 90_000, "/set/name/lea", Some(Some(IDLE_MS))),
        ];
        for (number, (left_ms, path, extended)) in requests.into_iter().enumerate() {
            redis::cmd("PEXPIRE").arg(&key).arg(left_ms).exec_async(&mut connection).await.unwrap();
            let before = server.commands().await;
            let answer = visitor.post(&replicas[number % 2], path).await.ok();
            let after = server.commands().await;
            let Some(extended) = extended else { continue };
            let mut expected = vec!["evalsha", "hgetall", "hset", "pttl"];
            expected.push(if extended.is_some() { "hmget" } else { "hget" });
            expected.extend(extended.is_some().then_some("pexpire"));
            // A field that is new may be the revision of what is no session any more.
            expected.extend(["/set/name/gus", "/remember/12000"].contains(&path).then_some("hexists"));
            let is_policy = path.starts_with("/remember") || path.starts_with("/forget");
            expected.extend((path.starts_with("/remove") || path.starts_with("/forget")).then_some("hdel"));
            expected.sort_unstable();
            assert_eq!(sent(&before, &after), expected, "{path}");
            assert_eq!(answer.set_cookie().is_some(), is_policy, "{path}");
            let kept_ms: i64 = left.query_async(&mut connection).await.unwrap();
            let given_ms = extended.unwrap_or(left_ms);
            assert!((given_ms - 10_000..=given_ms).contains(&kept_ms), "{path}: {kept_ms} ms of {given_ms}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_is_two_plain_commands_and_a_change_one_script() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/set/name/bob").await.ok();
        server.reset_commands().await;
        visitor.get(&app, "/get/name").await.ok();
        let calls = server.commands().await;
        assert_eq!(calls, [("hgetall".to_owned(), 1), ("pttl".to_owned(), 1)]);
        server.reset_commands().await;
        visitor.post(&app, "/set/name/ada").await.ok();
        let calls = server.commands().await;
        assert!(calls.contains(&("evalsha".to_owned(), 1)), "{calls:?}");
        assert!(!calls.iter().any(|(name, _)| name == "eval"), "{calls:?}");
    })
    .await;
}

/// Where this process has seen the session before, it knows when a touch is due: the extension goes along with the read, on each
/// replica, and once for all of them.
#[tokio::test]
async fn a_touch_that_is_known_to_be_due_costs_nothing_extra() {
    const IDLE_MS: i64 = 600_000;
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let replica = async || {
            let store = support::patient(meter.url()).connect().await.unwrap();
            app::router().layer(SessionLayer::new(store).with_expiry(Expiry::OnInactivity(time::Duration::milliseconds(IDLE_MS))))
        };
        let replicas = [replica().await, replica().await];
        let mut connection = server.connection().await;
        let time_of = |key: &str| redis::cmd("PTTL").arg(key).clone();
        // The scripts are known to the server after these, and all connections are open.
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/name/ada").await.ok();
        let key = server.keys("*:session:*").await.remove(0);
        for app in &replicas {
            redis::cmd("PEXPIRE").arg(&key).arg(IDLE_MS / 2).exec_async(&mut connection).await.unwrap();
            visitor.get(app, "/get/name").await.ok();
        }
        redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
        let paths = ["/get/name", "/page", "/slow-get/1/name"];
        let mut prepared = Vec::new();
        for (login, path) in paths.into_iter().flat_map(|path| [(false, path), (true, path)]) {
            let known = [server.keys("*:session:*").await, server.keys("*:cart:*").await].concat();
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/name/ada").await.ok();
            if login {
                visitor.post(&replicas[0], &format!("/login/{}", prepared.len())).await.ok();
            }
            visitor.post(&replicas[0], "/cart/add/TEA/1").await.ok();
            let key = new_session(&server, &known).await;
            let cart = server.keys("*:cart:*").await.into_iter().find(|key| !known.contains(key)).unwrap();
            // Both see it shortly before a touch is due, and so does nobody who writes.
            let soon = IDLE_MS - IDLE_MS / 16 + 2_500;
            redis::cmd("PEXPIRE").arg(&key).arg(soon).exec_async(&mut connection).await.unwrap();
            redis::cmd("PEXPIRE").arg(&cart).arg(1_000_000).exec_async(&mut connection).await.unwrap();
            for app in &replicas {
                assert!(visitor.get(app, "/get/name").await.ok().set_cookie().is_none(), "{path}: it was due already");
            }
            prepared.push((login, path, visitor, key, cart));
        }
        // A change of another one puts off the touch that would be due by then.
        let known = server.keys("*:session:*").await;
        let mut writer = Visitor::default();
        writer.post(&replicas[0], "/set/name/ada").await.ok();
        let key = new_session(&server, &known).await;
        let soon = IDLE_MS - IDLE_MS / 16 + 2_500;
        redis::cmd("PEXPIRE").arg(&key).arg(soon).exec_async(&mut connection).await.unwrap();
        assert!(writer.get(&replicas[0], "/get/name").await.ok().set_cookie().is_none(), "it was due already");
        writer.post(&replicas[0], "/set/name/bob").await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(2_600)).await;
        let before = server.commands().await;
        assert_eq!(writer.get(&replicas[0], "/get/name").await.ok().body, "bob");
        let after = server.commands().await;
        let of_writer = sent(&before, &after);
        assert!(!of_writer.contains(&"evalsha"), "{of_writer:?}");
        for (login, path, mut visitor, key, cart) in prepared {
            // Who comes first extends; the other finds that done, and writes nothing; then both know.
            for (number, extensions, scripts) in [(0, 1, 1), (1, 0, 1), (0, 0, 0), (1, 0, 0)] {
                meter.take();
                let before = server.commands().await;
                let answer = visitor.get(&replicas[number], path).await.ok();
                let round_trips = meter.take();
                let after = server.commands().await;
                let what = format!("{path}, login {login}, replica {number}: {answer:?}");
                let sent = sent(&before, &after);
                let calls = |name: &str| sent.iter().filter(|sent| **sent == name).count();
                // The cookie of a handler that went on after the read: whether its session is still there.
                let looked = u64::from(path.starts_with("/slow") && extensions == 1);
                assert_eq!(round_trips, 1 + looked, "{what}: {sent:?}");
                assert_eq!(calls("evalsha") + calls("eval"), scripts, "{what}: {sent:?}");
                let writes = calls("pexpire") + calls("hset") + calls("zadd");
                assert_eq!(writes > 0, extensions == 1, "{what}: {sent:?}");
                assert_eq!(answer.set_cookie().is_some(), extensions == 1, "{what}");
                let left: i64 = time_of(&key).query_async(&mut connection).await.unwrap();
                assert!(left > IDLE_MS - 20_000, "{what}: {left} ms are left");
                let of_cart: i64 = time_of(&cart).query_async(&mut connection).await.unwrap();
                assert!(of_cart > 1_000_000, "{what}: the cart has {of_cart} ms left");
            }
        }
    })
    .await;
}
