//! The folder where a fleet keeps its database, its carts, its secret and what its processes say.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::RngExt;

/// The environment variable in which replicas find the secret for session ids.
pub(crate) const SESSION_KEY_VARIABLE: &str = "DEMO_SHOP_SESSION_KEY";

/// Of the keys of encryption, by which it is told at a start that one is not given.
pub(crate) const KEYS_FILE: &str = "encryption.keys";
/// How long a folder may still be another's: a process that was killed keeps its files until the system has taken it apart.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether it still is.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// What stands for something else in a URL's path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A data folder that is ours until this value is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held, not read: the lock ends with the file handle, also when the process is killed.
    _lock: File,
}

impl DataDir {
    /// Makes the folder when it is missing, and claims it.
    ///
    /// # Errors
    /// When another fleet uses it, or it cannot be written.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path.join("logs"))
            .with_context(|| format!("cannot make the data folder {}: give another one with --data", path.display()))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot write {}: give another folder with --data", lock_path.display()))?;
        let deadline = Instant::now() + LOCK_TIME_MAX;
        while let Err(error) = lock.try_lock() {
            match error {
                TryLockError::WouldBlock if Instant::now() < deadline => thread::sleep(LOCK_LOOK),
                TryLockError::WouldBlock => bail!(
                    "another demo-shop uses the data folder {}: end that one, or give this one its own with --data",
                    path.display()
                ),
                TryLockError::Error(error) => {
                    return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
                }
            }
        }
        let path = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder where the cache node of that name keeps its log. Made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or its name is not UTF-8, which a command line of directives cannot say.
    pub(crate) fn node_folder(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}: give another one with --data", path.display()))?;
        path.to_str().map(str::to_owned).with_context(|| {
            format!("the data folder {} has a name that is not UTF-8: give another one with --data", self.path.display())
        })
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The URL of the embedded database.
    ///
    /// # Errors
    /// When the folder's name is not UTF-8, which a URL cannot say.
    pub(crate) fn database_url(&self) -> anyhow::Result<String> {
        let path = self.path.join("shop.db");
        let text = path.to_str().with_context(|| {
            format!("the data folder {} has a name that is not UTF-8: give another one with --data", self.path.display())
        })?;
        Ok(format!("sqlite:{}", utf8_percent_encode(text, IN_PATH)))
    }

    /// Remembers that the carts of this folder may be encrypted with a key of this fingerprint.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn remember_key(&self, fingerprint: &str) -> anyhow::Result<()> {
        let mut known = self.remembered_keys()?;
        if known.iter().any(|key| key == fingerprint) {
            return Ok(());
        }
        known.push(fingerprint.to_owned());
        self.write(KEYS_FILE, &(known.join("\n") + "\n"))
    }

    /// The fingerprints of all keys with which the carts of this folder may be encrypted.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn remembered_keys(&self) -> anyhow::Result<Vec<String>> {
        let path = self.path.join(KEYS_FILE);
        match fs::read_to_string(&path) {
            Ok(lines) => Ok(lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Written aside and renamed: what is there is never half of it.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, aside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&aside)
            .with_context(|| format!("cannot write {}", aside.display()))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write {}", aside.display()))?;
        fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The secret that turns session ids into keys of the store: the same for every replica, and after a new start.
    pub(crate) fn session_key(&self) -> anyhow::Result<String> {
        if let Ok(key) = std::env::var(SESSION_KEY_VARIABLE) {
            return Ok(key);
        }
        let path = self.path.join("session.key");
        match fs::read_to_string(&path) {
            Ok(key) if key.trim().len() >= 32 => return Ok(key.trim().to_owned()),
            Ok(_) => bail!("{} is damaged: remove it; visitors then begin new sessions", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
        let secret: [u8; 32] = rand::rng().random();
        let key: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        // A half-written secret would end every session at the next start.
        self.write("session.key", &key)?;
        Ok(key)
    }
}

/// The user's data folder for this program, or a folder here when the user has none.
pub(crate) fn default_path() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("demo-shop-data"), |base| base.join("demo-shop"))
}

#[cfg(test)]
mod tests {
    use crate::fleet::data::DataDir;

    #[test]
    fn a_folder_may_have_any_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataDir::open(&folder.path().join("a 50%?#é")).expect("a new folder opens");
        let url = data.database_url().expect("the name is UTF-8");
        assert!(url.ends_with("/a%2050%25%3F%23%C3%A9/shop.db"), "{url}");
    }

    #[test]
    fn a_folder_belongs_to_one_fleet_at_a_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = DataDir::open(folder.path()).expect("a new folder opens");
        let error = DataDir::open(folder.path()).expect_err("it is taken").to_string();
        assert!(error.contains("--data"), "{error}");
        drop(first);
        assert!(DataDir::open(folder.path()).is_ok());
    }

    #[test]
    fn the_secret_stays_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataDir::open(folder.path()).expect("a new folder opens");
        let key = data.session_key().expect("a key is made");
        assert_eq!(key.len(), 64);
        assert_eq!(data.session_key().expect("it is read again"), key);
    }
}
