//! The `cache-node` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cache_node::cli::run(std::env::args_os())
}
