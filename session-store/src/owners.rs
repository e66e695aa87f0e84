//! Which sessions belong to which users, as far as this process has seen: a hint, so that a user's session and cart come
//! in one round trip.
//!
//! A hint is only ever used in a step that also tells whose session it is, and what it led to is dropped when it was
//! wrong.

use crate::{generations::Generations, keys::Tag};

/// Sessions that are remembered at least; twice as many at most, about 6 MiB.
const SESSIONS_REMEMBERED: usize = 32_768;

#[derive(Debug, Default)]
pub(crate) struct Owners(Generations<Tag>);

impl Owners {
    pub(crate) fn hint(&self, session: &Tag) -> Option<Tag> {
        self.0.get(session)
    }

    pub(crate) fn learn(&self, session: &Tag, owner: Option<Tag>) {
        match owner {
            Some(owner) => self.0.insert(*session, owner, SESSIONS_REMEMBERED),
            None => self.0.remove(session),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower_sessions::session::Id;

    use super::{Owners, SESSIONS_REMEMBERED};
    use crate::keys::Keys;

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_recent() {
        let (keys, owners) = (Keys::new("shop", b"0123456789abcdef", &[], b"0123456789abcdef"), Owners::default());
        let user = keys.user_tag("ada");
        let session = |i: usize| keys.session_tag(&Id(i as i128));
        for i in 0..3 * SESSIONS_REMEMBERED {
            owners.learn(&session(i), Some(user));
        }
        let kept = (0..3 * SESSIONS_REMEMBERED).filter(|&i| owners.hint(&session(i)).is_some());
        assert!(kept.count() <= 2 * SESSIONS_REMEMBERED);
        assert_eq!(owners.hint(&session(3 * SESSIONS_REMEMBERED - 1)), Some(user));
        owners.learn(&session(3 * SESSIONS_REMEMBERED - 1), None);
        assert_eq!(owners.hint(&session(3 * SESSIONS_REMEMBERED - 1)), None);
    }
}
