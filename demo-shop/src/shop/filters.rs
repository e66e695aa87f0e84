//! How templates write prices and dates.
#![expect(unreachable_pub, reason = "askama's macro makes public structs of these functions")]

use std::borrow::Borrow;

use askama::Values;
use time::OffsetDateTime;
use time::macros::format_description;

/// `1234` cents as `€ 12.34`.
#[askama::filter_fn]
pub(crate) fn euros(cents: impl Borrow<i64>, _: &dyn Values) -> askama::Result<String> {
    Ok(price(*cents.borrow()))
}

/// Milliseconds since 1970-01-01 UTC as `24 November 2026, 07:12 UTC`.
#[askama::filter_fn]
pub(crate) fn date(unix_ms: impl Borrow<i64>, _: &dyn Values) -> askama::Result<String> {
    Ok(day_and_time(*unix_ms.borrow()))
}

fn price(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    let digits = (cents / 100).to_string();
    let mut whole = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            whole.push(',');
        }
        whole.push(digit);
    }
    format!("{sign}€ {whole}.{:02}", cents % 100)
}

fn day_and_time(unix_ms: i64) -> String {
    let format = format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
    // A time that no calendar has is left out rather than an error on somebody's order.
    OffsetDateTime::from_unix_timestamp(unix_ms / 1000).ok().and_then(|date| date.format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{day_and_time, price};

    #[test]
    fn prices_read_as_people_write_them() {
        assert_eq!(price(1205), "€ 12.05");
        assert_eq!(price(-5), "-€ 0.05");
        assert_eq!(price(123_456_789), "€ 1,234,567.89");
    }

    #[test]
    fn a_date_reads_as_people_write_it() {
        assert_eq!(day_and_time(1_767_225_600_000), "1 January 2026, 00:00 UTC");
    }
}
