//! What is asked of a layer.

use std::{sync::Arc, time::Duration};

use futures_util::future::{LocalBoxFuture, join};
use tokio::sync::{Barrier, Notify};
use tower_sessions::{Expiry, Session, session::Id};

use super::{
    Conformance,
    subject::{Answer, Cookies, Replica, SetCookie, failure, get},
    time::Time,
};

/// What is long in a check that is not about time.
const LONG: Expiry = Expiry::OnInactivity(time::Duration::hours(1));
/// The idle timeout of the checks that are: by far longer than a busy machine takes for a request.
const IDLE: Expiry = Expiry::OnInactivity(time::Duration::seconds(6));
/// More than half of it, so that two of them are longer.
const A_WHILE: Duration = Duration::from_millis(3_500);
const LONGER_THAN_IDLE: Duration = Duration::from_millis(7_500);

type Outcome = Result<(), String>;

/// With two replicas.
type Check = fn(Replica, Replica) -> LocalBoxFuture<'static, Outcome>;

const CHECKS: [(&str, Check); 12] = [
    ("values_come_back", |a, b| Box::pin(values_come_back(a, b))),
    ("nothing_is_kept_for_nothing", |a, _| Box::pin(nothing_is_kept_for_nothing(a))),
    ("an_id_from_outside_is_not_adopted", |a, b| Box::pin(an_id_from_outside_is_not_adopted(a, b))),
    ("changes_at_the_same_time_are_kept", |a, b| Box::pin(changes_at_the_same_time_are_kept(a, b))),
    ("a_logout_is_final", |a, b| Box::pin(a_logout_is_final(a, b))),
    ("a_dead_session_gets_no_cookie", |a, b| Box::pin(a_dead_session_gets_no_cookie(a, b))),
    ("a_new_id_keeps_the_data", |a, b| Box::pin(a_new_id_keeps_the_data(a, b))),
    ("an_old_id_sees_nothing_new", |a, b| Box::pin(an_old_id_sees_nothing_new(a, b))),
    ("a_new_id_logs_nobody_out", |a, b| Box::pin(a_new_id_logs_nobody_out(a, b))),
    ("an_error_after_a_new_id_loses_nothing", |a, b| Box::pin(an_error_after_a_new_id_loses_nothing(a, b))),
    ("an_id_ends_with_its_session", |a, b| Box::pin(an_id_ends_with_its_session(a, b))),
    ("of_two_new_ids_one_lives", |a, b| Box::pin(of_two_new_ids_one_lives(a, b))),
];

pub(super) fn add_checks<'a>(suite: &mut Conformance<'a>, make: impl Fn(Expiry) -> LocalBoxFuture<'a, Replica> + Clone + 'a) {
    for (name, check) in CHECKS {
        let make = make.clone();
        suite.checks.push((name, Box::pin(async move { check(make(LONG).await, make(LONG).await).await })));
    }
    let mut timed = |name, check: fn(Replica, Time<'a>) -> LocalBoxFuture<'a, Outcome>| {
        let make = make.clone();
        suite.checks_of_time.push((name, Box::new(move |time| Box::pin(async move { check(make(IDLE).await, time).await }))));
    };
    timed("an_idle_session_ends", |replica, time| Box::pin(an_idle_session_ends(replica, time)));
    timed("reads_extend_the_idle_timeout", |replica, time| Box::pin(reads_extend_the_idle_timeout(replica, time)));
    timed("an_expiry_of_its_own_lasts", |replica, time| Box::pin(an_expiry_of_its_own_lasts(replica, time)));
}

fn same(what: &str, found: &str, expected: &str) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what} is `{found}`, not `{expected}`")) }
}

async fn values_come_back(a: Replica, b: Replica) -> Outcome {
    const VALUES: [&str; 5] = ["", "blue", "ünïcödé 🛒", "\"quoted\" \\ {braced}", "a\nb\0c"];
    let insert = |session: Session| async move {
        for value in VALUES {
            session.insert(value, value).await?;
        }
        Ok(String::new())
    };
    let cookie = a.visit(None, insert).await?.ok()?.given()?;
    for value in VALUES {
        same("a value", &b.read(&cookie, value).await?, value)?;
    }
    b.insert(Some(&cookie), "blue", "green").await?.ok()?;
    same("a changed value", &a.read(&cookie, "blue").await?, "green")?;
    let remove = |session: Session| async move { session.remove::<String>("blue").await.map(Option::unwrap_or_default) };
    same("what a removed value was", &b.visit(Some(&cookie), remove).await?.ok()?.text, "green")?;
    same("a removed value", &a.read(&cookie, "blue").await?, "-")
}

async fn nothing_is_kept_for_nothing(a: Replica) -> Outcome {
    let nothing = a.visit(None, |_| async { Ok(String::new()) }).await?.ok()?;
    let reading = a.visit(None, |session| async move { get(session, "color").await }).await?.ok()?;
    match (nothing.cookie, reading.cookie) {
        (SetCookie::No, SetCookie::No) => Ok(()),
        cookies => Err(format!("the cookies of a visitor for whom nothing is stored: {cookies:?}")),
    }
}

async fn an_id_from_outside_is_not_adopted(a: Replica, b: Replica) -> Outcome {
    let cookie = a.begin("color", "blue").await?;
    let chosen = cookie.with_id(Id::default());
    let given = b.insert(Some(&chosen), "color", "red").await?.ok()?.given()?;
    if given.has_id_of(&chosen) {
        return Err("the id was adopted".to_owned());
    }
    same("what is under the chosen id", &a.read(&chosen, "color").await?, "-")?;
    same("what is under the id that was given out", &a.read(&given, "color").await?, "red")
}

/// Both requests have read before either of them has changed anything.
async fn changes_at_the_same_time_are_kept(a: Replica, b: Replica) -> Outcome {
    let cookie = a.begin("color", "blue").await?;
    let both_have_read = Arc::new(Barrier::new(2));
    let change = |key: &'static str| {
        let both_have_read = Arc::clone(&both_have_read);
        move |session: Session| async move {
            get(session.clone(), "color").await?;
            both_have_read.wait().await;
            session.insert(key, key).await.map(|()| String::new())
        }
    };
    let (one, other) = join(a.visit(Some(&cookie), change("one")), b.visit(Some(&cookie), change("other"))).await;
    one?.ok()?;
    other?.ok()?;
    for key in ["one", "other"] {
        same("a change that was confirmed", &a.read(&cookie, key).await?, key)?;
    }
    Ok(())
}

/// A request that has read goes on when this has been done, and stores something then.
async fn slower_than<F: Future<Output = Result<(), String>>>(
    a: &Replica,
    cookie: &Cookies,
    meanwhile: F,
) -> Result<Answer, String> {
    let (has_read, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&has_read), Arc::clone(&goes_on));
    let slow = a.visit(Some(cookie), move |session| async move {
        get(session.clone(), "color").await?;
        tell.notify_one();
        wait.notified().await;
        session.insert("late", "late").await.map(|()| String::new())
    });
    let meanwhile = async {
        has_read.notified().await;
        let done = meanwhile.await;
        goes_on.notify_one();
        done
    };
    let (answer, done) = join(slow, meanwhile).await;
    done?;
    answer
}

async fn log_out(replica: &Replica, cookie: &Cookies) -> Outcome {
    replica.visit(Some(cookie), |session| async move { session.flush().await.map(|()| String::new()) }).await?.ok().map(drop)
}

async fn a_logout_is_final(a: Replica, b: Replica) -> Outcome {
    let cookie = a.begin("color", "blue").await?;
    slower_than(&a, &cookie, log_out(&b, &cookie)).await?;
    same("a value of a session that was ended", &b.read(&cookie, "color").await?, "-")?;
    same("what a slower request has stored", &b.read(&cookie, "late").await?, "-")
}

async fn a_dead_session_gets_no_cookie(a: Replica, b: Replica) -> Outcome {
    let cookie = a.begin("color", "blue").await?;
    match slower_than(&a, &cookie, log_out(&b, &cookie)).await?.cookie {
        SetCookie::To(given) if given.has_id_of(&cookie) => {
            Err("the id of a session that was ended is given out once more".to_owned())
        }
        _ => Ok(()),
    }
}

/// Gives the session a new id, and stores who logged in.
async fn log_in(replica: &Replica, cookie: &Cookies) -> Result<Cookies, String> {
    let log_in = |session: Session| async move {
        session.cycle_id().await?;
        session.insert("user", "7").await.map(|()| String::new())
    };
    replica.visit(Some(cookie), log_in).await?.ok()?.given()
}

async fn a_new_id_keeps_the_data(a: Replica, b: Replica) -> Outcome {
    let old = a.begin("color", "blue").await?;
    let new = log_in(&b, &old).await?;
    if new.has_id_of(&old) {
        return Err("the id stayed the same".to_owned());
    }
    same("a value from before", &a.read(&new, "color").await?, "blue")?;
    same("a value from then", &a.read(&new, "user").await?, "7")
}

async fn an_old_id_sees_nothing_new(a: Replica, b: Replica) -> Outcome {
    let old = a.begin("color", "blue").await?;
    let new = log_in(&b, &old).await?;
    same("what the old id shows of the login", &a.read(&old, "user").await?, "-")?;
    // Refused, or put into a session of its own.
    a.insert(Some(&old), "color", "red").await?;
    same("what the new id has", &b.read(&new, "color").await?, "blue")
}

async fn a_new_id_logs_nobody_out(a: Replica, b: Replica) -> Outcome {
    let old = a.begin("color", "blue").await?;
    log_in(&b, &old).await?;
    // As it is for a request that was sent before the login and arrives after it.
    let answer = a.visit(Some(&old), |session| async move { get(session, "color").await }).await?;
    match answer.cookie {
        SetCookie::Removed => Err("the answer removes the cookie that the login has set".to_owned()),
        _ => Ok(()),
    }
}

async fn an_error_after_a_new_id_loses_nothing(a: Replica, b: Replica) -> Outcome {
    let old = a.begin("color", "blue").await?;
    let fail = |session: Session| async move { session.cycle_id().await.map(|()| failure("on purpose".to_owned())) };
    let answer = a.visit_raw(Some(&old), fail).await?;
    let cookie = answer.given().unwrap_or(old);
    same("a value from before", &b.read(&cookie, "color").await?, "blue")
}

async fn an_id_ends_with_its_session(a: Replica, b: Replica) -> Outcome {
    let old = a.begin("color", "blue").await?;
    let begin_anew = |session: Session| async move {
        session.flush().await?;
        session.insert("user", "7").await.map(|()| String::new())
    };
    let new = a.visit(Some(&old), begin_anew).await?.ok()?.given();
    same("what the old id shows", &b.read(&old, "user").await?, "-")?;
    let new = new?;
    same("what the new id shows", &b.read(&new, "user").await?, "7")?;
    same("what the new id shows of the old session", &b.read(&new, "color").await?, "-")
}

async fn of_two_new_ids_one_lives(a: Replica, b: Replica) -> Outcome {
    let old = a.begin("color", "blue").await?;
    let both_have_read = Arc::new(Barrier::new(2));
    let log_in = |user: &'static str| {
        let both_have_read = Arc::clone(&both_have_read);
        move |session: Session| async move {
            get(session.clone(), "color").await?;
            both_have_read.wait().await;
            session.cycle_id().await?;
            session.insert("user", user).await.map(|()| String::new())
        }
    };
    let (one, other) = join(a.visit(Some(&old), log_in("7")), b.visit(Some(&old), log_in("8"))).await;
    let mut living = 0;
    for answer in [one?, other?] {
        if let Ok(cookie) = answer.given()
            && a.read(&cookie, "user").await? != "-"
        {
            living += 1;
        }
    }
    if living == 1 { Ok(()) } else { Err(format!("{living} sessions live")) }
}

async fn an_idle_session_ends(replica: Replica, time: Time<'_>) -> Outcome {
    let cookie = replica.begin("color", "blue").await?;
    same("a value before its time", &replica.read(&cookie, "color").await?, "blue")?;
    time.pass(LONGER_THAN_IDLE).await;
    same("a value after its time", &replica.read(&cookie, "color").await?, "-")
}

async fn reads_extend_the_idle_timeout(replica: Replica, time: Time<'_>) -> Outcome {
    let cookie = replica.begin("color", "blue").await?;
    for _ in 0..2 {
        time.pass(A_WHILE).await;
        same("a value that is read all the time", &replica.read(&cookie, "color").await?, "blue")?;
    }
    Ok(())
}

async fn an_expiry_of_its_own_lasts(replica: Replica, time: Time<'_>) -> Outcome {
    let remember = |session: Session| async move {
        session.set_expiry(Some(LONG));
        session.insert("color", "blue").await.map(|()| String::new())
    };
    let cookie = replica.visit(None, remember).await?.ok()?.given()?;
    // A later request knows nothing of it, and stores something.
    replica.insert(Some(&cookie), "size", "large").await?.ok()?;
    time.pass(LONGER_THAN_IDLE).await;
    same("a value of a session that was to be kept for an hour", &replica.read(&cookie, "color").await?, "blue")
}
