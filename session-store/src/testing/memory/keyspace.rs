//! Keys with values that expire: what the commands and scripts of this library work on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Requests after which everything whose time is over is removed, also what nobody asks for any more.
const SWEEP_EVERY: u32 = 1_024;

pub(super) type Hash = BTreeMap<Vec<u8>, Vec<u8>>;
pub(super) type SortedSet = BTreeMap<Vec<u8>, i64>;

/// Why a command is refused, as a server words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str);

const WRONG_TYPE: Refusal = Refusal("WRONGTYPE Operation against a key holding the wrong kind of value");

#[derive(Debug)]
pub(super) enum Value {
    Hash(Hash),
    String(Vec<u8>),
    Set(BTreeSet<Vec<u8>>),
    SortedSet(SortedSet),
}

#[derive(Debug)]
struct Entry {
    value: Value,
    ends_ms: Option<i64>,
}

/// The time is handed in, so that nobody has to wait for it.
#[derive(Debug, Default)]
pub(super) struct Keyspace {
    entries: HashMap<Vec<u8>, Entry>,
    now_ms: i64,
    requests: u32,
}

impl Keyspace {
    pub(super) fn begin(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.requests += 1;
        if self.requests == SWEEP_EVERY {
            self.requests = 0;
            self.entries.retain(|_, entry| entry.ends_ms.is_none_or(|end| end > now_ms));
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn entry(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let now_ms = self.now_ms;
        if self.entries.get(key).is_some_and(|entry| entry.ends_ms.is_some_and(|end| end <= now_ms)) {
            self.entries.remove(key);
        }
        self.entries.get_mut(key)
    }

    pub(super) fn value(&mut self, key: &[u8]) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn exists(&mut self, key: &[u8]) -> bool {
        self.entry(key).is_some()
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let existed = self.exists(key);
        self.entries.remove(key);
        existed
    }

    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        if self.exists(from)
            && let Some(entry) = self.entries.remove(from)
        {
            self.entries.insert(to.to_vec(), entry);
        }
    }

    /// As PTTL tells it: -2 when there is no such key, -1 when it never ends.
    pub(super) fn left_ms(&mut self, key: &[u8]) -> i64 {
        let now_ms = self.now_ms;
        self.entry(key).map_or(-2, |entry| entry.ends_ms.map_or(-1, |end| end - now_ms))
    }

    pub(super) fn expire(&mut self, key: &[u8], ttl_ms: i64) {
        let now_ms = self.now_ms;
        if ttl_ms <= 0 {
            self.entries.remove(key);
        } else if let Some(entry) = self.entry(key) {
            entry.ends_ms = Some(now_ms.saturating_add(ttl_ms));
        }
    }

    pub(super) fn hash(&mut self, key: &[u8]) -> Result<Option<&Hash>, Refusal> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    pub(super) fn field(&mut self, key: &[u8], field: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.hash(key)?.and_then(|hash| hash.get(field)).cloned())
    }

    pub(super) fn set_field(&mut self, key: &[u8], field: &[u8], value: impl Into<Vec<u8>>) -> Result<(), Refusal> {
        if !self.exists(key) {
            self.entries.insert(key.to_vec(), Entry { value: Value::Hash(Hash::new()), ends_ms: None });
        }
        match self.entry(key).map(|entry| &mut entry.value) {
            Some(Value::Hash(hash)) => {
                hash.insert(field.to_vec(), value.into());
                Ok(())
            }
            _ => Err(WRONG_TYPE),
        }
    }

    /// Of `field, value, ...`.
    pub(super) fn set_fields(&mut self, key: &[u8], pairs: &[&[u8]]) -> Result<(), Refusal> {
        for pair in pairs.chunks_exact(2) {
            self.set_field(key, pair[0], pair[1])?;
        }
        Ok(())
    }

    pub(super) fn remove_fields(&mut self, key: &[u8], fields: &[&[u8]]) -> Result<(), Refusal> {
        match self.entry(key).map(|entry| &mut entry.value) {
            None => return Ok(()),
            Some(Value::Hash(hash)) => {
                for field in fields {
                    hash.remove(*field);
                }
                if !hash.is_empty() {
                    return Ok(());
                }
            }
            Some(_) => return Err(WRONG_TYPE),
        }
        self.entries.remove(key);
        Ok(())
    }

    pub(super) fn string(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::String(string)) => Ok(Some(string.clone())),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    pub(super) fn set_string(&mut self, key: &[u8], value: Vec<u8>, ttl_ms: i64) {
        self.entries.insert(key.to_vec(), Entry { value: Value::String(value), ends_ms: None });
        self.expire(key, ttl_ms);
    }

    pub(super) fn set(&mut self, key: &[u8]) -> Result<Option<&BTreeSet<Vec<u8>>>, Refusal> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Set(set)) => Ok(Some(set)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    pub(super) fn is_member(&mut self, key: &[u8], member: &[u8]) -> Result<bool, Refusal> {
        Ok(self.set(key)?.is_some_and(|set| set.contains(member)))
    }

    /// How many are in a set.
    pub(super) fn members(&mut self, key: &[u8]) -> Result<i64, Refusal> {
        Ok(self.set(key)?.map_or(0, |set| i64::try_from(set.len()).unwrap_or(i64::MAX)))
    }

    pub(super) fn add_member(&mut self, key: &[u8], member: &[u8]) -> Result<(), Refusal> {
        if !self.exists(key) {
            self.entries.insert(key.to_vec(), Entry { value: Value::Set(BTreeSet::new()), ends_ms: None });
        }
        match self.entry(key).map(|entry| &mut entry.value) {
            Some(Value::Set(set)) => {
                set.insert(member.to_vec());
                Ok(())
            }
            _ => Err(WRONG_TYPE),
        }
    }

    /// Changes a sorted set, which is there if something is in it.
    pub(super) fn sorted_set<T>(&mut self, key: &[u8], change: impl FnOnce(&mut SortedSet) -> T) -> Result<T, Refusal> {
        if !self.exists(key) {
            self.entries.insert(key.to_vec(), Entry { value: Value::SortedSet(SortedSet::new()), ends_ms: None });
        }
        let (changed, is_empty) = match self.entry(key).map(|entry| &mut entry.value) {
            Some(Value::SortedSet(set)) => (change(set), set.is_empty()),
            _ => return Err(WRONG_TYPE),
        };
        if is_empty {
            self.entries.remove(key);
        }
        Ok(changed)
    }
}
