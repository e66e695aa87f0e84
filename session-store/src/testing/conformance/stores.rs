//! What is asked of a store itself, beside what its layer makes of it.

use std::{collections::HashMap, rc::Rc, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tower_sessions::{
    SessionStore,
    session::{Id, Record},
};

use super::{Conformance, time::Time};

/// The time of a record that is to end, and one that is longer.
const SHORT: time::Duration = time::Duration::seconds(6);
const LONGER_THAN_SHORT: Duration = Duration::from_millis(7_500);

type Outcome = Result<(), String>;

pub(super) fn add_checks<'a, S: SessionStore + Clone>(suite: &mut Conformance<'a>, store: impl AsyncFn() -> S + 'a) {
    let store = Rc::new(store);
    let of = Rc::clone(&store);
    suite.checks.push(("records_come_back", Box::pin(async move { records_come_back(of().await, of().await).await })));
    let of = Rc::clone(&store);
    suite.checks.push((
        "a_taken_id_is_not_overwritten",
        Box::pin(async move { a_taken_id_is_not_overwritten(of().await, of().await).await }),
    ));
    let of = Rc::clone(&store);
    suite.checks.push((
        "a_deleted_record_stays_deleted",
        Box::pin(async move { a_deleted_record_stays_deleted(of().await, of().await).await }),
    ));
    let check = move |time| a_record_ends_at_its_time(store, time);
    suite.checks_of_time.push(("a_record_ends_at_its_time", Box::new(|time| Box::pin(check(time)))));
}

fn record(color: &str, time: time::Duration) -> Record {
    let data = HashMap::from([
        ("color".to_owned(), json!(color)),
        ("nested".to_owned(), json!({"list": [1, 2.5, null, true], "text": "ünïcödé 🛒"})),
        ("large".to_owned(), json!("x".repeat(100_000))),
    ]);
    Record { id: Id::default(), data, expiry_date: OffsetDateTime::now_utc() + time }
}

async fn created<S: SessionStore>(store: &S, mut record: Record) -> Result<Record, String> {
    store.create(&mut record).await.map_err(|error| error.to_string())?;
    Ok(record)
}

async fn loaded<S: SessionStore>(store: &S, id: &Id) -> Result<Option<Record>, String> {
    store.load(id).await.map_err(|error| error.to_string())
}

async fn records_come_back<S: SessionStore>(a: S, b: S) -> Outcome {
    let mut record = created(&a, record("blue", time::Duration::HOUR)).await?;
    for color in ["blue", "green"] {
        record.data.insert("color".to_owned(), json!(color));
        a.save(&record).await.map_err(|error| error.to_string())?;
        let found = loaded(&b, &record.id).await?.ok_or("a record that was saved is not there")?;
        if found.id != record.id || found.data != record.data {
            return Err("a record comes back as another one".to_owned());
        }
        let apart = (found.expiry_date - record.expiry_date).abs();
        if apart > time::Duration::seconds(30) {
            return Err(format!("a record ends {apart} away from when it was to end"));
        }
    }
    match loaded(&b, &Id::default()).await? {
        None => Ok(()),
        Some(_) => Err("there is a record under an id that nobody has used".to_owned()),
    }
}

async fn a_taken_id_is_not_overwritten<S: SessionStore>(a: S, b: S) -> Outcome {
    let first = created(&a, record("blue", time::Duration::HOUR)).await?;
    let second = created(&b, Record { id: first.id, ..record("red", time::Duration::HOUR) }).await?;
    let found = loaded(&a, &first.id).await?.ok_or("the first record is gone")?;
    if found.data.get("color") != Some(&json!("blue")) {
        return Err("the first record was overwritten".to_owned());
    }
    if second.id == first.id { Err("the second record has the id of the first one".to_owned()) } else { Ok(()) }
}

async fn a_deleted_record_stays_deleted<S: SessionStore>(a: S, b: S) -> Outcome {
    let record = created(&a, record("blue", time::Duration::HOUR)).await?;
    b.delete(&record.id).await.map_err(|error| error.to_string())?;
    // An error is what is expected; what counts is what is there afterwards.
    let saved = a.save(&record).await;
    match loaded(&b, &record.id).await? {
        None => Ok(()),
        Some(_) => Err(format!("it is back after `save`, which answered {saved:?}")),
    }
}

async fn a_record_ends_at_its_time<S: SessionStore>(store: Rc<impl AsyncFn() -> S>, time: Time<'_>) -> Outcome {
    let store = store().await;
    let record = created(&store, record("blue", SHORT)).await?;
    if loaded(&store, &record.id).await?.is_none() {
        return Err("it is gone before its time".to_owned());
    }
    time.pass(LONGER_THAN_SHORT).await;
    match loaded(&store, &record.id).await? {
        None => Ok(()),
        Some(_) => Err("it is there after its time".to_owned()),
    }
}
