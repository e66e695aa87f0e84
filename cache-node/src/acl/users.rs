//! The users of a node. Who changes one puts another in its place, and counts a version up that connections look at.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use crate::acl::{AclLog, RuleError, User, join_selectors, user::DEFAULT};

/// Users by name; the default user is always among them.
pub(crate) type Users = BTreeMap<Box<[u8]>, Arc<User>>;

/// Rules of one SETUSER, those in parentheses counted each.
pub(crate) const RULES_MAX: usize = 4_096;

/// The default user's number: it is never removed.
const DEFAULT_ID: u32 = 0;

/// See the module. Locks nothing while the lock of its users is held.
#[derive(Debug)]
pub(crate) struct Acl {
    users: RwLock<Users>,
    version: AtomicU32,
    next_id: AtomicU32,
    /// Held while users are written into a file.
    saving: Mutex<()>,
    pub(crate) log: AclLog,
}

/// What SETUSER did.
#[derive(Debug)]
pub(crate) struct Changed {
    /// `None` of a new user.
    pub(crate) before: Option<Arc<User>>,
    pub(crate) after: Arc<User>,
}

/// Why SETUSER did nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChangeError {
    Unmatched(Vec<u8>),
    TooMany,
    Rule(Vec<u8>, RuleError),
}

impl Acl {
    /// With the default user alone, and what `requirepass` says of it.
    pub(crate) fn new(requirepass: Option<&str>) -> Acl {
        let mut user = User::unlimited(DEFAULT_ID);
        user.require(requirepass);
        Acl {
            users: RwLock::new(BTreeMap::from([(user.name.clone(), user.settled())])),
            version: AtomicU32::new(0),
            next_id: AtomicU32::new(DEFAULT_ID + 1),
            saving: Mutex::new(()),
            log: AclLog::default(),
        }
    }

    /// Counts changes: an equal number means that no user has changed.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().get(name).map(Arc::clone)
    }

    pub(crate) fn default_user(&self) -> Arc<User> {
        self.user(DEFAULT).expect("the default user is never removed")
    }

    /// As it is now: `None` when it was removed, also where another one took its name.
    pub(crate) fn current(&self, user: &User) -> Option<Arc<User>> {
        self.user(&user.name).filter(|current| current.id == user.id)
    }

    /// All of them in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<User>> {
        self.users.read().values().map(Arc::clone).collect()
    }

    /// Has `write` put all of them into a file. One at a time: of two that overtook each other the older users would stay there, although both
    /// were told that theirs are. What writes locks nothing else.
    pub(crate) fn save<T>(&self, write: impl FnOnce(&[Arc<User>]) -> T) -> T {
        let _in_order = self.saving.lock();
        write(&self.all())
    }

    /// Who comes in with this name and password.
    pub(crate) fn log_in(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        self.user(name).filter(|user| user.takes(password))
    }

    /// SETUSER: all rules, or none of them.
    pub(crate) fn change<'a>(
        &self,
        name: &[u8],
        rules: impl IntoIterator<Item = &'a [u8]>,
        has_all_channels: bool,
    ) -> Result<Changed, ChangeError> {
        let rules = join_selectors(rules).map_err(|open| ChangeError::Unmatched(open.0.to_vec()))?;
        // Before the lock: each rule is compared with those before it, and all logins wait.
        if rules.iter().map(Vec::as_slice).map(words_of).sum::<usize>() > RULES_MAX {
            return Err(ChangeError::TooMany);
        }
        let mut users = self.users.write();
        let before = users.get(name).map(Arc::clone);
        let mut user = match &before {
            Some(user) => User::clone(user),
            None => User::new(self.next_id.fetch_add(1, Ordering::Relaxed), name, has_all_channels),
        };
        for rule in rules {
            user.apply(&rule, has_all_channels).map_err(|error| ChangeError::Rule(rule, error))?;
        }
        let after = user.settled();
        users.insert(name.into(), Arc::clone(&after));
        self.version.fetch_add(1, Ordering::Release);
        Ok(Changed { before, after })
    }

    /// `requirepass` changed.
    pub(crate) fn require(&self, password: Option<&str>) {
        let mut users = self.users.write();
        let mut user = users.get(DEFAULT).map_or_else(|| User::unlimited(DEFAULT_ID), |user| User::clone(user));
        user.require(password);
        users.insert(user.name.clone(), user.settled());
        self.version.fetch_add(1, Ordering::Release);
    }

    /// DELUSER: the number of the one that was removed.
    pub(crate) fn remove(&self, name: &[u8]) -> Option<u32> {
        let mut users = self.users.write();
        let removed = users.remove(name)?;
        self.version.fetch_add(1, Ordering::Release);
        Some(removed.id)
    }

    /// Others in the place of all users, as they come from a file. A default user that is not among them may do everything. Gives the numbers of those that are gone: all, but
    /// for the default user, since in Redis too one of the same name is another.
    pub(crate) fn replace(&self, loaded: Vec<User>) -> Vec<u32> {
        let unlimited = User::unlimited(DEFAULT_ID);
        let mut users: Users = BTreeMap::from([(unlimited.name.clone(), unlimited.settled())]);
        for mut user in loaded {
            let is_default = *user.name == *DEFAULT;
            user.id = if is_default { DEFAULT_ID } else { self.next_id.fetch_add(1, Ordering::Relaxed) };
            users.insert(user.name.clone(), user.settled());
        }
        self.put(users)
    }

    /// As [`Acl::replace`] when the node starts. From a file as in Redis: `requirepass` does not count there. Where lines of the
    /// configuration say nothing of the default user, it stays as it is.
    pub(crate) fn begin(&self, loaded: Vec<User>, is_from_file: bool) {
        let keeps_default = !is_from_file && !loaded.iter().any(|user| *user.name == *DEFAULT);
        let default = keeps_default.then(|| User::clone(&self.default_user()));
        self.replace(loaded.into_iter().chain(default).collect());
    }

    fn put(&self, others: Users) -> Vec<u32> {
        let mut users = self.users.write();
        let before = std::mem::replace(&mut *users, others);
        self.version.fetch_add(1, Ordering::Release);
        before.values().map(|user| user.id).filter(|id| *id != DEFAULT_ID).collect()
    }
}

/// The rules that a rule consists of: several where it stands in parentheses.
fn words_of(rule: &[u8]) -> usize {
    if rule.starts_with(b"(") { rule.split(|byte| *byte == 0 || byte.is_ascii_whitespace()).count() } else { 1 }
}
