//! What forms have in common.

use axum::extract::Form;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::Redirect;
use session_store::Session;

use crate::shop::failure::Failure;
use crate::shop::uncommitted::{Instead, Uncommitted};
use crate::shop::visitor::{self, FlashKind};

/// A path of this shop that is longer comes from nobody who means well.
const NEXT_LENGTH_MAX: usize = 200;

/// The fields of a form, or a page that says what is wrong with it.
pub(super) fn fields<T>(form: Result<Form<T>, FormRejection>) -> Result<T, Failure> {
    match form {
        Ok(Form(fields)) => Ok(fields),
        Err(rejection) => Err(Failure::Refused {
            status: rejection.status(),
            message: if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                "That is more text than this form takes.".to_owned()
            } else {
                "The form arrived incomplete. Please go back and send it again.".to_owned()
            },
        }),
    }
}

/// The answer to a form whose work is done: the next page says so. Should the session not be told any more, only these words are lost.
pub(super) async fn done(session: &Session, uncommitted: &Uncommitted, message: impl Into<String>, to: &str) -> Redirect {
    uncommitted.answer(Instead::Redirect(to.to_owned()));
    visitor::leave_flash(session, FlashKind::Done, message).await;
    Redirect::to(to)
}

/// Where to go after a form: a path of this shop and nothing else, so that nobody is sent to another site.
pub(super) fn next_or<'a>(next: &'a str, otherwise: &'a str) -> &'a str {
    let mut bytes = next.bytes();
    let is_local = bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && next.len() <= NEXT_LENGTH_MAX
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_local { next } else { otherwise }
}

#[cfg(test)]
mod tests {
    use super::next_or;

    #[test]
    fn only_paths_of_this_shop_are_followed() {
        assert_eq!(next_or("/?category=paper", "/cart"), "/?category=paper");
        for elsewhere in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "",
            "/a\r\nSet-Cookie: x",
            "/\t/evil.example",
            "/\n/evil.example",
            "/ü",
        ] {
            assert_eq!(next_or(elsewhere, "/cart"), "/cart", "{elsewhere:?}");
        }
    }
}
