//! Where an account is signed in, and signing out there.

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use session_store::{Session, SessionHandle, StoreError, UserSession};
use time::OffsetDateTime;

use crate::shop::app::App;
use crate::shop::failure::Failure;
use crate::shop::pages::form;
use crate::shop::uncommitted::Uncommitted;
use crate::shop::visitor::{self, User};

/// One place where the account is signed in.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) handle: SessionHandle,
    pub(crate) name: String,
    pub(crate) network: Option<String>,
    /// Unix milliseconds.
    pub(crate) signed_in_at: i64,
    pub(crate) last_seen: String,
    /// The one that asks.
    pub(crate) is_here: bool,
}

/// The devices of this user, the one that asks before the others.
pub(crate) async fn of_user(app: &App, session: &Session, user: &User) -> Result<Vec<Device>, Failure> {
    let sessions = app.store.sessions_of(&user.id);
    let here = sessions.handle_of(session);
    let listed = sessions.list().await.map_err(|error| out_of_reach(&error))?;
    let now = OffsetDateTime::now_utc();
    let mut devices: Vec<Device> = listed.into_iter().map(|session| Device::of(session, here.as_ref(), now)).collect();
    devices.sort_by_key(|device| !device.is_here);
    Ok(devices)
}

impl Device {
    fn of(session: UserSession, here: Option<&SessionHandle>, now: OffsetDateTime) -> Self {
        let is_here = Some(&session.handle) == here;
        let name = match &*session.device {
            "unknown" => "An unknown device".to_owned(),
            _ => session.device,
        };
        Self {
            is_here,
            name,
            network: session.network,
            signed_in_at: i64::try_from(session.logged_in_at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
            last_seen: ago(now - session.last_seen_at),
            handle: session.handle,
        }
    }
}

/// The store knows it to within an hour, so that minutes would promise too much.
fn ago(passed: time::Duration) -> String {
    match passed.whole_hours() {
        ..2 => "within the last two hours".to_owned(),
        hours @ 2..48 => format!("{hours} hours ago"),
        hours => format!("{} days ago", hours / 24),
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct LogOutForm {
    device: String,
}

/// `POST /account/devices/log-out`
pub(crate) async fn log_out(
    State(app): State<App>,
    session: Session,
    Extension(uncommitted): Extension<Uncommitted>,
    sent: Result<Form<LogOutForm>, FormRejection>,
) -> Result<Response, Failure> {
    let LogOutForm { device } = form::fields(sent)?;
    let Some(user) = visitor::user(&session).await? else {
        return Ok(Redirect::to("/login?next=/account").into_response());
    };
    let sessions = app.store.sessions_of(&user.id);
    // What cannot be a handle names no device either.
    let handle: Option<SessionHandle> = device.parse().ok();
    if handle.is_some() && handle == sessions.handle_of(&session) {
        session.flush().await?;
        return Ok(Redirect::to("/").into_response());
    }
    let ended = match &handle {
        Some(handle) => sessions.end(handle).await.map_err(|error| out_of_reach(&error))?,
        None => false,
    };
    let message = if ended { "That device is logged out." } else { "That device was not logged in any more." };
    Ok(form::done(&session, &uncommitted, message, "/account").await.into_response())
}

/// `POST /account/devices/log-out-others`
pub(crate) async fn log_out_others(
    State(app): State<App>,
    session: Session,
    Extension(uncommitted): Extension<Uncommitted>,
) -> Result<Response, Failure> {
    let Some(user) = visitor::user(&session).await? else {
        return Ok(Redirect::to("/login?next=/account").into_response());
    };
    let ended = app.store.sessions_of(&user.id).end_all_but(&session).await.map_err(|error| out_of_reach(&error))?;
    let message = match ended {
        0 => "You were logged in nowhere else.".to_owned(),
        1 => "One other device is logged out.".to_owned(),
        ended => format!("{ended} other devices are logged out."),
    };
    Ok(form::done(&session, &uncommitted, message, "/account").await.into_response())
}

fn out_of_reach(error: &StoreError) -> Failure {
    tracing::debug!(%error, "the sessions of a user are out of reach");
    Failure::Busy(
        "The place where we keep sessions does not answer right now, so we cannot say where you are logged in. Please try \
         again in a moment."
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::ago;

    #[test]
    fn times_promise_no_more_than_is_known() {
        for (passed, words) in [
            (Duration::seconds(-3), "within the last two hours"),
            (Duration::minutes(119), "within the last two hours"),
            (Duration::hours(2), "2 hours ago"),
            (Duration::hours(47), "47 hours ago"),
            (Duration::days(2), "2 days ago"),
        ] {
            assert_eq!(ago(passed), words);
        }
    }
}
