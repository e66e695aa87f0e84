//! A bounded map in two generations: the older one is dropped when the younger one is full.

use std::mem;

use crate::keys::{Tag, TagMap};

#[derive(Debug)]
pub(crate) struct Generations<V> {
    young: TagMap<V>,
    old: TagMap<V>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self { young: TagMap::default(), old: TagMap::default() }
    }
}

impl<V: Clone> Generations<V> {
    pub(crate) fn get(&self, key: &Tag) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).cloned()
    }

    /// `remembered`: how many are kept at least; twice as many at most.
    pub(crate) fn insert(&mut self, key: Tag, value: V, remembered: usize) {
        if self.young.insert(key, value).is_none() && self.young.len() >= remembered {
            self.old = mem::take(&mut self.young);
        }
    }

    pub(crate) fn remove(&mut self, key: &Tag) {
        // Most of the time there is nothing at all.
        if !(self.young.is_empty() && self.old.is_empty()) {
            self.young.remove(key);
            self.old.remove(key);
        }
    }
}
