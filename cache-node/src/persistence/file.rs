//! Files that are whole or not there: written aside, made durable, renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufWriter, Read, Seek as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    node,
    persistence::seal::{self, EncryptionKey, SealedWriter},
};

/// Bytes after which what was written is pushed to the disk, so that the end of a large file is no storm (Redis: 4 MB).
const SYNC_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a write: the kernel copies them in one go, and on a core that is shared nobody is served meanwhile.
const BUFFER_BYTES: usize = 64 * 1024;

/// What files that are being written are called: a process that was killed leaves one behind.
const TEMPORARY_PREFIX: &str = "temp-";

/// Permissions of a file that only the user of the system who writes it may read.
const OWNER_ALONE: u32 = 0o600;

/// Has `write` write the file at `path`, encrypted with `key` if there is one: another process sees the old one or the new one, also after a power failure.
///
/// # Errors
/// Those of the system and of `write`; the old file is there as before then.
pub(super) fn write_whole<T>(
    path: &Path,
    key: Option<&EncryptionKey>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<T> {
    put_in_place(path, |temporary| write_to(temporary, key, write))
}

/// Puts `bytes` in the place of the file at `path`, in the same way; with `permissions`, or for this user of the
/// system alone: what it tells of users and passwords is nobody else's.
///
/// # Errors
/// Those of the system; the old file is there as before then.
pub(crate) fn replace(path: &Path, bytes: &[u8], permissions: Option<fs::Permissions>) -> io::Result<()> {
    put_in_place(path, |temporary| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
        file.set_permissions(permissions.unwrap_or_else(|| fs::Permissions::from_mode(OWNER_ALONE)))?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// Puts a copy of the file `from` in the place of the one at `path`, in the same way.
///
/// # Errors
/// Those of the system; the old file is there as before then.
#[cfg(feature = "cluster")]
pub(crate) fn copy(from: &Path, path: &Path) -> io::Result<()> {
    put_in_place(path, |temporary| {
        fs::copy(from, temporary).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", from.display())))?;
        File::open(temporary)?.sync_all()
    })
}

/// Has `write` write a file aside, whole and durably, and renames it.
fn put_in_place<T>(path: &Path, write: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = folder_of(path);
    let temporary = temporary_path(&folder);
    let outcome = write(&temporary).and_then(|result| {
        fs::rename(&temporary, path)?;
        sync_folder(&folder)?;
        Ok(result)
    });
    if outcome.is_err() {
        // It may not have come to be.
        drop(fs::remove_file(&temporary));
    }
    outcome
}

fn write_to<T>(path: &Path, key: Option<&EncryptionKey>, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let (result, Syncing { file, .. }) = write_through(Syncing { file, unsynced: 0 }, key, write)?;
    file.sync_all()?;
    Ok(result)
}

/// Has `write` write to `inner`, encrypted with `key` if there is one, and gives it back.
fn write_through<W: Write, T>(
    inner: W,
    key: Option<&EncryptionKey>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(T, W)> {
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, inner);
    let result = match key {
        None => write(&mut buffered)?,
        Some(key) => {
            let mut sealed = SealedWriter::new(&mut buffered, key)?;
            let result = write(&mut sealed)?;
            sealed.finish()?;
            result
        }
    };
    let inner = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((result, inner))
}

/// Has `write` write a file that no one else sees, encrypted with `key` if there is one, and gives what was written to be read from its
/// start.
///
/// # Errors
/// Those of the system and of `write`.
pub(super) fn write_nameless<T>(
    folder: &Path,
    key: Option<&EncryptionKey>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(T, Box<dyn BufRead>)> {
    let path = temporary_path(folder);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    // It goes with the last one who holds it, whatever happens.
    fs::remove_file(&path)?;
    let (result, mut file) = write_through(file, key, write)?;
    file.rewind()?;
    Ok((result, seal::open(file, key)?.0))
}

fn temporary_path(folder: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{TEMPORARY_PREFIX}{}-{number}.rdb", std::process::id()))
}

/// A file that is being loaded: INFO tells how far.
pub(super) struct Loading<'a> {
    file: File,
    loading: &'a node::Loading,
}

impl<'a> Loading<'a> {
    pub(super) fn new(file: File, loading: &'a node::Loading) -> Loading<'a> {
        Loading { file, loading }
    }
}

impl Read for Loading<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.loading.loaded(count);
        Ok(count)
    }
}

struct Syncing {
    file: File,
    unsynced: usize,
}

impl Write for Syncing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes a rename in the folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that a file stands in; the current one when its path names none.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Removes what a process that was killed left half written. Files of other processes that run are let be.
pub(crate) fn remove_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY_PREFIX)) else { continue };
        let Some((process, number)) = rest.strip_suffix(".rdb").and_then(|rest| rest.split_once('-')) else { continue };
        let is_ours = [process, number].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        let is_alive = process != std::process::id().to_string() && Path::new("/proc").join(process).exists();
        if is_ours && !is_alive {
            tracing::warn!(file = %entry.path().display(), "removing a snapshot that was not finished");
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Gives the finished snapshot at `path` a second name with its time, and removes the oldest of those beyond `count`.
pub(super) fn retain(path: &Path, stamp: &str, count: usize) -> io::Result<()> {
    let (Some(stem), Some(extension)) = (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str()))
    else {
        return Err(io::Error::other("dbfilename has no extension, such as .rdb, for its copies to keep"));
    };
    let folder = folder_of(path);
    let kept = folder.join(format!("{stem}-{stamp}.{extension}"));
    if kept.exists() {
        fs::remove_file(&kept)?;
    }
    // No copy: the next snapshot is a new file under the old name.
    fs::hard_link(path, &kept)?;
    let mut copies: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
        let middle = middle.and_then(|rest| rest.strip_suffix(extension)).and_then(|rest| rest.strip_suffix('.'));
        if middle
            .is_some_and(|middle| middle.len() == stamp.len() && middle.bytes().all(|byte| byte.is_ascii_digit() || byte == b'T'))
        {
            copies.push(path);
        }
    }
    // The time in the name sorts.
    copies.sort();
    for old in copies.iter().take(copies.len().saturating_sub(count)) {
        fs::remove_file(old)?;
    }
    sync_folder(&folder)
}
