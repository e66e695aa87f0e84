//! Guides for those who run an application on this library.

#[doc = include_str!("guides/store_is_down.md")]
pub mod store_is_down {}

#[doc = include_str!("guides/behind_a_load_balancer.md")]
pub mod behind_a_load_balancer {}

#[doc = include_str!("guides/calls_in_one_request.md")]
pub mod calls_in_one_request {}

#[doc = include_str!("guides/secrets.md")]
pub mod secrets {}
