//! The buffers into which the kernel receives: one pool of them per thread, so that a connection that waits holds none.
#![allow(unsafe_code, reason = "the kernel writes into memory that it was given; see the contracts of `register` and `taken`")]

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};
use memmap2::{MmapMut, MmapRaw};

/// A power of two, as the kernel wants.
const COUNT: u16 = 256;
/// Bytes of each: most batches of requests fit into one.
const BUFFER_BYTES: u16 = 8 * 1024;
/// Below so many free ones, what was received is copied out at once instead of waiting in its buffer for its connection.
const SPARE_MIN: u16 = COUNT / 4;

/// The pool's number, by which requests name it.
pub(super) const GROUP: u16 = 0;

/// The buffers of one ring, and the queue by which the kernel is told of those that are free.
#[derive(Debug)]
pub(super) struct Buffers {
    queue: MmapRaw,
    memory: MmapRaw,
    /// Entries that were ever queued; the kernel takes it modulo [`COUNT`].
    tail: u16,
    free: u16,
}

/// What the kernel has received into a buffer, which is not the kernel's before it is given back.
#[derive(Debug)]
pub(super) struct Filled {
    id: u16,
    /// What is left of it.
    start: u16,
    end: u16,
}

impl Filled {
    pub(super) fn len(&self) -> usize {
        usize::from(self.end - self.start)
    }

    /// Its first bytes were used.
    pub(super) fn advance(&mut self, count: usize) {
        self.start = self.end - u16::try_from(self.len() - count).expect("no buffer is longer");
    }
}

impl Buffers {
    /// Hands all buffers to the kernel.
    ///
    /// # Errors
    /// When there is no memory, or the kernel (before 5.19) knows no such pools.
    ///
    /// # Safety
    /// The result must be kept until no request that names [`GROUP`] is under way in `uring`.
    pub(super) unsafe fn register(uring: &IoUring) -> io::Result<Buffers> {
        let queue = MmapRaw::from(MmapMut::map_anon(usize::from(COUNT) * size_of::<BufRingEntry>())?);
        let memory = MmapRaw::from(MmapMut::map_anon(usize::from(COUNT) * usize::from(BUFFER_BYTES))?);
        let mut buffers = Buffers { queue, memory, tail: 0, free: 0 };
        // SAFETY: the mapping begins at a page and has room for COUNT entries; it lives long enough, by this function's own contract.
        unsafe { uring.submitter().register_buf_ring_with_flags(buffers.queue.as_ptr() as u64, COUNT, GROUP, 0)? };
        (0..COUNT).for_each(|id| buffers.queue(id));
        Ok(buffers)
    }

    /// A completion told that the kernel has received `length` bytes into buffer `id`.
    ///
    /// # Safety
    /// It is the only call for this completion, and this ring's.
    pub(super) unsafe fn taken(&mut self, id: u16, length: usize) -> Filled {
        self.free -= 1;
        Filled { id: id % COUNT, start: 0, end: u16::try_from(length).map_or(BUFFER_BYTES, |length| length.min(BUFFER_BYTES)) }
    }

    #[allow(clippy::needless_pass_by_value, reason = "what was given back can be read no more")]
    pub(super) fn give_back(&mut self, filled: Filled) {
        let Filled { id, .. } = filled;
        self.queue(id);
    }

    /// Whether what was received is to be copied out.
    pub(super) fn is_short(&self) -> bool {
        self.free < SPARE_MIN
    }

    pub(super) fn bytes(&self, filled: &Filled) -> &[u8] {
        let start = self.address(filled.id).wrapping_add(usize::from(filled.start));
        // SAFETY: `taken` keeps the range inside of the buffer, whose memory began as zeros. The kernel writes only to buffers in its
        // queue, and this one is in it again only after `give_back`, which takes the one `Filled` there is for it. None leaves the slots
        // of its own ring.
        unsafe { std::slice::from_raw_parts(start, filled.len()) }
    }

    /// Lets the kernel write to a buffer from now on.
    fn queue(&mut self, id: u16) {
        let address = self.address(id) as u64;
        let entries = self.queue.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below COUNT, and the mapping is aligned to a page and has so many entries. The kernel reads only entries
        // before the tail, and this one is behind it until the store. The tail lies in a part of the first entry that is not the entry's.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail % COUNT));
            entry.set_addr(address);
            entry.set_len(u32::from(BUFFER_BYTES));
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()).store(self.tail, Ordering::Release);
        }
        self.free += 1;
    }

    fn address(&self, id: u16) -> *const u8 {
        self.memory.as_ptr().wrapping_add(usize::from(id % COUNT) * usize::from(BUFFER_BYTES))
    }
}
