//! The log's folder and the file that is being written.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    persistence::{
        aof::manifest::{Kind, Manifest, Part},
        file::{remove_temporaries, replace},
        seal::{EncryptionKey, Sealer},
    },
};

/// How long a folder may still belong to a node that ends.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);

/// How often the folder is asked for until then.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// The folder of a log. While it is open no other node can open it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    filename: String,
    key: Option<EncryptionKey>,
    /// The folder itself.
    lock: File,
}

/// An error with what was being done to which file; its kind stays.
pub(super) fn told(error: &io::Error, doing: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
}

impl Folder {
    /// Opens the folder that `config` names, and makes it if it is not there.
    pub(super) fn open(config: &Config) -> io::Result<Folder> {
        let path = config.folder().join(&config.aof.dirname);
        fs::create_dir_all(&path).map_err(|error| told(&error, "make the folder", &path))?;
        let lock = File::open(&path).map_err(|error| told(&error, "open the folder", &path))?;
        let asked = Instant::now();
        let mut outcome = lock.try_lock();
        // A node that is just ending still holds it.
        while matches!(outcome, Err(TryLockError::WouldBlock)) && asked.elapsed() < LOCK_TIME_MAX {
            thread::sleep(LOCK_INTERVAL);
            outcome = lock.try_lock();
        }
        match outcome {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("another node keeps its log in {}; give this one another 'dir' or 'appenddirname'", path.display()),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(told(&error, "lock the folder", &path)),
        }
        remove_temporaries(&path).map_err(|error| told(&error, "remove what was not finished in", &path))?;
        Ok(Folder { path, filename: config.aof.filename.clone(), key: config.encryption.clone(), lock })
    }

    pub(super) fn path_of(&self, part: &Part) -> PathBuf {
        self.path.join(&part.name)
    }

    /// Which files the names of the log's parts begin with.
    pub(super) fn filename(&self) -> &str {
        &self.filename
    }

    /// What its files are encrypted with.
    pub(super) fn key(&self) -> Option<&EncryptionKey> {
        self.key.as_ref()
    }

    fn manifest_path(&self) -> PathBuf {
        self.path.join(format!("{}.manifest", self.filename))
    }

    /// The manifest; an empty one where there is no log yet. The single file of a log that is older than Redis 7 becomes its base.
    pub(super) fn manifest(&self, config: &Config) -> io::Result<Manifest> {
        let path = self.manifest_path();
        match fs::read_to_string(&path) {
            Ok(text) => Manifest::parse(&text)
                .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.adopt_single_file(&config.folder().join(&self.filename))
            }
            Err(error) => Err(told(&error, "read", &path)),
        }
    }

    fn adopt_single_file(&self, old: &Path) -> io::Result<Manifest> {
        if !old.is_file() {
            return Ok(Manifest::default());
        }
        let base = Part { name: self.filename.clone(), number: 1, kind: Kind::Base };
        let manifest = Manifest { base: Some(base), ..Manifest::default() };
        // The manifest first: with it and without the file the next start finds the file missing and says so; the other way round it
        // would find nothing at all.
        let new = self.path.join(&self.filename);
        self.put(&manifest)?;
        fs::rename(old, &new).map_err(|error| told(&error, "move into the log's folder", old))?;
        self.sync()?;
        tracing::info!("{} is of a log of one file; it is now the base of the log in {}", old.display(), self.path.display());
        Ok(manifest)
    }

    /// Puts a manifest in the place of the one that is there, whole or not at all.
    pub(super) fn put(&self, manifest: &Manifest) -> io::Result<()> {
        let path = self.manifest_path();
        replace(&path, manifest.to_string().as_bytes(), None).map_err(|error| told(&error, "write", &path))
    }

    /// Brings names to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.lock.sync_all().map_err(|error| told(&error, "bring to disk", &self.path))
    }

    /// Deletes what the manifest calls history, and takes it off the manifest. What cannot be deleted is tried again after the next
    /// rewrite.
    pub(super) fn delete_history(&self, manifest: &mut Manifest) {
        if manifest.history.is_empty() {
            return;
        }
        manifest.history.retain(|part| {
            let path = self.path_of(part);
            // The system frees a file when the last one who has it open lets it go. For a large one that takes long, and writes wait here.
            let held = File::open(&path);
            match fs::remove_file(&path) {
                Ok(()) => {
                    let spawned = thread::Builder::new().name("cache-node-free".to_owned()).spawn(move || drop(held));
                    // Without a thread the file was let go already.
                    drop(spawned);
                    false
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => {
                    tracing::warn!("cannot delete {}, which the log needs no more: {error}", path.display());
                    true
                }
            }
        });
        if let Err(error) = self.put(manifest) {
            tracing::warn!("{error}");
        }
    }

    /// Bytes of all files that are loaded.
    pub(super) fn bytes(&self, manifest: &Manifest) -> u64 {
        manifest.parts().filter_map(|part| fs::metadata(self.path_of(part)).ok()).map(|metadata| metadata.len()).sum()
    }
}

/// The increment that is being written.
#[derive(Debug)]
pub(super) struct LogFile {
    /// Shared by who writes and who brings to disk.
    file: Arc<File>,
    path: PathBuf,
    /// Bytes that are whole.
    length: u64,
    /// Whether bytes of a write that failed may stand behind `length`.
    is_torn: bool,
    /// `Some`: what is appended is encrypted.
    sealer: Option<Sealer>,
}

impl LogFile {
    /// Opens a file to append to, and makes it if it is not there.
    pub(super) fn open(path: PathBuf) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| told(&error, "open", &path))?;
        let length = file.metadata().map_err(|error| told(&error, "read the length of", &path))?.len();
        Ok(LogFile { file: Arc::new(file), path, length, is_torn: false, sealer: None })
    }

    /// As [`LogFile::open`], with nothing in it; encrypted, if there is a key.
    pub(super) fn create(path: PathBuf, key: Option<&EncryptionKey>) -> io::Result<LogFile> {
        let mut file = LogFile::open(path)?;
        file.length = 0;
        file.cut().map_err(|error| told(&error, "empty", &file.path))?;
        if let Some(key) = key {
            let sealer = Sealer::new(key);
            file.append(&sealer.header()).map_err(|error| told(&error, "write", &file.path))?;
            file.sealer = Some(sealer);
        }
        Ok(file)
    }

    /// Appends all of `bytes`, or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(sealer) = &self.sealer else { return self.append_raw(bytes) };
        let (sealed, frames) = sealer.seal_batch(bytes)?;
        self.append_raw(&sealed)?;
        self.sealer.iter_mut().for_each(|sealer| sealer.keep(frames));
        Ok(())
    }

    fn append_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.cut()?;
        }
        let outcome = (&*self.file).write_all(bytes);
        match outcome {
            Ok(()) => self.length += bytes.len() as u64,
            Err(error) => {
                self.is_torn = true;
                if let Err(error) = self.cut() {
                    tracing::warn!(
                        "cannot take back the write of {} that failed: {error}; the next one will",
                        self.path.display()
                    );
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.is_torn = false;
        Ok(())
    }

    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Brings what was appended to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
