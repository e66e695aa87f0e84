//! A visitor: HTTP requests with a cookie jar of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use cookie::Cookie;
use http::header::{CONTENT_TYPE, COOKIE, HeaderName, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A request that takes longer has an unknown outcome.
const DEADLINE: Duration = Duration::from_secs(10);
/// Redirects followed in a row before the server is taken to send the visitor in circles.
const REDIRECTS_MAX: usize = 5;

/// One visitor of the shop. A clone shares the jar: it is another tab of the same browser.
#[derive(Debug, Clone)]
pub struct Visitor {
    client: Client<HttpConnector, Full<Bytes>>,
    jar: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Visitor {
    /// A visitor without cookies.
    pub fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), jar: Arc::default() }
    }

    /// Another browser with a copy of this one's cookies as they are now.
    pub fn fork(&self) -> Self {
        Self { client: self.client.clone(), jar: Arc::new(Mutex::new(self.cookies())) }
    }

    /// The cookies as they are now.
    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.jar.lock().expect("no holder of the jar panics").clone()
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Visitor::send`].
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// `GET`, and whatever it redirects to.
    ///
    /// # Errors
    /// As [`Visitor::send`], and when the redirects do not end.
    pub async fn page(&self, url: &str) -> anyhow::Result<Answer> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let answer = self.get(&url).await?;
            let Some(next) = answer.redirect(&url)? else {
                return Ok(answer);
            };
            url = next;
        }
        bail!("more than {REDIRECTS_MAX} redirects, the last to {url}")
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`Visitor::send`].
    pub async fn delete(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, url, &[], Bytes::new()).await
    }

    /// `POST` or `PUT` of JSON.
    ///
    /// # Errors
    /// As [`Visitor::send`].
    pub async fn json(&self, method: Method, url: &str, headers: &[(&str, &str)], body: &Value) -> anyhow::Result<Answer> {
        let mut all = vec![(CONTENT_TYPE.as_str(), "application/json")];
        all.extend_from_slice(headers);
        self.send(method, url, &all, Bytes::from(body.to_string())).await
    }

    /// `POST` of a form; a redirect is not followed.
    ///
    /// # Errors
    /// As [`Visitor::send`].
    pub async fn form(&self, url: &str, fields: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value))).collect();
        let headers = [(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")];
        self.send(Method::POST, url, &headers, Bytes::from(body.join("&"))).await
    }

    /// Any request. Sends the jar's cookies and keeps what the answer sets; never retries.
    ///
    /// # Errors
    /// When there is no whole answer within the deadline of ten seconds: the request's effect is unknown then.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> anyhow::Result<Answer> {
        let what = format!("{method} {url}");
        let mut request = Request::builder().method(method).uri(url.parse::<Uri>()?);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let cookies: Vec<String> = self.cookies().iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let (parts, body) = self.client.request(request).await?.into_parts();
            anyhow::Ok((parts, body.collect().await?.to_bytes()))
        };
        let (parts, body) = tokio::time::timeout(DEADLINE, exchange)
            .await
            .with_context(|| format!("{what}: no answer in {DEADLINE:?}"))?
            .with_context(|| what.clone())?;
        self.keep_cookies(&parts.headers)?;
        Ok(Answer { what, status: parts.status, headers: parts.headers, body })
    }

    /// Adds to the cart; an error also when the shop refuses.
    ///
    /// # Errors
    /// As [`Visitor::send`], and when the answer is no success.
    pub async fn add(&self, shop: &str, sku: &str, quantity: u32) -> anyhow::Result<Answer> {
        let body = serde_json::json!({ "sku": sku, "quantity": quantity });
        let url = format!("{shop}/api/cart/lines");
        self.json(Method::POST, &url, &[], &body).await?.success()
    }

    /// Adds to the cart, once for each `key` however often it is sent.
    ///
    /// # Errors
    /// As [`Visitor::send`], and when the answer is no success.
    pub async fn add_once(&self, shop: &str, sku: &str, quantity: u32, key: &str) -> anyhow::Result<Answer> {
        let body = serde_json::json!({ "sku": sku, "quantity": quantity });
        let url = format!("{shop}/api/cart/lines");
        let headers = [("idempotency-key", key)];
        self.json(Method::POST, &url, &headers, &body).await?.success()
    }

    /// The cart as the shop tells it.
    ///
    /// # Errors
    /// As [`Visitor::send`], and when the answer is no cart.
    pub async fn cart(&self, shop: &str) -> anyhow::Result<Cart> {
        let answer = self.get(&format!("{shop}/api/cart")).await?.success()?;
        let json = answer.to_json()?;
        let cart = || {
            let lines = json["lines"].as_array()?.iter().map(|line| {
                let quantity = u32::try_from(line["quantity"].as_u64()?).ok()?;
                Some((line["sku"].as_str()?.to_owned(), quantity))
            });
            Some(Cart {
                revision: json["revision"].as_u64()?,
                lines: lines.collect::<Option<_>>()?,
                served_by: json["served_by"].as_str()?.to_owned(),
            })
        };
        cart().with_context(|| format!("{}: not a cart: {json}", answer.what))
    }

    fn keep_cookies(&self, headers: &HeaderMap) -> anyhow::Result<()> {
        let mut jar = self.jar.lock().expect("no holder of the jar panics");
        for header in headers.get_all(SET_COOKIE) {
            let cookie = Cookie::parse(header.to_str()?).with_context(|| format!("not a cookie: {header:?}"))?;
            let removed = cookie.max_age().is_some_and(|age| age.whole_seconds() <= 0) || cookie.value().is_empty();
            if removed {
                jar.remove(cookie.name());
            } else {
                jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
        Ok(())
    }
}

impl Default for Visitor {
    fn default() -> Self {
        Self::new()
    }
}

/// What `GET /api/cart` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    /// Counts the changes of this cart; never goes back.
    pub revision: u64,
    /// Quantity by SKU.
    pub lines: BTreeMap<String, u32>,
    /// The name of the replica that answered.
    pub served_by: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    what: String,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The answer itself when it is a success or a redirect, as a form's answer is.
    ///
    /// # Errors
    /// With any other status; the error carries the body.
    pub fn success(self) -> anyhow::Result<Self> {
        if self.status.is_success() || self.status.is_redirection() {
            return Ok(self);
        }
        bail!("{}: {}: {}", self.what, self.status, self.text())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn to_json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: not JSON: {}", self.what, self.text()))
    }

    /// A header; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The replica that answered.
    pub fn served_by(&self) -> &str {
        self.header("x-served-by")
    }

    /// Where a redirect leads, seen from `url`.
    ///
    /// # Errors
    /// When a redirect has no usable location.
    pub fn redirect(&self, url: &str) -> anyhow::Result<Option<String>> {
        if !self.status.is_redirection() || self.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let location = self.header(HeaderName::as_str(&LOCATION));
        if location.starts_with('/') {
            let uri: Uri = url.parse()?;
            let authority = uri.authority().context("the URL has no authority")?;
            return Ok(Some(format!("http://{authority}{location}")));
        }
        if location.starts_with("http://") {
            return Ok(Some(location.to_owned()));
        }
        bail!("{}: a redirect to {location:?}", self.what)
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
