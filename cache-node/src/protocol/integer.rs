//! Decimal integers, read and written by hand: every argument and every reply has one, and the standard library's way is made for more.

/// Digits of which no number overflows.
const SAFE_DIGITS: usize = 18;

/// A decimal number with an optional minus and nothing else, as Redis's `string2ll` but for leading zeros.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] | [b'+', ..] => return None,
        _ if digits.len() > SAFE_DIGITS => return std::str::from_utf8(text).ok()?.parse().ok(),
        _ => {}
    }
    let mut number = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if is_negative { -number } else { number })
}

/// Decimal digits without the formatting machinery, which costs more than the rest of a small reply.
#[derive(Default)]
pub(crate) struct DecimalBuffer {
    digits: [u8; 20],
}

impl DecimalBuffer {
    pub(crate) fn format(&mut self, number: i64) -> &[u8] {
        let mut start = self.digits.len();
        let mut rest = number.unsigned_abs();
        loop {
            start -= 1;
            self.digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            start -= 1;
            self.digits[start] = b'-';
        }
        &self.digits[start..]
    }
}

#[cfg(test)]
mod tests {
    use super::parse_integer;

    #[test]
    fn it_reads_what_the_standard_library_reads() {
        let mut texts: Vec<String> =
            ["", "-", "+", "+1", "--1", "-+1", "1 ", " 1", "1x", "0", "-0", "007", "-007", "/", ":"].map(str::to_owned).to_vec();
        for digits in 1..=21 {
            for digit in ["1", "9"] {
                texts.extend([digit.repeat(digits), format!("-{}", digit.repeat(digits))]);
            }
        }
        texts.extend([i64::MIN, i64::MAX, i64::MIN + 1].map(|number| number.to_string()));
        texts.extend(["9223372036854775808", "-9223372036854775809"].map(str::to_owned));
        for text in texts {
            let expected = if text.starts_with('+') { None } else { text.parse().ok() };
            assert_eq!(parse_integer(text.as_bytes()), expected, "{text:?}");
        }
    }
}
