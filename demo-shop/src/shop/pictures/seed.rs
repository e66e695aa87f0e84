//! Numbers that follow from a SKU.

/// SplitMix64 over the SKU's FNV-1a hash. Own code on purpose: the generators of a library may change between its
/// versions, and pictures are cached for a year.
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new(sku: &str) -> Self {
        // FNV-1a, 64 bit: offset basis and prime as in the reference.
        Seed(sku.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`; `bound` is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
