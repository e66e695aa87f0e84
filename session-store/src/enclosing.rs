//! The layers that a request has passed before it comes to one: a cookie is one session, whatever layers of other names are in between.

use std::sync::Arc;

use http::Extensions;
use tower_sessions::Session;

use crate::{Cart, unit_of_work::UnitOfWork};

/// What a layer has given a request.
#[derive(Clone)]
struct Handles {
    session: Session,
    cart: Cart,
    #[cfg(feature = "tower-sessions-014")]
    beside: Option<tower_sessions_core_014::Session>,
}

/// What each layer has given so far; only requests that come to layers of several names have it. No longer than there are such layers.
#[derive(Clone, Default)]
struct Passed(Vec<Handles>);

/// The unit of the layer outside that has this cookie, whose handles the request has from now on.
pub(crate) fn of_name(extensions: &mut Extensions, cookie_name: &str) -> Option<Arc<UnitOfWork>> {
    let cart = extensions.get::<Cart>()?;
    if cart.unit.settings.cookie_name == cookie_name {
        return Some(Arc::clone(&cart.unit));
    }
    let next = Arc::clone(&cart.unit);
    let mut passed = extensions.remove::<Passed>().unwrap_or_default();
    if !passed.0.iter().any(|handles| Arc::ptr_eq(&handles.cart.unit, &next)) {
        passed.0.extend(Handles::of(next, extensions));
    }
    let found = passed.0.iter().find(|handles| handles.cart.unit.settings.cookie_name == cookie_name).cloned();
    extensions.insert(passed);
    found.map(|handles| handles.give(extensions))
}

impl Handles {
    /// `None`: its request is over.
    fn of(unit: Arc<UnitOfWork>, extensions: &Extensions) -> Option<Self> {
        #[cfg(not(feature = "tower-sessions-014"))]
        let _ = extensions;
        Some(Self {
            // Not that of the request, which layers of other software may have replaced.
            session: unit.attached()?,
            #[cfg(feature = "tower-sessions-014")]
            beside: extensions.get().filter(|_| unit.settings.gives_014).cloned(),
            cart: Cart::new(unit),
        })
    }

    fn give(self, extensions: &mut Extensions) -> Arc<UnitOfWork> {
        let unit = Arc::clone(&self.cart.unit);
        extensions.insert(self.session);
        extensions.insert(self.cart);
        #[cfg(feature = "tower-sessions-014")]
        if let Some(beside) = self.beside {
            extensions.insert(beside);
        }
        unit
    }
}
