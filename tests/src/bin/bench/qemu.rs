//! QEMU, driven as libvirt drives it: processes, and QMP on their sockets.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cell::{Cell, Way};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::system::{Pair, System};

const PROGRAM: &str = "qemu-system-x86_64";

/// What is varied to find QEMU's best.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// The longest blackout that it is told to aim at.
    downtime_limit_ms: u64,
    memory: Memory,
    /// Channels of multifd; none: one plain stream.
    channels: Option<u8>,
    /// Entries of the dirty ring; none: the dirty bitmap.
    dirty_ring: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// Private anonymous memory, its default.
    Anonymous,
    /// A file in /dev/shm that both processes map.
    SharedFile,
}

/// QEMU with one choice of settings.
#[derive(Debug)]
struct Qemu {
    version: String,
    kernel: PathBuf,
    settings: Settings,
}

/// The settings that are worth trying in a cell.
pub(crate) fn candidates(cell: &Cell, kernel: &Path) -> anyhow::Result<Vec<Box<dyn System>>> {
    let version = version()?;
    let plain =
        Settings { downtime_limit_ms: 1, memory: Memory::Anonymous, channels: None, dirty_ring: None };
    let kinds = match cell.way {
        Way::Tcp => vec![
            plain,
            Settings { downtime_limit_ms: 5, ..plain },
            Settings { channels: Some(2), ..plain },
            Settings { dirty_ring: Some(4096), ..plain },
        ],
        Way::SameMemory => vec![
            Settings { memory: Memory::SharedFile, ..plain },
            Settings { memory: Memory::SharedFile, downtime_limit_ms: 5, ..plain },
        ],
    };
    let of = |settings| -> Box<dyn System> {
        Box::new(Qemu { version: version.clone(), kernel: kernel.to_owned(), settings })
    };
    Ok(kinds.into_iter().map(of).collect())
}

fn version() -> anyhow::Result<String> {
    let said = Command::new(PROGRAM).arg("--version").output();
    let said =
        said.with_context(|| format!("{PROGRAM}: install Debian's qemu-system-x86, or use --alone"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.split_ascii_whitespace().nth(3).context("QEMU tells its version")?;
    Ok(version.to_owned())
}

impl Qemu {
    fn process(&self, cell: &Cell, scratch: &Path, name: &str, output: OwnedFd) -> anyhow::Result<Process> {
        let mut command = Command::new(PROGRAM);
        let accelerator = match self.settings.dirty_ring {
            Some(entries) => format!("kvm,dirty-ring-size={entries}"),
            None => "kvm".to_owned(),
        };
        command.args(["-M", "microvm", "-accel", &accelerator, "-name", "bench,debug-threads=on"]);
        // This KVM may not let that MSR be written, and the test kernel does not look at it.
        command.args(["-cpu", "host,-arch-capabilities", "-smp", "1", "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-no-reboot", "-m", &format!("{}M", cell.memory_mib)]);
        command.args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket(scratch, name).display()));
        command.arg("-kernel").arg(&self.kernel).args(["-append", cell.cmdline]);
        let size = cell.memory_mib;
        let backend = match self.settings.memory {
            Memory::Anonymous => None,
            Memory::SharedFile => {
                let path = scratch.join("ram").display().to_string();
                Some(format!("memory-backend-file,id=ram,size={size}M,share=on,mem-path={path}"))
            }
        };
        if let Some(backend) = backend {
            command.args(["-object", &backend, "-machine", "memory-backend=ram"]);
        }
        if name == "target" {
            command.args(["-incoming", "defer"]);
        }
        command.stderr(File::create(scratch.join(format!("{name}.log")))?);
        command.stdin(Stdio::piped());
        Process::start(&mut command, output)
    }

    fn capabilities(&self) -> Value {
        let mut on = vec!["events"];
        on.extend(self.settings.channels.map(|_| "multifd"));
        on.extend((self.settings.memory == Memory::SharedFile).then_some("x-ignore-shared"));
        let on: Vec<Value> = on.iter().map(|name| json!({ "capability": name, "state": true })).collect();
        json!({ "capabilities": on })
    }

    fn set_up(&self, qmp: &mut Qmp) -> anyhow::Result<()> {
        qmp.execute("migrate-set-capabilities", &self.capabilities())?;
        let mut parameters = json!({
            // No limit: the default of 128 MiB/s is for links that others use as well.
            "max-bandwidth": 0,
            "downtime-limit": self.settings.downtime_limit_ms,
        });
        if let Some(channels) = self.settings.channels {
            parameters["multifd-channels"] = channels.into();
        }
        qmp.execute("migrate-set-parameters", &parameters)?;
        Ok(())
    }
}

fn socket(scratch: &Path, name: &str) -> PathBuf {
    scratch.join(format!("{name}.qmp"))
}

impl System for Qemu {
    fn name(&self) -> String {
        format!("QEMU {}", self.version)
    }

    fn settings(&self) -> String {
        let Settings { downtime_limit_ms, memory, channels, dirty_ring } = self.settings;
        let mut text = format!("microvm, max-bandwidth 0, downtime-limit {downtime_limit_ms} ms");
        if memory == Memory::SharedFile {
            text += ", shared file, x-ignore-shared";
        }
        if let Some(channels) = channels {
            text += &format!(", multifd with {channels} channels");
        }
        if let Some(entries) = dirty_ring {
            text += &format!(", dirty ring of {entries}");
        }
        text
    }

    fn start(&self, cell: &Cell, [source, target]: [OwnedFd; 2]) -> anyhow::Result<Box<dyn Pair>> {
        // Both processes map the shared file, so it must be memory.
        let scratch = tempfile::Builder::new().prefix("gwb").tempdir_in("/dev/shm")?;
        let source = self.process(cell, scratch.path(), "source", source)?;
        let mut source_qmp = Qmp::connect(&socket(scratch.path(), "source"))?;
        let target = self.process(cell, scratch.path(), "target", target)?;
        let mut target_qmp = Qmp::connect(&socket(scratch.path(), "target"))?;
        self.set_up(&mut source_qmp)?;
        self.set_up(&mut target_qmp)?;
        let uri = match cell.way {
            Way::Tcp => "tcp:127.0.0.1:0".to_owned(),
            Way::SameMemory => format!("unix:{}", scratch.path().join("listen").display()),
        };
        target_qmp.execute("migrate-incoming", &json!({ "uri": uri }))?;
        let uri = match cell.way {
            Way::Tcp => {
                let migration = target_qmp.execute("query-migrate", &json!({}))?;
                let port = migration["socket-address"][0]["port"].as_str().context("QEMU tells its port")?;
                format!("tcp:127.0.0.1:{port}")
            }
            Way::SameMemory => uri,
        };
        Ok(Box::new(QemuPair {
            processes: [source, target],
            qmp: source_qmp,
            uri,
            _target: target_qmp,
            _scratch: scratch,
        }))
    }
}

struct QemuPair {
    processes: [Process; 2],
    qmp: Qmp,
    uri: String,
    _target: Qmp,
    _scratch: TempDir,
}

impl Pair for QemuPair {
    fn processes(&mut self) -> [&mut Process; 2] {
        self.processes.each_mut()
    }

    fn migrate(&mut self) -> anyhow::Result<Duration> {
        let asked = Instant::now();
        self.qmp.execute("migrate", &json!({ "uri": self.uri }))?;
        self.qmp.wait_migration("completed")?;
        Ok(asked.elapsed())
    }
}
