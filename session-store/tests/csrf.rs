//! Forged requests are refused, on whichever replica, and a token from before a login is worth nothing after it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Form, Router,
    body::Body,
    extract::{Path, Request as AxumRequest},
    middleware::{Next, from_fn},
    response::Response,
    routing::{get, post},
};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use session_store::{
    CSRF_FIELD, CSRF_HEADER, CacheStore, Cart, Csrf, CsrfLayer, Key, Session, SessionExt as _, SessionLayer, Unavailable,
    testing::{Fault, Faults},
};
use support::{
    Answer, Server, Visitor, each_backend, each_process,
    hold::{Hold, pause},
    meter::Meter,
    patient_store,
};
use tower::ServiceExt as _;

const FORM: &str = "application/x-www-form-urlencoded";

fn routes() -> Router {
    Router::new()
        .route("/token", get(async |csrf: Csrf| Ok::<_, Unavailable>(csrf.token().await?)))
        .route("/field", get(async |csrf: Csrf| Ok::<_, Unavailable>(csrf.field().await?)))
        .route("/order", post(order).put(order).get(async || "page"))
        .route("/hooks/payment", post(order))
        .route("/set", post(async |session: Session| session.insert("key", 1).await.unwrap()))
        .route("/login", post(log_in))
        .route("/login-and-show", post(log_in_and_show))
        .route("/show-login-show", get(show_and_log_in_and_show))
        .route("/callback", get(log_in))
        .route("/logout", post(async |session: Session| session.flush().await.unwrap()))
        .route("/verify", post(async |csrf: Csrf, token: String| csrf.verify(&token).await.unwrap().to_string()))
}

fn protected(store: CacheStore) -> Router {
    let csrf = CsrfLayer::new().exempt_under("/hooks").exempt("/verify").exempt("/set");
    routes().layer(csrf).layer(SessionLayer::new(store))
}

async fn replica(server: &Server) -> Router {
    protected(patient_store(server).await)
}

async fn order(Form(fields): Form<Vec<(String, String)>>) -> String {
    // The form arrives whole, after the layer has looked into it.
    fields.into_iter().filter(|(name, _)| name != CSRF_FIELD).map(|(name, value)| format!("{name}={value}")).collect()
}

async fn log_in(session: Session, cart: Cart) -> Result<(), Unavailable> {
    session.cycle_id().await?;
    Ok(cart.log_in("ada").await?)
}

async fn log_in_and_show(session: Session, cart: Cart, csrf: Csrf) -> Result<String, Unavailable> {
    log_in(session, cart).await?;
    Ok(csrf.token().await?)
}

/// As where the frame of every page asks for a token before the handler runs.
async fn show_and_log_in_and_show(session: Session, cart: Cart, csrf: Csrf) -> Result<String, Unavailable> {
    let before = csrf.token().await?;
    let after = log_in_and_show(session, cart, csrf.clone()).await?;
    assert!(csrf.verify(&after).await?);
    Ok(format!("{before} {after}"))
}

struct Sent<'a> {
    method: Method,
    path: &'a str,
    header: Option<&'a str>,
    form: Option<&'a str>,
    content_type: &'a str,
}

impl Default for Sent<'_> {
    fn default() -> Self {
        Self { method: Method::POST, path: "/order", header: None, form: None, content_type: FORM }
    }
}

async fn send(app: &Router, visitor: &mut Visitor, sent: Sent<'_>) -> Answer {
    let mut request = Request::builder().method(sent.method).uri(sent.path).header(header::CONTENT_TYPE, sent.content_type);
    if let Some(cookie) = &visitor.cookie {
        request = request.header(header::COOKIE, cookie);
    }
    if let Some(token) = sent.header {
        request = request.header(CSRF_HEADER, token);
    }
    let body = Body::from(sent.form.unwrap_or_default().to_owned());
    let response = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let answer = Answer { status: parts.status, headers: parts.headers, body };
    if let Some(cookie) = answer.cookie() {
        visitor.cookie = Some(cookie);
    }
    answer
}

fn form(token: &str) -> String {
    format!("sku=TEA&{CSRF_FIELD}={token}")
}

async fn begun(app: &Router) -> (Visitor, String) {
    let mut visitor = Visitor::default();
    let token = visitor.get(app, "/token").await.ok().body;
    (visitor, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_needs_a_token_of_its_session() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let (mut visitor, token) = begun(&a).await;
        let (mut stranger, other) = begun(&b).await;
        for method in [Method::POST, Method::PUT] {
            let bare = Sent { method: method.clone(), form: Some("sku=TEA"), ..Sent::default() };
            let refused = send(&b, &mut visitor, bare).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            assert!(refused.body.contains("csrf_token") && refused.body.contains("x-csrf-token"), "{}", refused.body);
            let in_form = Sent { method: method.clone(), form: Some(&form(&token)), ..Sent::default() };
            assert_eq!(send(&b, &mut visitor, in_form).await.ok().body, "sku=TEA");
            let in_header = Sent { method, header: Some(&token), form: Some("sku=TEA"), ..Sent::default() };
            assert_eq!(send(&b, &mut visitor, in_header).await.ok().body, "sku=TEA");
        }
        for wrong in [&*other, "", "AAAA", &token[1..], "%FF"] {
            let sent = Sent { form: Some(&form(wrong)), ..Sent::default() };
            assert_eq!(send(&a, &mut visitor, sent).await.status, StatusCode::FORBIDDEN, "{wrong}");
            let sent = Sent { header: Some(wrong), form: Some(&form(&token)), ..Sent::default() };
            assert_eq!(send(&a, &mut visitor, sent).await.status, StatusCode::FORBIDDEN, "{wrong}");
        }
        let multipart = Sent { form: Some(&form(&token)), content_type: "multipart/form-data", ..Sent::default() };
        assert_eq!(send(&a, &mut visitor, multipart).await.status, StatusCode::FORBIDDEN, "the field is looked for in forms");
        assert_eq!(send(&a, &mut stranger, Sent { header: Some(&token), ..Sent::default() }).await.status, StatusCode::FORBIDDEN);
        let mut nobody = Visitor::default();
        assert_eq!(send(&a, &mut nobody, Sent { header: Some(&token), ..Sent::default() }).await.status, StatusCode::FORBIDDEN);
        assert_eq!(visitor.get(&a, "/order").await.ok().body, "page");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_differ_on_each_page_and_stay_good() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        // A session that has no secret yet: two pages at once must not have different ones.
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set").await.ok();
        let (mut one, mut other) = (visitor.clone(), visitor.clone());
        let (first, second) = tokio::join!(one.get(&a, "/token"), other.get(&b, "/token"));
        let mut tokens = BTreeSet::from([first.ok().body, second.ok().body]);
        for app in [&a, &b, &a] {
            tokens.insert(visitor.get(app, "/token").await.ok().body);
        }
        assert_eq!(tokens.len(), 5);
        for token in &tokens {
            send(&b, &mut visitor, Sent { header: Some(token), form: Some(""), ..Sent::default() }).await.ok();
            let verified = Sent { path: "/verify", form: Some(token), ..Sent::default() };
            assert_eq!(send(&b, &mut visitor, verified).await.ok().body, "true");
        }
        let field = visitor.get(&a, "/field").await.ok().body;
        assert!(field.starts_with("<input type=\"hidden\" name=\"csrf_token\" value=\""), "{field}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_makes_the_tokens_from_before_it_worthless() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        for (method, login) in [(Method::POST, "/login"), (Method::POST, "/login-and-show"), (Method::GET, "/callback")] {
            let (mut visitor, before) = begun(&a).await;
            let answer =
                send(&b, &mut visitor, Sent { method, path: login, header: Some(&before), ..Sent::default() }).await.ok();
            let old = Sent { header: Some(&before), form: Some(""), ..Sent::default() };
            assert_eq!(send(&a, &mut visitor, old).await.status, StatusCode::FORBIDDEN, "{login}");
            let after = match &*answer.body {
                "" => visitor.get(&b, "/token").await.ok().body,
                token => token.to_owned(),
            };
            send(&a, &mut visitor, Sent { header: Some(&after), form: Some(""), ..Sent::default() }).await.ok();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_asked_for_after_the_login_is_good_whatever_was_asked_for_before() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        for begins_with in [None, Some("/set"), Some("/token")] {
            let mut visitor = Visitor::default();
            match begins_with {
                Some("/set") => drop(visitor.post(&a, "/set").await.ok()),
                Some(path) => drop(visitor.get(&a, path).await.ok()),
                None => {}
            }
            let tokens = visitor.get(&b, "/show-login-show").await.ok().body;
            let (before, after) = tokens.split_once(' ').unwrap();
            send(&a, &mut visitor, Sent { header: Some(after), form: Some(""), ..Sent::default() }).await.ok();
            if begins_with.is_some() {
                let old = Sent { header: Some(before), form: Some(""), ..Sent::default() };
                assert_eq!(send(&a, &mut visitor, old).await.status, StatusCode::FORBIDDEN, "{begins_with:?}");
            }
        }
    })
    .await;
}

/// The new id is there, and what was to be set under it is not: the rest of the request must not bring the former secret along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_broken_off_after_the_new_id_makes_them_worthless_too() {
    each_backend(async |server| {
        let faults = Faults::seeded(1);
        let store = support::patient(server.url()).faults(faults.clone());
        let broken_off = {
            let faults = faults.clone();
            async move |session: Session| {
                session.cycle_id().await.unwrap();
                let (visits, hung) = (Key::<u32>::new("visits"), faults.count(Fault::Hang));
                faults.next(Fault::Delay);
                faults.next(Fault::Hang);
                tokio::select! {
                    updated = session.update(&visits, |visits| visits.unwrap_or(0) + 1) => panic!("{updated:?}"),
                    () = async {
                        while faults.count(Fault::Hang) == hung {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    } => {}
                }
            }
        };
        let layer = SessionLayer::new(store.connect().await.unwrap());
        let app = routes().layer(CsrfLayer::new()).route("/broken-off", post(broken_off)).layer(layer);
        let (mut visitor, first) = begun(&app).await;
        // The store knows the script of a new id from here on: the fault is met by the step behind it.
        send(&app, &mut visitor, Sent { path: "/login", header: Some(&first), ..Sent::default() }).await.ok();
        let before = visitor.get(&app, "/token").await.ok().body;
        let former = visitor.cookie.clone();
        visitor.post(&app, "/broken-off").await.ok();
        assert_ne!(visitor.cookie, former);
        let old = Sent { header: Some(&before), form: Some(""), ..Sent::default() };
        assert_eq!(send(&app, &mut visitor, old).await.status, StatusCode::FORBIDDEN);
    })
    .await;
}

/// Routes that no `CsrfLayer` sees, beside those that one does.
async fn replica_with_logins_outside(server: &Server) -> Router {
    let log_in_slowly = async |session: Session, cart: Cart, Path(hold): Path<u64>| {
        session.get::<u32>("key").await.unwrap();
        pause(hold).await;
        log_in(session, cart).await
    };
    let log_in_and_go_on = async |session: Session, cart: Cart| {
        log_in(session.clone(), cart.clone()).await?;
        // Here the login is committed, and here something is changed after it.
        let lines = cart.lines().await.unwrap().len();
        session.insert("lines", lines).await?;
        Ok::<_, Unavailable>(session.save().await?)
    };
    let update_and_log_in = async |session: Session, cart: Cart| {
        log_in(session.clone(), cart).await?;
        session.update(&Key::<u32>::new("key"), |key| key.unwrap_or(0) + 1).await.unwrap();
        Ok::<_, Unavailable>(())
    };
    // As a layer that logs in whoever has a cookie of long ago.
    let remembered = async |session: Session, request: AxumRequest, next: Next| -> Response {
        if let Some(how) = request.headers().get("x-remembered") {
            session.cycle_id().await.unwrap();
            if how == "saved" {
                session.save().await.unwrap();
            }
        }
        next.run(request).await
    };
    Router::new()
        .route("/outside/login", post(log_in))
        .route("/outside/slow-login/{hold}", post(log_in_slowly))
        .route("/outside/login-and-go-on", post(log_in_and_go_on))
        .route("/outside/login-and-update", post(update_and_log_in))
        .merge(routes().layer(CsrfLayer::new().exempt("/set")).layer(from_fn(remembered)))
        .layer(SessionLayer::new(patient_store(server).await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_outside_of_the_layer_makes_them_worthless_too() {
    each_backend(async |server| {
        let (a, b) = (replica_with_logins_outside(&server).await, replica_with_logins_outside(&server).await);
        for login in ["/outside/login", "/outside/login-and-go-on", "/outside/login-and-update"] {
            let (mut visitor, before) = begun(&a).await;
            visitor.post(&b, login).await.ok();
            for app in [&a, &b] {
                let old = Sent { header: Some(&before), form: Some(""), ..Sent::default() };
                assert_eq!(send(app, &mut visitor, old).await.status, StatusCode::FORBIDDEN, "{login}");
            }
            let after = visitor.get(&a, "/token").await.ok().body;
            send(&b, &mut visitor, Sent { header: Some(&after), form: Some(""), ..Sent::default() }).await.ok();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_token_of_a_session_that_is_given_out_while_a_login_is_under_way_is_worthless_after_it() {
    each_backend(async |server| {
        let (a, b) = (replica_with_logins_outside(&server).await, replica_with_logins_outside(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set").await.ok();
        let mut other = visitor.clone();
        let hold = Hold::new();
        let path = format!("/outside/slow-login/{hold}");
        let (login, given) = tokio::join!(visitor.post(&b, &path), async {
            hold.reached().await;
            let given = other.get(&a, "/token").await.ok().body;
            hold.release();
            given
        });
        login.ok();
        let sent = Sent { header: Some(&given), form: Some(""), ..Sent::default() };
        assert_eq!(send(&a, &mut visitor, sent).await.status, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_between_the_two_layers_makes_them_worthless_in_the_very_request() {
    each_backend(async |server| {
        let app = replica_with_logins_outside(&server).await;
        for how in ["noted", "saved"] {
            let (visitor, before) = begun(&app).await;
            let request = Request::post("/order").header("x-remembered", how).header(CSRF_HEADER, &before);
            let request = request.header(header::COOKIE, visitor.cookie.unwrap()).header(header::CONTENT_TYPE, FORM);
            let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{how}");
        }
    })
    .await;
}

/// Whoever was logged out elsewhere a moment ago still sees a page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_session_that_ended_is_shown() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let (mut visitor, token) = begun(&a).await;
        let mut late = visitor.clone();
        send(&b, &mut visitor, Sent { path: "/logout", header: Some(&token), ..Sent::default() }).await.ok();
        let useless = late.get(&a, "/token").await.ok().body;
        assert_eq!(send(&b, &mut late, Sent { header: Some(&useless), ..Sent::default() }).await.status, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exempt_paths_pass_and_nothing_that_climbs_out_of_them() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut nobody = Visitor::default();
        let hook = Sent { path: "/hooks/payment", form: Some("a=1"), ..Sent::default() };
        assert_eq!(send(&app, &mut nobody, hook).await.ok().body, "a=1");
        let climbing = Sent { path: "/hooks/../order", ..Sent::default() };
        assert_eq!(send(&app, &mut nobody, climbing).await.status, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_bounded_and_an_outage_is_no_forgery() {
    each_process(async |mut server| {
        let store = patient_store(&server).await;
        let app = routes().layer(CsrfLayer::new().form_bytes_max(1_024)).layer(SessionLayer::new(store));
        let (mut visitor, token) = begun(&app).await;
        let large = format!("{}&x={}", form(&token), "y".repeat(1_024));
        let sent = Sent { form: Some(&large), ..Sent::default() };
        assert_eq!(send(&app, &mut visitor, sent).await.status, StatusCode::PAYLOAD_TOO_LARGE);
        let in_header = Sent { header: Some(&token), form: Some(&large), ..Sent::default() };
        send(&app, &mut visitor, in_header).await.ok();
        server.kill();
        let answer = send(&app, &mut visitor, Sent { form: Some(&form(&token)), ..Sent::default() }).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_costs_the_read_of_the_session_alone() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let app = protected(support::patient(meter.url()).connect().await.unwrap());
        let (mut visitor, token) = begun(&app).await;
        meter.take();
        send(&app, &mut visitor, Sent { form: Some(&form(&token)), ..Sent::default() }).await.ok();
        assert_eq!(meter.take(), 1);
        visitor.get(&app, "/token").await.ok();
        assert_eq!(meter.take(), 1);
        // A login in the layer brings the new secret along.
        send(&app, &mut visitor, Sent { path: "/login", header: Some(&token), ..Sent::default() }).await.ok();
        meter.take();
        visitor.get(&app, "/token").await.ok();
        assert_eq!(meter.take(), 1);
        // Without anything that could be checked, nothing is read.
        send(&app, &mut visitor, Sent::default()).await;
        visitor.get(&app, "/order").await.ok();
        assert_eq!(meter.take(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_layer_at_the_wrong_place_says_so() {
    let app: Router = routes().layer(CsrfLayer::new());
    let answer = send(&app, &mut Visitor::default(), Sent::default()).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.body.contains("SessionLayer"), "{}", answer.body);
}
