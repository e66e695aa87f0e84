//! Carts whose lines are of different keys, or clear: keys that change, encryption that is turned on and off, and carts that are merged meanwhile.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::StatusCode;
use serde_json::Value;
use session_store::{EncryptionKeys, SessionLayer};

use super::{
    NEW, OLD, builder,
    carts::{clear, fields, hash, with},
    dump,
    support::{Visitor, each_backend},
};

/// Each of the keys changes, and encryption itself is turned on, while shoppers fill their carts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_and_no_line_is_lost_or_doubled() {
    const SKUS: usize = 4;
    each_backend(async |server| {
        let (old, new) = (|| EncryptionKeys::new(OLD), || EncryptionKeys::new(NEW));
        let before = with(&server, old().clear_carts()).await;
        let on = with(&server, old()).await;
        let prepared = with(&server, old().and_read(NEW)).await;
        let changed = with(&server, new().and_read(OLD)).await;
        // At each stage of the roll-out some replicas are one stage behind.
        let stages = [
            [before.clone(), before.clone()],
            [before, on.clone()],
            [on.clone(), prepared.clone()],
            [prepared, changed.clone()],
            [changed.clone(), changed],
        ];
        let stage = AtomicUsize::new(0);
        let shoppers = (0..6).map(async |number: usize| {
            let mut visitor = Visitor::default();
            let (mut expected, mut round) = ([0; SKUS], 0);
            // The first line is of before, and nobody touches it until the end.
            visitor.post(&stages[0][0], "/cart/add/FIRST/7").await.ok();
            if number.is_multiple_of(2) {
                visitor.post(&stages[0][0], &format!("/login/user{number}")).await.ok();
            }
            while stage.load(Ordering::SeqCst) < stages.len() {
                let app = &stages[stage.load(Ordering::SeqCst).min(stages.len() - 1)][round % 2];
                let line = round % SKUS;
                // A line holds 99.
                if expected[line] == 99 {
                    visitor.post(app, &format!("/cart/subtract/SKU{line}/90")).await.ok();
                    expected[line] = 9;
                }
                let changed = visitor.post(app, &format!("/cart/add/SKU{line}/1")).await.ok();
                expected[line] += 1;
                let changed: Value = serde_json::from_str(&changed.body).unwrap();
                assert_eq!(changed["quantity"], expected[line]);
                assert_eq!(changed["lines"], expected.iter().filter(|quantity| **quantity > 0).count() + 1);
                if round % 9 == 8 && number < 2 {
                    visitor.post(app, "/cycle").await.ok();
                }
                round += 1;
            }
            assert!(round > SKUS);
            let app = &stages[stages.len() - 1][0];
            let lines = (0..SKUS).map(|line| format!("SKU{line}={}", expected[line])).collect::<Vec<_>>().join(",");
            assert_eq!(visitor.get(app, "/cart").await.ok().body, format!("FIRST=7,{lines}"));
            for line in 0..SKUS {
                visitor.post(app, &format!("/cart/set/SKU{line}/1")).await.ok();
            }
            visitor.post(app, "/cart/add/FIRST/1").await.ok();
            visitor
        });
        let roll_out = async {
            for next in 1..=stages.len() {
                tokio::time::sleep(Duration::from_millis(200)).await;
                stage.store(next, Ordering::SeqCst);
            }
        };
        let (visitors, ()) = tokio::join!(futures_util::future::join_all(shoppers), roll_out);
        // All of them have moved: the former key can go, and what is clear be refused.
        let app = with(&server, new().only_encrypted()).await;
        for (number, mut visitor) in visitors.into_iter().enumerate() {
            if number.is_multiple_of(2) {
                // Of the session some values are still under the former key.
                let store = builder(&server.url()).key(OLD).encryption(new().only_encrypted()).connect().await.unwrap();
                let cart = store.carts().of_user(&format!("user{number}")).await.unwrap();
                assert_eq!((cart.lines.len(), cart.count()), (5, 12));
                continue;
            }
            let lines = (0..SKUS).map(|line| format!(",SKU{line}=1")).collect::<String>();
            assert_eq!(visitor.get(&app, "/cart").await.ok().body, format!("FIRST=8{lines}"));
        }
    })
    .await;
}

/// Encryption is turned on, and off again, under shoppers who log in, count and fill carts; none sees an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_turned_on_and_off_under_load_and_nobody_sees_it() {
    each_backend(async |server| {
        let without = clear(&server).await;
        let prepared = with(&server, EncryptionKeys::new(OLD).only_read()).await;
        let on = with(&server, EncryptionKeys::new(OLD)).await;
        let stages = [
            [without.clone(), without.clone()],
            [without, prepared.clone()],
            [prepared.clone(), prepared.clone()],
            [prepared.clone(), on.clone()],
            [on.clone(), on.clone()],
            [on, prepared.clone()],
            [prepared.clone(), prepared],
        ];
        let stage = AtomicUsize::new(0);
        let shoppers = (0..6).map(async |number: usize| {
            let mut visitor = Visitor::default();
            visitor.post(&stages[0][0], "/cart/add/TEA/1").await.ok();
            // Some have nothing but a cart.
            let counts = !number.is_multiple_of(3);
            let (mut tea, mut sum, mut round) = (1, 0, 0);
            while stage.load(Ordering::SeqCst) < stages.len() {
                let app = &stages[stage.load(Ordering::SeqCst).min(stages.len() - 1)][round % 2];
                if tea < 99 {
                    visitor.post(app, "/cart/add/TEA/1").await.ok();
                    tea += 1;
                }
                if counts {
                    sum += 1;
                    assert_eq!(visitor.post(app, "/count/n").await.ok().body, sum.to_string());
                }
                match round % 5 {
                    2 => visitor.post(app, "/cycle").await.ok(),
                    4 if number == 4 => visitor.post(app, "/login/ada").await.ok(),
                    _ => visitor.get(app, "/page").await.ok(),
                };
                assert_eq!(visitor.get(app, "/cart").await.ok().body, format!("TEA={tea}"));
                round += 1;
            }
            assert!(round > 6);
        });
        let roll_out = async {
            for next in 1..=stages.len() {
                tokio::time::sleep(Duration::from_millis(200)).await;
                // All replicas have got the keys by the first, and all have used them by the second.
                if next == 3 || next == 5 {
                    let dump = dump(&server).await;
                    let encrypted = dump.windows(2).filter(|pair| pair == b"\n\x01").count();
                    assert_eq!(encrypted > 0, next == 5, "nothing is encrypted while replicas are without the keys");
                }
                stage.store(next, Ordering::SeqCst);
            }
        };
        tokio::join!(futures_util::future::join_all(shoppers), roll_out);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_lines_are_read_and_move_over_one_by_one() {
    each_backend(async |server| {
        let (before, after) = (clear(&server).await, with(&server, EncryptionKeys::new(OLD)).await);
        let mut visitor = Visitor::default();
        for sku in ["TEA", "CUP", "POT"] {
            visitor.post(&before, &format!("/cart/add/{sku}/2")).await.ok();
        }
        let key = server.keys("*:cart:*").await.remove(0);
        let mut connection = server.connection().await;
        let mut clear_ones = async || {
            let mut all = fields(&hash(&mut connection, &key).await);
            assert!(all.len() <= 3, "none is doubled");
            all.retain(|field| field[0] != 1);
            all.sort();
            String::from_utf8(all.join(&b","[..])).unwrap()
        };
        assert_eq!(visitor.get(&after, "/cart").await.ok().body, "CUP=2,POT=2,TEA=2");
        assert_eq!(clear_ones().await, "CUP,POT,TEA", "a read changes nothing");
        for (path, cart, left) in [
            ("/cart/add/TEA/1", "CUP=2,POT=2,TEA=3", "CUP,POT"),
            ("/cart/set/CUP/5", "CUP=5,POT=2,TEA=3", "POT"),
            ("/cart/subtract/POT/1", "CUP=5,POT=1,TEA=3", ""),
            ("/cart/remove/TEA", "CUP=5,POT=1", ""),
        ] {
            visitor.post(&after, path).await.ok();
            assert_eq!(visitor.get(&after, "/cart").await.ok().body, cart);
            assert_eq!(clear_ones().await, left, "{path}");
        }
        // A replica that is behind begins a second line of the same; they are one for everybody else.
        visitor.post(&before, "/cart/add/CUP/1").await.ok();
        assert_eq!(visitor.get(&after, "/cart").await.ok().body, "CUP=6,POT=1");
        let strict = with(&server, EncryptionKeys::new(OLD).only_encrypted()).await;
        assert_eq!(visitor.get(&strict, "/cart").await.status, StatusCode::SERVICE_UNAVAILABLE);
        let changed: Value = serde_json::from_str(&visitor.post(&after, "/cart/add/CUP/1").await.ok().body).unwrap();
        assert_eq!((&changed["quantity"], &changed["lines"], &changed["count"]), (&7.into(), &2.into(), &8.into()));
        assert_eq!(visitor.get(&strict, "/cart").await.ok().body, "CUP=7,POT=1");
    })
    .await;
}

/// So that the former key can go although nobody touches a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_cart_is_encrypted_anew_while_it_is_changed() {
    each_backend(async |server| {
        let store = async |keys| builder(&server.url()).key(OLD).encryption(keys).connect().await.unwrap();
        let mut owner = Visitor::default();
        let plain = clear(&server).await;
        owner.post(&plain, "/login/ada").await.ok();
        for number in 0..20 {
            owner.post(&plain, &format!("/cart/add/CLEAR{number}/1")).await.ok();
        }
        let former = with(&server, EncryptionKeys::new(OLD)).await;
        for number in 0..20 {
            owner.post(&former, &format!("/cart/add/FORMER{number}/1")).await.ok();
        }
        let (both, new) = (EncryptionKeys::new(NEW).and_read(OLD), EncryptionKeys::new(NEW).only_encrypted());
        let changing = super::router().layer(SessionLayer::new(store(both.clone()).await));
        let job = store(both).await;
        let before = job.carts().of_user("ada").await.unwrap();
        let adds = async {
            for number in 0..20 {
                owner.post(&changing, &format!("/cart/add/CLEAR{number}/1")).await.ok();
            }
        };
        let (moved, ()) = tokio::join!(async { job.carts().encrypt_anew("ada").await.unwrap() }, adds);
        assert!((20..=40).contains(&moved), "what its owner has moved is not counted: {moved}");
        assert_eq!(job.carts().encrypt_anew("ada").await.unwrap(), 0);
        let after = store(new).await.carts().of_user("ada").await.unwrap();
        assert_eq!((after.revision, after.lines.len(), after.count()), (before.revision + 20, 40, 60));
        let changed = owner.post(&changing, "/cart/add/FORMER0/1").await.ok();
        let changed: Value = serde_json::from_str(&changed.body).unwrap();
        assert_eq!((&changed["lines"], &changed["count"]), (&40.into(), &61.into()));
        assert_eq!(job.carts().encrypt_anew("nobody").await.unwrap(), 0);
    })
    .await;
}

/// Lines of both carts are clear, under the former key, and under the new one: of one SKU in each of the nine combinations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_merges_what_different_keys_have_written() {
    each_backend(async |server| {
        let writers = [
            clear(&server).await,
            with(&server, EncryptionKeys::new(OLD)).await,
            with(&server, EncryptionKeys::new(NEW).and_read(OLD)).await,
        ];
        let app = &writers[2];
        for (policy, both) in [("sum", 7), ("max", 4), ("keep", 3)] {
            let (mut visitor, mut owner) = (Visitor::default(), Visitor::default());
            owner.post(app, &format!("/login/{policy}")).await.ok();
            visitor.post(&writers[0], "/cart/add/OWN/1").await.ok();
            for (number, (mine, theirs)) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).enumerate() {
                owner.post(&writers[mine], &format!("/cart/add/SKU{number}/3")).await.ok();
                visitor.post(&writers[theirs], &format!("/cart/add/SKU{number}/4")).await.ok();
            }
            visitor.post(app, &format!("/login/{policy}/{policy}")).await.ok();
            let lines = (0..9).map(|number| format!(",SKU{number}={both}")).collect::<String>();
            assert_eq!(owner.get(app, "/cart").await.ok().body, format!("OWN=1{lines}"), "{policy}");
            let changed: Value = serde_json::from_str(&owner.post(app, "/cart/add/OWN/1").await.ok().body).unwrap();
            assert_eq!((&changed["lines"], &changed["count"]), (&10.into(), &(both * 9 + 2).into()), "{policy}: none is doubled");
        }
    })
    .await;
}
