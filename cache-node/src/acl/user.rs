//! A user: name, passwords, selectors.

use std::sync::Arc;

use crate::{
    acl::{Catalog, Denial, Reason, RuleError, Selector, password::PasswordHash, rule::has_blanks},
    command::parse::is_word,
    protocol::Args,
};

/// The name of the user of those who name none.
pub(crate) const DEFAULT: &[u8] = b"default";

/// Whether a user may be called so.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !has_blanks(name)
}

/// What a user is while nobody changes it.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// Of this one alone, also among users of the same name: four billion are made before one is used again.
    pub(crate) id: u32,
    pub(crate) name: Box<[u8]>,
    pub(crate) is_on: bool,
    /// Any password is right.
    pub(crate) needs_no_password: bool,
    /// Accepted for Redis's sake: payloads of RESTORE are always checked here.
    skips_sanitizing: bool,
    passwords: Vec<PasswordHash>,
    root: Selector,
    selectors: Vec<Selector>,
    /// Whether its requests need not be looked at: known since [`User::settled`].
    pub(crate) is_unlimited: bool,
}

impl User {
    /// As SETUSER begins with: off, without passwords and rights, but for channels where `acl-pubsub-default` gives them.
    pub(super) fn new(id: u32, name: &[u8], has_all_channels: bool) -> User {
        User {
            id,
            name: name.into(),
            is_on: false,
            needs_no_password: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            root: Selector::new(has_all_channels),
            selectors: Vec::new(),
            is_unlimited: false,
        }
    }

    /// The default user where nothing is said of it: it may do everything, and has no password.
    pub(super) fn unlimited(id: u32) -> User {
        let mut user = User { is_on: true, needs_no_password: true, ..User::new(id, DEFAULT, true) };
        for rule in [&b"allkeys"[..], b"allcommands"] {
            user.root.apply(rule).expect("a rule that stands here");
        }
        user
    }

    /// One rule. `has_all_channels`: what `acl-pubsub-default` says.
    pub(super) fn apply(&mut self, rule: &[u8], has_all_channels: bool) -> Result<(), RuleError> {
        match rule {
            [] => {}
            _ if is_word(rule, "on") => self.is_on = true,
            _ if is_word(rule, "off") => self.is_on = false,
            _ if is_word(rule, "skip-sanitize-payload") => self.skips_sanitizing = true,
            _ if is_word(rule, "sanitize-payload") => self.skips_sanitizing = false,
            _ if is_word(rule, "nopass") => self.reset_passwords(true),
            _ if is_word(rule, "resetpass") => self.reset_passwords(false),
            [b'>', password @ ..] => self.add_password(PasswordHash::of(password)),
            [b'#', digits @ ..] => self.add_password(PasswordHash::parse(digits).ok_or(RuleError::NoHash)?),
            [b'<', password @ ..] => self.remove_password(&PasswordHash::of(password))?,
            [b'!', digits @ ..] => self.remove_password(&PasswordHash::parse(digits).ok_or(RuleError::NoHash)?)?,
            [b'(', .., b')'] => self.selectors.push(Selector::parse(rule, has_all_channels)?),
            _ if is_word(rule, "clearselectors") => self.selectors.clear(),
            _ if is_word(rule, "reset") => *self = User::new(self.id, &self.name, has_all_channels),
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn reset_passwords(&mut self, needs_none: bool) {
        self.needs_no_password = needs_none;
        self.passwords.clear();
    }

    fn add_password(&mut self, hash: PasswordHash) {
        self.needs_no_password = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: &PasswordHash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| known == hash).ok_or(RuleError::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// `requirepass`: this password alone, or none.
    pub(super) fn require(&mut self, password: Option<&str>) {
        self.reset_passwords(password.is_none());
        if let Some(password) = password {
            self.add_password(PasswordHash::of(password.as_bytes()));
        }
    }

    /// Whether somebody may come in with this password.
    pub(super) fn takes(&self, password: &[u8]) -> bool {
        let given = PasswordHash::of(password);
        let is_right = self.passwords.iter().fold(false, |is_right, known| is_right | known.is_same(&given));
        self.is_on && (self.needs_no_password || is_right)
    }

    /// Whether connections have it without logging in.
    pub(crate) fn is_open(&self) -> bool {
        self.is_on && self.needs_no_password
    }

    /// As it is from now on.
    pub(super) fn settled(mut self) -> Arc<User> {
        let is_unlimited = self.all_selectors().any(Selector::permits_everything);
        self.is_unlimited = is_unlimited;
        Arc::new(self)
    }

    /// The root, and those in parentheses.
    fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    pub(crate) fn root(&self) -> &Selector {
        &self.root
    }

    pub(crate) fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Whether a request may run, whose command stands at `index` in the table of commands. Not inlined: those who may do everything, nearly
    /// all, would carry it through the loop over their requests.
    #[inline(never)]
    pub(crate) fn check(&self, index: usize, args: Args<'_>) -> Result<(), Denial> {
        match Catalog::get().asked(index, args) {
            Some(id) => self.check_asked(id, args),
            None => Ok(()),
        }
    }

    /// As [`User::check`], for what is known to be asked for.
    #[inline]
    pub(crate) fn check_asked(&self, id: usize, args: Args<'_>) -> Result<(), Denial> {
        let entry = Catalog::get().entry(id);
        let Err(mut worst) = self.root.check(id, entry, args) else { return Ok(()) };
        for selector in &self.selectors {
            match selector.check(id, entry, args) {
                Ok(()) => return Ok(()),
                Err(denial) if (denial.reason, denial.position) > (worst.reason, worst.position) => worst = denial,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    pub(crate) fn permits_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        self.all_selectors().any(|selector| selector.permits_channel(name, is_pattern))
    }

    pub(crate) fn shown_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// The words of GETUSER's flags.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        flags.extend(self.needs_no_password.then_some("nopass"));
        flags.push(if self.skips_sanitizing { "skip-sanitize-payload" } else { "sanitize-payload" });
        flags
    }

    /// SHA-256 of its passwords in hexadecimal.
    pub(crate) fn passwords(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(PasswordHash::hexadecimal)
    }

    /// Whether it has the same name, the same words, and they mean the same.
    pub(super) fn is_same(&self, other: &User) -> bool {
        let are_same = || self.all_selectors().zip(other.all_selectors()).all(|(ours, theirs)| ours.is_same(theirs));
        self.line() == other.line() && self.name == other.name && self.selectors.len() == other.selectors.len() && are_same()
    }

    /// All rules that make such a user, as they stand in a file.
    pub(crate) fn rules(&self) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = self.flags().iter().map(|flag| flag.as_bytes().to_vec()).collect();
        words.extend(self.passwords().map(|digits| format!("#{digits}").into_bytes()));
        words.push(self.root.shown());
        words.extend(self.selectors.iter().map(|selector| [b"(", &*selector.shown(), b")"].concat()));
        words.join(&b' ')
    }

    /// Its line of ACL LIST and of a file.
    pub(crate) fn line(&self) -> Vec<u8> {
        [b"user ", &*self.name, b" ", &*self.rules()].concat()
    }
}

impl Denial {
    /// What was asked for, in small letters.
    pub(crate) fn command(&self) -> &'static str {
        &Catalog::get().entry(self.id).name
    }

    /// The words of Redis for it. `is_dry`: DRYRUN, which names the key or the channel.
    pub(crate) fn text(&self, user: &User, args: Args<'_>, is_dry: bool) -> String {
        let name = user.shown_name();
        let argument = String::from_utf8_lossy(args.get(self.position).unwrap_or_default());
        match self.reason {
            Reason::Command => {
                format!("User {name} has no permissions to run the '{}' command", self.command())
            }
            Reason::Key if is_dry => format!("User {name} has no permissions to access the '{argument}' key"),
            Reason::Key => "No permissions to access a key".to_owned(),
            Reason::Channel if is_dry => format!("User {name} has no permissions to access the '{argument}' channel"),
            Reason::Channel => "No permissions to access a channel".to_owned(),
        }
    }

    /// The words of Redis for it where EXEC meets it.
    pub(crate) fn text_in_exec(&self) -> String {
        let reason = match self.reason {
            Reason::Command => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => "no permission to access one of the channels used as arguments to the command",
        };
        format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer \
             allowed for the following reason: {reason}"
        )
    }
}
