//! What calls of `Session` come to that follow each other in one request: each alone, each pair and each triple of them, beside what tower-sessions
//! makes of the same with its `MemoryStore`. Where this layer does something else it is for one of the reasons in [`Because`].
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::{collections::BTreeMap, fmt::Write as _};

use axum::{
    Router,
    extract::Path,
    routing::{get, post},
};
use http::{Method, StatusCode};
use session_store::{Cart, Session, SessionLayer, testing::MemoryNode};
use support::{Visitor, each_backend, patient_store, send};
use tower_sessions::{MemoryStore, SessionManagerLayer, session::Error};

const CALLS: [&str; 8] = ["insert", "remove", "clear", "delete", "flush", "cycle_id", "save", "load"];
/// With what the visitor comes: no cookie, one of a session with data, one of a session without, one that leads nowhere.
const ARRIVALS: [&str; 4] = ["new", "full", "empty", "stale"];

async fn call(session: Session, Path(calls): Path<String>) -> Result<(), (StatusCode, String)> {
    for (place, call) in calls.split(',').enumerate() {
        let done: Result<(), Error> = match call {
            "insert" => session.insert("new", place).await,
            "remove" => session.remove_value("old").await.map(drop),
            "clear" => {
                session.clear().await;
                Ok(())
            }
            "delete" => session.delete().await,
            "flush" => session.flush().await,
            "cycle_id" => session.cycle_id().await,
            "save" => session.save().await,
            "load" => session.load().await,
            "probe" => session.insert("probe", place).await,
            _ => panic!("{call}"),
        };
        done.map_err(|error| (StatusCode::CONFLICT, format!("{call}: {error}")))?;
    }
    Ok(())
}

async fn look(session: Session) -> String {
    let mut said = String::new();
    for key in ["old", "other", "new"] {
        if let Some(value) = session.get_value(key).await.unwrap() {
            write!(said, "{key}={value} ").unwrap();
        }
    }
    said
}

fn routes() -> Router {
    let begin = async |session: Session| {
        session.insert("old", 1).await.unwrap();
        session.insert("other", 2).await.unwrap();
    };
    let empty = async |session: Session| session.clear().await;
    Router::new()
        .route("/begin", post(begin))
        .route("/empty", post(empty))
        .route("/call/{calls}", post(call))
        .route("/look", get(look))
}

/// What has come of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    status: StatusCode,
    /// The session that the visitor has afterwards: whether under another id, and what is in it.
    session: Option<(bool, String)>,
    /// The id with which the visitor came still has a session.
    former_lives: bool,
}

async fn outcome(app: &Router, arrival: &str, calls: &str) -> Outcome {
    let mut visitor = Visitor::default();
    if arrival != "new" {
        visitor.post(app, "/begin").await.ok();
    }
    let former = visitor.cookie.clone();
    match arrival {
        "empty" => drop(visitor.post(app, "/empty").await.ok()),
        "stale" => visitor.cookie = former.as_ref().map(|cookie| format!("{}AAAAAAAA", &cookie[..cookie.len() - 8])),
        _ => {}
    }
    let sent = visitor.cookie.clone();
    let status = visitor.post(app, &format!("/call/{calls}")).await.status;
    let session = match visitor.cookie.clone() {
        Some(cookie) => {
            let is_other = Some(&cookie) != sent.as_ref();
            let seen = send(app, Method::GET, "/look", Some(&cookie)).await.ok();
            (!seen.removes_cookie()).then_some((is_other, seen.body))
        }
        None => None,
    };
    // What lives can be changed.
    let former_lives = match &sent {
        Some(cookie) => {
            let changed = send(app, Method::POST, "/call/probe", Some(cookie)).await;
            changed.status == StatusCode::OK && changed.cookie().is_none_or(|now| now == *cookie)
        }
        None => false,
    };
    Outcome { status, session, former_lives }
}

fn sequences(longest: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last = vec![String::new()];
    for _ in 0..longest {
        last = last.iter().flat_map(|calls| CALLS.map(|call| format!("{calls},{call}"))).collect();
        all.extend(last.iter().map(|calls| calls[1..].to_owned()));
    }
    all
}

/// Why this layer does something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Because {
    /// A session that was to be deleted is, whatever the handle still shows; theirs saves it again where something was changed before.
    DeletedIsDeleted,
    /// What is saved behind a `flush` or a `delete` has an id that nobody knew before, and theirs the one that the visitor came with.
    EndedIsAnotherId,
    /// A session without data has its cart: a new id for it is one, where theirs ends it.
    EmptyHasACart,
    /// A visitor whose session is saved gets its cookie, and of theirs nobody hears.
    SavedIsGiven,
    /// An id that nobody has given out is not taken from the visitor, which theirs does for one who clears his session.
    IdsAreGivenOut,
    /// Behind an id that leads nowhere there is an empty session: to save it is to do nothing, and to load it is to forget what was inserted.
    NowhereIsEmpty,
}

impl Because {
    fn of(arrival: &str, calls: &str, theirs: &Outcome, ours: &Outcome) -> Option<Self> {
        let has = |call: &str| calls.split(',').any(|other| other == call);
        if theirs.status != ours.status {
            return None;
        }
        Some(match (&theirs.session, &ours.session) {
            _ if arrival == "stale" && theirs.former_lives && !has("flush") => Self::IdsAreGivenOut,
            (Some((false, theirs_shown)), Some((true, shown))) if (has("flush") || has("delete")) && theirs_shown == shown => {
                Self::EndedIsAnotherId
            }
            (Some(_), None) if has("delete") && !keeps_insert_behind_delete(calls) => Self::DeletedIsDeleted,
            (None, Some((true, shown)))
                if (arrival == "empty" || calls == "clear,save,cycle_id") && has("cycle_id") && shown.is_empty() =>
            {
                Self::EmptyHasACart
            }
            (None, Some((true, shown)))
                if (arrival != "full" || has("delete") || has("flush")) && has("save") && shown.is_empty() =>
            {
                Self::SavedIsGiven
            }
            (Some((true, _)), None) if arrival == "stale" && (has("save") || has("load")) => Self::NowhereIsEmpty,
            _ => return None,
        })
    }
}

/// Whether something was put into a handle that had shown nothing of the session when that was deleted, and stayed in it.
fn keeps_insert_behind_delete(calls: &str) -> bool {
    let behind = calls.strip_prefix("delete").or_else(|| calls.strip_prefix("clear,delete")).unwrap_or_default();
    behind
        .rsplit_once(",insert")
        .is_some_and(|(_, last)| !["delete", "load", "clear", "flush"].iter().any(|call| last.contains(call)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_any_order_come_to_what_tower_sessions_makes_of_them_or_are_better_for_a_reason() {
    let theirs = routes().layer(SessionManagerLayer::new(MemoryStore::default()));
    let ours = routes().layer(SessionLayer::new(MemoryNode::new().store()));
    let (mut reasons, mut unexplained) = (BTreeMap::<_, usize>::new(), Vec::new());
    for (arrival, calls) in ARRIVALS.into_iter().flat_map(|arrival| sequences(3).into_iter().map(move |calls| (arrival, calls))) {
        let (a, b) = (outcome(&theirs, arrival, &calls).await, outcome(&ours, arrival, &calls).await);
        if a == b {
            continue;
        }
        match Because::of(arrival, &calls, &a, &b) {
            Some(reason) => *reasons.entry(reason).or_default() += 1,
            None => unexplained.push(format!("{arrival} {calls}: theirs {a:?}, ours {b:?}")),
        }
    }
    assert_eq!(reasons.len(), 6, "{reasons:?}");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}

const WITH_CART: [(&str, &str, &str); 70] = [
    // A login does not outlive the `flush` behind it, whatever id the handle has.
    ("full", "login,cycle,flush,add", "[TEA]"),
    ("full", "login,cycle,flush,insert", "new [POT]"),
    ("full", "login,cycle,flush,save", "[POT]"),
    ("full", "login,cycle,flush,lines", "none"),
    ("stale", "login,cycle,flush,insert", "new []"),
    ("new", "add,login,cycle,flush,insert", "new [TEA]"),
    ("full", "delete,login,add,read,flush", "none"),
    ("full", "delete,login,add,read,flush,insert", "new []"),
    ("full", "delete,login,add,cycle,flush", "none"),
    ("full", "delete,login,cycle,flush", "none"),
    ("new", "insert,add,cycle,flush", "none"),
    ("full", "delete,login,flush,insert", "new []"),
    // Nobody empties anything here, and nothing is lost.
    ("stale", "login,cycle", "[BOOK]"),
    ("stale", "login,cycle,add", "[BOOK TEA]"),
    ("stale", "login,save,cycle", "[BOOK]"),
    ("new", "save,login,cycle", "[BOOK]"),
    ("full", "clear,login,cycle", "[BOOK POT]"),
    ("empty", "clear,login,cycle", "[BOOK POT]"),
    ("full", "flush,save,login,cycle", "[BOOK]"),
    ("full", "delete,login,add,read", "[BOOK TEA]"),
    ("empty", "delete,login,add,read", "[BOOK TEA]"),
    ("stale", "delete,login,add,read", "[BOOK TEA]"),
    ("full", "delete,login,add,read,insert", "new [BOOK TEA]"),
    ("full", "delete,login,add,cycle", "[BOOK TEA]"),
    ("empty", "delete,login,add,cycle", "[BOOK TEA]"),
    ("stale", "delete,login,add,cycle", "[BOOK TEA]"),
    ("stale", "read,add,cycle", "[TEA]"),
    ("stale", "load,add,cycle", "[TEA]"),
    ("stale", "save,add,cycle", "[TEA]"),
    ("stale", "remove,add,cycle", "[TEA]"),
    ("stale", "login,add,cycle", "[BOOK TEA]"),
    ("stale", "read,add,cycle,add", "[TEA TEA]"),
    ("stale", "read,add,cycle,flush", "none"),
    ("new", "save,add,cycle", "[TEA]"),
    ("full", "flush,save,add,cycle", "[TEA]"),
    ("new", "insert,add,cycle", "new [TEA]"),
    ("new", "insert,add,save,cycle", "new [TEA]"),
    ("full", "delete,login,cycle", "[BOOK]"),
    ("full", "delete,read,login,cycle", "[BOOK]"),
    ("full", "delete,save,login,cycle", "[BOOK]"),
    ("full", "delete,insert,login", "new [BOOK]"),
    ("full", "login,load,cycle", "old [BOOK POT]"),
    ("stale", "login,load,cycle", "[BOOK]"),
    ("full", "login,load,cycle,flush", "none"),
    ("full", "insert,delete,load,add,cycle", "[TEA]"),
    ("full", "insert,delete,load,add,cycle,flush", "none"),
    ("full", "clear,save,cycle", "[POT]"),
    ("full", "clear,save,cycle,add", "[POT TEA]"),
    ("full", "remove,save,cycle", "[POT]"),
    ("full", "remove,save,add,cycle", "[POT TEA]"),
    ("full", "login,clear,save,cycle", "[BOOK POT]"),
    ("full", "clear,delete,login,cycle", "[BOOK]"),
    ("full", "delete,clear,login,cycle", "[BOOK]"),
    ("full", "clear,delete,login,cycle,flush", "none"),
    ("stale", "login,clear,login,cycle", "[BOOK]"),
    ("full", "login,save,clear,login,cycle", "[BOOK POT]"),
    ("full", "read,delete,login,cycle", "[BOOK]"),
    ("full", "read,delete,login,cycle,flush", "none"),
    ("full", "read,delete,login,add,cycle,flush,insert", "new []"),
    // What is inserted into a handle that shows the session which a cart has begun is that one's.
    ("full", "delete,add,insert", "new [TEA]"),
    ("empty", "delete,add,insert", "new [TEA]"),
    ("stale", "delete,add,insert", "new [TEA]"),
    ("full", "delete,add,read,insert", "new [TEA]"),
    ("full", "delete,add,load,insert", "new [TEA]"),
    ("full", "read,delete,add,load,insert", "new [TEA]"),
    ("full", "delete,add,insert,flush", "none"),
    // Of a handle without an id no store is told.
    ("new", "login,delete", "[BOOK]"),
    ("full", "cycle,login,delete", "old [BOOK POT]"),
    ("new", "login,clear,insert", "new []"),
    ("full", "cycle,login,clear,insert", "new [POT]"),
];

async fn call_with_cart(session: Session, cart: Cart, Path((user, calls)): Path<(String, String)>) {
    for (place, call) in calls.split(',').enumerate() {
        match call {
            "insert" => session.insert("new", place).await.unwrap(),
            "remove" => drop(session.remove_value("old").await.unwrap()),
            "clear" => session.clear().await,
            "delete" => session.delete().await.unwrap(),
            "flush" => session.flush().await.unwrap(),
            "cycle" => session.cycle_id().await.unwrap(),
            "save" => session.save().await.unwrap(),
            "load" => session.load().await.unwrap(),
            "read" => drop(session.get_value("old").await.unwrap()),
            "login" => cart.log_in(&user).await.unwrap(),
            "add" => drop(cart.add("TEA", 1).await.unwrap()),
            "lines" => drop(cart.lines().await.unwrap()),
            _ => panic!("{call}"),
        }
    }
}

/// The keys in the session, and what is in its cart.
async fn look_with_cart(session: Session, cart: Cart) -> String {
    let mut said = String::new();
    for key in ["old", "new"] {
        if session.get_value(key).await.unwrap().is_some() {
            write!(said, "{key} ").unwrap();
        }
    }
    let lines = cart.lines().await.unwrap();
    let mut items: Vec<_> = lines.iter().flat_map(|line| (0..line.quantity).map(|_| line.sku.to_string())).collect();
    items.sort();
    write!(said, "[{}]", items.join(" ")).unwrap();
    said
}

/// A visitor comes with POT in the cart, and BOOK is in that of the user who logs in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_calls_loses_a_login_or_a_cart_that_nobody_has_ended() {
    let put = async |cart: Cart, Path((user, sku)): Path<(String, String)>| {
        if user != "nobody" {
            cart.log_in(&user).await.unwrap();
        }
        cart.add(&sku, 1).await.unwrap();
    };
    let app = Router::new()
        .route("/begin", post(async |session: Session| session.insert("old", 1).await.unwrap()))
        .route("/empty", post(async |session: Session| session.clear().await))
        .route("/put/{user}/{sku}", post(put))
        .route("/call/{user}/{calls}", post(call_with_cart))
        .route("/look", get(look_with_cart))
        .layer(SessionLayer::new(MemoryNode::new().store()));
    let mut others = Vec::new();
    for (place, (arrival, calls, expected)) in WITH_CART.into_iter().enumerate() {
        let user = format!("eve{place}");
        Visitor::default().post(&app, &format!("/put/{user}/BOOK")).await.ok();
        let mut visitor = Visitor::default();
        match arrival {
            "full" | "empty" => {
                visitor.post(&app, "/begin").await.ok();
                visitor.post(&app, "/put/nobody/POT").await.ok();
            }
            "stale" => visitor.cookie = Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
            _ => {}
        }
        if arrival == "empty" {
            visitor.post(&app, "/empty").await.ok();
        }
        visitor.post(&app, &format!("/call/{user}/{calls}")).await.ok();
        let shown = match &visitor.cookie {
            Some(_) => Some(visitor.get(&app, "/look").await.ok()).filter(|answer| !answer.removes_cookie()),
            None => None,
        };
        let shown = shown.map_or_else(|| "none".to_owned(), |answer| answer.body);
        if shown != expected {
            others.push(format!("{arrival} {calls}: {shown}, not {expected}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// As in memory, and nothing is stored of the marks that tell handles apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_come_to_the_same_on_servers() {
    let in_memory = routes().layer(SessionLayer::new(MemoryNode::new().store()));
    each_backend(async |server| {
        let app = routes().layer(SessionLayer::new(patient_store(&server).await));
        for (arrival, calls) in
            ARRIVALS.into_iter().flat_map(|arrival| sequences(2).into_iter().map(move |calls| (arrival, calls)))
        {
            let there = outcome(&app, arrival, &calls).await;
            assert_eq!(there, outcome(&in_memory, arrival, &calls).await, "{arrival} {calls}");
        }
        let mut connection = server.connection().await;
        for key in server.keys("*:session:*").await {
            let names: Vec<String> = redis::cmd("HKEYS").arg(&key).query_async(&mut connection).await.unwrap();
            assert!(!names.iter().any(|name| name.starts_with("session-store.")), "{names:?}");
        }
    })
    .await;
}
