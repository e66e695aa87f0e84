//! The RDB format: snapshots and full syncs. Pure functions over bytes and streams; version 10, as Redis 7.0 writes it.

mod decode;
mod encode;
mod lzf;
mod packed;

pub(crate) use decode::{Decoder, Entry, Item, RdbError, undump};
pub(crate) use encode::{Encoder, RdbWriter};

use crc::{CRC_64_REDIS, Crc, Digest, Table};

/// Version of what is written: the newest that Redis 7.0 reads.
const VERSION: u32 = 10;

/// Newest version that is read: Redis 7.4.
const VERSION_MAX: u32 = 12;

/// Newest version under the magic `VALKEY` that is read: Valkey 9.
const VALKEY_VERSION_MAX: u32 = 80;

type Slices = Table<16>;

static CRC: Crc<u64, Slices> = Crc::<u64, Slices>::new(&CRC_64_REDIS);

type Checksum = Digest<'static, u64, Slices>;

/// What stands before something that is no key.
mod opcode {
    pub(super) const SLOT_INFO: u8 = 244;
    pub(super) const FUNCTION: u8 = 245;
    pub(super) const MODULE_AUX: u8 = 247;
    pub(super) const IDLE: u8 = 248;
    pub(super) const FREQUENCY: u8 = 249;
    pub(super) const AUX: u8 = 250;
    pub(super) const RESIZE_DB: u8 = 251;
    pub(super) const EXPIRES_MS: u8 = 252;
    pub(super) const EXPIRES: u8 = 253;
    pub(super) const SELECT_DB: u8 = 254;
    pub(super) const END: u8 = 255;
}

/// Types of values, as their bytes lie in a file.
mod kind {
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    pub(super) const SORTED_SET_TEXT: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const SORTED_SET: u8 = 5;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const SORTED_SET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const SORTED_SET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const SET_LISTPACK: u8 = 20;
}

/// How a length that is none says which integer or compressed string follows.
mod encoding {
    pub(super) const INT8: u8 = 0;
    pub(super) const INT16: u8 = 1;
    pub(super) const INT32: u8 = 2;
    pub(super) const LZF: u8 = 3;
}

#[cfg(test)]
mod tests;
