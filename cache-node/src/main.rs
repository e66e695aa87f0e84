//! Cache node binary.
fn main() {}
