//! What a client has seen of its session: the revision of its last change, and when that was. It is in a cookie beside the session's, for
//! reads from replicas; nothing depends on its being true but what this client is shown.

use time::OffsetDateTime;

/// After a change, reads go to the primary for so many seconds: answers to requests at the same time may arrive in another order than
/// their changes were made, and with them the cookies.
const PRIMARY_SECONDS: i64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    revision: u64,
    at_seconds: i64,
}

impl Seen {
    pub(crate) fn now(revision: u64) -> Self {
        Self { revision, at_seconds: OffsetDateTime::now_utc().unix_timestamp() }
    }

    pub(crate) fn to_value(self) -> String {
        format!("{}.{}", self.revision, self.at_seconds)
    }

    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (revision, at) = value.split_once('.')?;
        Some(Self { revision: revision.parse().ok()?, at_seconds: at.parse().ok()? })
    }

    /// The revision that a replica must have; `None`: only the primary will do.
    pub(crate) fn revision_min(self) -> Option<u64> {
        let age = OffsetDateTime::now_utc().unix_timestamp().saturating_sub(self.at_seconds);
        // The time is of the clock of the replica that wrote. Where the reader's is behind that one, reads stay at the primary for longer.
        // Where it is ahead, they stay for less: the clocks may differ by `PRIMARY_SECONDS` less the time by which answers overtake each
        // other. Past that, a visitor whose answers came in another order may be shown the change before his last; the others may not,
        // since a replica must have the revision in any case.
        (age > PRIMARY_SECONDS).then_some(self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::{PRIMARY_SECONDS, Seen};

    #[test]
    fn a_young_change_is_read_from_the_primary_and_an_old_one_by_its_revision() {
        let now = Seen::now(7);
        assert_eq!(now.revision_min(), None);
        assert_eq!(Seen::parse(&now.to_value()), Some(now));
        let before = Seen { at_seconds: now.at_seconds - PRIMARY_SECONDS - 1, ..now };
        assert_eq!(before.revision_min(), Some(7));
        let later = Seen { at_seconds: now.at_seconds + 60, ..now };
        assert_eq!(later.revision_min(), None);
        for wrong in ["", "7", "7.", ".7", "-1.7", "7.7.7", "99999999999999999999.1"] {
            assert_eq!(Seen::parse(wrong), None, "{wrong}");
        }
    }
}
