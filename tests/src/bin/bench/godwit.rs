//! Godwit, driven as its users' programs drive it: processes, and the API on their sockets.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use godwit_api::client::{Client, Polled};
use godwit_api::{MigrateRequest, MigrationEvent, MigrationOutcome};
use tempfile::TempDir;

use crate::cell::{Cell, Way};
use crate::process::Process;
use crate::run::wait_for;
use crate::system::{Pair, System};

/// With its defaults, but for the downtime that the cell asks for.
#[derive(Debug)]
pub(crate) struct Godwit {
    program: PathBuf,
    kernel: PathBuf,
}

impl Godwit {
    pub(crate) fn new(program: &Path, kernel: &Path) -> Self {
        Self { program: program.to_owned(), kernel: kernel.to_owned() }
    }

    fn process(
        &self,
        scratch: &Path,
        name: &str,
        arguments: &[&str],
        output: OwnedFd,
    ) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--api").arg(socket(scratch, name));
        command.env("GODWIT_RUNTIME_DIR", scratch).stderr(Stdio::null());
        Process::start(&mut command, output)
    }
}

fn socket(scratch: &Path, name: &str) -> PathBuf {
    scratch.join(format!("{name}.api"))
}

impl System for Godwit {
    fn name(&self) -> String {
        "godwit".to_owned()
    }

    fn settings(&self) -> String {
        "defaults".to_owned()
    }

    fn start(&self, cell: &Cell, [source, target]: [OwnedFd; 2]) -> anyhow::Result<Box<dyn Pair>> {
        // In memory, as the runtime directory is by default.
        let scratch = tempfile::Builder::new().prefix("gwb").tempdir_in("/dev/shm")?;
        let (memory, kernel) = (format!("{}M", cell.memory_mib), self.kernel.display().to_string());
        let arguments = ["run", "--kernel", &kernel, "--memory", &memory, "--cmdline", cell.cmdline];
        let source = self.process(scratch.path(), "source", &arguments, source)?;
        let listen = match cell.way {
            Way::Tcp => "tcp:127.0.0.1:0".to_owned(),
            Way::SameMemory => format!("unix:{}", scratch.path().join("listen").display()),
        };
        let target = self.process(scratch.path(), "target", &["receive", "--listen", &listen], target)?;
        let waiting = Client::new(socket(scratch.path(), "target"));
        let to = wait_for("the receiver to listen", || waiting.info().ok().and_then(|info| info.listen))?;
        let max_downtime_us = u64::try_from(cell.max_downtime.as_micros())?;
        let request = MigrateRequest { max_downtime_us, ..MigrateRequest::to(to) };
        let client = Client::new(socket(scratch.path(), "source"));
        wait_for("the guest's process to answer", || client.info().ok())?;
        Ok(Box::new(GodwitPair { processes: [source, target], client, request, _scratch: scratch }))
    }
}

struct GodwitPair {
    processes: [Process; 2],
    client: Client,
    request: MigrateRequest,
    _scratch: TempDir,
}

impl Pair for GodwitPair {
    fn processes(&mut self) -> [&mut Process; 2] {
        self.processes.each_mut()
    }

    fn migrate(&mut self) -> anyhow::Result<Duration> {
        let asked = Instant::now();
        let mut events = self.client.migrate(&self.request)?;
        loop {
            match events.poll(Duration::from_secs(10))? {
                Polled::Event(MigrationEvent::Result(result)) => {
                    let total = asked.elapsed();
                    ensure!(result.status == MigrationOutcome::Completed, "not completed: {result:?}");
                    return Ok(total);
                }
                Polled::Event(MigrationEvent::Progress(_)) | Polled::Waiting => {}
                Polled::Ended => bail!("the events ended without a result"),
            }
        }
    }
}
