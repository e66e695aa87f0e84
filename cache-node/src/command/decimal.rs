//! Decimal numbers for INCRBYFLOAT and HINCRBYFLOAT: 0.1 and 0.2 make 0.3.

use std::fmt;

use crate::command::{CommandError, parse::strict_double};

/// Digits behind the point, as Redis prints them (`%.17Lf`).
const PLACES: u32 = 17;

const ONE: i128 = 10_i128.pow(PLACES);

/// A number: exact to 17 places where it fits, a double else.
///
/// Redis calculates with the 80 bits of x87 registers, so that sums of a few digits print as people write them. Exact decimals do
/// that on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decimal {
    /// In units of 10^-17.
    Exact(i128),
    Double(f64),
}

impl Decimal {
    pub(super) const ZERO: Decimal = Decimal::Exact(0);

    /// Reads what Redis takes for a float. `None` for anything else, NaN included.
    pub(super) fn parse(text: &[u8]) -> Option<Decimal> {
        let double = strict_double(text)?;
        Some(exact(text).map_or(Decimal::Double(double), Decimal::Exact))
    }

    pub(super) fn is_finite(self) -> bool {
        self.double().is_finite()
    }

    pub(super) fn add(self, other: Decimal) -> Result<Decimal, CommandError> {
        if let (Decimal::Exact(a), Decimal::Exact(b)) = (self, other)
            && let Some(sum) = a.checked_add(b)
        {
            return Ok(Decimal::Exact(sum));
        }
        let sum = self.double() + other.double();
        if sum.is_finite() {
            Ok(Decimal::Double(sum))
        } else {
            Err(CommandError::fixed("ERR increment would produce NaN or Infinity"))
        }
    }

    fn double(self) -> f64 {
        match self {
            Decimal::Exact(units) => units as f64 / ONE as f64,
            Decimal::Double(double) => double,
        }
    }
}

impl fmt::Display for Decimal {
    /// Never with an exponent, never with zeros at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decimal::Exact(units) => {
                let sign = if *units < 0 { "-" } else { "" };
                let (whole, part) = (units.unsigned_abs() / ONE as u128, units.unsigned_abs() % ONE as u128);
                if part == 0 {
                    return write!(f, "{sign}{whole}");
                }
                let digits = format!("{part:017}");
                write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
            }
            Decimal::Double(double) => write!(f, "{double}"),
        }
    }
}

/// A decimal in units of 10^-17, rounded there. `None` when it is not written in decimals or does not fit.
fn exact(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mut units: i128 = 0;
    for digit in whole.bytes().chain(part.bytes()) {
        let digit = char::from(digit).to_digit(10)?;
        units = units.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let shift = PLACES as i32 + exponent - i32::try_from(part.len()).ok()?;
    let units = match u32::try_from(shift) {
        Ok(shift) => units.checked_mul(10_i128.checked_pow(shift)?)?,
        // A part too small to be counted rounds to zero.
        Err(_) => match 10_i128.checked_pow(shift.unsigned_abs()) {
            Some(divisor) => (units + divisor / 2) / divisor,
            None => 0,
        },
    };
    Some(if is_negative { -units } else { units })
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    fn sum(a: &str, b: &str) -> String {
        let number = |text: &str| Decimal::parse(text.as_bytes()).expect("a number");
        number(a).add(number(b)).expect("finite").to_string()
    }

    #[test]
    fn sums_print_as_people_write_them() {
        let samples = [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("-1.5", "1.5", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-30", "0", "0"),
            ("-0.25", "0", "-0.25"),
            ("1e22", "1", "10000000000000000000000"),
            (".5", "+2.", "2.5"),
        ];
        for (a, b, expected) in samples {
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for refused in ["", "nan", " 1", "1 ", "1x", "1e", "e1", "--1"] {
            assert_eq!(Decimal::parse(refused.as_bytes()), None, "{refused}");
        }
        assert!(!Decimal::parse(b"inf").expect("infinity is a number").is_finite());
    }
}
