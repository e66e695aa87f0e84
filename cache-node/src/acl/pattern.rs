//! Patterns of keys and channels, looked at once so that most need no glob matcher: `app:*` is a prefix.

use crate::keyspace::glob_matches;

/// A pattern as it was written, and how it is matched.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: Box<[u8]>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Without a sign that means something else than itself.
    Exact,
    /// Such text, and one star at the end.
    Prefix,
    Glob,
}

impl Pattern {
    pub(super) fn new(text: &[u8]) -> Pattern {
        let is_literal = |text: &[u8]| !text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
        let kind = match text {
            [prefix @ .., b'*'] if is_literal(prefix) => Kind::Prefix,
            text if is_literal(text) => Kind::Exact,
            _ => Kind::Glob,
        };
        Pattern { text: text.into(), kind }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    #[inline]
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self.kind {
            Kind::Prefix => name.starts_with(&self.text[..self.text.len() - 1]),
            Kind::Exact => *name == *self.text,
            Kind::Glob => glob_matches(&self.text, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Pattern};
    use crate::keyspace::glob_matches;

    #[test]
    fn all_kinds_match_as_the_glob_matcher_does() {
        let patterns =
            [("*", Kind::Prefix), ("app:*", Kind::Prefix), ("app", Kind::Exact), ("", Kind::Exact), ("a\\*", Kind::Glob)];
        for (text, kind) in
            patterns.into_iter().chain([("a*b", Kind::Glob), ("[a]*", Kind::Glob), ("a?*", Kind::Glob), ("**", Kind::Glob)])
        {
            let pattern = Pattern::new(text.as_bytes());
            assert_eq!(pattern.kind, kind, "{text}");
            for name in ["", "a", "app", "app:", "app:1", "a*", "ab", "axb", "*"] {
                assert_eq!(pattern.matches(name.as_bytes()), glob_matches(text.as_bytes(), name.as_bytes()), "{text} {name}");
            }
        }
    }
}
