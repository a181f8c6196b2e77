//! The machine that is measured on.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

static CHUNK: [u8; 1 << 20] = [0x5a; 1 << 20];

/// Touches that much of the host's memory once. Where the host is itself a guest, the first touch is
/// slow: its own host finds the memory only then.
pub(crate) fn warm_memory(bytes: u64) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("gwb").tempdir_in("/dev/shm")?;
    let mut file = fs::File::create(directory.path().join("warm"))?;
    for _ in 0..bytes >> 20 {
        file.write_all(&CHUNK).context("there is not enough memory free to measure with")?;
    }
    Ok(())
}

/// What it is, for the table: a list item a line.
pub(crate) fn describe(godwit: &Path) -> anyhow::Result<Vec<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let cores = std::thread::available_parallelism()?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("").trim();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let kvm = modules.lines().filter_map(|line| line.split(' ').next()).find(|name| name.starts_with("kvm_"));
    let version = Command::new(godwit).arg("--version").output()?;
    Ok(vec![
        format!("CPU: {}, {cores} cores", model.trim_start_matches([' ', '\t', ':'])),
        format!("Memory: {memory}"),
        format!("Kernel: {}, KVM module: {}", kernel.trim(), kvm.unwrap_or("built in")),
        format!("Binary: {}, commit {}", String::from_utf8_lossy(&version.stdout).trim(), commit()),
    ])
}

/// The commit that is checked out, and whether the tree differs from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let said =
            Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|said| !said.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed { format!("{commit} and changes") } else { commit }
}
