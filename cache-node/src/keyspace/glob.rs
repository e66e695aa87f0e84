//! Glob patterns as Redis's `stringmatchlen`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Whether `text` matches `pattern`. O(pattern × text) time, no recursion: a pattern of a thousand stars from outside costs no stack.
pub(crate) fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a match fails: after the last star, with one more byte swallowed by it.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        if let Some(b'*') = pattern.get(p) {
            retry = Some((p, t));
            p += 1;
            continue;
        }
        if t < text.len()
            && let Some(next) = match_one(&pattern[p..], text[t])
        {
            p += next;
            t += 1;
            continue;
        }
        match retry {
            Some((star, swallowed)) if swallowed < text.len() => {
                retry = Some((star, swallowed + 1));
                p = star + 1;
                t = swallowed + 1;
            }
            _ => return false,
        }
    }
    true
}

/// Matches one byte against the pattern's first element and returns the element's length.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (is_match, length) = match_class(class, byte);
            is_match.then_some(1 + length)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// The class after `[`; a missing `]` ends with the pattern, as in Redis.
fn match_class(class: &[u8], byte: u8) -> (bool, usize) {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_match = false;
    loop {
        match &class[at.min(class.len())..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                is_match |= *escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                is_match |= (*low.min(high)..=*low.max(high)).contains(&byte);
                at += 3;
            }
            [single, ..] => {
                is_match |= *single == byte;
                at += 1;
            }
        }
    }
    (is_match != is_negated, at)
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn patterns_match_as_in_redis() {
        let matching = [
            ("*", ""),
            ("h?llo", "hello"),
            ("h*o", "ho"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("*a*b*c", "xxaybzc"),
            ("[abc", "a"),
            ("**", "x"),
        ];
        for (pattern, text) in matching {
            assert!(glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let failing =
            [("h?llo", "hllo"), ("h[^e]llo", "hello"), ("a\\*b", "axb"), ("", "x"), ("a*", "b"), ("*b", "ba"), ("?", "")];
        for (pattern, text) in failing {
            assert!(!glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_stars_costs_no_exponential_time() {
        let pattern = "a*".repeat(500) + "b";
        assert!(!glob_matches(pattern.as_bytes(), "a".repeat(2000).as_bytes()));
    }
}
