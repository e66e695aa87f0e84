//! What a request costs: counted on the wire, and in commands by the server.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use session_store::{Expiry, SessionLayer};
use support::{Visitor, app, each_backend, meter::Meter, replica};

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
