//! Which `godwit` is run.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// The name of the program.
const NAME: &str = "godwit";

/// The binary: `$GODWIT_BIN`; else the one in the build directory of the running test, where there is one
/// (Godwit's own workspace); else the first on `PATH`.
///
/// # Errors
/// There is none.
pub fn find_binary() -> Result<PathBuf, Failure> {
    if let Some(path) = env::var_os("GODWIT_BIN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let why =
            || Failure::NoBinary { why: format!("$GODWIT_BIN is {}, which is no file", path.display()) };
        return if path.is_file() { Ok(path.clone()) } else { Err(why()) };
    }
    let beside = env::current_exe().ok().and_then(|test| build_directory(&test).map(|at| at.join(NAME)));
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).map(|directory| directory.join(NAME));
    beside
        .into_iter()
        .chain(on_path)
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Failure::NoBinary { why: "it is not on $PATH, and $GODWIT_BIN is not set".to_owned() })
}

/// Where cargo puts programs: a test is in `deps` there.
fn build_directory(test: &Path) -> Option<&Path> {
    let directory = test.parent()?;
    if directory.ends_with("deps") { directory.parent() } else { Some(directory) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_one_directory_below_the_programs() {
        let programs = Path::new("/x/target/debug");
        assert_eq!(build_directory(&programs.join("deps/test-01")), Some(programs));
        assert_eq!(build_directory(&programs.join("tool")), Some(programs));
    }
}
