//! A log that is open: its folder, its manifest and the increment that is written.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use crate::persistence::aof::{
    files::{Folder, LogFile},
    manifest::{Manifest, Part},
};

#[derive(Debug)]
pub(super) struct Log {
    folder: Folder,
    /// What is on disk.
    manifest: Manifest,
    file: LogFile,
    /// `Some`: a log that begins. Its increment is written already, and stands in the manifest when its base is there.
    begun: Option<Part>,
}

impl Log {
    /// Opens the last increment of a log that was loaded, or the first one where there is none.
    pub(super) fn open(folder: Folder, mut manifest: Manifest) -> io::Result<Log> {
        // An encrypted one is not gone on with: its frames are numbered from its beginning.
        let last = manifest.increments.last().filter(|_| folder.key().is_none());
        let file = match last {
            Some(last) => LogFile::open(folder.path_of(last))?,
            None => {
                let part = manifest.next_increment(folder.filename());
                let file = LogFile::create(folder.path_of(&part), folder.key())?;
                manifest.increments.push(part);
                folder.put(&manifest)?;
                file
            }
        };
        folder.delete_history(&mut manifest);
        Ok(Log { folder, manifest, file, begun: None })
    }

    /// Begins a log whose base is to come. What `manifest` names stays until then.
    pub(super) fn begin(folder: Folder, manifest: Manifest) -> io::Result<Log> {
        let part = manifest.next_increment(folder.filename());
        let file = LogFile::create(folder.path_of(&part), folder.key())?;
        Ok(Log { folder, manifest, file, begun: Some(part) })
    }

    /// The same folder with a log that begins.
    pub(super) fn begin_again(self) -> io::Result<Log> {
        Log::begin(self.folder, self.manifest)
    }

    /// Whether all data is in it.
    pub(super) fn is_whole(&self) -> bool {
        self.begun.is_none()
    }

    /// Appends all of `bytes`, or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    /// The file that is written, to be brought to disk.
    pub(super) fn file(&self) -> Arc<File> {
        self.file.file()
    }

    /// Brings to disk what was appended. An error is told once: the system forgets what it could not write.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Goes on in a new increment. Behind [`Log::sync`]: what is in the old one is not brought to disk by the new one.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let part = self.manifest.next_increment(self.folder.filename());
        let file = LogFile::create(self.folder.path_of(&part), self.folder.key())?;
        let mut manifest = self.manifest.clone();
        manifest.increments.push(part);
        self.folder.put(&manifest)?;
        (self.manifest, self.file) = (manifest, file);
        Ok(())
    }

    /// The next base, and where it is to be written.
    pub(super) fn next_base(&self, is_rdb: bool) -> (Part, PathBuf) {
        let part = self.manifest.next_base(self.folder.filename(), is_rdb);
        let path = self.folder.path_of(&part);
        (part, path)
    }

    /// Puts a base that was written in the place of all before the current increment, behind [`Log::sync`].
    pub(super) fn rebase(&mut self, base: Part) -> io::Result<()> {
        let mut manifest = match &self.begun {
            Some(increment) => self.manifest.begun_anew(base, increment.clone()),
            None => self.manifest.rebased(base),
        };
        self.folder.put(&manifest)?;
        self.folder.delete_history(&mut manifest);
        self.manifest = manifest;
        self.begun = None;
        Ok(())
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.folder.bytes(&self.manifest)
    }
}
