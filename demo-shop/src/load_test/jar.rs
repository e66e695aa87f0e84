//! A shopper's cookies, and whether the shop replaced the session among them.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::Cookie;

/// The cookies of one shopper: one shop, one path, so names and values are all there is to know.
#[derive(Debug, Default)]
pub(crate) struct Jar(BTreeMap<String, String>);

impl Jar {
    /// The `Cookie` header, `None` when there are no cookies.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| HeaderValue::from_str(&pairs.join("; ")).ok()).flatten()
    }

    /// Takes the cookies of an answer. Returns the names of those that were replaced or taken away: a shopper who does
    /// not log in keeps one session, so there must be none.
    pub(crate) fn take(&mut self, headers: &HeaderMap) -> Vec<String> {
        let mut replaced = Vec::new();
        for cookie in headers.get_all(header::SET_COOKIE) {
            let Some(cookie) = cookie.to_str().ok().and_then(|text| Cookie::parse(text).ok()) else {
                continue;
            };
            let is_removal = cookie.value().is_empty() || cookie.max_age().is_some_and(|age| !age.is_positive());
            let before = if is_removal {
                self.0.remove(cookie.name())
            } else {
                self.0.insert(cookie.name().to_owned(), cookie.value().to_owned())
            };
            if before.is_some_and(|before| is_removal || before != cookie.value()) {
                replaced.push(cookie.name().to_owned());
            }
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, header};

    use crate::load_test::jar::Jar;

    fn answer(cookie: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::SET_COOKIE, cookie.parse().expect("a header value of the test"))])
    }

    #[test]
    fn a_replaced_session_is_noticed_and_a_renewed_one_is_not() {
        let mut jar = Jar::default();
        assert!(jar.header().is_none());
        assert!(jar.take(&answer("sid=one; HttpOnly; Path=/; Max-Age=60")).is_empty());
        assert_eq!(jar.header().expect("a cookie"), "sid=one");
        assert!(jar.take(&answer("sid=one; Max-Age=90")).is_empty());
        assert_eq!(jar.take(&answer("sid=two")), ["sid"]);
        assert_eq!(jar.take(&answer("sid=; Max-Age=0")), ["sid"]);
        assert!(jar.header().is_none());
    }
}
