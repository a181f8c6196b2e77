//! A host: a runtime directory of its own.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use godwit_api::VmName;
use godwit_api::registry::{Entry, RuntimeDir};
use tempfile::TempDir;

use crate::PATIENCE;
use crate::error::Failure;
use crate::finished::{Command, Finished, godwit_command};
use crate::migration::{Moved, Moving};
use crate::process::VmProcess;

/// How long a command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(40);
/// How long a migration may take.
const MIGRATION_WITHIN: Duration = Duration::from_secs(100);

/// VMs that find each other. Two hosts in one test are two machines as far as names and state files
/// go: neither finds what the other's processes recorded.
#[derive(Debug)]
pub struct Host {
    binary: PathBuf,
    /// A byte that guests send as a sign of life, no part of their lines.
    tick: Option<u8>,
    /// Short, as the path of a socket has at most 107 bytes.
    directory: TempDir,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host without VMs, with the binary that [`find_binary`](crate::find_binary) finds.
    ///
    /// # Panics
    /// When there is none, or `/tmp` can't be written.
    #[must_use]
    pub fn new() -> Self {
        let host = crate::find_binary().and_then(Self::with_binary);
        host.unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// A host without VMs, with this binary.
    ///
    /// # Errors
    /// `/tmp` can't be written.
    pub fn with_binary(binary: impl Into<PathBuf>) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("gw").tempdir_in("/tmp");
        let directory =
            directory.map_err(|source| Failure::System { action: "make a directory in /tmp", source })?;
        Ok(Self { binary: binary.into(), tick: None, directory })
    }

    /// Says that guests send this byte as a sign of life: it is no part of their lines, and
    /// [`Output::ticks`](crate::Output::ticks) tells when each came.
    #[must_use]
    pub fn with_tick(mut self, tick: u8) -> Self {
        self.tick = Some(tick);
        self
    }

    /// The runtime directory.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.directory.path().join("rt")
    }

    /// A directory for files of the test.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.directory.path()
    }

    /// The binary with arguments, not started yet.
    #[must_use]
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> std::process::Command {
        godwit_command(&self.binary, &self.runtime(), arguments)
    }

    /// Starts a command that is expected to end.
    #[must_use]
    pub fn start(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        Command::start(self.command(arguments))
    }

    /// Runs a command to its end.
    #[must_use]
    pub fn godwit(&self, arguments: &[impl AsRef<OsStr>]) -> Finished {
        self.start(arguments).finish(COMMAND_WITHIN)
    }

    /// Runs a command that must not fail, and returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn succeed(&self, arguments: &[impl AsRef<OsStr>]) -> String {
        let finished = self.godwit(arguments);
        assert_eq!(finished.status, Some(0), "{finished:?}");
        finished.stdout
    }

    /// Starts a process that runs a VM, with pipes for its serial port.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn vm(&self, arguments: &[impl AsRef<OsStr>]) -> VmProcess {
        self.try_vm(arguments).unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()))
    }

    pub(crate) fn try_vm(&self, arguments: &[impl AsRef<OsStr>]) -> io::Result<VmProcess> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        VmProcess::start(command, self.runtime(), self.tick)
    }

    /// Starts a process whose standard output is a pipe that nobody reads before it has ended.
    #[must_use]
    pub fn unread(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        Command::start_unread(self.command(arguments))
    }

    /// Starts a receiver on a free port, and waits until it listens.
    #[must_use]
    pub fn receive(&self) -> VmProcess {
        self.receive_with(&[])
    }

    /// As [`receive`](Self::receive), with further options.
    #[must_use]
    pub fn receive_with(&self, options: &[&str]) -> VmProcess {
        self.receive_at("tcp:127.0.0.1:0", options)
    }

    /// Starts a receiver on a unix socket, and waits until it listens.
    #[must_use]
    pub fn receive_here(&self, name: &str) -> VmProcess {
        self.receive_at(&format!("unix:{}", self.files().join(name).display()), &[])
    }

    fn receive_at(&self, address: &str, options: &[&str]) -> VmProcess {
        let mut arguments = vec!["receive", "--listen", address];
        arguments.extend(options);
        let mut vm = self.vm(&arguments);
        assert!(vm.comes_to_listen(PATIENCE), "it does not listen\n{}", vm.messages().tail());
        vm
    }

    /// Starts to move a VM.
    #[must_use]
    pub fn start_migration(&self, name: &str, to: &str, options: &[&str]) -> Moving {
        let mut arguments = vec!["migrate", name, to, "--json"];
        arguments.extend(options);
        Moving::new(self.start(&arguments))
    }

    /// Moves a VM, or tries to.
    #[must_use]
    pub fn migrate(&self, name: &str, to: &str, options: &[&str]) -> Moved {
        self.start_migration(name, to, options).finish(MIGRATION_WITHIN)
    }

    /// What the registry knows.
    ///
    /// # Panics
    /// When the runtime directory can't be read.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let directory = RuntimeDir::at(self.runtime()).expect("the runtime directory is ours");
        directory.list().expect("the runtime directory can be read").entries
    }

    /// Where a VM of this name and process has its API socket by default.
    ///
    /// # Panics
    /// When that is no name.
    #[must_use]
    pub fn socket_path(&self, name: &str, pid: u32) -> PathBuf {
        let directory = RuntimeDir::at(self.runtime()).expect("the runtime directory is ours");
        directory.socket_path(&VmName::try_from(name.to_owned()).expect("a name"), pid)
    }

    /// Asserts that ended processes left neither state file nor socket.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let Ok(entries) = std::fs::read_dir(self.runtime()) else { return };
        let left: Vec<_> = entries.flatten().map(|e| e.file_name()).filter(|name| name != ".lock").collect();
        assert!(left.is_empty(), "left in the runtime directory: {left:?}");
    }
}
