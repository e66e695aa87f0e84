//! The frame of every page: header, message, footer.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use session_store::{Cart, CartSnapshot, Session};

use crate::shop::app::App;
use crate::shop::assets;
use crate::shop::catalogue::Category;
use crate::shop::ids;
use crate::shop::visitor::{self, Flash, User};

/// What the frame of a page shows.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) replica: String,
    pub(crate) pid: u32,
    pub(crate) user: Option<User>,
    pub(crate) flash: Option<Flash>,
    /// The visitor's cart, `None` while the store is out of reach: nobody knows then what is in it.
    pub(crate) cart: Option<CartSnapshot>,
    pub(crate) session: &'static str,
    /// The category that is looked at.
    pub(crate) category: Option<Category>,
    /// The words that are searched for.
    pub(crate) search: String,
}

impl Shell {
    /// Reads what the frame needs. An error of the store is part of the answer, not an error of the page.
    pub(crate) async fn read(app: &App, session: &Session, cart: &Cart) -> Self {
        let known = async {
            let user = visitor::user(session).await?;
            let flash = visitor::take_flash(session).await?;
            Ok::<_, tower_sessions::session::Error>((user, flash))
        };
        let (known, cart) = tokio::join!(known, cart.snapshot());
        let reachable = known.is_ok() && cart.is_ok();
        let (user, flash) = known.unwrap_or_default();
        let session = match (&user, session.id()) {
            _ if !reachable => "out of reach",
            (Some(_), _) => "signed in",
            (None, Some(_)) => "guest",
            (None, None) => "none yet",
        };
        Shell { user, flash, cart: cart.ok().filter(|_| reachable), session, ..Shell::bare(app) }
    }

    /// The frame when nothing can be said about the visitor.
    pub(crate) fn bare(app: &App) -> Self {
        Shell {
            replica: app.name.clone(),
            pid: app.pid,
            user: None,
            flash: None,
            cart: None,
            session: "out of reach",
            category: None,
            search: String::new(),
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.cart.is_none()
    }

    /// Whether there is certainly nothing in the cart.
    pub(crate) fn is_empty(&self) -> bool {
        self.cart.as_ref().is_some_and(|cart| cart.lines.is_empty())
    }

    /// What the badge at the cart shows.
    pub(crate) fn badge(&self) -> String {
        self.cart.as_ref().map_or_else(|| "–".to_owned(), |cart| count(cart).to_string())
    }

    /// The badge for those who hear the page.
    pub(crate) fn badge_label(&self) -> String {
        match self.cart.as_ref().map(count) {
            None => "Cart, out of reach for a moment".to_owned(),
            Some(1) => "Cart, 1 item".to_owned(),
            Some(count) => format!("Cart, {count} items"),
        }
    }

    pub(crate) fn revision(&self) -> String {
        self.cart.as_ref().map_or_else(|| "–".to_owned(), |cart| cart.revision.to_string())
    }

    pub(crate) fn categories(&self) -> [Category; 6] {
        Category::ALL
    }

    pub(crate) fn is_category(&self, category: &Category) -> bool {
        self.category == Some(*category)
    }

    /// A token for one form. Each form has its own: two forms of one page are two intentions.
    pub(crate) fn token(&self) -> String {
        ids::random_id()
    }

    /// The address of a static file.
    pub(crate) fn asset(&self, name: &str) -> String {
        assets::url(name)
    }
}

fn count(cart: &CartSnapshot) -> u64 {
    cart.lines.iter().map(|line| u64::from(line.quantity)).sum()
}

impl FromRequestParts<App> for Shell {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let session = Session::from_request_parts(parts, app).await;
        let cart = Cart::from_request_parts(parts, app).await;
        Ok(match (session, cart) {
            (Ok(session), Ok(cart)) => Shell::read(app, &session, &cart).await,
            // Only a route outside the session layer comes here.
            _ => Shell::bare(app),
        })
    }
}
