//! A chunk's memory.

#![allow(unsafe_code, reason = "a map that is kept while its pages go back never makes one more; see `Storage::give_pages_back`")]

use memmap2::{MmapMut, UncheckedAdvice};

use crate::keyspace::arena::chunk::CHUNK_BYTES;

/// Two kinds that look alike in memory: whoever reads one need not tell them apart.
#[derive(Debug)]
pub(in crate::keyspace) enum Storage {
    Map(MmapMut),
    /// Where the kernel gives no more maps; nothing, once the chunk went back and its number waits to be used again.
    Heap(Box<[u8]>),
}

impl Storage {
    pub(super) fn nothing() -> Storage {
        Storage::Heap(Box::default())
    }

    pub(super) fn new() -> Storage {
        match MmapMut::map_anon(CHUNK_BYTES) {
            Ok(map) => Storage::Map(map),
            Err(_) => Storage::Heap(vec![0; CHUNK_BYTES].into_boxed_slice()),
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Map(map) => map,
            Storage::Heap(bytes) => bytes,
        }
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Storage::Map(map) => map,
            Storage::Heap(bytes) => bytes,
        }
    }

    /// Has its pages go back to the system and keeps the map, to be used again; gives whether that was possible. What was in it is gone.
    ///
    /// To unmap a chunk between others makes one map more, of which the kernel allows a process 65,530. With them used up it refuses to unmap,
    /// and the memory would be lost: with 48 GiB of chunks, half of which come and go, 8 GiB each time.
    pub(in crate::keyspace) fn give_pages_back(&mut self) -> bool {
        let Storage::Map(map) = self else { return false };
        // SAFETY: the advice changes what is read from the map, which is private and anonymous: from now on zeros, which are bytes as good as
        // any. Nothing else refers to it meanwhile, since it is borrowed exclusively.
        unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) }.is_ok()
    }
}

impl Drop for Storage {
    /// Its pages first: they go back also where the kernel refuses to unmap.
    fn drop(&mut self) {
        self.give_pages_back();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{CHUNK_BYTES, Storage};

    #[test]
    fn pages_go_back_and_the_map_stays() {
        let mut storage = Storage::new();
        assert!(matches!(storage, Storage::Map(_)), "the kernel gives a map");
        for round in 1..=2 {
            assert!(storage.bytes().iter().all(|byte| *byte == 0));
            storage.bytes_mut().fill(round);
            assert!(storage.give_pages_back());
            assert_eq!(storage.bytes().len(), CHUNK_BYTES);
        }
        assert!(!Storage::nothing().give_pages_back());
    }

    /// Each kept map would be one of its own if it had been between holes.
    #[test]
    fn chunks_that_come_and_go_make_no_maps() {
        const CHUNKS: usize = 4_000;
        let maps = || fs::read_to_string("/proc/self/maps").expect("Linux tells them").lines().count();
        let before = maps();
        let mut chunks: Vec<Storage> = (0..CHUNKS).map(|_| Storage::new()).collect();
        for chunk in chunks.iter_mut().step_by(2) {
            assert!(chunk.give_pages_back());
        }
        assert!(maps() < before + CHUNKS / 8, "{} maps, {before} before", maps());
    }
}
