//! When a session ends.
//!
//! One clock decides: the store's, by which it also expires keys. Scripts reckon with its `TIME`, and tell how long the
//! session is kept, which the cookie's `Max-Age` then follows. A replica whose clock is wrong ends no session and keeps none
//! longer, `Expiry::AtDateTime` in its past aside. A jump of the store's clock moves all ends by as much, as it does for every
//! key of it.

use time::{Duration, OffsetDateTime};
use tower_sessions::Expiry;

use crate::{
    StoreError,
    record::{number, unreadable},
};

/// How long the store keeps a session whose cookie ends with the browser, which never tells.
pub(crate) const BROWSER_SESSION_IDLE: Duration = Duration::days(14);
/// A touch is due when one part in this many of the idle timeout has passed: an idle session may end that much early.
pub(crate) const TOUCH_PARTS: i64 = 16;
/// Or when this has passed, so that "last seen" means something also where sessions are long.
pub(crate) const TOUCH_AT_LATEST_MS: i64 = 3_600_000;

/// Ten years, as `keep.lua` has it: larger ones overflow in some stores.
pub(crate) const TTL_MAX_MS: i64 = 315_360_000_000;

/// When a session ends, as it is kept in the session itself so that every replica applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpiryPolicy {
    /// After so many ms without a request.
    Idle(i64),
    /// At this time, in ms since 1970.
    At(i64),
    /// With the browser; in the store after so many idle ms.
    Browser(i64),
}

/// A letter, and the longest number of ms with its sign.
const ENCODED_BYTES_MAX: usize = 21;

/// A policy as it is stored. Each change of a session sends one: it is not worth an allocation.
pub(crate) struct Encoded {
    text: [u8; ENCODED_BYTES_MAX],
    length: usize,
}

impl Encoded {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl ExpiryPolicy {
    pub(crate) fn of(expiry: Option<Expiry>) -> Self {
        match expiry {
            Some(Expiry::OnInactivity(idle)) => Self::Idle(milliseconds(idle)),
            Some(Expiry::AtDateTime(at)) => Self::At(unix_ms(at)),
            Some(Expiry::OnSessionEnd) | None => Self::Browser(milliseconds(BROWSER_SESSION_IDLE)),
        }
    }

    pub(crate) fn expiry(self) -> Expiry {
        match self {
            Self::Idle(ms) => Expiry::OnInactivity(Duration::milliseconds(ms)),
            Self::At(ms) => Expiry::AtDateTime(from_unix_ms(ms)),
            Self::Browser(_) => Expiry::OnSessionEnd,
        }
    }

    /// Whether nothing is to be kept under this policy, by this process's clock. How long a session is kept is reckoned by
    /// the store's.
    pub(crate) fn has_passed(self) -> bool {
        match self {
            Self::Idle(ms) | Self::Browser(ms) => ms <= 0,
            Self::At(at) => at <= unix_ms(OffsetDateTime::now_utc()),
        }
    }

    /// How often the time of a session is extended that is used all the time; `None` for one that no use extends.
    pub(crate) fn touch_interval_ms(self) -> Option<i64> {
        self.idle_ms().map(|idle| (idle / TOUCH_PARTS).min(TOUCH_AT_LATEST_MS))
    }

    /// The idle timeout; `None` for a time that no use puts off.
    pub(crate) fn idle_ms(self) -> Option<i64> {
        match self {
            Self::Idle(ms) | Self::Browser(ms) => Some(ms),
            Self::At(_) => None,
        }
    }

    /// In how many ms a touch is due of a session that the store keeps for so many: 0 when it is due now. `None` for one that no use extends.
    pub(crate) fn touch_due_in_ms(self, remaining_ms: i64) -> Option<u64> {
        let due_from = self.idle_ms()?.saturating_sub(self.touch_interval_ms()?).saturating_sub(1);
        Some(u64::try_from(remaining_ms.saturating_sub(due_from)).unwrap_or(0))
    }

    /// Whether the cookie says when the session ends, and is given anew when that is extended.
    pub(crate) fn is_in_cookie(self) -> bool {
        !matches!(self, Self::Browser(_))
    }

    /// Whether a request should extend the time that the store still keeps the session.
    pub(crate) fn is_touch_due(self, remaining_ms: i64) -> bool {
        self.touch_due_in_ms(remaining_ms) == Some(0)
    }

    pub(crate) fn encode(self) -> Encoded {
        let (kind, ms) = match self {
            Self::Idle(ms) => (b'i', ms),
            Self::At(ms) => (b'a', ms),
            Self::Browser(ms) => (b's', ms),
        };
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(ms).as_bytes();
        let mut encoded = Encoded { text: [0; ENCODED_BYTES_MAX], length: 1 + digits.len() };
        encoded.text[0] = kind;
        encoded.text[1..encoded.length].copy_from_slice(digits);
        encoded
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, StoreError> {
        let (kind, ms) = value.split_first().ok_or_else(|| unreadable("the expiry policy is empty"))?;
        let ms = number(ms)?;
        match kind {
            b'i' => Ok(Self::Idle(ms)),
            b'a' => Ok(Self::At(ms)),
            b's' => Ok(Self::Browser(ms)),
            _ => Err(unreadable("the expiry policy is of an unknown kind")),
        }
    }
}

/// An expiry as a handle has it that nobody has chosen in this request, the layer's or the session's own: equal in ms, and yet told apart from a
/// handler's choice of the same time.
pub(crate) fn not_chosen(expiry: Expiry) -> Option<Expiry> {
    match expiry {
        Expiry::OnInactivity(idle) => Some(Expiry::OnInactivity(idle.saturating_add(Duration::NANOSECOND))),
        Expiry::AtDateTime(at) => Some(Expiry::AtDateTime(at.saturating_add(Duration::NANOSECOND))),
        Expiry::OnSessionEnd => None,
    }
}

/// Ms since 1970, saturating.
pub(crate) fn unix_ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

pub(crate) fn from_unix_ms(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or_else(|_| OffsetDateTime::now_utc().saturating_add(Duration::MAX))
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.whole_milliseconds()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::ExpiryPolicy;

    #[test]
    fn policies_survive_the_store() {
        for policy in [ExpiryPolicy::Idle(1_800_000), ExpiryPolicy::At(1_900_000_000_000), ExpiryPolicy::Browser(5)] {
            assert_eq!(ExpiryPolicy::parse(policy.encode().as_bytes()).unwrap(), policy);
        }
        assert!(ExpiryPolicy::parse(b"x1").is_err());
        assert!(ExpiryPolicy::Idle(1_600).is_touch_due(1_499));
        assert!(!ExpiryPolicy::Idle(1_600).is_touch_due(1_500));
        assert!(!ExpiryPolicy::At(1_600).is_touch_due(1));
        assert_eq!(ExpiryPolicy::Idle(1_600).touch_due_in_ms(1_500), Some(1));
        assert_eq!(ExpiryPolicy::Idle(1_600).touch_due_in_ms(1_600), Some(101));
        let days = 24 * 3_600_000;
        assert!(ExpiryPolicy::Idle(14 * days).is_touch_due(14 * days - 3_600_001));
        assert!(!ExpiryPolicy::Idle(14 * days).is_touch_due(14 * days - 3_600_000));
        assert_eq!(ExpiryPolicy::Idle(14 * days).touch_interval_ms(), Some(3_600_000));
        assert_eq!(ExpiryPolicy::Idle(1_600).touch_interval_ms(), Some(100));
        assert_eq!(ExpiryPolicy::At(1_600).touch_interval_ms(), None);
    }
}
