//! Sources of scripts by their SHA1, for all threads.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

/// A script's SHA1 in lower-case hexadecimal.
pub(crate) type Digest = [u8; 40];

/// Scripts kept; the oldest goes first. Redis keeps all, and a client that puts values into the text fills its memory; here such a
/// client meets NOSCRIPT at worst, which every client answers with EVAL.
const SCRIPTS_MAX: usize = 1_000;

/// Bytes of all sources kept. Scripts are a few KB; a client that puts its data into the text must not fill the memory.
const SOURCE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Sources by digest.
#[derive(Debug, Default)]
pub(crate) struct ScriptCache {
    inner: RwLock<Inner>,
    /// Counts each time that scripts went. Changed under the lock.
    losses: AtomicU64,
    /// Counts SCRIPT FLUSH, so that threads drop what they compiled. Changed under the lock.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    sources: HashMap<Digest, Arc<[u8]>, ahash::RandomState>,
    order: VecDeque<Digest>,
    bytes: usize,
}

impl ScriptCache {
    pub(crate) fn digest(source: &[u8]) -> Digest {
        let hex = sha1_smol::Sha1::from(source).digest().to_string();
        hex.as_bytes().try_into().expect("a SHA1 has 40 hexadecimal digits")
    }

    /// Keeps a source and gives its digest.
    pub(crate) fn add(&self, source: &[u8]) -> Digest {
        let digest = ScriptCache::digest(source);
        if self.inner.read().sources.contains_key(&digest) {
            return digest;
        }
        let mut inner = self.inner.write();
        if inner.sources.insert(digest, source.into()).is_none() {
            inner.order.push_back(digest);
            inner.bytes += source.len();
        }
        // The newest stays, however large it is.
        while (inner.order.len() > SCRIPTS_MAX || inner.bytes > SOURCE_BYTES_MAX) && inner.order.len() > 1 {
            let Some(oldest) = inner.order.pop_front().and_then(|oldest| inner.sources.remove(&oldest)) else { break };
            inner.bytes -= oldest.len();
            self.losses.fetch_add(1, Ordering::Release);
        }
        digest
    }

    /// The source of a digest in any case.
    pub(crate) fn get(&self, digest: &[u8]) -> Option<(Digest, Arc<[u8]>)> {
        let digest: Digest = digest.to_ascii_lowercase().try_into().ok()?;
        self.inner.read().sources.get(&digest).map(|source| (digest, Arc::clone(source)))
    }

    pub(crate) fn flush(&self) {
        let mut inner = self.inner.write();
        inner.sources.clear();
        inner.order.clear();
        inner.bytes = 0;
        self.losses.fetch_add(1, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// As long as this stays what it is, each script that was here is.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.read().sources.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{SCRIPTS_MAX, SOURCE_BYTES_MAX, ScriptCache};

    #[test]
    fn scripts_are_found_in_any_case_and_their_number_is_bounded() {
        let cache = ScriptCache::default();
        let digest = cache.add(b"return 1");
        assert_eq!(&digest, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert!(cache.get(&digest.to_ascii_uppercase()).is_some());
        for number in 0..SCRIPTS_MAX {
            cache.add(format!("return {number}").as_bytes());
        }
        assert_eq!(cache.len(), SCRIPTS_MAX);
    }

    #[test]
    fn large_sources_take_the_place_of_older_ones() {
        let cache = ScriptCache::default();
        let source = |number: u8| vec![b'a' + number; SOURCE_BYTES_MAX / 4 + 1];
        let digests: Vec<_> = (0..5).map(|number| cache.add(&source(number))).collect();
        assert_eq!(cache.len(), 3);
        assert!(cache.get(&digests[4]).is_some() && cache.get(&digests[1]).is_none());
        cache.flush();
        cache.add(&vec![b'x'; SOURCE_BYTES_MAX + 1]);
        assert_eq!(cache.len(), 1);
    }
}
