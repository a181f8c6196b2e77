//! Where the runtime directory is, and that nobody else can put a socket into it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::RegistryError;
use crate::types::VmName;

/// How long another process may hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The directory that holds a state file and a socket for each VM process of this user.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
}

/// Held while names are given or state files removed.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "closing it unlocks")] File);

impl RuntimeDir {
    /// Opens this user's runtime directory, creating it if need be: `GODWIT_RUNTIME_DIR`, else
    /// `/run/godwit` for root, else `$XDG_RUNTIME_DIR/godwit`, else `/tmp/godwit-UID`.
    ///
    /// # Errors
    /// When it can't be created, or others could write into it.
    pub fn open() -> Result<Self, RegistryError> {
        let uid = rustix::process::geteuid().as_raw();
        Self::at(choose(uid, std::env::var_os("GODWIT_RUNTIME_DIR"), std::env::var_os("XDG_RUNTIME_DIR")))
    }

    /// Opens a runtime directory at this path, creating it (not its parents) if need be.
    ///
    /// # Errors
    /// When it can't be created, or others could write into it.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let path = path.into();
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(RegistryError::Io { action: "create the runtime directory", path, source });
            }
        }
        // Not followed: in /tmp a link could point to somebody else's directory.
        let found = fs::symlink_metadata(&path).map_err(|source| RegistryError::Io {
            action: "look at the runtime directory",
            path: path.clone(),
            source,
        })?;
        let why = if !found.is_dir() {
            "is not a directory"
        } else if found.uid() != rustix::process::geteuid().as_raw() {
            "belongs to another user"
        } else if found.mode() & 0o022 != 0 {
            "can be written by other users"
        } else {
            return Ok(Self { path });
        };
        Err(RegistryError::Untrusted { path, why })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a process of that name puts its API socket unless it is told otherwise.
    #[must_use]
    pub fn socket_path(&self, name: &VmName, pid: u32) -> PathBuf {
        self.path.join(format!("{name}.{pid}.sock"))
    }

    pub(super) fn state_path(&self, name: &VmName, pid: u32) -> PathBuf {
        self.path.join(format!("{name}.{pid}.json"))
    }

    pub(super) fn lock(&self) -> Result<Lock, RegistryError> {
        let path = self.path.join(".lock");
        let failed = |source| RegistryError::Io { action: "lock", path: path.clone(), source };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => return Err(RegistryError::Locked { path }),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }
}

fn choose(uid: u32, asked_for: Option<OsString>, xdg: Option<OsString>) -> PathBuf {
    let given = |value: Option<OsString>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = given(asked_for) {
        return path;
    }
    if uid == 0 {
        return PathBuf::from("/run/godwit");
    }
    match given(xdg) {
        Some(directory) if directory.is_dir() => directory.join("godwit"),
        _ => PathBuf::from(format!("/tmp/godwit-{uid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_then_the_user_decides() {
        let some = |path: &str| Some(OsString::from(path));
        assert_eq!(choose(0, some("/x"), some("/tmp")), Path::new("/x"));
        assert_eq!(choose(0, some(""), some("/tmp")), Path::new("/run/godwit"));
        assert_eq!(choose(7, None, some("/tmp")), Path::new("/tmp/godwit"));
        assert_eq!(choose(7, None, some("/no/such/dir")), Path::new("/tmp/godwit-7"));
        assert_eq!(choose(7, None, None), Path::new("/tmp/godwit-7"));
    }
}
