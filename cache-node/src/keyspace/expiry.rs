//! Expiry ahead of access: keys whose time has come go away although nobody asks for them.

use std::sync::atomic::Ordering;

use crate::keyspace::{Change, ChangeSink, Class, Keyspace, Now};

/// Keys removed per hold of a shard's lock: about 50 µs, so that nobody waits long behind a mass expiry.
const EXPIRED_PER_SLICE_MAX: usize = 200;

impl Keyspace {
    /// Removes up to [`EXPIRED_PER_SLICE_MAX`] expired keys of one shard, soonest first. `true` when there may be more.
    pub(crate) fn expire_slice(&self, shard: usize, now: Now, sink: &dyn ChangeSink) -> bool {
        let cell = &self.cells[shard];
        let mut guard = cell.shard.lock();
        let shard = &mut *guard;
        let mut removed = 0;
        for db in 0..shard.tables.len() {
            while removed < EXPIRED_PER_SLICE_MAX
                && let Some(position) = shard.tables[db].next_expired(now.unix_ms)
            {
                shard.used_bytes -= shard.tables[db].at(position).used_bytes();
                let entry = shard.tables[db].remove(position);
                shard.counters.expired += 1;
                shard.changed(db, &entry.key);
                sink.take(Change { class: Class::Expired, event: "expired", db, key: &entry.key });
                removed += 1;
            }
        }
        cell.used_bytes.store(shard.used_bytes, Ordering::Relaxed);
        removed == EXPIRED_PER_SLICE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crate::keyspace::{Change, ChangeSink, Keyspace, Now, Value};

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl ChangeSink for Recorder {
        fn take(&self, change: Change<'_>) {
            self.0.lock().expect("no panic while recording").push(change.event.to_owned());
        }
    }

    #[test]
    fn keys_go_when_their_time_has_come_and_their_memory_with_them() {
        let keyspace = Keyspace::new(1);
        let recorder = Recorder::default();
        let start = Now { unix_ms: 1_000 };
        for number in 0..5_000_u64 {
            let key = format!("key-{number}");
            let mut keys = keyspace.lock_all(0, start, &recorder);
            keys.set(key.as_bytes(), Value::string(b"v"), Some(2_000 + number % 10));
        }
        let full = keyspace.used_bytes();
        let later = Now { unix_ms: 2_004 };
        for shard in 0..keyspace.shard_count() {
            while keyspace.expire_slice(shard, later, &recorder) {}
        }
        let keys = keyspace.lock_all(0, later, &recorder);
        assert_eq!((keys.len(), keys.counters().expired), (2_500, 2_500));
        drop(keys);
        assert!(keyspace.used_bytes() * 2 < full + 100);
        let events = recorder.0.lock().expect("no panic while recording");
        assert_eq!(events.iter().filter(|event| *event == "expired").count(), 2_500);
    }

    #[test]
    fn an_expired_key_is_absent_before_anyone_swept() {
        let keyspace = Keyspace::new(1);
        let recorder = Recorder::default();
        let mut keys = keyspace.lock_all(0, Now { unix_ms: 1_000 }, &recorder);
        keys.set(b"k", Value::string(b"v"), Some(1_500));
        assert!(keys.get(b"k").is_some());
        drop(keys);
        let mut keys = keyspace.lock_all(0, Now { unix_ms: 1_500 }, &recorder);
        assert!(keys.get(b"k").is_none());
        assert_eq!(keys.len(), 0);
    }
}
