//! Loads a log into an empty keyspace.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, Read as _},
    path::Path,
};

use crate::{
    command::apply::{Applied, Applier, ApplyError},
    keyspace::Now,
    node::{EventKind, Shared, position_in},
    persistence::{
        Expired,
        aof::{
            files::{Folder, told},
            manifest::Manifest,
        },
        file, load_into,
        rdb::Decoder,
        seal::{self, Whole},
    },
    replication::Position,
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Bytes of a cut-off end that are looked at for requests behind the place where they stop.
const TAIL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a comment between requests (Redis: `AOF_ANNOTATION_LINE_MAX_LEN`).
const COMMENT_BYTES_MAX: usize = 1024;

/// Loads every file of `manifest`, in order. A cut-off end of the last one is taken away, if the configuration says so. Gives where in a
/// stream the log stands, if it ends by saying that: whoever else appended to it did not.
///
/// # Errors
/// When a file cannot be read, or is damaged: the text names the file, the byte and what to do. What was loaded until then is then of
/// no use.
pub(super) fn load(shared: &Shared, folder: &Folder, manifest: &Manifest, now: Now) -> io::Result<Option<Position>> {
    let mut position = None;
    shared.loading.begin(now, folder.bytes(manifest));
    let count = manifest.parts().count();
    for (index, part) in manifest.parts().enumerate() {
        let path = folder.path_of(part);
        let file = File::open(&path).map_err(|error| told(&error, "open the log's", &path))?;
        let (reader, sealed) = seal::open(file::Loading::new(file, &shared.loading), folder.key())
            .map_err(|error| told(&error, "read the log's", &path))?;
        let loader = Loader { shared, path: &path, now, offset: 0, whole: 0, bytes: Vec::new(), sealed, position: None };
        position = loader.load(reader, index + 1 == count)?;
    }
    Ok(position)
}

/// What a file holds.
type Input<'a> = Box<dyn BufRead + 'a>;

struct Loader<'a> {
    shared: &'a Shared,
    path: &'a Path,
    now: Now,
    /// Where `bytes` begin in the file.
    offset: u64,
    /// Up to where the file holds whole requests and transactions.
    whole: u64,
    bytes: Vec<u8>,
    /// How far the batches of an encrypted file are whole. `offset` and `whole` then count what they hold.
    sealed: Option<Whole>,
    /// The stream and the offset at which `whole` is.
    position: Option<(String, u64)>,
}

impl Loader<'_> {
    fn load(mut self, mut file: Input<'_>, is_last: bool) -> io::Result<Option<Position>> {
        let begin = file.fill_buf().map_err(|error| told(&error, "read the log's", self.path))?;
        if begin.starts_with(b"REDIS") || begin.starts_with(b"VALKEY") {
            file = self.load_snapshot(file)?;
        }
        let mut applier = Applier::default();
        loop {
            let has_more = self.read(&mut file)?;
            self.apply(&mut applier)?;
            if !has_more {
                break;
            }
        }
        let position = self.position.take().map(|(id, offset)| Position { id, offset, db: applier.db() });
        self.end(&applier, is_last)?;
        Ok(position)
    }

    /// Looks whether the file ends behind a whole request.
    fn end(&self, applier: &Applier, is_last: bool) -> io::Result<()> {
        if let Some(sealed) = self.sealed.clone() {
            if !self.bytes.is_empty() || applier.is_in_transaction() {
                // A batch holds whole requests and transactions.
                return Err(self.damaged(0, &ApplyError::Nesting));
            }
            return if sealed.is_cut() { self.cut(sealed.bytes(), is_last) } else { Ok(()) };
        }
        if self.bytes.is_empty() && !applier.is_in_transaction() {
            return Ok(());
        }
        if let Some(behind) = request_behind(&self.bytes) {
            return Err(self.damaged(0, &ApplyError::Behind(self.offset + behind as u64)));
        }
        self.cut(self.whole, is_last)
    }

    /// Loads the snapshot at the beginning of the file, and gives what is behind it.
    fn load_snapshot<'i>(&mut self, file: Input<'i>) -> io::Result<Input<'i>> {
        let path = self.path.display();
        let damaged = |error: String| {
            let text = format!(
                "{path}: {error}. Nothing was changed. Restore the log's folder from a copy, or move it away to start empty"
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut decoder = Decoder::new(file, self.shared.keyspace.databases()).map_err(|error| damaged(error.to_string()))?;
        // Keys whose time has come stay: what is behind may have given them more time, or takes them away.
        load_into(self.shared, &mut decoder, Expired::Keep, |_, _| ()).map_err(|error| damaged(error.to_string()))?;
        self.offset = decoder.at();
        let file = decoder.into_inner();
        self.whole = self.offset;
        Ok(file)
    }

    /// Appends the next chunk; `false` at the end of the file.
    fn read(&mut self, file: &mut Input<'_>) -> io::Result<bool> {
        let read = file
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut self.bytes)
            .map_err(|error| told(&error, "read the log's", self.path))?;
        Ok(read > 0)
    }

    /// Applies the whole requests in `bytes` and leaves the rest there.
    fn apply(&mut self, applier: &mut Applier) -> io::Result<()> {
        let mut at = 0;
        loop {
            let rest = &self.bytes[at..];
            if rest.first() == Some(&b'#') && !applier.is_in_transaction() {
                let Some(comment) = comment(rest) else { break };
                self.position =
                    std::str::from_utf8(comment).ok().and_then(position_in).map(|(id, offset)| (id.to_owned(), offset));
                at += comment.len();
                self.whole = self.offset + at as u64;
                continue;
            }
            let length = match applier.parse(rest) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                // Blocks that were given to the file and never written, as a power failure leaves them.
                Err(_) if rest.iter().all(|byte| *byte == 0) => break,
                Err(error) => return Err(self.damaged(at, &error)),
            };
            match applier.apply(self.shared, rest, self.now) {
                Ok(Applied::Yes) => {}
                Ok(Applied::NotAboutKeys) => self.pass_over(at, applier)?,
                Err(error) => return Err(self.damaged(at, &error)),
            }
            at += length;
            self.position = None;
            if !applier.is_in_transaction() {
                self.whole = self.offset + at as u64;
            }
        }
        self.bytes.drain(..at);
        self.offset += at as u64;
        Ok(())
    }

    /// What changes no keys may stand in a log; what would, and is not applied here, must not be lost in silence.
    fn pass_over(&self, at: usize, applier: &Applier) -> io::Result<()> {
        let name = applier.args(&self.bytes[at..]).get(0).unwrap_or_default().to_ascii_uppercase();
        if [&b"PING"[..], b"PUBLISH", b"SCRIPT", b"FUNCTION", b"SPUBLISH"].contains(&name.as_slice()) {
            return Ok(());
        }
        Err(self.damaged(at, &ApplyError::UnknownCommand(String::from_utf8_lossy(&name).into_owned())))
    }

    fn damaged(&self, at: usize, error: &ApplyError) -> io::Error {
        let (path, at) = (self.path.display(), self.offset + at as u64);
        let text = match self.sealed {
            None => format!(
                "{path} is damaged at byte {at}: {error}. Nothing was changed. Copy the folder, then cut the file there (truncate -s {} \
                 on the file, or redis-check-aof --fix on the manifest) and start again: what stands behind it is lost then",
                self.whole
            ),
            // No byte of the text is a place where the file could be cut.
            Some(_) => format!(
                "{path} is damaged at byte {at} of what is encrypted in it: {error}. Nothing was changed. Restore the log's folder from a \
                 copy, or move it away to start empty"
            ),
        };
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// The file ends within a request or a transaction; `whole` bytes of it are whole.
    fn cut(&self, whole: u64, is_last: bool) -> io::Result<()> {
        let end = std::fs::metadata(self.path).map_err(|error| told(&error, "read the length of", self.path))?.len();
        let path = self.path.display();
        if !is_last {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{path} ends within a request, at byte {end}, and is not the log's last file. Copy the folder, then cut the file \
                     (truncate -s {} on it) and start again: what the request did is lost then",
                    whole
                ),
            ));
        }
        if !self.shared.config().aof.loads_truncated {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{path} ends within a request: its end was cut off, at byte {end}. Start with aof-load-truncated yes to drop its last \
                     {} bytes, which were never acknowledged in 'sync' durability, or cut it yourself (truncate -s {})",
                    end - whole,
                    whole
                ),
            ));
        }
        let cut_off = || {
            let file = OpenOptions::new().write(true).open(self.path)?;
            file.set_len(whole)?;
            file.sync_all()
        };
        cut_off().map_err(|error| told(&error, "cut the end off", self.path))?;
        let text = format!(
            "{path} ended within a request, as after a crash: its last {} bytes were taken away, and it now ends at byte {}",
            end - whole,
            whole
        );
        self.shared.tell(EventKind::LogRepaired, text);
        Ok(())
    }
}

/// The comment that `bytes` begin with, its end of line included; `None` while that is not there.
fn comment(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take(COMMENT_BYTES_MAX).position(|byte| *byte == b'\n')?;
    Some(&bytes[..=end])
}

/// Where in the bytes of an unfinished request others begin that are whole, to the end: then the file was not cut off there, but a
/// length in it was changed.
fn request_behind(bytes: &[u8]) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(TAIL_BYTES_MAX)];
    let mut from = 1;
    while let Some(found) = bytes.get(from..)?.windows(3).position(|three| three == b"\r\n*") {
        let start = from + found + 2;
        if begins_requests(&bytes[start..]) {
            return Some(start);
        }
        from = start;
    }
    None
}

/// Whether there is at least one whole request, of a command that there is, and nothing else but requests behind it.
fn begins_requests(bytes: &[u8]) -> bool {
    let mut applier = Applier::default();
    let mut at = 0;
    loop {
        while bytes.get(at) == Some(&b'#') {
            match comment(&bytes[at..]) {
                Some(comment) => at += comment.len(),
                None => return at > 0,
            }
        }
        match applier.parse(&bytes[at..]) {
            Ok(Some(length)) if applier.is_known(&bytes[at..]) => at += length,
            Ok(None) => return at > 0,
            _ => return false,
        }
    }
}
