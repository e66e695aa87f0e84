//! Amounts of memory as in redis.conf: `1gb`, `512mb`, `1000000`.

/// Bytes of a size. `k`, `m`, `g` are powers of 1000; `kb`, `mb`, `gb` of 1024, as Redis has it.
pub(super) fn parse(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(end);
    let factor: usize = match unit {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_as_in_redis_conf() {
        let samples = [
            ("0", Some(0)),
            ("256mb", Some(256 << 20)),
            ("1G", Some(1_000_000_000)),
            ("-1", None),
            ("1tb", None),
            ("", None),
            ("99999999999gb", None),
        ];
        for (text, bytes) in samples {
            assert_eq!(parse(text), bytes, "{text}");
        }
    }
}
