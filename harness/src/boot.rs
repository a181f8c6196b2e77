//! What to boot, and in which machine.

use std::ffi::OsString;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use godwit_api::VmState;

use crate::error::{Error, Failure};
use crate::guest::Guest;
use crate::host::Host;
use crate::{PATIENCE, find_binary};

/// How often a process is looked at while it starts.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A file: one that there is, or bytes that become one for as long as the guest lives.
#[derive(Debug, Clone)]
pub enum Image {
    /// A path; for a kernel also `builtin`, the test kernel in the binary.
    Path(PathBuf),
    /// Its content.
    Bytes(Vec<u8>),
}

impl From<&str> for Image {
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

impl From<&Path> for Image {
    fn from(path: &Path) -> Self {
        Self::Path(path.into())
    }
}

impl From<PathBuf> for Image {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Image {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// A guest to be: its kernel, its machine, and what it must not say.
#[derive(Debug, Clone)]
#[must_use = "nothing is started before `start`"]
pub struct Boot {
    kernel: Image,
    initrd: Option<Image>,
    cmdline: String,
    cpus: u32,
    memory_bytes: u64,
    on_reset: &'static str,
    options: Vec<OsString>,
    rejected: Vec<String>,
    tick: Option<u8>,
    patience: Duration,
    binary: Option<PathBuf>,
}

impl Boot {
    /// Boots this ELF kernel, by path or bytes, or `"builtin"`: with one vCPU and 64 MiB. A guest that resets
    /// itself ends, with status 3.
    pub fn new(kernel: impl Into<Image>) -> Self {
        Self {
            kernel: kernel.into(),
            initrd: None,
            cmdline: String::new(),
            cpus: 1,
            memory_bytes: 64 << 20,
            on_reset: "exit",
            options: Vec::new(),
            rejected: Vec::new(),
            tick: None,
            patience: PATIENCE,
            binary: None,
        }
    }

    /// With an initial RAM disk.
    pub fn initrd(mut self, initrd: impl Into<Image>) -> Self {
        self.initrd = Some(initrd.into());
        self
    }

    /// The kernel's command line.
    pub fn cmdline(mut self, cmdline: impl Into<String>) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// So many vCPUs, 1 to 64.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// So much memory.
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_bytes = mib.saturating_mul(1 << 20);
        self
    }

    /// A guest that resets itself boots again, instead of ending.
    pub fn reboot_on_reset(mut self) -> Self {
        self.on_reset = "reboot";
        self
    }

    /// Further options of `godwit run`.
    pub fn options(mut self, options: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Fails whatever is being waited for as soon as the guest says a line with this in it.
    pub fn reject(mut self, part: impl Into<String>) -> Self {
        self.rejected.push(part.into());
        self
    }

    /// The guest sends this byte as a sign of life: it is no part of any line.
    pub fn tick(mut self, tick: u8) -> Self {
        self.tick = Some(tick);
        self
    }

    /// How long anything may take that has no time of its own [60 s].
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// With this `godwit`, instead of the one that [`find_binary`] finds.
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = Some(binary.into());
        self
    }

    /// Starts it, and returns when its vCPUs run.
    ///
    /// # Errors
    /// There is no binary, or the guest cannot be started; the error says what the process said.
    #[track_caller]
    pub fn start(self) -> Result<Guest, Error> {
        let at = Location::caller();
        let (host, arguments) = self.prepare().map_err(|failure| Error::new(failure, at, None))?;
        let process = host
            .try_vm(&arguments)
            .map_err(|source| Error::new(Failure::System { action: "start godwit", source }, at, None))?;
        let mut guest = Guest::new(process, host, self.rejected, self.patience);
        let until = Instant::now() + self.patience;
        loop {
            if let Some(status) = guest.process().exited() {
                guest.process().wait_end();
                let said = guest.process().messages().text();
                // A guest may be over that soon; one that never began has said nothing.
                let began = said.is_empty() || !guest.serial().text().is_empty() || status == Some(4);
                let why = said.trim_end().trim_start_matches("godwit: ").to_owned();
                return if began { Ok(guest) } else { Err(guest.fail(Failure::NotStarted { why }, at)) };
            }
            let info = guest.process().try_client().and_then(|client| client.info().ok());
            // Registered as paused, it has no CPUs before its machine is built.
            if info.is_some_and(|info| info.state != VmState::Paused) {
                return Ok(guest);
            }
            if Instant::now() >= until {
                let late = Failure::Late { what: "the guest's start".to_owned(), within: self.patience };
                return Err(guest.fail(late, at));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn prepare(&self) -> Result<(Host, Vec<OsString>), Failure> {
        let binary = self.binary.clone().map_or_else(find_binary, Ok)?;
        let mut host = Host::with_binary(binary)?;
        if let Some(tick) = self.tick {
            host = host.with_tick(tick);
        }
        let mut arguments: Vec<OsString> = vec!["run".into(), "--kernel".into()];
        arguments.push(file(&host, "kernel", &self.kernel)?);
        if let Some(initrd) = &self.initrd {
            arguments.extend(["--initrd".into(), file(&host, "initrd", initrd)?]);
        }
        for (option, value) in [
            ("--cmdline", self.cmdline.clone()),
            ("--cpus", self.cpus.to_string()),
            ("--memory", self.memory_bytes.to_string()),
            ("--on-reset", self.on_reset.to_owned()),
        ] {
            arguments.extend([option.into(), value.into()]);
        }
        arguments.extend(self.options.iter().cloned());
        Ok((host, arguments))
    }
}

/// The path of an image.
fn file(host: &Host, name: &str, image: &Image) -> Result<OsString, Failure> {
    match image {
        Image::Path(path) => Ok(path.into()),
        Image::Bytes(bytes) => {
            let path = host.files().join(name);
            std::fs::write(&path, bytes)
                .map_err(|source| Failure::System { action: "write a file for the guest", source })?;
            Ok(path.into())
        }
    }
}
