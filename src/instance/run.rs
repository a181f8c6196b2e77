//! `godwit run`: boots a kernel and stays its VMM.

use std::path::Path;

use godwit_api::VmState;
use godwit_api::registry::RuntimeDir;
use godwit_vmm::machine::MachineConfig;
use godwit_vmm::saved_state::OnResetV1;

use super::exit::Exit;
use super::gdb;
use super::kernel::{BUILTIN, KernelFiles};
use super::main_loop::Watch;
use super::process::{Beginning, Process, StartError, boot, start_failed};
use super::watch::{self, Watcher};
use crate::cli::{Kernel, OnReset, RunConfig};

/// The epoch of a guest that has never been moved.
const FIRST_EPOCH: u64 = 1;

/// Runs a VM until it is over.
pub(crate) fn run(config: RunConfig) -> Exit {
    match start(config) {
        Ok(process) => process.serve(),
        Err(error) => start_failed(&error),
    }
}

fn start(config: RunConfig) -> Result<Process, StartError> {
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
    })?;
    let machine = MachineConfig {
        vcpus: config.cpus,
        memory_bytes: config.memory_bytes,
        kernel_name: kernel,
        initrd_name: initrd,
        cmdline: config.cmdline,
        on_reset: match config.on_reset {
            OnReset::Reboot => OnResetV1::Reboot,
            OnReset::Exit => OnResetV1::Exit,
        },
        console: process.vm.console.clone(),
    };
    let watched = !config.expect.is_empty() || !config.reject.is_empty();
    let started = (|| {
        if watched {
            let watcher = Watcher::new(config.expect, config.reject);
            watch::start(watcher, config.timeout, &process.vm.console, process.vm.events.clone())?;
        }
        let debugger = config.gdb.map(|address| gdb::Waiting::bind(&process.vm, &address)).transpose()?;
        boot(&process.vm, &machine, &files)?;
        Ok(debugger.map(|debugger| debugger.serve(&process.vm)).transpose()?)
    })();
    if watched {
        process.watch = Watch::On;
    }
    match started {
        Ok(debugger) => {
            process.debugger = debugger;
            Ok(process)
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
