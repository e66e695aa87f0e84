//! Writes as requests that do the same again, wherever and whenever they are run: what the log keeps and replicas apply.

use smallvec::SmallVec;

use crate::protocol::encode_request;

/// What one view of the keyspace wrote, in order.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// A database, and where its requests end in `bytes`.
    segments: SmallVec<[(usize, usize); 2]>,
    requests: usize,
    is_atomic: bool,
}

impl Record {
    pub(crate) fn push<'a>(&mut self, db: usize, arguments: impl ExactSizeIterator<Item = &'a [u8]>) {
        encode_request(&mut self.bytes, arguments);
        self.requests += 1;
        match self.segments.last_mut() {
            Some((last, end)) if *last == db => *end = self.bytes.len(),
            _ => self.segments.push((db, self.bytes.len())),
        }
    }

    /// A key is gone without a command: expired or evicted.
    pub(super) fn push_removal(&mut self, db: usize, key: &[u8]) {
        self.push(db, [b"DEL", key].into_iter());
    }

    /// All of it or nothing: EXEC, a script.
    pub(super) fn make_atomic(&mut self) {
        self.is_atomic = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Whether it must stand between MULTI and EXEC; one request alone is atomic anyway.
    pub(crate) fn is_transaction(&self) -> bool {
        self.is_atomic && self.requests > 1
    }

    /// Databases and the requests that follow each other in them.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut start = 0;
        self.segments.iter().map(move |(db, end)| {
            let segment = (*db, &self.bytes[start..*end]);
            start = *end;
            segment
        })
    }

    /// Empty again, with what it had allocated.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.segments.clear();
        self.requests = 0;
    }
}
