//! Finding the programs that the tests start.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// Debian keeps some servers outside an ordinary user's PATH.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// The path of an installed program.
///
/// # Errors
/// When it is not installed; names the Debian `package` to install.
pub fn installed(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    for folder in folders {
        let file = folder.join(name);
        if file.is_file() {
            return Ok(file);
        }
    }
    bail!("{name} is not installed; run: apt-get install --no-install-recommends {package}")
}

/// The path of a binary of this workspace: what `variable` says, else `target/release/NAME`.
///
/// # Errors
/// When there is no such file; names the command that builds it.
pub fn built(name: &str, variable: &str) -> anyhow::Result<PathBuf> {
    let file = env::var_os(variable).map_or_else(|| target_folder().join("release").join(name), PathBuf::from);
    if file.is_file() {
        return Ok(file);
    }
    bail!("{} does not exist; build it with `cargo build --release -p {name}`, or set {variable}", file.display())
}

/// The root of the workspace.
///
/// # Panics
/// Never in this repository: this crate lies one folder below it.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a folder of the workspace")
}

/// Where a test leaves what a person may want to look at; kept after the run and not under version control.
pub fn output_folder() -> PathBuf {
    env::var_os("TEST_OUTPUT_DIR").map_or_else(|| workspace_root().join("tests/output"), PathBuf::from)
}

fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}
