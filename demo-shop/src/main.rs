//! Demo shop.
fn main() {}
