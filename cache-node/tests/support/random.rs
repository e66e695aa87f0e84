//! Random commands.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use super::words;

/// Templates of commands for random sequences; `{…}` stands for an argument drawn by [`argument`].
pub const TEMPLATES: &str = include_str!("../differential/random.txt");

const TYPES: [&str; 5] = ["string", "hash", "set", "zset", "list"];

/// Few keys and members, so that commands meet each other's values and times; seldom a key whose name says another type.
fn argument(name: &str, random: &mut StdRng) -> Vec<u8> {
    /// Far in the future: what is left of it does not depend on how fast the test runs.
    const YEAR_3000: i64 = 32_503_680_000;
    let text = match name {
        "k" => format!("{}{}", TYPES.choose(random).unwrap(), random.random_range(0..3)),
        kind if TYPES.contains(&kind) => {
            let kind = if random.random_ratio(1, 12) { TYPES.choose(random).unwrap() } else { kind };
            format!("{kind}{}", random.random_range(0..3))
        }
        "m" => format!("m{}", random.random_range(0..8)),
        "i" => random.random_range(-4..6_i64).to_string(),
        "n" => random.random_range(0..4_i64).to_string(),
        // Quarters: their sums print alike with 17 digits and with the shortest ones.
        "s" => (f64::from(random.random_range(-20..20)) / 4.0).to_string(),
        "t" => random.random_range(1_000..100_000).to_string(),
        "at" => (YEAR_3000 + random.random_range(0..1_000)).to_string(),
        "r" => match random.random_range(0..5) {
            0 => "-inf".to_owned(),
            1 => "+inf".to_owned(),
            2 => format!("({}", random.random_range(-4..4)),
            _ => random.random_range(-4..4).to_string(),
        },
        "v" => match random.random_range(0..9) {
            0 => String::new(),
            1 => "text with blanks\r\n".to_owned(),
            2 => "x".repeat(70),
            3 => "1.5".to_owned(),
            4 => "word".to_owned(),
            _ => random.random_range(-3..4).to_string(),
        },
        other => panic!("no argument is called {other}"),
    };
    text.into_bytes()
}

/// A template with its arguments drawn.
pub fn command(template: &str, random: &mut StdRng) -> Vec<Vec<u8>> {
    words(template)
        .into_iter()
        .map(|word| {
            let name = std::str::from_utf8(&word).unwrap().strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            name.map(|name| argument(name, random)).unwrap_or(word)
        })
        .collect()
}
