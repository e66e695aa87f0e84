//! Login with axum-login as it is published, over this layer: any replica knows who is logged in, and a user can log out everywhere.
//!
//!     cargo run -p session-store --example login
//!
//! An application switches on the feature `tower-sessions-014` for it. Then open the address that it prints, and log in as ada with the password "lovelace". Runs on a node of its own.
use std::{collections::HashMap, convert::Infallible, sync::Arc};

use argon2::{
    Argon2, PasswordHash, PasswordVerifier as _,
    password_hash::{PasswordHasher as _, SaltString},
};
use axum::{
    Extension, Form, Router,
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use axum_login::{AuthManager, AuthSession, AuthUser, AuthnBackend};
use cache_node::{Config, Node};
use http::StatusCode;
use serde::Deserialize;
use session_store::{CacheStore, Cart, Csrf, CsrfLayer, Flash, SessionLayer, Unavailable};
use tokio::net::TcpListener;

type Error = Box<dyn std::error::Error>;
type Auth = AuthSession<Users>;

const FORM: &str = r#"<form method="post" action="/login">CSRF<label>Name <input name="name" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label><button>Log in</button></form>"#;
const BUTTONS: &str = r#"<form method="post" action="/logout">CSRF<button>Log out</button></form>
<form method="post" action="/logout-everywhere">CSRF<button>Log out everywhere</button></form>"#;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let node = Node::spawn(Config::for_test()).await?;
    let app = replica(&format!("redis://{}", node.addr()), Users::new()?).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    println!("open it, and log in as ada with the password lovelace");
    Ok(axum::serve(listener, app).await?)
}

async fn replica(store: &str, users: Users) -> Result<Router, Error> {
    let store = CacheStore::connect(store).await?;
    // The session layer comes last, so that it is outside: axum-login finds the session that it has put into the request.
    Ok(Router::new()
        .route("/", get(page))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/logout-everywhere", post(log_out_everywhere))
        .layer(tower::layer::layer_fn(move |inner| AuthManager::new(inner, users.clone(), "user")))
        .layer(CsrfLayer::new())
        .layer(Extension(store.clone()))
        .layer(SessionLayer::new(store).with_tower_sessions_014().with_secure(false))) // no TLS on this machine
}

async fn page(auth: Auth, csrf: Csrf, flash: Flash) -> Result<Html<String>, Unavailable> {
    // The texts are our own, and the names too: there is nothing to escape.
    let messages: String = flash.take().await?.iter().map(|message| format!("<p>{}</p>", message.text)).collect();
    let rest = auth.user.map_or_else(|| FORM.to_owned(), |user| format!("<p>Hello, {}.</p>{BUTTONS}", user.name));
    Ok(Html(messages + &rest.replace("CSRF", &csrf.field().await?)))
}

async fn log_in(mut auth: Auth, cart: Cart, flash: Flash, Form(given): Form<Credentials>) -> Result<Redirect, Response> {
    let Some(user) = auth.authenticate(given).await.map_err(unavailable)? else {
        flash.error("Wrong name or password.").await.map_err(unavailable)?;
        return Ok(Redirect::to("/"));
    };
    // A new id, against session fixation.
    auth.login(&user).await.map_err(unavailable)?;
    // The session is in the user's list, and the cart is the user's.
    cart.log_in(&user.name).await.map_err(unavailable)?;
    Ok(Redirect::to("/"))
}

async fn log_out(mut auth: Auth) -> Result<Redirect, Response> {
    auth.logout().await.map_err(unavailable)?;
    Ok(Redirect::to("/"))
}

async fn log_out_everywhere(auth: Auth, Extension(store): Extension<CacheStore>) -> Result<Redirect, Response> {
    if let Some(user) = auth.user {
        store.sessions_of(&user.name).end_all().await.map_err(unavailable)?;
    }
    Ok(Redirect::to("/"))
}

fn unavailable(error: impl std::fmt::Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}

#[derive(Clone, Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

#[derive(Clone)]
struct User {
    name: String,
    password_hash: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl AuthUser for User {
    type Id = String;

    fn id(&self) -> String {
        self.name.clone()
    }

    /// Another password ends every login with the old one.
    fn session_auth_hash(&self) -> &[u8] {
        self.password_hash.as_bytes()
    }
}

/// The users' table. A real one is in a database, which all replicas ask.
#[derive(Debug, Clone)]
struct Users(Arc<HashMap<String, User>>);

impl Users {
    fn new() -> Result<Self, Error> {
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|error| error.to_string())?;
        let hash = Argon2::default().hash_password(b"lovelace", &salt).map_err(|error| error.to_string())?.to_string();
        let ada = User { name: "ada".to_owned(), password_hash: hash };
        Ok(Self(Arc::new(HashMap::from([(ada.name.clone(), ada)]))))
    }
}

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, given: Credentials) -> Result<Option<User>, Infallible> {
        let user = self.0.get(&given.name).cloned();
        // A hash takes tens of milliseconds: not on a thread that serves requests. A real application does the same work for a name
        // that it does not know, so that the time does not tell which names there are.
        let matches = tokio::task::spawn_blocking(move || {
            let user = user?;
            let hash = PasswordHash::new(&user.password_hash).ok()?;
            Argon2::default().verify_password(given.password.as_bytes(), &hash).is_ok().then_some(user.clone())
        });
        Ok(matches.await.unwrap_or_default())
    }

    async fn get_user(&self, name: &String) -> Result<Option<User>, Infallible> {
        Ok(self.0.get(name).cloned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use axum::body::Body;
    use http::{Request, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::{Config, Node, Router, StatusCode, Users, replica};

    async fn send(app: &Router, request: http::request::Builder, form: &str) -> (StatusCode, Option<String>, String) {
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from(form.to_owned()));
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        let (status, cookie) = (response.status(), response.headers().get(header::SET_COOKIE).cloned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let cookie = cookie.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
        (status, cookie, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The page, and the token in it.
    async fn page(app: &Router, cookie: &str) -> (Option<String>, String, String) {
        let (_, set, body) = send(app, Request::get("/").header(header::COOKIE, cookie), "").await;
        let token = body.split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        (set, body, format!("csrf_token={token}"))
    }

    #[tokio::test]
    async fn a_login_on_one_replica_counts_on_the_other() {
        let node = Node::spawn(Config::for_test()).await.unwrap();
        let (url, users) = (format!("redis://{}", node.addr()), Users::new().unwrap());
        let (a, b) = (replica(&url, users.clone()).await.unwrap(), replica(&url, users).await.unwrap());
        let (cookie, _, token) = page(&a, "").await;
        let before = cookie.unwrap();
        let post = |path: &str, cookie: &str| Request::post(path).header(header::COOKIE, cookie);
        let (status, _, _) = send(&a, post("/login", &before), "name=ada&password=lovelace").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        send(&a, post("/login", &before), &format!("name=ada&password=wrong&{token}")).await;
        let (_, body, token) = page(&b, &before).await;
        assert!(body.contains("Wrong name") && body.contains("Log in"), "{body}");
        let (status, cookie, _) = send(&a, post("/login", &before), &format!("name=ada&password=lovelace&{token}")).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let cookie = cookie.unwrap();
        assert_ne!(cookie, before);
        assert_eq!(send(&a, post("/logout", &cookie), &token).await.0, StatusCode::FORBIDDEN, "a token from before the login");
        let (_, body, token) = page(&b, &cookie).await;
        assert!(body.contains("Hello, ada"), "{body}");
        send(&b, post("/logout-everywhere", &cookie), &token).await;
        let (_, body, _) = page(&a, &cookie).await;
        assert!(body.contains("Log in"), "{body}");
    }
}
