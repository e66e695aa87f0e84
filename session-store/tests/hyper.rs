//! Without axum: a plain hyper server, and services of tower with bodies of their own.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use session_store::{Cart, Csrf, CsrfLayer, Flash, Session, SessionExt as _, SessionLayer};
use support::{Server, each_backend, patient_store};
use tokio::net::TcpListener;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

const VISITS: session_store::Key<u32> = session_store::Key::new("visits");

/// What comes out of the request's extensions is what axum's extractors give.
async fn visits<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let session = request.extensions().get::<Session>().unwrap();
    let visits = session.update(&VISITS, |visits| visits.unwrap_or(0) + 1).await.unwrap();
    let cart = request.extensions().get::<Cart>().unwrap();
    cart.add("TEA", 1).await.unwrap();
    let shown: Vec<_> = Flash::of(session).take().await.unwrap().into_iter().map(|message| message.text).collect();
    Flash::of(session).info(format!("visit {visits}")).await.unwrap();
    Ok(Response::new(Full::from(format!("{visits} {} {}", cart.count().await.unwrap(), shown.join(",")))))
}

/// Serves on a port of its own, as hyper's guide does it.
async fn serve(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let service = SessionLayer::new(patient_store(server).await).layer(service_fn(visits::<Incoming>));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn get(client: &Client<HttpConnector, Empty<Bytes>>, url: &str, cookie: &str) -> (String, String) {
    let request = Request::get(url).header(header::COOKIE, cookie).body(Empty::new()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let set = response.headers().get(header::SET_COOKIE).map(|set| set.to_str().unwrap().split(';').next().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (String::from_utf8(body.to_vec()).unwrap(), set.unwrap_or_else(|| cookie.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_one_on_two_plain_hyper_servers() {
    each_backend(async |server| {
        let (a, b) = (serve(&server).await, serve(&server).await);
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (body, cookie) = get(&client, &a, "").await;
        assert_eq!(body, "1 1 ");
        let (body, cookie) = get(&client, &b, &cookie).await;
        assert_eq!(body, "2 2 visit 1");
        assert_eq!(get(&client, &a, &cookie).await.0, "3 3 visit 2");
    })
    .await;
}

/// A token for who sends nothing, and otherwise what was sent.
async fn echo(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let csrf = request.extensions().get::<Csrf>().cloned().unwrap();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = if body.is_empty() { Bytes::from(csrf.token().await.unwrap()) } else { body };
    Ok(Response::new(Full::from(body)))
}

/// A body of bytes, as many services of tower have, is enough for forms too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_work_with_any_body_that_is_made_of_bytes() {
    each_backend(async |server| {
        let mut service = SessionLayer::new(patient_store(&server).await).layer(CsrfLayer::new().layer(service_fn(echo)));
        let page = Request::get("/").body(Full::default()).unwrap();
        let page = service.ready().await.unwrap().call(page).await.unwrap();
        let cookie = page.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let token = String::from_utf8(page.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        for (form, status) in [(format!("csrf_token={token}"), StatusCode::OK), ("a=b".to_owned(), StatusCode::FORBIDDEN)] {
            let post = Request::post("/")
                .header(header::COOKIE, &cookie)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(form))
                .unwrap();
            assert_eq!(service.ready().await.unwrap().call(post).await.unwrap().status(), status);
        }
    })
    .await;
}
