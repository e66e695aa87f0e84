//! Arguments as numbers, times and options.

use std::time::Duration;

use crate::{command::CommandError, keyspace::Now, protocol::parse_integer};

/// A signed integer as Redis reads it: no blanks, no plus, no leading zeros.
pub(crate) fn integer(text: &[u8]) -> Result<i64, CommandError> {
    strict_integer(text).ok_or(CommandError::NOT_AN_INTEGER)
}

/// As [`integer`], for values that may or may not be one.
pub(crate) fn strict_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [] | [b'+', ..] => false,
        [b'0'] => text.len() == 1,
        [b'0', ..] => false,
        _ => true,
    };
    if !is_canonical {
        return None;
    }
    parse_integer(text)
}

/// Milliseconds that something may take; `None` for 0: for ever, or not at all.
pub(crate) fn timeout(text: &[u8]) -> Result<Option<Duration>, CommandError> {
    let milliseconds = integer(text).map_err(|_| CommandError::fixed("ERR timeout is not an integer or out of range"))?;
    let milliseconds = u64::try_from(milliseconds).map_err(|_| CommandError::fixed("ERR timeout is negative"))?;
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

/// A finite or infinite double; NaN and blanks are refused.
pub(crate) fn double(text: &[u8]) -> Result<f64, CommandError> {
    strict_double(text).ok_or(CommandError::NOT_A_FLOAT)
}

pub(crate) fn strict_double(text: &[u8]) -> Option<f64> {
    let number = loose_double(text).filter(|_| !text.is_empty())?;
    let has_digits_beyond = || {
        let mantissa = text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
        mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'))
    };
    // What a double cannot hold is refused, as strtod's ERANGE is in Redis: 1e400 and 1e-400.
    let is_out_of_range = (number == 0.0 || number.is_infinite()) && has_digits_beyond();
    (!is_out_of_range).then_some(number)
}

/// A double as an end of a range: also what overflows, and nothing at all for zero. NaN is refused.
pub(crate) fn loose_double(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let text = std::str::from_utf8(text).ok()?;
    // Rust takes what strtod takes here, in any case: inf, infinity, nan, 1e3; never blanks.
    text.parse::<f64>().ok().filter(|number| !number.is_nan())
}

/// A count that must not be negative: LPOP, SPOP, ZPOPMIN.
pub(crate) fn count(text: &[u8]) -> Result<usize, CommandError> {
    let count = integer(text).map_err(|_| CommandError::NOT_POSITIVE)?;
    usize::try_from(count).map_err(|_| CommandError::NOT_POSITIVE)
}

/// Compares an option's word: options are case-insensitive.
pub(crate) fn is_word(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The unit of a time argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

/// Where a time argument counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Now,
    Epoch,
}

/// A time argument as signed Unix milliseconds. An overflow is an error that names the command, as in Redis.
pub(crate) fn time_ms(text: &[u8], unit: Unit, base: Base, now: Now, command: &str) -> Result<i64, CommandError> {
    let time = integer(text)?;
    let invalid = || CommandError::invalid_expiry(command);
    let milliseconds = match unit {
        Unit::Seconds => time.checked_mul(1000).ok_or_else(invalid)?,
        Unit::Milliseconds => time,
    };
    match base {
        Base::Epoch => Ok(milliseconds),
        Base::Now => milliseconds.checked_add(now.unix_ms as i64).ok_or_else(invalid),
    }
}

/// A time argument that must be positive (SET EX, SETEX, GETEX), as Unix milliseconds.
pub(crate) fn positive_time_ms(text: &[u8], unit: Unit, base: Base, now: Now, command: &str) -> Result<u64, CommandError> {
    if integer(text)? <= 0 {
        return Err(CommandError::invalid_expiry(command));
    }
    let at = time_ms(text, unit, base, now, command)?;
    u64::try_from(at).map_err(|_| CommandError::invalid_expiry(command))
}

#[cfg(test)]
mod tests {
    use super::{strict_double, strict_integer};

    #[test]
    fn integers_are_canonical() {
        assert_eq!(strict_integer(b"-9223372036854775808"), Some(i64::MIN));
        for refused in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808"] {
            assert_eq!(strict_integer(refused.as_bytes()), None, "{refused}");
        }
    }

    #[test]
    fn doubles_are_strict() {
        assert_eq!(strict_double(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(strict_double(b"3.0e3"), Some(3000.0));
        for refused in ["", "nan", " 1", "1x", "1e400", "-1e400", "1e-400"] {
            assert_eq!(strict_double(refused.as_bytes()), None, "{refused}");
        }
    }
}
