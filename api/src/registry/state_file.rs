//! What a VM process writes about itself.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RegistryError;
use crate::types::{VmName, VmState};

/// The format that this version writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The largest state file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a receiver recorded of one migration session. In the file of that very receiver, once its process
/// is surely gone, a session that is not listed never ran: the word is written before the guest's first
/// instruction. Without that file nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// COMMIT was received: the guest runs here.
    Running,
}

/// One process's state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The VM's name.
    pub name: VmName,
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot: tells it from a later process with its pid.
    pub pid_start_time: u64,
    /// The boot it runs in.
    pub boot_id: String,
    /// The namespace that `pid` is a number of.
    #[serde(default)]
    pub pid_namespace: String,
    /// The VM's state.
    pub state: VmState,
    /// How often the right to run this guest has been burnt so far.
    pub epoch: u64,
    /// Its API socket.
    pub api_socket: PathBuf,
    /// When the process started, in milliseconds since 1970.
    pub started_at_unix_ms: u64,
    /// What a receiver calls itself towards its sources, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<String>,
    /// The migration session that brought the guest, by its identity in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sessions: BTreeMap<String, SessionState>,
}

/// Only what every format has.
#[derive(Deserialize)]
struct AnyVersion {
    format_version: u32,
}

impl StateFile {
    /// Reads a file that anybody may have damaged; the error is one short reason.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        // A pipe or device in its place must not block us.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|error| error.to_string())?;
        if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err("not a regular file".into());
        }
        let mut bytes = Vec::new();
        opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
        }
        let version: AnyVersion =
            serde_json::from_slice(&bytes).map_err(|error| format!("not a state file: {error}"))?;
        if version.format_version != FORMAT_VERSION {
            return Err(format!(
                "written by another version of godwit (format {}, this one reads {FORMAT_VERSION})",
                version.format_version
            ));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("not a state file: {error}"))
    }

    /// Replaces the file as a whole, so that a reader sees the old one or the new one. Not
    /// synced to disk: it describes a process, and so does not outlive the host.
    pub(super) fn write(&self, path: &Path) -> Result<(), RegistryError> {
        let temporary = path.with_extension("tmp");
        let failed = |source| RegistryError::Io { action: "write", path: path.to_owned(), source };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&temporary, path));
        written.map_err(|source| {
            let _not_there_or_pruned_later = fs::remove_file(&temporary);
            failed(source)
        })
    }
}
