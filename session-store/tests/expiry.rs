//! When sessions end: the absolute timeout, and times of their own. The idle timeout is in `session.rs`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use axum::{extract::Path, routing::post};
use http::{Method, StatusCode};
use session_store::{Expiry, Session, SessionLayer};
use support::{
    Answer, Server, Visitor, app, each_backend, fleet::until, hold::Hold, meter::Meter, replica_with, send, two_replicas_with,
};
use time::Duration as Time;

fn max_age(answer: &Answer) -> Option<i64> {
    let part = answer.set_cookie()?.split("; ").find_map(|part| part.strip_prefix("Max-Age="))?;
    Some(part.parse().unwrap())
}

async fn set_field(server: &Server, field: &str, value: i64) {
    let key = server.keys("*:session:*").await.remove(0);
    redis::cmd("HSET").arg(key).arg(field).arg(value).exec_async(&mut server.connection().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_absolute_timeout_is_put_off_by_nothing() {
    each_backend(async |server| {
        // A busy machine may do nothing with it while it lives: once more with one that lives longer.
        let rounds = put_off(&server, 4).await;
        assert!(rounds > 1 || put_off(&server, 20).await > 1, "it was used meanwhile");
    })
    .await;
}

/// Uses a session that ends so many seconds after its beginning in every way; how often it was used.
async fn put_off(server: &Server, seconds: i64) -> usize {
    let absolute = Duration::from_secs(seconds.unsigned_abs());
    let layer = |layer: SessionLayer| {
        layer.with_expiry(Expiry::OnInactivity(Time::seconds(60))).with_absolute_timeout(Time::seconds(seconds))
    };
    let replicas = [replica_with(server, layer).await, replica_with(server, layer).await];
    let mut visitor = Visitor::default();
    let first = visitor.post(&replicas[0], "/set/name/ada").await.ok();
    let after = Instant::now();
    assert!((0..=seconds).contains(&max_age(&first).unwrap()), "{first:?}");
    let mut rounds = 0;
    'alive: loop {
        for path in ["/cycle", "/set/time/later", "/cart/add/TEA/1", "/login/ada", "/remember/600", "/forget/60"] {
            let sent = Instant::now();
            let answer = visitor.post(&replicas[rounds % 2], path).await;
            if answer.removes_cookie() || after.elapsed() > absolute {
                break 'alive;
            }
            // The session began at some moment before `after`.
            let left_ms = 1_000 * seconds - i64::try_from(sent.duration_since(after).as_millis()).unwrap();
            if let Some(max_age) = max_age(&answer) {
                assert!(max_age * 1_000 <= left_ms, "{path}: {max_age} s of {left_ms} ms");
            }
            for key in server.keys("*:session:*").await {
                let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut server.connection().await).await.unwrap();
                // What is left of old ids is kept for ten seconds, and can be read as it was.
                let alive: bool =
                    redis::cmd("HEXISTS").arg(&key).arg("@rev").query_async(&mut server.connection().await).await.unwrap();
                assert!(!alive || ttl <= left_ms, "{path}: {ttl} ms of {left_ms}");
            }
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep((absolute + Duration::from_millis(100)).saturating_sub(after.elapsed())).await;
    for app in &replicas {
        assert_eq!(visitor.clone().get(app, "/get/name").await.ok().body, "-");
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_timeout_counts_for_sessions_that_are_older_than_the_setting() {
    each_backend(async |server| {
        let idle = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(Time::hours(1)));
        let before = replica_with(&server, idle).await;
        let after = replica_with(&server, |layer| idle(layer).with_absolute_timeout(Time::minutes(30))).await;
        let mut visitor = Visitor::default();
        visitor.post(&before, "/set/name/ada").await.ok();
        assert!(server.session_ttl().await > 3_500_000);
        // A read is enough, and the cookie follows.
        let answer = visitor.get(&after, "/get/name").await.ok();
        assert!((1_700..=1_800).contains(&max_age(&answer).unwrap()), "{answer:?}");
        assert!(server.session_ttl().await <= 1_800_000);
        // A replica that does not know of the setting keeps the end.
        visitor.post(&before, "/set/name/bob").await.ok();
        visitor.post(&before, "/cycle").await.ok();
        assert!(visitor.get(&before, "/get/name").await.ok().set_cookie().is_none(), "no touch can extend it");

        // One whose time is over already is not even read, whatever a replica kept it for.
        let mut old = Visitor::default();
        redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
        for path in ["/get/name", "/cart/add/TEA/1"] {
            old.post(&before, "/set/name/eve").await.ok();
            let id = old.cookie.clone();
            set_field(&server, "@created", 1_000_000_000_000).await;
            let answer = if path.starts_with("/get") { old.get(&after, path).await } else { old.post(&after, path).await }.ok();
            assert!(answer.removes_cookie() || old.cookie != id, "{path}: {answer:?}");
            assert_eq!(old.get(&after, "/get/name").await.ok().body, "-");
            redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_absolute_timeout_costs_no_round_trip() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let store = support::patient(meter.url()).connect().await.unwrap();
        let layer = SessionLayer::new(store).with_expiry(Expiry::OnInactivity(Time::hours(2)));
        let app = app::router().layer(layer.with_absolute_timeout(Time::hours(1)));
        let mut visitor = Visitor::default();
        for path in ["/set/name/ada", "/set/name/bob", "/cart/add/TEA/1", "/cycle"] {
            visitor.post(&app, path).await.ok();
        }
        for (path, round_trips) in [("/get/name", 1), ("/page", 1), ("/get/name", 1)] {
            meter.take();
            visitor.get(&app, path).await.ok();
            assert_eq!(meter.take(), round_trips, "{path}");
        }
        for (path, round_trips) in [("/set/name/cyd", 2), ("/cart/add/TEA/1", 1), ("/cycle", 2), ("/remember/60", 2)] {
            meter.take();
            visitor.post(&app, path).await.ok();
            assert_eq!(meter.take(), round_trips, "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layers_own_time_can_be_chosen_again() {
    each_backend(async |server| {
        let app = two_replicas_with(&server, |layer| layer.with_expiry(Expiry::OnInactivity(Time::minutes(30)))).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/remember/2592000").await.ok();
        assert!(server.session_ttl().await > 2_591_000_000);
        let answer = visitor.post(&app, "/forget/1800").await.ok();
        assert!((1_700..=1_800).contains(&max_age(&answer).unwrap()), "{answer:?}");
        assert!(server.session_ttl().await <= 1_800_000);
    })
    .await;
}

/// A slow request has read what was chosen before: with the session's time as it leaves it, as one that extends it, and as one that is
/// due for a touch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_session_ends_is_what_was_chosen_last_whoever_commits_after_it() {
    each_backend(async |server| {
        let idle = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(Time::minutes(30)));
        let ends = |layer: SessionLayer| idle(layer).with_absolute_timeout(Time::minutes(20));
        let plain = [replica_with(&server, idle).await, replica_with(&server, idle).await];
        let ending = [replica_with(&server, ends).await, replica_with(&server, ends).await];
        let mut connection = server.connection().await;
        for (replicas, latest) in [(&plain, i64::MAX), (&ending, 1_200)] {
            for (chosen, seconds) in [("/remember/60", 60), ("/remember/7200", 7_200), ("/until/600", 600)] {
                for (slow, passed_ms) in ["/slow-set/HOLD/name/eve", "/slow-save-twice/HOLD", "/slow-cycle/HOLD"]
                    .into_iter()
                    .flat_map(|slow| [(slow, 0), (slow, 60_000), (slow, 900_000)])
                {
                    let case = format!("{slow} beside {chosen}, {passed_ms} ms, {latest} s");
                    redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
                    let mut visitor = Visitor::default();
                    visitor.post(&replicas[0], "/set/name/ada").await.ok();
                    let key = server.keys("*:session:*").await.remove(0);
                    let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
                    redis::cmd("PEXPIRE").arg(&key).arg(left_ms - passed_ms).exec_async(&mut connection).await.unwrap();
                    let hold = Hold::new();
                    let late = tokio::spawn({
                        let (app, cookie, path) =
                            (replicas[0].clone(), visitor.cookie.clone(), slow.replace("HOLD", &hold.to_string()));
                        async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
                    });
                    hold.reached().await;
                    visitor.post(&replicas[1], chosen).await.ok();
                    hold.release();
                    let answer = late.await.unwrap().ok();
                    let key = live_session(&server).await;
                    let stored: String = redis::cmd("HGET").arg(&key).arg("@expiry").query_async(&mut connection).await.unwrap();
                    let is_kept = chosen.starts_with("/until") == stored.starts_with('a')
                        && (stored.starts_with('a') || stored == format!("i{seconds}000"));
                    assert!(is_kept, "{case}: {stored}");
                    let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
                    let at_most = seconds.min(latest);
                    assert!((1_000 * at_most - 50_000..=1_000 * at_most).contains(&left_ms), "{case}: {left_ms} ms are left");
                    if let Some(max_age) = max_age(&answer) {
                        assert!(
                            (left_ms / 1_000..=at_most).contains(&max_age),
                            "{case}: {max_age} s in the cookie, {left_ms} ms are left"
                        );
                    }
                }
            }
        }
    })
    .await;
}

/// Also where it is what was there before others have chosen, of which this request hears by its own commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_chooses_after_others_is_what_was_chosen_last() {
    each_backend(async |server| {
        let idle = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(Time::minutes(30)));
        let replicas = [replica_with(&server, idle).await, replica_with(&server, idle).await];
        let mut connection = server.connection().await;
        for passed_ms in [0, 60_000] {
            redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/name/ada").await.ok();
            let key = server.keys("*:session:*").await.remove(0);
            redis::cmd("PEXPIRE").arg(&key).arg(1_800_000 - passed_ms).exec_async(&mut connection).await.unwrap();
            let hold = Hold::new();
            let late = tokio::spawn({
                let (app, cookie, path) =
                    (replicas[0].clone(), visitor.cookie.clone(), format!("/slow-count-and-remember/{hold}/1800"));
                async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
            });
            hold.reached().await;
            visitor.post(&replicas[1], "/remember/60").await.ok();
            hold.release();
            let answer = late.await.unwrap().ok();
            assert!(max_age(&answer).is_some_and(|max_age| max_age > 1_700), "{answer:?}");
            let stored: String = redis::cmd("HGET").arg(&key).arg("@expiry").query_async(&mut connection).await.unwrap();
            assert_eq!(stored, "i1800000", "{passed_ms} ms");
            assert!(server.session_ttl().await > 1_700_000, "{passed_ms} ms");
        }
    })
    .await;
}

/// What a handler chooses is a choice, be it what was there when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_choose_the_expiry_that_was_read_is_a_choice_too() {
    let slow_remember = async |session: Session, Path((ms, change)): Path<(u64, String)>| {
        session.get::<String>("name").await.unwrap();
        support::hold::pause(ms).await;
        if change == "changed" {
            session.insert("name", "bob").await.unwrap();
        }
        session.set_expiry(Some(Expiry::OnInactivity(Time::hours(1))));
    };
    each_backend(async |server| {
        let idle = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(Time::minutes(30)));
        let store = support::patient_store(&server).await;
        let app = app::router().route("/slow-remember/{ms}/{change}", post(slow_remember)).layer(idle(SessionLayer::new(store)));
        let mut connection = server.connection().await;
        for change in ["changed", "the-same"] {
            redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&app, "/remember/3600").await.ok();
            let hold = Hold::new();
            let late = tokio::spawn({
                let (app, cookie, path) = (app.clone(), visitor.cookie.clone(), format!("/slow-remember/{hold}/{change}"));
                async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
            });
            hold.reached().await;
            visitor.post(&app, "/remember/60").await.ok();
            hold.release();
            late.await.unwrap().ok();
            let key = live_session(&server).await;
            let stored: String = redis::cmd("HGET").arg(&key).arg("@expiry").query_async(&mut connection).await.unwrap();
            assert_eq!(stored, "i3600000", "{change}");
            assert!(server.session_ttl().await > 3_000_000, "{change}");
        }
    })
    .await;
}

/// A visitor without a session, whose cart begins one, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_chosen_behind_the_first_change_of_a_cart_counts() {
    let add_and_remember = async |session: Session, cart: session_store::Cart| {
        cart.add("TEA", 1).await.unwrap();
        session.set_expiry(Some(Expiry::OnInactivity(Time::hours(1))));
    };
    each_backend(async |server| {
        let store = support::patient_store(&server).await;
        let app = app::router().route("/add-and-remember", post(add_and_remember)).layer(SessionLayer::new(store));
        let answer = send(&app, Method::POST, "/add-and-remember", None).await.ok();
        assert_eq!(max_age(&answer), Some(3_600), "{answer:?}");
        assert!(server.session_ttl().await <= 3_600_000);
    })
    .await;
}

/// Whether the request has read the former session or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_was_chosen_for_a_session_is_not_the_next_ones() {
    each_backend(async |server| {
        let idle = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(Time::minutes(30)));
        let app = two_replicas_with(&server, idle).await;
        for path in ["/relogin/bob", "/read-and-relogin/bob"] {
            let mut visitor = Visitor::default();
            visitor.post(&app, "/remember/2592000").await.ok();
            let answer = visitor.post(&app, path).await.ok();
            assert!((1_700..=1_800).contains(&max_age(&answer).unwrap()), "{path}: {answer:?}");
            let key = live_session(&server).await;
            let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut server.connection().await).await.unwrap();
            assert!(left_ms <= 1_800_000, "{path}: {left_ms} ms are left");
            redis::cmd("FLUSHDB").exec_async(&mut server.connection().await).await.unwrap();
        }
    })
    .await;
}

/// Whoever has ended the former one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_session_that_another_request_has_ended_is_not_the_next_ones() {
    let slow = async |session: Session, cart: session_store::Cart, Path((ms, calls)): Path<(u64, String)>| {
        for call in calls.split(',') {
            match call {
                "read" => drop(session.get::<String>("name").await.unwrap()),
                "pause" => support::hold::pause(ms).await,
                "try" => drop(cart.add("TEA", 1).await.unwrap_err()),
                "flush" => session.flush().await.unwrap(),
                "insert" => session.insert("user", "eve").await.unwrap(),
                _ => panic!("{call}"),
            }
        }
    };
    each_backend(async |server| {
        let store = support::patient_store(&server).await;
        let app = app::router().route("/slow/{ms}/{calls}", post(slow)).layer(SessionLayer::new(store));
        for (end, calls) in [
            ("/logout", "read,pause,try,flush,insert"),
            ("/cycle", "read,pause,try,flush,insert"),
            ("/cycle", "pause,read,flush,insert"),
            ("/cycle", "read,pause,flush,insert"),
        ] {
            redis::cmd("FLUSHDB").exec_async(&mut server.connection().await).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&app, "/remember/2592000").await.ok();
            let hold = Hold::new();
            let late = tokio::spawn({
                let (app, cookie, path) = (app.clone(), visitor.cookie.clone(), format!("/slow/{hold}/{calls}"));
                async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
            });
            hold.reached().await;
            visitor.post(&app, end).await.ok();
            hold.release();
            let late = late.await.unwrap().ok();
            assert_eq!(max_age(&late), Some(1_209_600), "{calls} beside {end}: {late:?}");
        }
    })
    .await;
}

/// The only session that has not ended.
async fn live_session(server: &Server) -> String {
    let mut connection = server.connection().await;
    for key in server.keys("*:session:*").await {
        if redis::cmd("HEXISTS").arg(&key).arg("@rev").query_async(&mut connection).await.unwrap() {
            return key;
        }
    }
    panic!("there is no session");
}

/// The store's clock decides: a replica's is not even asked when a session begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_and_ends_by_the_clock_of_the_store() {
    each_backend(async |server| {
        let app = replica_with(&server, |layer| layer.with_absolute_timeout(Time::hours(1))).await;
        let mut connection = server.connection().await;
        let (before, _): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
        for path in ["/set/name/ada", "/cart/add/TEA/1"] {
            Visitor::default().post(&app, path).await.ok();
            let key = server.keys("*:session:*").await.remove(0);
            let times: (i64, i64) =
                redis::cmd("HMGET").arg(&key).arg(&["@created", "@until"]).query_async(&mut connection).await.unwrap();
            let (after, _): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
            assert!((before * 1_000..=after * 1_000 + 999).contains(&times.0), "{path}");
            assert_eq!(times.1, times.0 + 3_600_000, "{path}");
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        }
    })
    .await;
}

/// Two replicas take turns, so that each finds what the other has done; nearly all changes leave the session's time as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_changed_without_a_pause_ends_no_sooner_than_a_touch_early_and_never_late() {
    // In seconds: idle at first, then what is chosen, and the absolute end. Long enough for a machine that stands still for a while.
    for (idle, chosen, absolute) in [(4, &[6, 4][..], 60), (4, &[4], 5)] {
        each_backend(async |server| {
            let layer = |layer: SessionLayer| {
                layer.with_expiry(Expiry::OnInactivity(Time::seconds(idle))).with_absolute_timeout(Time::seconds(absolute))
            };
            let replicas = [replica_with(&server, layer).await, replica_with(&server, layer).await];
            let mut connection = server.connection().await;
            let mut visitor = Visitor::default();
            let before = Instant::now();
            visitor.post(&replicas[0], "/set/number/0").await.ok();
            let (after, key) = (Instant::now(), server.keys("*:session:*").await.remove(0));
            let left = redis::cmd("PTTL").arg(&key).clone();
            let (mut idle_ms, mut chosen) = (1_000 * idle, chosen.iter());
            let mut until_chosen = Instant::now() + Duration::from_secs(1);
            for number in 1_usize.. {
                let (sent, mut path) = (Instant::now(), format!("/set/number/{number}"));
                if sent > until_chosen {
                    let Some(seconds) = chosen.next() else { break };
                    (idle_ms, until_chosen) = (1_000 * seconds, sent + Duration::from_secs(1));
                    path = format!("/remember/{seconds}");
                }
                let answer = visitor.post(&replicas[number % 2], &path).await;
                let left_ms: i64 = left.query_async(&mut connection).await.unwrap();
                let ms = |since: Instant| i64::try_from(since.elapsed().as_millis()).unwrap();
                // Of one that is gone PTTL says -2.
                let at_most_ms = idle_ms.min(1_000 * absolute - ms(after) + ms(sent) + 1).max(-2);
                assert!(left_ms <= at_most_ms, "{path}: {left_ms} ms of {at_most_ms}, {answer:?}");
                let at_least_ms = (idle_ms - idle_ms / 16).min(1_000 * absolute - ms(before)) - ms(sent) - 2;
                assert!(left_ms >= at_least_ms, "{path}: {left_ms} ms, and not {at_least_ms}, {answer:?}");
            }
        })
        .await;
    }
}

/// Not the end of the session by somebody, of which a mark is left, but by time alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_does_not_bring_an_expired_session_back() {
    each_backend(async |server| {
        let replicas = [replica_with(&server, |layer| layer).await, replica_with(&server, |layer| layer).await];
        for (path, status) in
            [("/slow-set/HOLD/name/eve", StatusCode::CONFLICT), ("/cart/slow-add/HOLD/TEA", StatusCode::CONFLICT)]
        {
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/name/ada").await.ok();
            let cookie = visitor.cookie.clone();
            let hold = Hold::new();
            let slow = tokio::spawn({
                let (app, cookie, path) = (replicas[0].clone(), cookie.clone(), path.replace("HOLD", &hold.to_string()));
                async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
            });
            hold.reached().await;
            let key = server.keys("*:session:*").await.remove(0);
            redis::cmd("PEXPIRE").arg(key).arg(1).exec_async(&mut server.connection().await).await.unwrap();
            while !server.keys("*:session:*").await.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            hold.release();
            let late = slow.await.unwrap();
            assert_eq!((late.status, late.set_cookie()), (status, None), "{path}");
            assert_eq!(server.keys("*:session:*").await, [""; 0], "{path}");
            assert_eq!(send(&replicas[1], Method::GET, "/page", cookie.as_deref()).await.ok().body, "-:0");
        }
    })
    .await;
}

/// Known to be due by a replica that has not seen what became of the session since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_goes_along_with_a_read_shortens_and_revives_nothing() {
    const IDLE_MS: i64 = 600_000;
    each_backend(async |server| {
        let idle = |layer: SessionLayer| layer.with_expiry(Expiry::OnInactivity(Time::milliseconds(IDLE_MS)));
        let reader = replica_with(&server, idle).await;
        let other = replica_with(&server, idle).await;
        let capping = replica_with(&server, |layer| idle(layer).with_absolute_timeout(Time::minutes(5))).await;
        let mut connection = server.connection().await;
        // The script is known to the server after this.
        let mut first = Visitor::default();
        first.post(&reader, "/set/name/ada").await.ok();
        redis::cmd("PEXPIRE").arg(server.keys("*:session:*").await).arg(9_000).exec_async(&mut connection).await.unwrap();
        first.get(&reader, "/get/name").await.ok();

        redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
        let soon = IDLE_MS - IDLE_MS / 16 + 2_500;
        // A visitor whose session the reader has seen when a touch was due in a moment, and its key.
        let seen_before = async || {
            let mut connection = server.connection().await;
            let known = server.keys("*:session:*").await;
            let mut visitor = Visitor::default();
            visitor.post(&other, "/set/name/ada").await.ok();
            let key = server.keys("*:session:*").await.into_iter().find(|key| !known.contains(key)).unwrap();
            redis::cmd("PEXPIRE").arg(&key).arg(soon).exec_async(&mut connection).await.unwrap();
            assert!(visitor.get(&reader, "/get/name").await.ok().set_cookie().is_none(), "it was due already");
            (visitor, key)
        };
        let cases = [
            ("/remember/2592000", 2_500_000_000..=2_592_000_000_i64),
            ("/remember/60", 1..=60_000),
            ("/cycle", 1..=10_000),
            ("/login/ada", 1..=10_000),
            ("/logout", 1..=10_000),
            ("DEL", -2..=-2),
            ("CAP", 1..=300_000),
        ];
        let mut prepared = Vec::new();
        for (meanwhile, left_ms) in cases {
            prepared.push((meanwhile, left_ms, seen_before().await));
        }
        let mut held = Vec::new();
        for end in ["/cycle", "/login/ada", "/logout"] {
            held.push((end, seen_before().await));
        }
        tokio::time::sleep(Duration::from_millis(2_600)).await;

        for (meanwhile, left_ms, (mut visitor, key)) in prepared {
            let cookie = visitor.cookie.clone();
            match meanwhile {
                "DEL" => redis::cmd("DEL").arg(&key).exec_async(&mut connection).await.unwrap(),
                "CAP" => drop(visitor.get(&capping, "/get/name").await.ok()),
                path => drop(visitor.post(&other, path).await.ok()),
            }
            let answer = send(&reader, Method::GET, "/get/name", cookie.as_deref()).await.ok();
            let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            assert!(left_ms.contains(&left), "{meanwhile}: {left} ms are left, {answer:?}");
            let is_removed = meanwhile == "DEL";
            assert_eq!(answer.removes_cookie(), is_removed, "{meanwhile}: {answer:?}");
            assert!(is_removed || answer.set_cookie().is_none(), "{meanwhile}: {answer:?}");
            // Of what is over nothing is due: who still sends its cookie does not have the store run a script each time.
            let before = server.commands().await;
            send(&reader, Method::GET, "/get/name", cookie.as_deref()).await.ok();
            let scripts = |calls: Vec<(String, u64)>| calls.into_iter().find(|(name, _)| name == "evalsha");
            assert_eq!(scripts(before), scripts(server.commands().await), "{meanwhile}");
        }

        // What ends while the handler goes on after such a read has no cookie.
        for (end, (mut visitor, key)) in held {
            let hold = Hold::new();
            let slow = tokio::spawn({
                let (app, cookie, path) = (reader.clone(), visitor.cookie.clone(), format!("/slow-get/{hold}/name"));
                async move { send(&app, Method::GET, &path, cookie.as_deref()).await }
            });
            hold.reached().await;
            let extended: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            assert!(extended > soon, "{end}: {extended} ms are left while the handler runs");
            visitor.post(&other, end).await.ok();
            hold.release();
            let late = slow.await.unwrap().ok();
            assert_eq!(late.set_cookie(), None, "{end}: it would replace the cookie of the new id");
            let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            assert!(left <= 10_000, "{end}: what is left of the old id is kept for {left} ms");
        }
    })
    .await;
}

/// A cookie that ends with the browser says nothing of the time: the answer neither brings it nor waits for the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_touch_of_which_no_cookie_tells() {
    const IDLE_MS: i64 = 14 * 24 * 3_600_000;
    each_backend(async |server| {
        let layer = |layer: SessionLayer| layer.with_expiry(Expiry::OnSessionEnd);
        let app = replica_with(&server, layer).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let mut connection = server.connection().await;
        let (key, cart) = (server.keys("*:session:*").await.remove(0), server.keys("*:cart:*").await.remove(0));
        let left =
            async |key: &str| -> i64 { redis::cmd("PTTL").arg(key).query_async(&mut server.connection().await).await.unwrap() };
        for path in ["/get/name", "/slow-get/1/name", "/page"] {
            for key in [&key, &cart] {
                redis::cmd("PEXPIRE").arg(key).arg(IDLE_MS / 2).exec_async(&mut connection).await.unwrap();
            }
            // Nobody has seen it yet.
            let app = replica_with(&server, layer).await;
            assert_eq!(visitor.get(&app, path).await.ok().set_cookie(), None, "{path}");
            let both = async || left(&key).await > IDLE_MS - 60_000 && left(&cart).await > 2 * IDLE_MS;
            until(support::PATIENCE, "both are extended", both).await;
        }
        for path in ["/set/name/bob", "/cycle"] {
            redis::cmd("PEXPIRE").arg(&key).arg(IDLE_MS / 2).exec_async(&mut connection).await.unwrap();
            visitor.post(&replica_with(&server, layer).await, path).await.ok();
        }
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "bob");
        assert!(left(&key).await <= 10_000, "what is left of the old id is not extended");
    })
    .await;
}
