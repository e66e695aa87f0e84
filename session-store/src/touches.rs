//! When the sessions that this process has read are to be extended, so that the extension goes along with the read: a hint.
//!
//! Another process may have extended one meanwhile: the script looks, and writes nothing then. Of a session that is not remembered the
//! answer of its read tells.

use std::time::{Duration, Instant};

use crate::{expiry::ExpiryPolicy, generations::Generations, keys::Tag};

/// Sessions that are remembered at least; twice as many at most, about 6 MiB.
const SESSIONS_REMEMBERED: usize = 32_768;
/// What is left of the time between two touches when it is worth remembering that a change has put the next one off.
const RENEWED_BELOW: (i64, i64) = (7, 8);

#[derive(Debug, Default)]
pub(crate) struct Touches(Generations<Due>);

/// When the next touch of a session is due, by the policy that it had then.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    policy: ExpiryPolicy,
    /// When this process has told what goes along with the session's time: its user's list and its cart.
    told: Option<Instant>,
}

/// What this process remembers of a session's next touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextTouch {
    Unknown,
    /// It is far off, and a change would put it off by little.
    Later,
    /// It is not due yet; a change puts it off.
    Soon,
    /// By now, as the policy was when the session was last seen.
    Due(ExpiryPolicy),
}

impl Touches {
    pub(crate) fn next(&self, session: &Tag, now: Instant) -> NextTouch {
        let Some(due) = self.0.get(session) else {
            return NextTouch::Unknown;
        };
        let left = due.at.saturating_duration_since(now);
        let renewed_below_ms = due.policy.touch_interval_ms().map_or(0, renewed_below_ms);
        match i64::try_from(left.as_millis()) {
            _ if left.is_zero() => NextTouch::Due(due.policy),
            Ok(left_ms) if left_ms < renewed_below_ms => NextTouch::Soon,
            _ => NextTouch::Later,
        }
    }

    /// Whether list and cart know of the session's time. A commit extends the session alone, so that no touch is due of one that is
    /// changed without a pause, and they would be over before it. The list believes in a session for as long as it takes to be due again;
    /// a commit asks only where it puts the touch off.
    pub(crate) fn is_told(&self, session: &Tag, now: Instant) -> bool {
        let Some(Due { policy, told: Some(told), .. }) = self.0.get(session) else { return false };
        let passed_ms = i64::try_from(now.saturating_duration_since(told).as_millis()).unwrap_or(i64::MAX);
        policy.touch_interval_ms().is_none_or(|interval| passed_ms < renewed_below_ms(interval))
    }

    /// The store keeps it for so many ms; `None`: no touch can extend it. `is_told`: what goes along with its time was told now.
    pub(crate) fn learn(&self, session: &Tag, policy: ExpiryPolicy, kept_ms: Option<i64>, is_told: bool) {
        let Some(in_ms) = kept_ms.and_then(|kept_ms| policy.touch_due_in_ms(kept_ms)) else {
            return self.forget(session);
        };
        let now = Instant::now();
        let Some(at) = now.checked_add(Duration::from_millis(in_ms)) else { return };
        let told = if is_told { Some(now) } else { self.0.get(session).and_then(|known| known.told) };
        self.0.insert(*session, Due { at, policy, told }, SESSIONS_REMEMBERED);
    }

    /// Nothing is due of one that is over.
    pub(crate) fn forget(&self, session: &Tag) {
        self.0.remove(session);
    }
}

/// Whether the next touch of a session is so far off, when so much of its time has passed, that a change would put it off by little.
pub(crate) fn is_far_off(policy: ExpiryPolicy, passed_ms: i64) -> bool {
    policy.touch_interval_ms().is_some_and(|interval| interval.saturating_sub(passed_ms) >= renewed_below_ms(interval))
}

fn renewed_below_ms(touch_interval_ms: i64) -> i64 {
    let (parts, of) = RENEWED_BELOW;
    touch_interval_ms / of * parts
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tower_sessions::session::Id;

    use super::{NextTouch, Touches};
    use crate::{expiry::ExpiryPolicy, keys::Keys};

    #[test]
    fn a_touch_is_due_when_a_part_of_the_time_has_passed() {
        let (keys, touches) = (Keys::new("shop", b"0123456789abcdef", &[], b"0123456789abcdef"), Touches::default());
        let (session, idle) = (keys.session_tag(&Id(1)), ExpiryPolicy::Idle(1_600_000));
        let next = |touches: &Touches| touches.next(&session, Instant::now());
        assert_eq!(next(&touches), NextTouch::Unknown);
        touches.learn(&session, idle, Some(1_600_000), false);
        assert_eq!(next(&touches), NextTouch::Later);
        touches.learn(&session, idle, Some(1_580_000), false);
        assert_eq!(next(&touches), NextTouch::Soon);
        touches.learn(&session, idle, Some(1_499_999), false);
        assert_eq!(next(&touches), NextTouch::Due(idle));
        touches.learn(&session, idle, Some(-1), false);
        assert_eq!(next(&touches), NextTouch::Due(idle), "whatever the store says");
        touches.learn(&session, ExpiryPolicy::At(1), Some(1), false);
        assert_eq!(next(&touches), NextTouch::Unknown, "no use extends it");
        touches.learn(&session, idle, Some(1), false);
        touches.learn(&session, idle, None, false);
        assert_eq!(next(&touches), NextTouch::Unknown, "it has come to its absolute end");
        let (now, told_at) = (Instant::now(), |ms| Instant::now() + Duration::from_millis(ms));
        touches.learn(&session, idle, Some(1_600_000), false);
        assert!(!touches.is_told(&session, now));
        touches.learn(&session, idle, Some(1_600_000), true);
        touches.learn(&session, idle, Some(1_600_000), false);
        assert!(touches.is_told(&session, told_at(80_000)), "as long as a touch would not be due, and less");
        assert!(!touches.is_told(&session, told_at(88_000)));
    }
}
