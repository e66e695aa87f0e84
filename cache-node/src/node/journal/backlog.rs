//! The last bytes of the stream, for replicas that come back.

/// A ring of bytes with the stream's offsets. Its memory is taken as bytes come in, up to the capacity.
#[derive(Debug)]
pub(super) struct Backlog {
    ring: Vec<u8>,
    capacity: usize,
    /// Where the next byte goes.
    head: usize,
    start: u64,
    end: u64,
}

impl Backlog {
    pub(super) fn new(capacity: usize, offset: u64) -> Backlog {
        Backlog { ring: Vec::new(), capacity: capacity.max(1), head: 0, start: offset, end: offset }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The oldest offset that can be read.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let mut rest = &bytes[bytes.len().saturating_sub(self.capacity)..];
        if bytes.len() > rest.len() {
            // All that was there is overwritten: the ring begins anew.
            self.ring.clear();
            self.head = 0;
        }
        while !rest.is_empty() {
            let part = rest.len().min(self.capacity - self.head);
            let end = self.head + part;
            if self.ring.len() < end {
                let overwritten = self.ring.len() - self.head;
                self.ring[self.head..].copy_from_slice(&rest[..overwritten]);
                self.ring.extend_from_slice(&rest[overwritten..part]);
            } else {
                self.ring[self.head..end].copy_from_slice(&rest[..part]);
            }
            self.head = end % self.capacity;
            rest = &rest[part..];
        }
        self.start = self.start.max(self.end - self.ring.len() as u64);
    }

    /// Up to `bytes_max` bytes from `offset` on; `None` when it is not in the ring.
    pub(super) fn read(&self, offset: u64, bytes_max: usize) -> Option<Vec<u8>> {
        if offset < self.start || offset > self.end {
            return None;
        }
        let length = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(bytes_max);
        if length == 0 {
            return Some(Vec::new());
        }
        // The byte before `head` has the offset `end - 1`.
        let behind = (self.end - offset) as usize;
        let at = (self.head + self.ring.len() - behind) % self.ring.len();
        let first = length.min(self.ring.len() - at);
        let mut bytes = self.ring[at..at + first].to_vec();
        bytes.extend_from_slice(&self.ring[..length - first]);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Backlog;

    #[test]
    fn every_offset_of_the_last_bytes_reads_what_was_pushed_there() {
        const START: u64 = 1_000;
        for capacity in [1, 2, 7, 16, 100] {
            let mut backlog = Backlog::new(capacity, START);
            let mut stream: Vec<u8> = Vec::new();
            for round in 0..200_usize {
                let piece: Vec<u8> = (0..round * 7 % 23).map(|index| (round * 31 + index) as u8).collect();
                stream.extend_from_slice(&piece);
                backlog.push(&piece);
                let end = START + stream.len() as u64;
                let kept = stream.len().min(capacity);
                assert!(backlog.start() >= START && end - backlog.start() == kept as u64, "{capacity} {round}");
                for behind in 0..=kept {
                    let from = &stream[stream.len() - behind..];
                    assert_eq!(backlog.read(end - behind as u64, usize::MAX).as_deref(), Some(from));
                    assert_eq!(backlog.read(end - behind as u64, 3).as_deref(), Some(&from[..behind.min(3)]));
                }
                assert_eq!(backlog.read(end + 1, 1), None, "not written yet");
                assert_eq!(backlog.read(backlog.start() - 1, 1), None, "overwritten, or before the beginning");
            }
        }
    }
}
