//! Pages for people: plain forms, POST-redirect-GET.

pub(crate) mod account;
pub(crate) mod cart;
pub(crate) mod checkout;
pub(crate) mod devices;
mod form;
pub(crate) mod home;
pub(crate) mod orders;
pub(crate) mod pictures;
pub(crate) mod product;
