//! Writing the directory: a process enters itself, keeps its entry true, and leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::process;
use super::state_file::{FORMAT_VERSION, StateFile};
use super::{Entry, RegistryError, RuntimeDir};
use crate::types::{VmName, VmState};

/// With what a process enters itself.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The VM's name; a receiver's may be provisional.
    pub name: VmName,
    /// The state it begins in.
    pub state: VmState,
    /// The epoch it begins with.
    pub epoch: u64,
    /// Its API socket, if not at [`RuntimeDir::socket_path`].
    pub api_socket: Option<PathBuf>,
}

/// This process's entry. Dropping it leaves the file behind, which then shows as dead: a process
/// that ends in an orderly way calls [`Registration::remove`].
#[derive(Debug)]
pub struct Registration {
    directory: RuntimeDir,
    file: StateFile,
    path: PathBuf,
}

impl RuntimeDir {
    /// Enters this process. Dead entries of the same name, and all of a former boot, are removed
    /// first.
    ///
    /// # Errors
    /// When a live VM holds the name, unless the new entry is a receiver (its VM may be the one
    /// that runs here under that name), or when the file can't be written.
    pub fn register(&self, new: NewEntry) -> Result<Registration, RegistryError> {
        let pid = std::process::id();
        let _lock = self.lock()?;
        self.prune(&new.name)?;
        if new.state.holds_name() {
            self.refuse_taken(&new.name, pid)?;
        }
        let api_socket = new.api_socket.unwrap_or_else(|| self.socket_path(&new.name, pid));
        let unknown = || RegistryError::NoProc { pid };
        let file = StateFile {
            format_version: FORMAT_VERSION,
            pid,
            pid_start_time: process::start_time(pid).ok_or_else(unknown)?,
            boot_id: process::boot_id().ok_or_else(unknown)?,
            pid_namespace: process::pid_namespace(),
            receiver: None,
            state: new.state,
            epoch: new.epoch,
            api_socket,
            started_at_unix_ms: unix_ms(),
            sessions: std::collections::BTreeMap::new(),
            name: new.name,
        };
        let path = self.state_path(&file.name, pid);
        file.write(&path)?;
        Ok(Registration { directory: self.clone(), file, path })
    }

    /// A name that no entry here has: `vm-` and four hexadecimal digits.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn free_name(&self) -> Result<VmName, RegistryError> {
        let taken = self.list()?.entries;
        let mut number = u32::try_from(unix_ms() & 0xffff).unwrap_or(0) ^ std::process::id();
        loop {
            // An odd step reaches each of the 65 536 names once; a directory never holds as many.
            number = number.wrapping_add(0x9e37) & 0xffff;
            let candidate = format!("vm-{number:04x}");
            if taken.iter().all(|entry| entry.file.name.as_str() != candidate)
                && let Ok(name) = VmName::new(candidate)
            {
                return Ok(name);
            }
        }
    }

    fn refuse_taken(&self, name: &VmName, pid: u32) -> Result<(), RegistryError> {
        let holder =
            self.list()?.entries.into_iter().find(|entry| {
                entry.file.name == *name && entry.file.pid != pid && entry.file.state.holds_name()
            });
        match holder {
            None => Ok(()),
            Some(entry) => Err(RegistryError::NameTaken {
                name: name.clone(),
                pid: entry.file.pid,
                state: entry.file.state.to_string(),
            }),
        }
    }

    /// Needs the lock: otherwise a file could be replaced between the check and the removal.
    fn prune(&self, name: &VmName) -> Result<(), RegistryError> {
        for entry in self.list()?.entries {
            if entry.is_dead() && (entry.from_former_boot || entry.file.name == *name) {
                self.remove_files_of(&entry);
            }
        }
        Ok(())
    }

    /// What can't be removed stays and shows as dead, which harms nobody.
    fn remove_files_of(&self, entry: &Entry) {
        let _stays = fs::remove_file(&entry.path);
        let _mostly_not_there = fs::remove_file(entry.path.with_extension("tmp"));
        // Only sockets of this directory: an --api path may be somebody else's by now.
        if entry.file.api_socket.parent() == Some(self.path())
            && entry.file.api_socket.extension().is_some_and(|extension| extension == "sock")
        {
            let _mostly_not_there = fs::remove_file(&entry.file.api_socket);
        }
    }
}

impl Registration {
    /// What others read now.
    #[must_use]
    pub const fn file(&self) -> &StateFile {
        &self.file
    }

    /// Its state file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this process's API socket belongs.
    #[must_use]
    pub fn api_socket(&self) -> &Path {
        &self.file.api_socket
    }

    /// Changes the entry: written as a whole, without a lock and without waiting for a disk, so
    /// that it may be done in a blackout. Name, pid, boot and format can't be changed here.
    ///
    /// # Errors
    /// When it can't be written: others still read the old entry then, and so does
    /// [`Registration::file`].
    pub fn update(&mut self, change: impl FnOnce(&mut StateFile)) -> Result<(), RegistryError> {
        let mut changed = self.file.clone();
        change(&mut changed);
        let identity = self.file.clone();
        changed.format_version = identity.format_version;
        changed.name = identity.name;
        changed.pid = identity.pid;
        changed.pid_start_time = identity.pid_start_time;
        changed.boot_id = identity.boot_id;
        changed.pid_namespace = identity.pid_namespace;
        changed.write(&self.path)?;
        self.file = changed;
        Ok(())
    }

    /// Gives the entry another name: a receiver learns its VM's name from the source's Hello. The
    /// socket stays where it is; who looks the new name up finds it through the state file.
    ///
    /// # Errors
    /// When another live VM holds that name, unless this is a receiver.
    pub fn rename(&mut self, name: VmName) -> Result<(), RegistryError> {
        if name == self.file.name {
            return Ok(());
        }
        let _lock = self.directory.lock()?;
        self.directory.prune(&name)?;
        if self.file.state.holds_name() {
            self.directory.refuse_taken(&name, self.file.pid)?;
        }
        let path = self.directory.state_path(&name, self.file.pid);
        let renamed = StateFile { name, ..self.file.clone() };
        renamed.write(&path)?;
        let former = std::mem::replace(&mut self.path, path);
        self.file = renamed;
        fs::remove_file(&former).map_err(|source| RegistryError::Io {
            action: "remove",
            path: former,
            source,
        })
    }

    /// Leaves the directory. The API socket is its server's to remove.
    ///
    /// # Errors
    /// When the file can't be removed; it shows as dead then, once this process has ended.
    pub fn remove(self) -> Result<(), RegistryError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RegistryError::Io { action: "remove", path: self.path, source: error })
            }
            _ => Ok(()),
        }
    }
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
