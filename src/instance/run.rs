//! `godwit run`: boots a kernel and stays its VMM.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use godwit_api::VmState;
use godwit_api::registry::RuntimeDir;
use godwit_vmm::machine::MachineConfig;
use godwit_vmm::saved_state::OnResetV1;

use super::ending::Ending;
use super::exit::Exit;
use super::gdb;
use super::junit::{self, Facts, ReportFile};
use super::kernel::{BUILTIN, KernelFiles};
use super::main_loop::Watch;
use super::process::{Beginning, Process, StartError, boot, say, start_failed};
use super::watch::{self, Sightings, Watcher};
use crate::cli::{Kernel, OnReset, RunConfig};

/// The epoch of a guest that has never been moved.
const FIRST_EPOCH: u64 = 1;
/// How much of the serial output's end a report carries.
const SERIAL_TAIL_BYTES: usize = 64 << 10;

/// Runs a VM until it is over.
pub(crate) fn run(config: RunConfig) -> Exit {
    let Some(path) = config.junit.clone() else {
        return match start(config) {
            Ok(started) => started.process.serve().exit,
            Err(error) => start_failed(&error),
        };
    };
    // Before anything exists: whoever asks for a report wants no run without one.
    match ReportFile::prepare(&path) {
        Ok(file) => run_with_report(config, &file),
        Err(error) => start_failed(&error),
    }
}

fn run_with_report(config: RunConfig, file: &ReportFile) -> Exit {
    let begin = Instant::now();
    let mut facts = Facts {
        name: config.name.as_ref().map_or_else(|| "godwit run".to_owned(), ToString::to_string),
        ending: Ending::not_started(String::new()),
        sightings: Sightings::of(config.expect.clone(), config.reject.clone()),
        took: Duration::ZERO,
        serial_tail: Vec::new(),
        serial_left_out: 0,
    };
    match start(config) {
        Ok(Started { process, watching }) => {
            let vm = Arc::clone(&process.vm);
            facts.name = vm.status().registration.file().name.to_string();
            facts.ending = process.serve();
            // The console is closed, which ends its watcher.
            if let Some(Ok(sightings)) = watching.map(JoinHandle::join) {
                facts.sightings = sightings;
            }
            (facts.serial_tail, facts.serial_left_out) = vm.console.tail(SERIAL_TAIL_BYTES);
        }
        Err(error) => {
            start_failed(&error);
            facts.ending = Ending::not_started(error.to_string());
        }
    }
    facts.took = begin.elapsed();
    let exit = facts.ending.exit;
    match file.write(&junit::report(&facts)) {
        Ok(()) => exit,
        Err(error) => {
            say(&error.to_string());
            // Nobody must take a run without its report for one that passed.
            if exit == Exit::Done { Exit::VmmFailed } else { exit }
        }
    }
}

/// A VM that runs.
struct Started {
    process: Process,
    /// Who watches for `--expect` and `--reject`.
    watching: Option<JoinHandle<Sightings>>,
}

fn start(config: RunConfig) -> Result<Started, StartError> {
    let kernel = match &config.kernel {
        Kernel::Builtin => BUILTIN.to_owned(),
        Kernel::File(path) => text(path)?,
    };
    let initrd = config.initrd.as_deref().map(text).transpose()?;
    // Before anything exists: what is no kernel should leave no trace.
    let files = KernelFiles::read(&kernel, initrd.as_deref(), &config.cmdline)?;
    let mut process = Process::begin(Beginning {
        name: config.name,
        fallback_name: RuntimeDir::free_name,
        api: config.api,
        state: VmState::Paused,
        epoch: FIRST_EPOCH,
        serial: config.serial,
        dirty_log: config.dirty_log,
        watched: !config.expect.is_empty() || !config.reject.is_empty(),
        predecessor: None,
    })?;
    let machine = MachineConfig {
        vcpus: config.cpus,
        memory_bytes: config.memory_bytes,
        kernel_name: kernel,
        initrd_name: initrd,
        cmdline: config.cmdline,
        dirty_log: config.dirty_log,
        on_reset: match config.on_reset {
            OnReset::Reboot => OnResetV1::Reboot,
            OnReset::Exit => OnResetV1::Exit,
        },
        console: process.vm.console.clone(),
    };
    let watched = process.vm.launch().watched;
    let started = (|| {
        let watcher = Watcher::new(Sightings::of(config.expect, config.reject));
        let events = process.vm.events.clone();
        let watching = watched
            .then(|| watch::start(watcher, config.timeout, &process.vm.console, events))
            .transpose()?;
        let debugger = config.gdb.map(|address| gdb::Waiting::bind(&process.vm, &address)).transpose()?;
        boot(&process.vm, &machine, &files)?;
        let debugger = debugger.map(|debugger| debugger.serve(&process.vm)).transpose()?;
        Ok((watching, debugger))
    })();
    if watched {
        process.watch = Watch::On;
    }
    match started {
        Ok((watching, debugger)) => {
            process.debugger = debugger;
            Ok(Started { process, watching })
        }
        Err(error) => {
            process.end(Exit::StartFailed);
            Err(error)
        }
    }
}

/// Paths travel with the guest, as text, so that it can be booted again wherever it is.
fn text(path: &Path) -> Result<String, StartError> {
    let path = std::path::absolute(path)?;
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(StartError::Other(format!("the path {} is not valid UTF-8: rename it", path.display()))),
    }
}
