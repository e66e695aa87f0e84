//! The session's cookie: found in a request, and written into an answer.

use std::borrow::Cow;

use cookie::{Cookie, SameSite};
use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, COOKIE, Entry, SET_COOKIE, VARY},
};
use time::Duration;
use tower_sessions::session::Id;

use crate::{
    cookie_keys::{Found, Protection},
    expiry::ExpiryPolicy,
    seen::Seen,
};

const PRIVATE: HeaderValue = HeaderValue::from_static("private");
const COOKIE_VARIES: HeaderValue = HeaderValue::from_static("Cookie");

/// The attributes of the cookie.
#[derive(Debug, Clone)]
pub(crate) struct CookieSettings {
    pub(crate) name: Cow<'static, str>,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) same_site: SameSite,
    pub(crate) path: Cow<'static, str>,
    pub(crate) domain: Option<Cow<'static, str>>,
    pub(crate) protection: Protection,
}

impl Default for CookieSettings {
    fn default() -> Self {
        // The name says nothing of the software: see OWASP's Session Management Cheat Sheet.
        Self {
            name: "id".into(),
            secure: true,
            http_only: true,
            same_site: SameSite::Lax,
            path: "/".into(),
            domain: None,
            protection: Protection::None,
        }
    }
}

impl CookieSettings {
    /// The name in the header: with `__Host-` when the attributes allow it, so that no other host of the domain and no
    /// insecure page can plant one.
    pub(crate) fn full_name(&self) -> String {
        let host_only = self.secure && self.path == "/" && self.domain.is_none();
        if host_only && !self.name.starts_with("__") { format!("__Host-{}", self.name) } else { self.name.to_string() }
    }

    /// The name of the cookie beside it.
    pub(crate) fn seen_name(&self) -> String {
        self.full_name() + "-seen"
    }

    /// The header for a session that the store keeps for so many ms: `Max-Age` is in step.
    pub(crate) fn set(&self, full_name: &str, id: &Id, policy: ExpiryPolicy, kept_ms: i64) -> HeaderValue {
        self.kept(self.cookie(full_name, self.protection.write(full_name, id)), policy, kept_ms)
    }

    /// What the client has seen of that session, kept as long.
    pub(crate) fn set_seen(&self, seen_name: &str, seen: Seen, policy: ExpiryPolicy, kept_ms: i64) -> HeaderValue {
        self.kept(self.cookie(seen_name, seen.to_value()), policy, kept_ms)
    }

    fn kept(&self, mut cookie: Cookie<'_>, policy: ExpiryPolicy, kept_ms: i64) -> HeaderValue {
        match policy {
            ExpiryPolicy::Idle(_) | ExpiryPolicy::At(_) => {
                cookie.set_max_age(Duration::milliseconds(kept_ms.max(0)));
            }
            ExpiryPolicy::Browser(_) => {}
        }
        header_value(&cookie)
    }

    pub(crate) fn remove(&self, full_name: &str) -> HeaderValue {
        let mut cookie = self.cookie(full_name, String::new());
        cookie.make_removal();
        header_value(&cookie)
    }

    fn cookie<'a>(&'a self, full_name: &'a str, value: String) -> Cookie<'a> {
        let mut cookie = Cookie::build((full_name, value))
            .http_only(self.http_only)
            .same_site(self.same_site)
            .secure(self.secure)
            .path(&*self.path);
        if let Some(domain) = &self.domain {
            cookie = cookie.domain(&**domain);
        }
        cookie.build()
    }
}

/// What the client sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// What is no id counts as none.
    pub(crate) id: Option<Found>,
    pub(crate) seen: Option<Seen>,
}

/// Finds both cookies in one pass: each request pays for it. A client may send several of a name; the first one that can be read counts.
pub(crate) fn find(headers: &HeaderMap, full_name: &str, protection: &Protection, seen_name: &str) -> Sent {
    let mut sent = Sent::default();
    for pair in pairs(headers) {
        if sent.id.is_none()
            && let Some(value) = value_of(full_name, pair)
        {
            sent.id = protection.read(full_name, value);
        } else if sent.seen.is_none()
            && let Some(value) = value_of(seen_name, pair)
        {
            sent.seen = std::str::from_utf8(value).ok().and_then(Seen::parse);
        }
    }
    sent
}

/// The id in a cookie of this name, as other software wrote it.
pub(crate) fn find_plain(headers: &HeaderMap, name: &str) -> Option<Found> {
    pairs(headers).filter_map(|pair| value_of(name, pair)).find_map(|value| Protection::None.read(name, value))
}

/// Each is a name and a value. As `Cookie::split_parse` does, which makes a cookie of each pair: that was a third of what an untouched
/// session costs, and to look at characters instead of bytes another twentieth.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(COOKIE).iter().flat_map(|header| split(header.as_bytes()))
}

/// The value, if this is the name, which has neither `=` nor white space around it: most pairs differ in the first characters, and need not
/// be taken apart.
fn value_of<'a>(name: &str, pair: &'a [u8]) -> Option<&'a [u8]> {
    let behind = pair.trim_ascii_start().strip_prefix(name.as_bytes())?;
    Some(behind.trim_ascii_start().strip_prefix(b"=")?.trim_ascii())
}

fn split(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(header);
    std::iter::from_fn(move || {
        let all = rest?;
        let end = memchr::memchr(b';', all);
        rest = end.map(|end| &all[end + 1..]);
        Some(&all[..end.unwrap_or(all.len())])
    })
}

/// Adds the cookie. A cache that stores the answer must not hand the cookie to somebody else.
pub(crate) fn attach(headers: &mut HeaderMap, cookie: HeaderValue) {
    headers.append(SET_COOKIE, cookie);
    // Beside what the application says, unless that is strict enough already.
    if !has_directive(headers, &["private", "no-store", "no-cache"]) {
        headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache=\"set-cookie\""));
    }
}

/// The answer depends on whose session it is: no shared cache may give it to somebody else, unless the application allows it.
pub(crate) fn vary(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(PRIVATE);
    let is_cookie = |name: &str| name.trim() == "*" || name.trim().eq_ignore_ascii_case("cookie");
    match headers.entry(VARY) {
        Entry::Vacant(vary) => {
            vary.insert(COOKIE_VARIES);
        }
        Entry::Occupied(mut vary) => {
            let mut values = vary.iter().filter_map(|value| value.to_str().ok());
            if !values.any(|value| value.split(',').any(is_cookie)) {
                vary.append(COOKIE_VARIES);
            }
        }
    }
}

fn has_directive(headers: &HeaderMap, names: &[&str]) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.any(|directive| names.iter().any(|name| directive.eq_ignore_ascii_case(name)))
}

fn header_value(cookie: &Cookie<'_>) -> HeaderValue {
    // The layer has checked the attributes; what it cannot check is written without being sent further.
    HeaderValue::from_str(&cookie.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::{HeaderMap, HeaderValue, header::COOKIE};
    use tower_sessions::session::Id;

    use super::{Cookie, CookieSettings, find, find_plain, pairs, value_of};
    use crate::{cookie_keys::Protection, expiry::ExpiryPolicy, seen::Seen};

    #[test]
    fn the_default_cookie_is_bound_to_its_host() {
        let settings = CookieSettings::default();
        let name = settings.full_name();
        let header = settings.set(&name, &Id(7), ExpiryPolicy::Idle(1_800_000), 1_800_000);
        let header = header.to_str().unwrap();
        assert!(header.starts_with("__Host-id="), "{header}");
        for attribute in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/", "Max-Age=1800"] {
            assert!(header.contains(attribute), "{attribute} in {header}");
        }
        assert!(!header.contains("Domain"));
    }

    #[test]
    fn the_prefix_is_left_out_where_it_would_be_refused() {
        let insecure = CookieSettings { secure: false, ..CookieSettings::default() };
        assert_eq!(insecure.full_name(), "id");
        let shared = CookieSettings { domain: Some("example.com".into()), ..CookieSettings::default() };
        assert_eq!(shared.full_name(), "id");
    }

    #[test]
    fn garbage_is_no_id() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; id=not-an-id; b=2".parse().unwrap());
        let id = |headers: &HeaderMap, name| find(headers, name, &Protection::None, "seen").id.map(|found| found.id);
        assert_eq!(id(&headers, "id"), None);
        headers.append(COOKIE, format!("id={}", Id(7)).parse().unwrap());
        assert_eq!(id(&headers, "id"), Some(Id(7)));
        assert_eq!(id(&headers, "__Host-id"), None);
    }

    #[test]
    fn the_first_of_each_name_that_can_be_read_counts() {
        let mut headers = HeaderMap::new();
        let text = format!("seen=x; seen=7.1; id=x; seen=8.1; id={}; id={}", Id(7), Id(8));
        headers.append(COOKIE, text.parse().unwrap());
        // What others put into theirs is not looked at.
        headers.append(COOKIE, HeaderValue::from_bytes("their=\u{e9}; id=\u{e9}".as_bytes()).unwrap());
        let sent = find(&headers, "id", &Protection::None, "seen");
        assert_eq!(sent.id.map(|found| found.id), Some(Id(7)));
        assert_eq!(sent.seen, Seen::parse("7.1"));
        assert_eq!(find_plain(&headers, "id").map(|found| found.id), Some(Id(7)));
        assert_eq!(find_plain(&headers, "seen"), None);
    }

    #[test]
    fn cookies_are_taken_apart_as_the_library_does() {
        let texts = [
            "id=1",
            " id = 1 ;id=2;; id=",
            "id",
            "=1",
            "a=id=1; id=b=c",
            "id=\"q\"",
            "i d=1; id id=2; id\t=\t3; id= =4",
            "xid=1; idx=2; Id=3",
            "",
            ";",
            "id=a%20b; id =c,d",
        ];
        for text in texts {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, text.parse().unwrap());
            let theirs: Vec<_> =
                Cookie::split_parse(text).filter_map(Result::ok).filter(|cookie| cookie.name() == "id").collect();
            let theirs: Vec<_> = theirs.iter().map(Cookie::value).collect();
            let ours = pairs(&headers).filter_map(|pair| value_of("id", pair)).map(|value| std::str::from_utf8(value).unwrap());
            assert_eq!(ours.collect::<Vec<_>>(), theirs, "{text:?}");
        }
    }
}
