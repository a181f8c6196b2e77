//! `godwit run`: from options and a TOML file to a checked [`RunConfig`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use godwit_api::types::limits;
use godwit_api::{TargetAddress, VmName};
use godwit_vmm::kvm::DirtyLogChoice;
use serde::{Deserialize, Deserializer};

use super::args::RunArgs;
use super::dirty_log::DirtyLogArg;
use super::failure::Failure;
use super::serial::Serial;
use super::units::{Size, Span};

/// Guest memory when nobody says otherwise.
const MEMORY_DEFAULT_BYTES: u64 = 256 << 20;
/// The largest VM file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The longest kernel command line that the boot protocol's readers take.
const CMDLINE_BYTES_MAX: usize = 2047;

/// A VM to start: everything in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunConfig {
    /// What boots.
    pub(crate) kernel: Kernel,
    /// Its initial RAM disk.
    pub(crate) initrd: Option<PathBuf>,
    /// Its command line.
    pub(crate) cmdline: String,
    /// Virtual CPUs, 1 to 64.
    pub(crate) cpus: u32,
    /// Guest memory, a multiple of 4 KiB.
    pub(crate) memory_bytes: u64,
    /// Where the serial port goes.
    pub(crate) serial: Serial,
    /// How dirtied pages are found.
    pub(crate) dirty_log: DirtyLogChoice,
    /// The VM's name; a free one is made up when absent.
    pub(crate) name: Option<VmName>,
    /// The API's socket; in the runtime directory when absent.
    pub(crate) api: Option<PathBuf>,
    /// What a guest's reset does.
    pub(crate) on_reset: OnReset,
    /// Lines that the guest must print.
    pub(crate) expect: Vec<String>,
    /// Lines that the guest must not print.
    pub(crate) reject: Vec<String>,
    /// How long `expect` and `reject` are watched for.
    pub(crate) timeout: Option<Duration>,
    /// Where a JUnit report of this run goes.
    pub(crate) junit: Option<PathBuf>,
    /// Where gdb can debug the guest; TCP port 0 means any free one, which must be said.
    pub(crate) gdb: Option<TargetAddress>,
}

/// What boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The small test kernel inside this binary.
    Builtin,
    /// A kernel that `boot` knows.
    File(PathBuf),
}

/// What a guest's reset does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnReset {
    /// The guest boots again
    #[default]
    Reboot,
    /// This process ends with status 3
    Exit,
}

/// The options of `run`, on the command line and in a VM file alike.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RunOptions {
    /// An ELF kernel (PVH, Multiboot or plain), a Linux bzImage, or `builtin`
    #[arg(long, value_name = "FILE|builtin", help_heading = "Boot")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", help_heading = "Boot", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// What a reset by the guest does [default: reboot]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Boot")]
    on_reset: Option<OnReset>,
    /// Virtual CPUs, 1 to 64 [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Machine")]
    cpus: Option<u32>,
    /// Guest memory: 512M, 2G, … [default: 256M]
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    memory: Option<Size>,
    /// CPU model: host (baselines are not in this version yet) [default: host]
    #[arg(long, value_name = "MODEL", help_heading = "Machine")]
    cpu: Option<String>,
    /// Where the serial port goes: stdio, none, file:PATH or unix:PATH [default: stdio]
    #[arg(long, value_name = "WHERE", help_heading = "Devices")]
    serial: Option<Serial>,
    /// How the pages that the guest writes are found when it is migrated [default: bitmap]
    #[arg(long, value_name = "KIND", help_heading = "Devices")]
    dirty_log: Option<DirtyLogArg>,
    /// A disk: [ID=]FILE[,readonly] (not in this version yet)
    #[arg(long, value_name = "DISK", help_heading = "Devices")]
    disk: Vec<String>,
    /// A network: [ID=]tap=IF|bridge=BR[,mac=M] (not in this version yet)
    #[arg(long, value_name = "NET", help_heading = "Devices")]
    net: Vec<String>,
    /// The VM's name [default: vm- and four digits]
    #[arg(long, help_heading = "Identity")]
    name: Option<VmName>,
    /// Where to put the API socket [default: in the runtime directory]
    #[arg(long, value_name = "SOCKET", help_heading = "Identity")]
    api: Option<PathBuf>,
    /// End with status 0 once the guest has printed this line, 5 if it does not (repeatable)
    #[arg(long, value_name = "LINE", help_heading = "Tests")]
    expect: Vec<String>,
    /// End with status 5 if the guest prints this line (repeatable)
    #[arg(long, value_name = "LINE", help_heading = "Tests")]
    reject: Vec<String>,
    /// How long to watch for --expect and --reject
    #[arg(long, value_name = "DURATION", help_heading = "Tests")]
    timeout: Option<Span>,
    /// Write a JUnit XML report of this run when it ends: a test case for each --expect and --reject
    #[arg(long, value_name = "FILE", help_heading = "Tests")]
    junit: Option<PathBuf>,
    /// Wait for gdb before the guest's first instruction: tcp:HOST:PORT (0 for a free port) or unix:PATH
    #[arg(long, value_name = "ADDRESS", help_heading = "Debugging")]
    #[serde(deserialize_with = "address")]
    gdb: Option<TargetAddress>,
    /// Let gdb come from other hosts, in plain text: whoever reaches the port owns the guest
    #[arg(long, help_heading = "Debugging")]
    insecure: bool,
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TargetAddress>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
}

pub(crate) fn run(args: Box<RunArgs>) -> Result<ExitCode, Failure> {
    Ok(crate::instance::run(config(*args)?).into())
}

fn config(args: RunArgs) -> Result<RunConfig, Failure> {
    let options = args.options;
    options.check().map_err(|why| Failure::usage(format!("wrong usage: {why}; see `godwit run --help`")))?;
    let options = match args.file {
        None => options,
        Some(path) => {
            let file = RunOptions::read(&path)?;
            let wrong =
                |why| Failure::failed(format!("can't use {}: {why}; change the file", path.display()));
            file.check().map_err(wrong)?;
            options.over(file)
        }
    };
    options.into_config()
}

impl RunOptions {
    fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |why: String| {
            Failure::failed(format!(
                "can't read the VM file {}: {why}; see `godwit run --help` for its keys",
                path.display()
            ))
        };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| failed(error.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        toml::from_str(&text).map_err(|error| {
            let line =
                error.span().map(|span| text.get(..span.start).unwrap_or("").matches('\n').count() + 1);
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            failed(format!("{line}{}", error.message()))
        })
    }

    /// What can be told without looking at files or at the host.
    fn check(&self) -> Result<(), String> {
        if !self.disk.is_empty() {
            return Err("disks (--disk) are not in this version yet".into());
        }
        if !self.net.is_empty() {
            return Err("networks (--net) are not in this version yet".into());
        }
        if let Some(model) = self.cpu.as_deref().filter(|model| *model != "host") {
            return Err(format!("CPU model {model:?} is not in this version yet, only host is"));
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !limits::CPUS.contains(cpus)) {
            return Err(format!("{cpus} CPUs (--cpus) is out of range, 1 to 64 are possible"));
        }
        if let Some(Size(bytes)) = self.memory {
            if bytes < limits::MEMORY_BYTES_MIN {
                return Err(format!("{bytes} bytes of memory (--memory) is too little, 1M is the least"));
            }
            if bytes % limits::PAGE_BYTES != 0 {
                return Err(format!("{bytes} bytes of memory (--memory) is not a multiple of 4K"));
            }
        }
        if let Some(cmdline) = &self.cmdline {
            if cmdline.len() > CMDLINE_BYTES_MAX {
                return Err(format!("the kernel's command line is longer than {CMDLINE_BYTES_MAX} bytes"));
            }
            if cmdline.contains('\0') {
                return Err("the kernel's command line contains a NUL".into());
            }
        }
        for (option, lines) in [("--expect", &self.expect), ("--reject", &self.reject)] {
            if lines.iter().any(|line| line.is_empty() || line.contains('\n')) {
                return Err(format!("{option} needs one whole line, not an empty one or several"));
            }
        }
        if self.gdb.as_ref().is_some_and(|address| !address.is_local()) && !self.insecure {
            return Err("that address for gdb (--gdb) can be reached from other hosts, in plain text and without authentication; give tcp:127.0.0.1:PORT, or --insecure if the network is trusted".into());
        }
        if self.timeout.is_some_and(|Span(timeout)| timeout.is_zero()) {
            return Err("a --timeout of zero ends before it begins".into());
        }
        Ok(())
    }

    /// What is given here, else what the file says.
    fn over(self, file: Self) -> Self {
        let list = |here: Vec<String>, file: Vec<String>| if here.is_empty() { file } else { here };
        Self {
            kernel: self.kernel.or(file.kernel),
            initrd: self.initrd.or(file.initrd),
            cmdline: self.cmdline.or(file.cmdline),
            on_reset: self.on_reset.or(file.on_reset),
            cpus: self.cpus.or(file.cpus),
            memory: self.memory.or(file.memory),
            cpu: self.cpu.or(file.cpu),
            serial: self.serial.or(file.serial),
            dirty_log: self.dirty_log.or(file.dirty_log),
            disk: list(self.disk, file.disk),
            net: list(self.net, file.net),
            name: self.name.or(file.name),
            api: self.api.or(file.api),
            expect: list(self.expect, file.expect),
            reject: list(self.reject, file.reject),
            timeout: self.timeout.or(file.timeout),
            junit: self.junit.or(file.junit),
            gdb: self.gdb.or(file.gdb),
            insecure: self.insecure || file.insecure,
        }
    }

    fn into_config(self) -> Result<RunConfig, Failure> {
        let kernel = self.kernel.ok_or_else(|| {
            Failure::usage(
                "wrong usage: no kernel; give --kernel FILE, or --kernel builtin for the test kernel",
            )
        })?;
        let kernel = if kernel.as_os_str() == "builtin" { Kernel::Builtin } else { Kernel::File(kernel) };
        if let Kernel::File(path) = &kernel {
            must_be_a_file("kernel", path)?;
        }
        if let Some(path) = &self.initrd {
            must_be_a_file("initrd", path)?;
        }
        if self.timeout.is_some() && self.expect.is_empty() && self.reject.is_empty() {
            return Err(Failure::usage(
                "wrong usage: --timeout says how long to watch for a line; give --expect LINE or --reject LINE as well",
            ));
        }
        Ok(RunConfig {
            kernel,
            initrd: self.initrd,
            cmdline: self.cmdline.unwrap_or_default(),
            cpus: self.cpus.unwrap_or(1),
            memory_bytes: self.memory.map_or(MEMORY_DEFAULT_BYTES, |Size(bytes)| bytes),
            serial: self.serial.unwrap_or_default(),
            dirty_log: self.dirty_log.unwrap_or_default().into(),
            name: self.name,
            api: self.api,
            on_reset: self.on_reset.unwrap_or_default(),
            expect: self.expect,
            reject: self.reject,
            timeout: self.timeout.map(|Span(timeout)| timeout),
            junit: self.junit,
            gdb: self.gdb,
        })
    }
}

fn must_be_a_file(what: &str, path: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::failed(format!("can't use the {what} {}: {why}; check the path", path.display()))
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(failed("it is not a regular file".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
