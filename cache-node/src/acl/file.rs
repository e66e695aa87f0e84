//! Users as text: a line each, in the ACL file and in the configuration.

use crate::acl::{RuleError, Unmatched, User, is_name, join_selectors, rule::trimmed};

/// A number that nobody has yet: those of a file get theirs when all of it is right.
const UNNUMBERED: u32 = u32::MAX;

/// A `user` line of the configuration. It is built when all of that is read: `acl-pubsub-default` may stand behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserLine {
    pub(crate) name: String,
    rules: Vec<String>,
}

impl UserLine {
    /// From its name and its rules.
    ///
    /// # Errors
    /// What is wrong, without passwords.
    pub(crate) fn parse(words: &[&str]) -> Result<UserLine, String> {
        let [name, rules @ ..] = words else { return Err("a name and rules, as ACL SETUSER takes them".to_owned()) };
        if !is_name(name.as_bytes()) {
            return Err("a name without blanks in front of the rules".to_owned());
        }
        let line = UserLine { name: (*name).to_owned(), rules: rules.iter().map(|rule| (*rule).to_owned()).collect() };
        line.user(false).map(|_| line)
    }

    /// The user that it tells of.
    ///
    /// # Errors
    /// As [`UserLine::parse`].
    pub(crate) fn user(&self, has_all_channels: bool) -> Result<User, String> {
        let words = self.rules.iter().map(String::as_bytes);
        let rules = join_selectors(words).map_err(|open| format!("each parenthesis closed: {} is not", shown(open.0)))?;
        let mut user = User::new(UNNUMBERED, self.name.as_bytes(), has_all_channels);
        for rule in rules {
            user.apply(&rule, has_all_channels)
                .map_err(|error| format!("rules as ACL SETUSER takes them: {}: {}", shown(&rule), error.text()))?;
        }
        Ok(user)
    }
}

/// A rule as it may stand in a log: without its password.
fn shown(rule: &[u8]) -> String {
    match rule {
        [sign @ (b'>' | b'<' | b'#' | b'!'), ..] => format!("'{}(hidden)'", char::from(*sign)),
        // None belongs there, which is why it may be the error.
        [b'(', inner @ ..] if inner.iter().any(|byte| matches!(byte, b'>' | b'<' | b'#' | b'!')) => "'((hidden)'".to_owned(),
        _ => format!("'{}'", String::from_utf8_lossy(rule)),
    }
}

/// The users of an ACL file. `name` is the file's, for errors.
///
/// # Errors
/// All that is wrong, in one line and in Redis's words.
pub(crate) fn parse_file(name: &str, text: &[u8], has_all_channels: bool) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut errors = String::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = trimmed(line);
        if line.is_empty() {
            continue;
        }
        match parse_line(name, index + 1, line, has_all_channels) {
            Ok(user) if users.iter().any(|known| known.name == user.name) => {
                errors += &format!("WARNING: Duplicate user '{}' found on line {}. ", user.shown_name(), index + 1);
            }
            Ok(user) => users.push(user),
            Err(error) => errors += &error,
        }
    }
    if errors.is_empty() { Ok(users) } else { Err(errors) }
}

fn parse_line(file: &str, number: usize, line: &[u8], has_all_channels: bool) -> Result<User, String> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(b"user"), Some(name)) = (words.next(), words.next()) else {
        return Err(format!("{file}:{number} should start with user keyword followed by the username. "));
    };
    if !is_name(name) {
        let name = String::from_utf8_lossy(name);
        return Err(format!("'{file}:{number}: username '{name}' contains invalid characters. "));
    }
    let rules = join_selectors(words)
        .map_err(|Unmatched(_)| format!("{file}:{number}: Unmatched parenthesis in selector definition."))?;
    let mut user = User::new(UNNUMBERED, name, has_all_channels);
    let mut errors = String::new();
    let mut has_other_error = false;
    for rule in rules {
        match user.apply(trimmed(&rule), has_all_channels) {
            Ok(()) => {}
            Err(error @ RuleError::UnknownCommand) => {
                let rule = shown(&rule);
                errors += &format!("{file}:{number}: Error in applying operation {rule}: {}. ", error.text());
            }
            // What is wrong behind the first may come from it.
            Err(error) if !has_other_error => {
                has_other_error = true;
                errors += &format!("{file}:{number}: {}. ", error.text());
            }
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(user) } else { Err(errors) }
}

/// A user that would be another one if its line was read back. Its text names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwritable(pub(crate) String);

/// Compares a user with what was made of its line.
///
/// # Errors
/// When that is another one.
pub(crate) fn ensure_same(user: &User, again: Option<&User>) -> Result<(), Unwritable> {
    if again.is_some_and(|again| again.is_same(user)) {
        return Ok(());
    }
    let name = user.shown_name();
    Err(Unwritable(format!(
        "the user '{name}' would be another one when its line is read back, and nothing is written: make it anew with ACL SETUSER"
    )))
}

/// The text of a file with these users.
///
/// # Errors
/// When one of them would be another one there.
pub(crate) fn text_of<'a>(users: impl IntoIterator<Item = &'a User>) -> Result<Vec<u8>, Unwritable> {
    let mut text = Vec::new();
    for user in users {
        let line = [&*user.line(), b"\n"].concat();
        let again = parse_file("", &line, false).unwrap_or_default();
        ensure_same(user, again.first().filter(|_| again.len() == 1))?;
        text.extend(line);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{UNNUMBERED, Unwritable, UserLine, parse_file, text_of};
    use crate::acl::{DEFAULT, User};

    #[test]
    fn what_was_written_is_read() {
        let text =
            b"user default off resetchannels -@all\n\n  user bob on >a ~x* %R~y (+get ~z) &c -@all +@read -keys +config|get\r\n";
        let users = parse_file("users.acl", text, false).expect("a right file");
        assert_eq!((users.len(), &*users[0].name), (2, DEFAULT));
        let written = text_of(&users).expect("they can be written");
        let again = parse_file("users.acl", &written, true).expect("what was written is read");
        assert_eq!(text_of(&again), Ok(written));
    }

    #[test]
    fn who_would_be_another_one_is_not_written() {
        let user = User::new(UNNUMBERED, b"bob on nopass ~* +@all", false);
        let Unwritable(error) = text_of([&user]).expect_err("a name with blanks");
        assert!(error.contains("'bob on nopass ~* +@all'"), "{error}");
    }

    #[test]
    fn every_error_names_its_line() {
        let text = b"user a on\nusr b\nuser c +nosuch !x\nuser a off\nuser d (~a";
        let error = parse_file("u", text, false).expect_err("a wrong file");
        for part in [
            "u:2 should",
            "u:3: Error in applying operation '+nosuch'",
            "u:3: The password hash",
            "user 'a' found on line 4",
            "u:5: Unm",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn an_error_of_the_configuration_tells_no_password() {
        let error = UserLine::parse(&["a", "on", "<sesame"]).expect_err("none to remove");
        assert!(error.contains("'<(hidden)'") && !error.contains("sesame"), "{error}");
        for rules in [&["(>sesame", "~a)"][..], &["(~a +nosuch >sesame)"], &["(<sesame"]] {
            let error = UserLine::parse(&[&["a", "on"], rules].concat()).expect_err("no place for a password");
            assert!(error.contains("(hidden)") && !error.contains("sesame"), "{error}");
        }
        let error = parse_file("u", b"user a (+nosuch >sesame)", false).expect_err("no place for a password");
        assert!(!error.contains("sesame"), "{error}");
        assert!(UserLine::parse(&["a", "(~a", "+get)", "+@all", "-@all", "+xadd"]).is_ok());
    }
}
