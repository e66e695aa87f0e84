//! Random members: HRANDFIELD, SRANDMEMBER, ZRANDMEMBER.

use crate::command::{CommandError, parse::integer};

/// Members drawn with repetition by one command. Redis takes any number and may run out of memory.
const REPEATED_MAX: i64 = 1024 * 1024;

/// How many members are wanted, and whether one may come more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleSize {
    Distinct(usize),
    Repeated(usize),
}

/// A count argument: negative for as many with repetition.
pub(super) fn sample_size(text: &[u8]) -> Result<SampleSize, CommandError> {
    let count = integer(text)?;
    match count {
        i64::MIN => Err(CommandError::OUT_OF_RANGE),
        0.. => Ok(SampleSize::Distinct(count as usize)),
        _ if count < -REPEATED_MAX => Err(CommandError::fixed("ERR value is out of range")),
        _ => Ok(SampleSize::Repeated(count.unsigned_abs() as usize)),
    }
}

/// Indexes drawn at random.
#[derive(Debug)]
pub(super) enum Sample {
    /// All of them, in order.
    All(usize),
    Some(Vec<usize>),
}

impl Sample {
    /// Draws from `0..len`. O(sample).
    pub(super) fn draw(size: SampleSize, len: usize) -> Sample {
        match size {
            SampleSize::Distinct(count) if count >= len => Sample::All(len),
            SampleSize::Distinct(count) => Sample::Some(rand::seq::index::sample(&mut rand::rng(), len, count).into_vec()),
            SampleSize::Repeated(count) => Sample::Some((0..count).map(|_| rand::random_range(0..len)).collect()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Sample::All(len) => *len,
            Sample::Some(indexes) => indexes.len(),
        }
    }

    pub(super) fn indexes(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|at| match self {
            Sample::All(_) => at,
            Sample::Some(indexes) => indexes[at],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Sample, SampleSize, sample_size};

    #[test]
    fn distinct_members_come_once_and_repeated_ones_as_often_as_asked() {
        let drawn: Vec<usize> = Sample::draw(SampleSize::Distinct(50), 100).indexes().collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 50);
        assert_eq!(Sample::draw(SampleSize::Distinct(200), 100).len(), 100);
        assert_eq!(Sample::draw(SampleSize::Repeated(200), 3).indexes().filter(|index| *index < 3).count(), 200);
        assert!(sample_size(b"-99999999999").is_err() && sample_size(b"-9223372036854775808").is_err());
    }
}
