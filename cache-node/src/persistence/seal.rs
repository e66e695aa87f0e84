//! Files that only who has the key can read or change: XChaCha20-Poly1305 over frames.
//!
//! A file begins with [`MAGIC`] and 16 random bytes that name it. Each frame is a length (4 bytes, little-endian) and its complement, so
//! that a changed length does not look like the end of a file that was cut, a random nonce of 24 bytes, and so many bytes encrypted, with
//! their tag of 16. What is authenticated beside them is the file's name, the frame's number
//! and the length: frames cannot be changed, swapped, left out in the middle or brought in from another file. What ends at a frame
//! cannot be told from a file that was cut there, as little as in a log that is not encrypted.
//!
//! A batch of the log that takes more than one frame is whole or not there: the length of each of its frames but the last has the bit
//! [`GOES_ON`].

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};

const MAGIC: &[u8; 8] = b"CNSEAL\x00\x01";
const NAME_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// Bytes of one frame: what a reader holds at once.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// In the length of a frame: it is of use only together with the next one.
const GOES_ON: u32 = 1 << 31;

/// The key of `encryption-key-file`.
#[derive(Clone)]
pub(crate) struct EncryptionKey {
    path: PathBuf,
    cipher: Arc<XChaCha20Poly1305>,
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("path", &self.path).finish_non_exhaustive()
    }
}

impl EncryptionKey {
    /// Reads a key: 32 bytes, or 64 hexadecimal digits as `openssl rand -hex 32` writes them. The error says what is wrong.
    pub(crate) fn read(path: &Path) -> Result<EncryptionKey, String> {
        let expected = "a file with a key of 32 bytes, or of 64 hexadecimal digits, such as openssl rand -hex 32 writes";
        let bytes = fs::read(path).map_err(|error| format!("{expected}: {error}"))?;
        let key = match bytes.len() {
            KEY_BYTES => Some(bytes),
            _ => std::str::from_utf8(&bytes).ok().map(str::trim).and_then(from_hex),
        };
        let key: [u8; KEY_BYTES] = key.and_then(|key| key.try_into().ok()).ok_or(expected)?;
        Ok(EncryptionKey { path: path.to_path_buf(), cipher: Arc::new(XChaCha20Poly1305::new(&key.into())) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..KEY_BYTES).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()).collect()
}

/// What is authenticated beside the bytes of a frame.
fn context(name: &[u8; NAME_BYTES], number: u64, length: u32) -> [u8; NAME_BYTES + 12] {
    let mut context = [0; NAME_BYTES + 12];
    context[..NAME_BYTES].copy_from_slice(name);
    context[NAME_BYTES..NAME_BYTES + 8].copy_from_slice(&number.to_le_bytes());
    context[NAME_BYTES + 8..].copy_from_slice(&length.to_le_bytes());
    context
}

/// Makes the frames of one file.
#[derive(Debug)]
pub(super) struct Sealer {
    key: EncryptionKey,
    name: [u8; NAME_BYTES],
    frames: u64,
}

impl Sealer {
    pub(super) fn new(key: &EncryptionKey) -> Sealer {
        Sealer { key: key.clone(), name: rand::random(), frames: 0 }
    }

    /// What a file begins with.
    pub(super) fn header(&self) -> Vec<u8> {
        [&MAGIC[..], &self.name].concat()
    }

    /// Frames of `bytes`, which a reader gives out as one or not at all. They count once [`Sealer::keep`] says that they are in the file.
    pub(super) fn seal_batch(&self, bytes: &[u8]) -> io::Result<(Vec<u8>, u64)> {
        self.seal(bytes, GOES_ON)
    }

    /// Frames of `bytes`; `link` is set in the length of each one but the last.
    fn seal(&self, bytes: &[u8], link: u32) -> io::Result<(Vec<u8>, u64)> {
        let mut sealed = Vec::with_capacity(bytes.len() + 64);
        let mut number = self.frames;
        let mut frames = bytes.chunks(FRAME_BYTES_MAX).peekable();
        while let Some(frame) = frames.next() {
            // A new one each time, also for a frame that is written again: a nonce never serves for two texts.
            let nonce: [u8; NONCE_BYTES] = rand::random();
            let length = frame.len() as u32 | if frames.peek().is_some() { link } else { 0 };
            let payload = Payload { msg: frame, aad: &context(&self.name, number, length) };
            let text = self.key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| io::Error::other("cannot encrypt"))?;
            sealed.extend_from_slice(&length.to_le_bytes());
            sealed.extend_from_slice(&(!length).to_le_bytes());
            sealed.extend_from_slice(&nonce);
            sealed.extend_from_slice(&text);
            number += 1;
        }
        Ok((sealed, number))
    }

    pub(super) fn keep(&mut self, frames: u64) {
        self.frames = frames;
    }
}

/// A writer whose bytes reach `inner` as frames. [`SealedWriter::finish`] writes the last one.
pub(super) struct SealedWriter<W> {
    inner: W,
    sealer: Sealer,
    buffer: Vec<u8>,
}

impl<W: Write> SealedWriter<W> {
    pub(super) fn new(mut inner: W, key: &EncryptionKey) -> io::Result<SealedWriter<W>> {
        let sealer = Sealer::new(key);
        inner.write_all(&sealer.header())?;
        Ok(SealedWriter { inner, sealer, buffer: Vec::new() })
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_frames()
    }

    fn write_frames(&mut self) -> io::Result<()> {
        let (sealed, frames) = self.sealer.seal(&self.buffer, 0)?;
        self.buffer.clear();
        self.inner.write_all(&sealed)?;
        self.sealer.keep(frames);
        Ok(())
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= FRAME_BYTES_MAX {
            self.write_frames()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far the frames of a file are whole, and the batches that they make up: shared with who reads through it.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole(Arc<WholeState>);

#[derive(Debug, Default)]
struct WholeState {
    bytes: AtomicU64,
    is_cut: AtomicBool,
}

impl Whole {
    /// Bytes of the file up to the end of the last whole batch.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether the file ends within a frame or a batch.
    pub(super) fn is_cut(&self) -> bool {
        self.0.is_cut.load(Ordering::Relaxed)
    }
}

/// Reads what a [`SealedWriter`] or a log wrote. A file that ends within a batch ends at the one before, and [`Whole`] tells.
pub(super) struct Unsealer<R> {
    inner: R,
    key: EncryptionKey,
    name: [u8; NAME_BYTES],
    frames: u64,
    plain: Vec<u8>,
    at: usize,
    whole: Whole,
}

impl<R: Read> Unsealer<R> {
    /// `inner` stands behind [`MAGIC`].
    pub(super) fn new(mut inner: R, key: &EncryptionKey) -> io::Result<Unsealer<R>> {
        let whole = Whole::default();
        let mut name = [0; NAME_BYTES];
        if read_whole(&mut inner, &mut name)? {
            whole.0.bytes.store((MAGIC.len() + NAME_BYTES) as u64, Ordering::Relaxed);
        } else {
            whole.0.is_cut.store(true, Ordering::Relaxed);
        }
        Ok(Unsealer { inner, key: key.clone(), name, frames: 0, plain: Vec::new(), at: 0, whole })
    }

    fn whole(&self) -> Whole {
        self.whole.clone()
    }

    /// Reads the next frame and all that go with it; `false` at the end.
    fn next_batch(&mut self) -> io::Result<bool> {
        self.plain.clear();
        self.at = 0;
        if self.whole.is_cut() {
            return Ok(false);
        }
        let mut ends_at = self.whole.bytes();
        loop {
            let Some((bytes, goes_on)) = self.next_frame(ends_at)? else {
                // What was read of a batch is of no use without the rest.
                self.whole.0.is_cut.fetch_or(!self.plain.is_empty(), Ordering::Relaxed);
                self.plain.clear();
                return Ok(false);
            };
            ends_at += bytes;
            if !goes_on {
                self.whole.0.bytes.store(ends_at, Ordering::Relaxed);
                return Ok(true);
            }
        }
    }

    /// Appends a frame's text to `plain`. Gives its bytes in the file and whether it goes on in the next one; `None` at the end.
    fn next_frame(&mut self, begins_at: u64) -> io::Result<Option<(u64, bool)>> {
        let mut lengths = [0; 8];
        if self.inner.read(&mut lengths[..1])? == 0 {
            return Ok(None);
        }
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the frame at byte {begins_at} was changed, or encrypted with another key than that of encryption-key-file"
                ),
            )
        };
        if !read_whole(&mut self.inner, &mut lengths[1..])? {
            return self.ends_cut();
        }
        if lengths == [0; 8] {
            // Blocks that were given to the file and never written, as a power failure leaves them: nothing else stands behind them.
            return if is_zero_to_end(&mut self.inner)? { self.ends_cut() } else { Err(damaged()) };
        }
        let [length, complement] =
            [0, 4].map(|at| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]));
        let count = (length & !GOES_ON) as usize;
        if length != !complement || count == 0 || count > FRAME_BYTES_MAX {
            return Err(damaged());
        }
        let mut nonce = [0; NONCE_BYTES];
        let mut text = vec![0; count + TAG_BYTES];
        if !read_whole(&mut self.inner, &mut nonce)? || !read_whole(&mut self.inner, &mut text)? {
            return self.ends_cut();
        }
        let payload = Payload { msg: &text, aad: &context(&self.name, self.frames, length) };
        let plain = self.key.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| damaged())?;
        self.plain.extend_from_slice(&plain);
        self.frames += 1;
        Ok(Some(((8 + NONCE_BYTES + text.len()) as u64, length & GOES_ON != 0)))
    }

    fn ends_cut(&self) -> io::Result<Option<(u64, bool)>> {
        self.whole.0.is_cut.store(true, Ordering::Relaxed);
        Ok(None)
    }
}

impl<R: Read> Read for Unsealer<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() && !self.next_batch()? {
            return Ok(0);
        }
        let count = out.len().min(self.plain.len() - self.at);
        out[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Fills `out`; `false` when the end comes first.
fn read_whole(inner: &mut impl Read, out: &mut [u8]) -> io::Result<bool> {
    match inner.read_exact(out) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether nothing but zeros is left.
fn is_zero_to_end(inner: &mut impl Read) -> io::Result<bool> {
    let mut bytes = [0; 8 * 1024];
    loop {
        match inner.read(&mut bytes) {
            Ok(0) => return Ok(true),
            Ok(count) if bytes[..count].iter().any(|byte| *byte != 0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes that are read from a file at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a file holds, encrypted or not. For one that is, [`Whole`] tells how far it is whole.
///
/// # Errors
/// Those of `file`, and when it is encrypted and there is no key.
pub(super) fn open<'a>(file: impl Read + 'a, key: Option<&EncryptionKey>) -> io::Result<(Box<dyn BufRead + 'a>, Option<Whole>)> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let begin = file.fill_buf()?;
    // One that was cut within its first bytes as well.
    let is_sealed = !begin.is_empty() && begin.starts_with(&MAGIC[..begin.len().min(MAGIC.len())]);
    if !is_sealed {
        return Ok((Box::new(file), None));
    }
    file.consume(MAGIC.len());
    let key = key.ok_or_else(|| {
        io::Error::new(io::ErrorKind::PermissionDenied, "it is encrypted: start with its key as encryption-key-file")
    })?;
    let unsealer = Unsealer::new(file, key)?;
    let whole = unsealer.whole();
    Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, unsealer)), Some(whole)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::{EncryptionKey, FRAME_BYTES_MAX, MAGIC, SealedWriter, Sealer, Unsealer};

    fn key(byte: u8) -> EncryptionKey {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), [byte; 32]).expect("it can be written");
        EncryptionKey::read(file.path()).expect("32 bytes")
    }

    fn sealed(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = SealedWriter::new(&mut out, &key(1)).expect("a Vec takes all");
        // Small pieces and a large one.
        writer.write_all(&text[..100]).expect("a Vec takes all");
        writer.write_all(&text[100..]).expect("a Vec takes all");
        writer.finish().expect("a Vec takes all");
        out
    }

    fn unsealed(bytes: &[u8], key: &EncryptionKey) -> std::io::Result<(Vec<u8>, u64, bool)> {
        let mut reader = Unsealer::new(&bytes[MAGIC.len()..], key)?;
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        Ok((text, reader.whole().bytes(), reader.whole().is_cut()))
    }

    #[test]
    fn only_the_key_opens_it_and_no_change_goes_unseen() {
        let text: Vec<u8> = (0..700_000_u32).map(|number| number as u8).collect();
        let bytes = sealed(&text);
        assert!(!bytes.windows(50).any(|window| window == &text[..50]));
        assert_eq!(unsealed(&bytes, &key(1)).expect("the key"), (text.clone(), bytes.len() as u64, false));
        unsealed(&bytes, &key(2)).expect_err("another key");
        for at in [8, 24, 30, 60, 300_000, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            unsealed(&changed, &key(1)).expect_err("changed");
        }
    }

    #[test]
    fn a_file_that_was_cut_ends_with_its_last_whole_frame() {
        let text = vec![7; 700_000];
        let bytes = sealed(&text);
        for missing in [1, 17, 30_000, bytes.len() - MAGIC.len() - 3] {
            let (found, whole, is_cut) = unsealed(&bytes[..bytes.len() - missing], &key(1)).expect("the key");
            assert!(is_cut && text.starts_with(&found) && whole <= (bytes.len() - missing) as u64, "{missing}");
        }
    }

    #[test]
    fn a_batch_of_several_frames_is_whole_or_not_there() {
        let batches = [vec![1; 10], vec![2; 3 * FRAME_BYTES_MAX + 5], vec![3; 2 * FRAME_BYTES_MAX], vec![4; 20]];
        let mut sealer = Sealer::new(&key(1));
        let mut bytes = sealer.header();
        let mut ends = vec![bytes.len()];
        for batch in &batches {
            let (sealed, frames) = sealer.seal_batch(batch).expect("it is encrypted");
            sealer.keep(frames);
            bytes.extend(sealed);
            ends.push(bytes.len());
        }
        for cut in (ends[0]..=bytes.len()).step_by(99_991).chain(ends.iter().copied()).chain(frame_ends(&bytes)) {
            let count = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (found, whole, is_cut) = unsealed(&bytes[..cut], &key(1)).expect("the key");
            assert_eq!((whole, is_cut), (ends[count] as u64, cut != ends[count]), "{cut}");
            assert!(found == batches[..count].concat(), "{cut}");
        }
        // The bit is authenticated.
        let mut changed = bytes.clone();
        let at = ends[1];
        changed[at + 3] ^= 0x80;
        changed[at + 7] ^= 0x80;
        unsealed(&changed, &key(1)).expect_err("changed");
    }

    /// Where each frame ends.
    fn frame_ends(bytes: &[u8]) -> Vec<usize> {
        let (mut at, mut ends) = (24, Vec::new());
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) & !super::GOES_ON;
            at += 8 + 24 + length as usize + 16;
            ends.push(at);
        }
        ends
    }

    #[test]
    fn zeros_are_an_end_that_was_never_written_only_where_nothing_follows() {
        let text = vec![7; 700_000];
        let bytes = sealed(&text);
        let ends = frame_ends(&bytes);
        for zeros in [1, 8, 20, 100_000] {
            let (found, whole, is_cut) = unsealed(&[&bytes[..], &vec![0; zeros]].concat(), &key(1)).expect("the key");
            assert!(found == text && whole == bytes.len() as u64 && is_cut, "{zeros}");
        }
        for at in [24, ends[0], ends[ends.len() - 2]] {
            let mut changed = bytes.clone();
            changed[at..at + 8].fill(0);
            unsealed(&changed, &key(1)).expect_err("frames follow");
        }
    }

    #[test]
    fn a_key_is_32_bytes_or_64_digits() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for (content, is_key) in [("ab".repeat(32) + "\n", true), ("ab".repeat(31), false), ("xy".repeat(32), false)] {
            std::fs::write(file.path(), &content).expect("it can be written");
            assert_eq!(EncryptionKey::read(file.path()).is_ok(), is_key, "{content}");
        }
    }
}
