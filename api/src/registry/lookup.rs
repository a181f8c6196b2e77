//! Reading the directory: which VM processes there are, and which one a name means.

use std::fs;
use std::path::{Path, PathBuf};

use super::process;
use super::state_file::StateFile;
use super::{Candidate, RegistryError, RuntimeDir};
use crate::types::{VmName, VmState};

/// A state file, checked against the kernel: the state is `Dead` when its process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the process wrote, except for `state` if it is gone.
    pub file: StateFile,
    /// Whether it was written before this host was started.
    pub from_former_boot: bool,
    pub(super) path: PathBuf,
}

/// A file that looks like a state file and can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why, in a few words.
    pub why: String,
}

/// All there is in the directory, by name, then pid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The VM processes, dead ones included.
    pub entries: Vec<Entry>,
    /// Files that were skipped.
    pub unreadable: Vec<Unreadable>,
}

impl Entry {
    /// Its state file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its process is gone.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.file.state, VmState::Dead { .. })
    }

    /// The name as people see it: a receiver's is marked, as its VM may run here under that name.
    #[must_use]
    pub fn display_name(&self) -> String {
        match self.file.state {
            VmState::Incoming => format!("{} (incoming)", self.file.name),
            _ => self.file.name.to_string(),
        }
    }

    /// Whom a name means first: who holds the guest, then who may have handed it over, then who
    /// waits for it, then who only has to end.
    const fn rank(&self) -> u8 {
        match self.file.state {
            VmState::Running | VmState::Paused | VmState::Stopping | VmState::Crashed { .. } => 0,
            VmState::Unconfirmed { .. } => 1,
            VmState::Incoming => 2,
            VmState::HandedOver { .. } => 3,
            VmState::Dead { .. } => u8::MAX,
        }
    }
}

impl RuntimeDir {
    /// All VM processes. Takes no lock and changes nothing.
    ///
    /// # Errors
    /// Only when the directory itself can't be read; a bad file in it is reported in the listing.
    pub fn list(&self) -> Result<Listing, RegistryError> {
        let failed = |source| RegistryError::Io { action: "list", path: self.path().to_owned(), source };
        let boot_id = process::boot_id().ok_or(RegistryError::NoProc { pid: std::process::id() })?;
        let mut listing = Listing::default();
        for item in fs::read_dir(self.path()).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_checked(&path, &boot_id) {
                Ok(entry) => listing.entries.push(entry),
                // Removed between the listing and the reading: its process has ended.
                Err(_) if !path.exists() => {}
                Err(why) => listing.unreadable.push(Unreadable { path, why }),
            }
        }
        listing.entries.sort_by(|a, b| (&a.file.name, a.file.pid).cmp(&(&b.file.name, b.file.pid)));
        listing.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    /// The process that a name means: the one that holds the guest, else one whose hand-over is
    /// unconfirmed, else a receiver.
    ///
    /// # Errors
    /// When there is none, it is gone, or there are several alike.
    pub fn find(&self, name: &VmName) -> Result<Entry, RegistryError> {
        self.find_among(name, |_| true)
    }

    /// As [`RuntimeDir::find`], among those whose state passes the test. So `resolve` finds the
    /// unconfirmed source although its target runs on the same host under the same name.
    ///
    /// # Errors
    /// When there is none, it is gone, or there are several alike.
    pub fn find_among(
        &self,
        name: &VmName,
        wanted: impl Fn(&VmState) -> bool,
    ) -> Result<Entry, RegistryError> {
        let named = self.list()?.entries.into_iter().filter(|entry| entry.file.name == *name);
        let (dead, live): (Vec<Entry>, Vec<Entry>) = named.partition(Entry::is_dead);
        let mut live: Vec<Entry> = live.into_iter().filter(|entry| wanted(&entry.file.state)).collect();
        let best = live.iter().map(Entry::rank).min();
        live.retain(|entry| Some(entry.rank()) == best);
        let Some(found) = live.pop() else {
            return Err(match dead.into_iter().next().map(|entry| entry.file.state) {
                Some(VmState::Dead { was }) => RegistryError::Dead { name: name.clone(), was },
                _ => RegistryError::NotFound { name: name.clone() },
            });
        };
        if live.is_empty() {
            return Ok(found);
        }
        live.push(found);
        let candidates = live
            .into_iter()
            .map(|entry| Candidate { pid: entry.file.pid, api_socket: entry.file.api_socket })
            .collect();
        Err(RegistryError::Ambiguous { name: name.clone(), candidates })
    }
}

fn read_checked(path: &Path, boot_id: &str) -> Result<Entry, String> {
    let file = StateFile::read(path)?;
    let expected = format!("{}.{}.json", file.name, file.pid);
    if path.file_name().is_none_or(|name| name != expected.as_str()) {
        return Err(format!("its content belongs into {expected}"));
    }
    let from_former_boot = file.boot_id != boot_id;
    if !from_former_boot {
        // Pids of another namespace mean nothing here: such a process is taken to be there.
        let foreign = file.pid_namespace != process::pid_namespace();
        if foreign || !process::is_surely_gone(file.pid, file.pid_start_time) {
            return Ok(Entry { file, from_former_boot, path: path.to_owned() });
        }
    }
    // Once more: it may have written between our reading and its end, and its last word is what counts.
    let mut file = StateFile::read(path)?;
    file.state = VmState::Dead { was: file.state.kind().to_owned() };
    Ok(Entry { file, from_former_boot, path: path.to_owned() })
}
