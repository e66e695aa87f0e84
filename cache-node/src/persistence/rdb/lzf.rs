//! LZF, the compression of strings in RDB files.
//!
//! Written out here because the crates that there are clear a table of 256 KB for every string that they compress: 10 µs for a session
//! of 300 bytes, under its shard's lock.

/// Bytes of one literal run.
const LITERAL_MAX: usize = 32;

/// How far back a match may lie.
const OFFSET_MAX: usize = 1 << 13;

/// Bytes of one match.
const MATCH_MAX: usize = 2 + 7 + 255;

/// What `length` bytes can become at the most: a match of 264 bytes takes three.
pub(super) fn decompressed_max(length: usize) -> usize {
    length.saturating_mul(MATCH_MAX / 3)
}

/// Takes a string apart that becomes exactly `length` bytes; `None` when it does not.
pub(super) fn decompress(input: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(length);
    let mut rest = input;
    while let Some(control) = next(&mut rest) {
        if control < LITERAL_MAX {
            let (literal, behind) = rest.split_at_checked(control + 1)?;
            output.extend_from_slice(literal);
            rest = behind;
        } else {
            let mut count = control >> 5;
            if count == 7 {
                count += next(&mut rest)?;
            }
            let offset = (control & 0x1F) << 8 | next(&mut rest)?;
            let start = output.len().checked_sub(offset + 1)?;
            // One byte after the other: the match may reach into what it writes.
            for position in start..start + count + 2 {
                output.push(output[position]);
            }
        }
        if output.len() > length {
            return None;
        }
    }
    (output.len() == length).then_some(output)
}

fn next(rest: &mut &[u8]) -> Option<usize> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(usize::from(*first))
}

/// Appends `input` in its compressed form. `false`, and nothing appended, when that would not be shorter.
pub(super) fn compress(input: &[u8], output: &mut Vec<u8>) -> bool {
    const HASH_BITS: u32 = 11;
    let before = output.len();
    // Places behind the last three bytes of that hash; 0 for none.
    let mut places = [0_u32; 1 << HASH_BITS];
    let mut literal_start = 0;
    let mut position = 0;
    while position + 2 < input.len() {
        let three = u32::from_le_bytes([input[position], input[position + 1], input[position + 2], 0]);
        let slot = (three.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize;
        let found = std::mem::replace(&mut places[slot], position as u32 + 1) as usize;
        let candidate = found.wrapping_sub(1);
        let is_match =
            found > 0 && position - candidate <= OFFSET_MAX && input[candidate..candidate + 3] == input[position..position + 3];
        if !is_match {
            position += 1;
            continue;
        }
        let count_max = MATCH_MAX.min(input.len() - position);
        let count = 3 + (3..count_max).take_while(|at| input[candidate + at] == input[position + at]).count();
        literals(&input[literal_start..position], output);
        let offset = position - candidate - 1;
        let length = count - 2;
        if length < 7 {
            output.push((length << 5 | offset >> 8) as u8);
        } else {
            output.push((7 << 5 | offset >> 8) as u8);
            output.push((length - 7) as u8);
        }
        output.push(offset as u8);
        position += count;
        literal_start = position;
        if output.len() - before >= input.len() {
            break;
        }
    }
    literals(&input[literal_start..], output);
    let is_shorter = output.len() - before < input.len();
    if !is_shorter {
        output.truncate(before);
    }
    is_shorter
}

fn literals(bytes: &[u8], output: &mut Vec<u8>) {
    for run in bytes.chunks(LITERAL_MAX) {
        output.push(run.len() as u8 - 1);
        output.extend_from_slice(run);
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::{compress, decompress, decompressed_max};

    #[test]
    fn what_was_compressed_comes_back() {
        let mut random = SmallRng::seed_from_u64(3);
        for round in 0..2_000 {
            let letters = 1 + round % 30;
            let input: Vec<u8> = (0..random.random_range(0..3_000)).map(|_| random.random_range(0..letters) as u8).collect();
            let mut output = b"before".to_vec();
            if compress(&input, &mut output) {
                assert!(output.len() - 6 < input.len());
                assert!(input.len() <= decompressed_max(output.len() - 6));
                assert_eq!(decompress(&output[6..], input.len()), Some(input));
            } else {
                assert_eq!(output, b"before");
            }
        }
    }

    #[test]
    fn long_runs_and_far_matches() {
        for length in [264, 265, 266, 300, 8_192, 8_193, 20_000] {
            let mut input = vec![b'a'; length];
            input.extend(0..=255);
            input.extend(vec![b'b'; length]);
            input.extend(0..=255);
            let mut output = Vec::new();
            assert!(compress(&input, &mut output));
            assert_eq!(decompress(&output, input.len()), Some(input));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut random = SmallRng::seed_from_u64(4);
        for _ in 0..20_000 {
            let input: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
            let length = random.random_range(0..2_000);
            assert!(decompress(&input, length).is_none_or(|output| output.len() == length));
        }
    }
}
