//! Things that are known by their numbers, which are used again.

/// Puts a thing where a free number says, or at the end, and gives its number.
pub(super) fn put<T>(things: &mut Vec<T>, free: &mut Vec<u32>, thing: T) -> u32 {
    match free.pop() {
        Some(number) => {
            things[number as usize] = thing;
            number
        }
        None => {
            things.push(thing);
            things.len() as u32 - 1
        }
    }
}
