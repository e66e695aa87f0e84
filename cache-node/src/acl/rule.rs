//! What can be wrong with rules, and rules in parentheses.

/// Why a rule is refused, in Redis's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleError {
    UnknownCommand,
    Syntax,
    KeysAfterAll,
    ChannelsAfterAll,
    NoSuchPassword,
    NoHash,
    FirstArgumentOfSubcommand,
    /// It would be another one when it is read back from a file.
    Unwritable,
}

impl RuleError {
    pub(crate) fn text(self) -> &'static str {
        match self {
            RuleError::UnknownCommand => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::KeysAfterAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' \
                 to start with an empty list of patterns"
            }
            RuleError::ChannelsAfterAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try \
                 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::NoHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::Unwritable => {
                "Syntax error: a rule in parentheses has no quotes and no ')' at its end, or no file could hold it"
            }
            RuleError::FirstArgumentOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

/// A parenthesis that is not closed: the word that begins with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unmatched<'a>(pub(crate) &'a [u8]);

/// Joins the words of each selector: in a file and on the command line they stand apart.
pub(crate) fn join_selectors<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Unmatched<'a>> {
    let mut rules = Vec::new();
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for word in words {
        let closes = word.last() == Some(&b')');
        match &mut open {
            None if word.first() == Some(&b'(') && !closes => open = Some((word, word.to_vec())),
            None => rules.push(word.to_vec()),
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                if closes {
                    rules.extend(open.take().map(|(_, selector)| selector));
                }
            }
        }
    }
    match open {
        Some((word, _)) => Err(Unmatched(word)),
        None => Ok(rules),
    }
}

/// A word of a file without what stands around it: blanks of ASCII alone, since of others names, patterns and passwords may consist.
pub(super) fn trimmed(mut word: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = word {
        word = rest;
    }
    word
}

/// Whether a rule within parentheses is read back from a file as it is: words there are split at quotes, and the last one ends with a parenthesis.
pub(super) fn fits_in_parentheses(rule: &[u8]) -> bool {
    rule.last() != Some(&b')') && !rule.iter().any(|byte| matches!(byte, b'"' | b'\''))
}

/// Whether it holds a blank or a zero: it could not be written into a file and read back.
pub(super) fn has_blanks(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, 0 | b' ' | b'\t'..=b'\r'))
}

#[cfg(test)]
mod tests {
    use super::{Unmatched, join_selectors};

    #[test]
    fn the_words_of_a_selector_become_one_rule() {
        let words = |line: &'static str| line.split(' ').map(str::as_bytes);
        let joined = join_selectors(words("on (~a +get ~b) (+@all) (x")).expect_err("one is open");
        assert_eq!(joined, Unmatched(b"(x"));
        let joined = join_selectors(words("on (~a +get ~b) (+@all)")).expect("all are closed");
        assert_eq!(joined, [&b"on"[..], b"(~a +get ~b)", b"(+@all)"]);
    }
}
