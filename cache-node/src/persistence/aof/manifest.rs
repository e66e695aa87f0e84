//! The manifest: which files make up the log, in which order. The format is Redis 7's.

use std::fmt;

use crate::protocol::{quoted_word, split_quoted_line};

/// What a file of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All data at one moment.
    Base,
    /// The writes since.
    Increment,
    /// Not needed any more, and to be deleted.
    History,
}

impl Kind {
    const LETTERS: [(&'static str, Kind); 3] = [("b", Kind::Base), ("i", Kind::Increment), ("h", Kind::History)];

    fn letter(self) -> &'static str {
        Kind::LETTERS.iter().find(|(_, kind)| *kind == self).map_or("", |(letter, _)| letter)
    }
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) kind: Kind,
}

/// The files, as they are loaded: the base, then each increment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) base: Option<Part>,
    pub(super) increments: Vec<Part>,
    pub(super) history: Vec<Part>,
}

impl Manifest {
    /// Reads a manifest; the error says which line is wrong and why.
    pub(super) fn parse(text: &str) -> Result<Manifest, String> {
        let mut manifest = Manifest::default();
        for (index, line) in text.lines().enumerate() {
            let at_line = |what: String| format!("line {}: {what}", index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let part = parse_line(line).map_err(at_line)?;
            match part.kind {
                Kind::Base if manifest.base.is_some() => return Err(at_line("a second base".to_owned())),
                Kind::Base => manifest.base = Some(part),
                Kind::Increment => {
                    if manifest.increments.last().is_some_and(|last| last.number >= part.number) {
                        return Err(at_line("the numbers of the increments do not rise".to_owned()));
                    }
                    manifest.increments.push(part);
                }
                Kind::History => manifest.history.push(part),
            }
        }
        Ok(manifest)
    }

    /// The files to load, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.base.iter().chain(&self.increments)
    }

    /// The next increment, named after the log.
    pub(super) fn next_increment(&self, filename: &str) -> Part {
        let number = self.increments.last().map_or(0, |last| last.number) + 1;
        Part { name: format!("{filename}.{number}.incr.aof"), number, kind: Kind::Increment }
    }

    /// The next base, named after the log.
    pub(super) fn next_base(&self, filename: &str, is_rdb: bool) -> Part {
        let number = self.base.as_ref().map_or(0, |base| base.number) + 1;
        let format = if is_rdb { "rdb" } else { "aof" };
        Part { name: format!("{filename}.{number}.base.{format}"), number, kind: Kind::Base }
    }

    /// The manifest with `base` in the place of all that came before the last increment.
    pub(super) fn rebased(&self, base: Part) -> Manifest {
        let mut next = self.clone();
        let kept = next.increments.split_off(next.increments.len().saturating_sub(1));
        let replaced = next.base.replace(base).into_iter().chain(next.increments);
        next.history.extend(replaced.map(|part| Part { kind: Kind::History, ..part }));
        next.increments = kept;
        next
    }
}

impl Manifest {
    /// A manifest of `base` and `increment` alone, with all that came before them as history.
    pub(super) fn begun_anew(&self, base: Part, increment: Part) -> Manifest {
        let mut next = self.rebased(base);
        next.history.extend(next.increments.drain(..).map(|part| Part { kind: Kind::History, ..part }));
        next.increments.push(increment);
        next
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.base.iter().chain(&self.history).chain(&self.increments) {
            writeln!(f, "file {} seq {} type {}", quoted_word(&part.name), part.number, part.kind.letter())?;
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Result<Part, String> {
    let words = split_quoted_line(line).ok_or("unbalanced quotes")?;
    if !words.len().is_multiple_of(2) {
        return Err("a word without its value".to_owned());
    }
    let (mut name, mut number, mut kind) = (None, None, None);
    // Words that are not known are for versions to come.
    for pair in words.chunks_exact(2) {
        match pair[0].as_str() {
            "file" if pair[1].contains('/') => return Err(format!("'{}' is a path and not a name", pair[1])),
            "file" => name = Some(pair[1].clone()),
            "seq" => number = pair[1].parse().ok(),
            "type" => kind = Kind::LETTERS.iter().find(|(letter, _)| *letter == pair[1]).map(|(_, kind)| *kind),
            _ => {}
        }
    }
    let (Some(name), Some(number), Some(kind)) = (name, number, kind) else {
        return Err("expected: file NAME seq NUMBER type b|i|h".to_owned());
    };
    Ok(Part { name, number, kind })
}

#[cfg(test)]
mod tests {
    use super::{Kind, Manifest};

    #[test]
    fn it_reads_what_redis_writes_and_writes_it_back() {
        let text = "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.1.incr.aof seq 1 type h\n\
                    file appendonly.aof.4.incr.aof seq 4 type i\nfile \"a name.5.incr.aof\" seq 5 type i\n";
        let manifest = Manifest::parse(text).expect("a manifest of Redis");
        assert_eq!(manifest.to_string(), text);
        assert_eq!(manifest.parts().map(|part| part.number).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(manifest.next_increment("a.aof").name, "a.aof.6.incr.aof");
        let base = manifest.next_base("a.aof", true);
        assert_eq!(base.name, "a.aof.3.base.rdb");
        let rebased = manifest.rebased(base);
        assert_eq!(rebased.parts().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["a.aof.3.base.rdb", "a name.5.incr.aof"]);
        assert_eq!(rebased.history.len(), 3);
        assert!(rebased.history.iter().all(|part| part.kind == Kind::History));
    }

    #[test]
    fn an_error_says_which_line_and_why() {
        for (text, expected) in [
            ("file a seq 1 type b\nfile b seq 2 type b\n", "line 2: a second base"),
            ("# two\nfile a seq 2 type i\nfile b seq 2 type i\n", "line 3: the numbers of the increments do not rise"),
            ("file ../a seq 1 type b\n", "line 1: '../a' is a path and not a name"),
            ("file a seq 1\n", "line 1: expected: file NAME seq NUMBER type b|i|h"),
            ("file a seq one type b\n", "line 1: expected: file NAME seq NUMBER type b|i|h"),
            ("file \"a seq 1 type b\n", "line 1: unbalanced quotes"),
        ] {
            assert_eq!(Manifest::parse(text).expect_err("not a manifest"), expected, "{text}");
        }
    }
}
