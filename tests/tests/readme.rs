//! What the README shows is what is compiled.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::fs;

use end_to_end::program;

const EXAMPLE: &str = "session-store/examples/ten_lines.rs";

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_readme_shows_the_example_that_is_compiled() {
    let root = program::workspace_root();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let example = fs::read_to_string(root.join(EXAMPLE)).unwrap();
    let block = readme.split("```rust").nth(1).expect("README.md has no block of Rust code");
    let (first, code) = block.split("```").next().unwrap().split_once('\n').unwrap();
    assert_eq!(first.trim(), "", "the block is plain Rust, without attributes");
    let shown = lines(code);
    let compiled = lines(&example);
    assert!(shown.len() >= 5, "not much of an example: {shown:?}");
    let is_part = compiled.windows(shown.len()).any(|part| part == shown);
    assert!(is_part, "README.md shows what {EXAMPLE} does not have:\n{code}");
}
