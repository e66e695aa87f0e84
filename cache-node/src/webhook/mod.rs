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
#[cfg_attr(not(all(feature = "metrics", feature = "webhooks")), allow(dead_code, reason = "nobody counts, or nobody reads it"))]
mod tally;
#[cfg(feature = "webhooks")]
mod target;

#[cfg(feature = "webhooks")]
pub(crate) use deliveries::{WebhookSettings, Webhooks};
#[cfg(feature = "webhooks")]
pub(crate) use limits::TARGETS_MAX;
#[cfg(feature = "webhooks")]
pub(crate) use secret::SecretFile;
pub(crate) use tally::Tallies;
#[cfg(feature = "metrics")]
pub(crate) use tally::TargetCounts;
#[cfg(feature = "webhooks")]
pub(crate) use target::Target;
