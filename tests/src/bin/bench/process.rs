//! A process under measurement.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Process {
    pub(crate) fn start(command: &mut Command, output: OwnedFd) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(output)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        // The command holds the pipe's writing end too, and its end is to be seen.
        command.stdout(Stdio::null());
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types a line into the guest.
    pub(crate) fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is open")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).context("typing into the guest")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time that the process has used. A process that has ended but was not waited for can still be
/// asked.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    ticks(&format!("/proc/{pid}/stat"))
}

/// CPU time of its vCPUs, which belongs to the guest; none if they are gone.
pub(crate) fn vcpu_time(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let vcpus = tasks.filter(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        // godwit names them vcpu0, QEMU CPU 0/KVM.
        name.starts_with("vcpu") || name.starts_with("CPU ")
    });
    let times: Vec<Duration> = vcpus.filter_map(|task| ticks(&task.path().join("stat")).ok()).collect();
    (!times.is_empty()).then(|| times.into_iter().sum())
}

/// User and system time. The kernel counts it in hundredths of a second.
fn ticks(path: &(impl AsRef<OsStr> + ?Sized)) -> anyhow::Result<Duration> {
    let path = std::path::Path::new(path);
    let stat = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    // The fields after the name, which is in parentheses: utime and stime are the 14th and 15th of all.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => {
            Ok(Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second()))
        }
        _ => anyhow::bail!("{} is not as proc(5) says", path.display()),
    }
}

/// The most memory that the process has had so far, guest RAM included, in KiB; none if it has ended.
pub(crate) fn peak_memory_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
