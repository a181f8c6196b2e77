//! Which binary is tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test: `GODWIT_BIN`, else built once from this workspace with the profile and in
/// the target directory of the running test.
///
/// # Panics
/// When it can't be built.
pub fn godwit() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("GODWIT_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    // …/target/PROFILE/deps/test-0123, or …/target/PROFILE/program
    let directories = test.ancestors().skip(1);
    let profile_directory = directories.into_iter().find(|directory| !directory.ends_with("deps"));
    let profile_directory = profile_directory.expect("cargo puts programs into target/PROFILE").to_owned();
    let target_directory = profile_directory.parent().expect("PROFILE is in the target directory");
    let directory_name = profile_directory.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let profile = if directory_name == "debug" { "dev" } else { directory_name };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in a workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--quiet", "--package", "godwit", "--profile", profile, "--target-dir"])
        .arg(target_directory)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo build -p godwit: {status}");
    profile_directory.join("godwit")
}
