//! Events told to others by HTTP: one signed POST each, as Standard Webhooks (standardwebhooks.com) has them, tried again until it is taken.

#[cfg(feature = "webhooks")]
mod deliveries;
#[cfg(feature = "webhooks")]
mod delivery;
#[cfg(feature = "webhooks")]
mod limits;
#[cfg(feature = "webhooks")]
mod post;
#[cfg(feature = "webhooks")]
mod secret;
mod tally;
#[cfg(feature = "webhooks")]
mod target;

#[cfg(feature = "webhooks")]
pub(crate) use deliveries::{WebhookSettings, Webhooks};
#[cfg(feature = "webhooks")]
pub(crate) use limits::TARGETS_MAX;
#[cfg(feature = "webhooks")]
pub(crate) use secret::Secrets;
pub(crate) use tally::{Tallies, TargetCounts};
#[cfg(feature = "webhooks")]
pub(crate) use target::Target;
