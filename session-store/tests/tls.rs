//! TLS with an authority of our own, and a user with few rights.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::time::Duration;

use session_store::{CacheStore, StoreError};
use support::{Visitor, fleet::Secured, traffic::waiting_app};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_spoken_to_over_tls_by_a_user_with_few_rights() {
    let mut server = Secured::start().await;
    let base = format!("rediss://shop:sesame@127.0.0.1:{}", server.node.store_port);
    let url = format!("{base}?{}", server.certificates.query());
    let app = waiting_app(&url, support::PATIENCE).await;
    let mut visitor = Visitor::default();
    visitor.post(&app, "/set/name/ada").await.ok();
    visitor.post(&app, "/cart/add/TEA/2").await.ok();
    visitor.post(&app, "/login/ada").await.ok();
    visitor.post(&app, "/cycle").await.ok();
    assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
    assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=2");
    let clients: String = server.node.ask(&["CLIENT", "LIST"]).await;
    assert!(clients.contains("user=shop"), "{clients}");
    visitor.post(&app, "/logout").await.ok();

    // It comes and goes as one without TLS.
    visitor.post(&app, "/set/name/eve").await.ok();
    server.node.kill();
    server.node.start();
    assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "-", "it keeps nothing on disk");

    let any = format!("{base}?insecure=accept-any-certificate&{}", &server.certificates.query()[3..].split_once('&').unwrap().1);
    support::connected(CacheStore::builder(any)).await;
}

/// Who does not answer in TLS is waited for as long; far below the deadline, which says nothing of TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_tls_is_said() {
    let server = Secured::start().await;
    let other = Secured::start().await;
    let at = format!("127.0.0.1:{}", server.node.store_port);
    let (ca, theirs) = (server.certificates.path("ca.pem"), other.certificates.path("ca.pem"));
    let (cert, key) = (server.certificates.path("client.pem"), server.certificates.path("client.key"));
    let with_cert = format!("cert={cert}&key={key}");
    for (url, part) in [
        // Signed by nobody that this store trusts.
        (format!("rediss://{at}?ca={theirs}&{with_cert}"), "certificate"),
        (format!("rediss://{at}?{with_cert}"), "certificate"),
        // Without a certificate of one's own.
        (format!("rediss://{at}?ca={ca}"), "ertificate"),
        // Wrong password, no password for a user that has one.
        (format!("rediss://shop:mellon@{at}?ca={ca}&{with_cert}"), "user name and password"),
        // Files that are not there, or something else.
        (format!("rediss://{at}?ca=/nowhere.pem"), "the file of `ca`, /nowhere.pem"),
        (format!("rediss://{at}?ca={key}"), "no certificate of an authority"),
        (format!("rediss://{at}?ca={ca}&cert={cert}&key={ca}"), "the file of `key`"),
        // TLS where there is none.
        (format!("rediss://127.0.0.1:{}?ca={ca}", server.node.port), "TLS"),
    ] {
        let error = CacheStore::builder(url.clone())
            .deadline(support::LONG_DEADLINE)
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await
            .unwrap_err();
        assert!(!matches!(error, StoreError::InvalidUrl { .. }), "{error}");
        assert!(error.to_string().contains(part), "{url}: {error}");
        assert!(!error.to_string().contains("mellon"), "{error}");
    }
}
