//! Why the runtime directory can't help.

use std::io;
use std::path::PathBuf;

use crate::types::VmName;

/// One of several processes that a name could mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The process.
    pub pid: u32,
    /// Its API socket.
    pub api_socket: PathBuf,
}

/// A failure of the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory can't be trusted with sockets.
    #[error("the runtime directory {} {why}; fix it, or set GODWIT_RUNTIME_DIR to a directory of yours", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or directory can't be read or written.
    #[error("can't {action} {}: {source}; check its permissions, or set GODWIT_RUNTIME_DIR to a directory of yours", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the lock for far too long.
    #[error("{} is locked by another process; see who holds it (`fuser`), then try again", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The name belongs to a live VM.
    #[error("the name {name:?} is taken by process {pid} ({state}); give another --name, or stop that one", name = name.as_str())]
    NameTaken {
        /// The name.
        name: VmName,
        /// Who has it.
        pid: u32,
        /// In which state, as people read it.
        state: String,
    },
    /// Nobody has that name.
    #[error("no VM is called {name:?} here; `godwit ps` lists those that run", name = name.as_str())]
    NotFound {
        /// The name.
        name: VmName,
    },
    /// Somebody had that name, and is gone.
    #[error("the process of VM {name:?} is gone (it was {was}); start it again", name = name.as_str())]
    Dead {
        /// The name.
        name: VmName,
        /// The last state that it wrote.
        was: String,
    },
    /// Several processes have that name.
    #[error("several VMs are called {name:?} (processes {}); choose one with --api SOCKET", pids(candidates), name = name.as_str())]
    Ambiguous {
        /// The name.
        name: VmName,
        /// All of them.
        candidates: Vec<Candidate>,
    },
    /// `/proc` does not tell what it should.
    #[error("can't learn about process {pid} from /proc; mount /proc, then try again")]
    NoProc {
        /// The process.
        pid: u32,
    },
}

fn pids(candidates: &[Candidate]) -> String {
    let each: Vec<String> =
        candidates.iter().map(|one| format!("{}: {}", one.pid, one.api_socket.display())).collect();
    each.join(", ")
}
