//! A directory that nobody else can look into, and that is gone afterwards.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::DemoError;

/// The path of a unix socket has 108 bytes at most; this leaves room for a file name.
const PARENT_BYTES_MAX: usize = 64;
/// How many names are tried.
const NAMES: u32 = 100;

/// Removed when dropped, with all that is in it.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn create() -> Result<Self, DemoError> {
        let parent = short_enough(std::env::temp_dir());
        let mut number = 0;
        loop {
            let path = parent.join(format!("godwit-demo-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < NAMES => number += 1,
                Err(source) => return Err(DemoError::Scratch { path, source }),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the demo's directory could not be removed");
        }
    }
}

fn short_enough(parent: PathBuf) -> PathBuf {
    if parent.as_os_str().len() <= PARENT_BYTES_MAX { parent } else { PathBuf::from("/tmp") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_gone_afterwards() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::create().expect("can be created");
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").expect("can be written");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_long_way_down_is_too_long_for_a_socket() {
        assert_eq!(short_enough("/tmp".into()), Path::new("/tmp"));
        assert_eq!(short_enough(format!("/{}", "x".repeat(80)).into()), Path::new("/tmp"));
    }
}
