//! Changes after the head of the answer has left: streamed bodies, WebSockets, clients that go away.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, WebSocketUpgrade, ws::Message},
    response::Response,
    routing::{any, get, post},
};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use session_store::{Cart, Expiry, Key, Session, SessionExt as _, SessionLayer};
use support::{
    Server, Visitor, each_backend,
    hold::{Hold, pause},
    patient_store, send,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest as _};
use tower::ServiceExt as _;

fn router() -> Router {
    support::app::router()
        .route("/stream/{key}/{chunks}", get(streamed).post(streamed))
        .route("/stream-then/{what}", post(streamed_then))
        .route("/read-then/{hold}/{key}", get(read_then))
        .route("/ws", any(socket))
}

async fn replica(server: &Server) -> Router {
    router().layer(SessionLayer::new(patient_store(server).await))
}

/// Changes the session with each chunk.
async fn streamed(session: Session, Path((key, chunks)): Path<(String, usize)>) -> Body {
    Body::from_stream(stream::unfold((session, key, 0), move |(session, key, sent)| async move {
        if sent == chunks {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        session.insert(&key, format!("chunk {sent}")).await.unwrap();
        Some((Ok::<_, std::io::Error>(Bytes::from("chunk\n")), (session, key, sent + 1)))
    }))
}

async fn streamed_then(session: Session, Path(what): Path<String>) -> Body {
    session.insert("before", "answer").await.unwrap();
    Body::from_stream(stream::once(async move {
        session.insert("while", "streaming").await.unwrap();
        match &*what {
            "cycle" => session.cycle_id().await.unwrap(),
            "flush" => session.flush().await.unwrap(),
            "nothing" => {}
            hold => pause(hold.parse().unwrap()).await,
        }
        Ok::<_, std::io::Error>(Bytes::from("done"))
    }))
}

/// Reads the session when its head has left and the hold is released.
async fn read_then(session: Session, Path((hold, key)): Path<(String, String)>) -> Body {
    Body::from_stream(stream::once(async move {
        pause(hold.parse().unwrap()).await;
        session.load().await.unwrap();
        Ok::<_, std::io::Error>(Bytes::from(session.get::<String>(&key).await.unwrap().unwrap_or_default()))
    }))
}

/// A connection that lives as long as it likes: "set KEY VALUE", "get KEY", "count KEY", "save", "logout".
async fn socket(session: Session, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(Message::Text(text))) = socket.recv().await {
            let words: Vec<_> = text.split(' ').collect();
            let answer = match &*words {
                ["set", key, value] => {
                    session.insert(key, value).await.unwrap();
                    session.save().await.map_or_else(|error| error.to_string(), |()| "saved".to_owned())
                }
                ["get", key] => {
                    session.load().await.unwrap();
                    session.get::<String>(key).await.unwrap().unwrap_or_else(|| "-".to_owned())
                }
                ["count", key] => {
                    let key = Key::<u64>::named(*key);
                    let count = session.update(&key, |count| count.unwrap_or(0) + 1).await;
                    count.map_or_else(|error| error.to_string(), |count| count.to_string())
                }
                ["logout"] => session.flush().await.map_or_else(|error| error.to_string(), |()| "bye".to_owned()),
                _ => session.save().await.map_or_else(|error| error.to_string(), |()| "saved".to_owned()),
            };
            socket.send(Message::text(answer)).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_made_while_a_body_streams_are_saved() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        for first in ["/set/name/ada", "/stream-then/nothing"] {
            let mut visitor = Visitor::default();
            visitor.post(&a, first).await.ok();
            for method in [Method::GET, Method::POST] {
                let answer = send(&a, method, "/stream/progress/3", visitor.cookie.as_deref()).await.ok();
                assert_eq!(answer.body, "chunk\n".repeat(3));
                assert_eq!(visitor.get(&b, "/get/progress").await.ok().body, "chunk 2", "when the client has all of it");
                visitor.post(&b, "/remove/progress").await.ok();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_cookie_is_not_done_while_a_body_streams() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        // A visitor without a session cannot get one any more.
        let answer = send(&a, Method::GET, "/stream/progress/2", None).await.ok();
        assert_eq!((answer.set_cookie(), server.keys("*").await), (None, vec![]));
        // What was changed before the answer can.
        let mut visitor = Visitor::default();
        visitor.post(&a, "/stream-then/nothing").await.ok();
        assert_eq!(visitor.get(&b, "/get/before").await.ok().body, "answer");
        assert_eq!(visitor.get(&b, "/get/while").await.ok().body, "streaming");
        // No new id that nobody would learn of, and nothing is lost.
        visitor.post(&a, "/remove/while").await.ok();
        visitor.post(&a, "/stream-then/cycle").await.ok();
        assert_eq!(visitor.get(&b, "/get/while").await.ok().body, "streaming");
        // A logout counts at once, although the cookie stays.
        visitor.post(&a, "/stream-then/flush").await.ok();
        assert_eq!(visitor.clone().get(&b, "/get/while").await.ok().body, "-");
    })
    .await;
}

/// A change of a session that ended meanwhile is not saved, and who meant to change something does not get a whole answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_answer_that_cannot_be_committed_breaks_off() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set/name/ada").await.ok();
        let cookie = visitor.cookie.clone().unwrap();
        let hold = Hold::new();
        let request = Request::post(format!("/stream-then/{hold}")).header(header::COOKIE, &cookie).body(Body::empty()).unwrap();
        let response = a.clone().oneshot(request).await.unwrap();
        let body = tokio::spawn(response.into_body().collect());
        hold.reached().await;
        visitor.post(&b, "/logout").await.ok();
        hold.release();
        let error = body.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("session ended"), "{error}");
        assert_eq!(send(&b, Method::GET, "/get/while", Some(&cookie)).await.ok().body, "-");
    })
    .await;
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_until_the_client_went_away_is_saved() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let address = serve(app.clone()).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let cookie = visitor.cookie.clone().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /stream/progress/1000 HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        // The head and a chunk.
        let mut some = [0; 1024];
        while !String::from_utf8_lossy(&some).contains("chunk\n") {
            assert_ne!(client.read(&mut some).await.unwrap(), 0);
        }
        drop(client);
        let began = Instant::now();
        while !visitor.get(&app, "/get/progress").await.ok().body.starts_with("chunk") {
            assert!(began.elapsed() < support::PATIENCE, "it is not saved");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

async fn open(address: SocketAddr, cookie: &str) -> Socket {
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
    tokio_tungstenite::connect_async(request).await.unwrap().0
}

async fn say(socket: &mut Socket, text: &str) -> String {
    socket.send(tungstenite::Message::text(text)).await.unwrap();
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_saves_as_long_as_it_lives() {
    each_backend(async |server| {
        // A busy machine may let the idle timeout pass between two messages: once more with a longer one.
        for idle_seconds in [2, 8, 32] {
            if saves_as_long_as_it_lives(&server, Duration::from_secs(idle_seconds)).await {
                return;
            }
        }
        panic!("half a minute passed between two messages");
    })
    .await;
}

/// `false`: the machine let the whole idle timeout pass between two messages.
async fn saves_as_long_as_it_lives(server: &Server, idle: Duration) -> bool {
    let expiry = Expiry::OnInactivity(time::Duration::try_from(idle).unwrap());
    let app: Router = router().layer(SessionLayer::new(patient_store(server).await).with_expiry(expiry));
    let other = replica(server).await;
    let address = serve(app.clone()).await;
    let mut visitor = Visitor::default();
    let mut touched = Instant::now();
    visitor.post(&app, "/set/name/ada").await.ok();
    let cookie = visitor.cookie.clone().unwrap();
    let (mut first, mut second) = (open(address, &cookie).await, open(address, &cookie).await);
    let mut said = vec![(say(&mut first, "set a 1").await, "saved".to_owned())];
    said.push((say(&mut second, "set b 2").await, "saved".to_owned()));
    for round in 1..=5 {
        said.push((say(&mut first, "count n").await, (2 * round - 1).to_string()));
        said.push((say(&mut second, "count n").await, (2 * round).to_string()));
    }
    if touched.elapsed() >= idle {
        return false;
    }
    said.iter().for_each(|(said, expected)| assert_eq!(said, expected));
    // Longer than the idle timeout, with nothing to save: the session lives as long as the connection uses it.
    for _ in 0..6 {
        tokio::time::sleep(idle / 4).await;
        let (asked, said) = (Instant::now(), say(&mut first, "save").await);
        if touched.elapsed() >= idle {
            return false;
        }
        touched = asked;
        assert_eq!(said, "saved");
    }
    let mut seen = Vec::new();
    for (key, value) in [("a", "1"), ("b", "2"), ("name", "ada")] {
        seen.push((say(&mut second, &format!("get {key}")).await, value));
        seen.push((send(&other, Method::GET, &format!("/get/{key}"), Some(&cookie)).await.ok().body, value));
    }
    // It ends for the connection as for everybody else.
    let farewell = say(&mut first, "logout").await;
    if touched.elapsed() >= idle {
        return false;
    }
    seen.iter().for_each(|(seen, value)| assert_eq!(seen, value));
    assert_eq!(farewell, "bye");
    assert!(say(&mut second, "set c 3").await.contains("session ended"));
    assert!(say(&mut second, "count n").await.contains("session ended"));
    assert_eq!(send(&other, Method::GET, "/get/name", Some(&cookie)).await.ok().body, "-");
    true
}

/// A cart must not end before its session, however that is kept alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_keeps_its_session_keeps_the_cart() {
    each_backend(async |server| {
        let idle = Expiry::OnInactivity(time::Duration::seconds(8));
        let app: Router = router().layer(SessionLayer::new(patient_store(&server).await).with_expiry(idle));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let mut socket = open(serve(app.clone()).await, visitor.cookie.as_deref().unwrap()).await;
        assert_eq!(say(&mut socket, "get name").await, "ada");
        let cart = server.keys("*:cart:*").await.remove(0);
        let mut connection = server.connection().await;
        redis::cmd("EXPIRE").arg(&cart).arg(60).exec_async(&mut connection).await.unwrap();
        // More than a sixteenth of the idle timeout.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(say(&mut socket, "save").await, "saved");
        let left: i64 = redis::cmd("TTL").arg(&cart).query_async(&mut connection).await.unwrap();
        assert!(left > 29 * 24 * 3_600, "{left} s");
    })
    .await;
}

/// No cookie could say so, and the browser's would end before the session that it is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_reads_behind_the_answer_does_not_extend_the_session() {
    const IDLE_MS: i64 = 600_000;
    each_backend(async |server| {
        let expiry = Expiry::OnInactivity(time::Duration::milliseconds(IDLE_MS));
        let replica = async || router().layer(SessionLayer::new(patient_store(&server).await).with_expiry(expiry));
        let (other, app) = (replica().await, replica().await);
        let mut connection = server.connection().await;
        let mut visitor = Visitor::default();
        visitor.post(&other, "/set/name/ada").await.ok();
        let key = server.keys("*:session:*").await.remove(0);
        // The server knows the script after this, and the replica when the next touch is due.
        let soon = IDLE_MS - IDLE_MS / 16 + 1_500;
        for (app, left) in [(&other, IDLE_MS / 2), (&app, soon)] {
            redis::cmd("PEXPIRE").arg(&key).arg(left).exec_async(&mut connection).await.unwrap();
            assert_eq!(visitor.get(app, "/get/name").await.ok().set_cookie().is_some(), left < soon, "{left}");
        }
        let hold = Hold::new();
        let streamed = tokio::spawn({
            let (app, cookie, path) = (app.clone(), visitor.cookie.clone(), format!("/read-then/{hold}/name"));
            async move { send(&app, Method::GET, &path, cookie.as_deref()).await }
        });
        hold.reached().await;
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        hold.release();
        assert_eq!(streamed.await.unwrap().ok().body, "ada");
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(left <= soon, "{left} ms");
        assert!(visitor.get(&app, "/get/name").await.ok().set_cookie().is_some(), "the next page extends it");

        // A connection that saves is told of no time by what it reads in between.
        redis::cmd("PEXPIRE").arg(&key).arg(IDLE_MS / 2).exec_async(&mut connection).await.unwrap();
        let mut socket = open(serve(app.clone()).await, visitor.cookie.as_deref().unwrap()).await;
        assert_eq!(say(&mut socket, "get name").await, "ada");
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(left <= IDLE_MS / 2, "{left} ms");
        assert_eq!(say(&mut socket, "save").await, "saved");
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(left > IDLE_MS / 2, "{left} ms");
    })
    .await;
}

/// A cookie that leads to it can be given no more: it would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_a_body_would_begin_is_refused() {
    let add_late = async |cart: Cart| {
        Body::from_stream(stream::once(async move {
            let said = cart.add("TEA", 1).await.map_or_else(|error| format!("{error:?}"), |change| change.count.to_string());
            Ok::<_, std::io::Error>(Bytes::from(said))
        }))
    };
    each_backend(async |server| {
        let app = router().route("/add-late", post(add_late)).layer(SessionLayer::new(patient_store(&server).await));
        let mut visitor = Visitor::default();
        assert_eq!(visitor.post(&app, "/add-late").await.ok().body, "SessionEnded");
        assert_eq!(server.keys("*").await, [""; 0]);
        visitor.post(&app, "/set/name/ada").await.ok();
        assert_eq!(visitor.post(&app, "/add-late").await.ok().body, "1");
    })
    .await;
}

/// Its body has nothing to say beyond that, although somebody still has the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_tells_of_a_failure_is_whole() {
    let keep = async |session: Session, Path(hold): Path<u64>| {
        session.insert("name", "eve").await.unwrap();
        pause(hold).await;
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(session);
        });
    };
    each_backend(async |server| {
        let app = router().route("/keep/{hold}", post(keep)).layer(SessionLayer::new(patient_store(&server).await));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let hold = Hold::new();
        let (mut slow, path) = (visitor.clone(), format!("/keep/{hold}"));
        let (answer, ()) = tokio::join!(slow.post(&app, &path), async {
            hold.reached().await;
            visitor.post(&app, "/logout").await.ok();
            hold.release();
        });
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(answer.body.contains("Nothing was changed"), "{}", answer.body);
    })
    .await;
}
