//! One look at a VM process through `/proc`. Only [`Sample::take`] reads; the rest is text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

/// Enough for any file that is read here.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// What `/proc` calls guest RAM.
const GUEST_RAM: &str = "/memfd:godwit-ram";
/// `st_blocks` counts in these.
const BLOCK_BYTES: u64 = 512;

/// What a VM process has used until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// When.
    pub(super) at: Instant,
    /// CPU time of all its threads, ended ones too, in clock ticks.
    pub(super) process_ticks: u64,
    /// CPU time of each vCPU's thread, by its id.
    pub(super) vcpu_ticks: BTreeMap<u32, u64>,
    /// Guest RAM that exists.
    pub(super) guest_ram_bytes: Option<u64>,
    /// Memory of its own that is present: heap and stacks.
    pub(super) private_bytes: Option<u64>,
    /// Why something of it is not known.
    pub(super) note: Option<String>,
}

/// The namespace that pids are numbers of here.
pub(super) fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Sample {
    /// Looks at the process with this pid and start time. The error says why that is not possible.
    pub(super) fn take(pid: u32, started: u64) -> Result<Self, String> {
        let process = format!("/proc/{pid}");
        let stat = read(&format!("{process}/stat")).map_err(|error| refused(pid, &error))?;
        let at = Instant::now();
        let stat = Stat::parse(&stat).ok_or("the kernel's /proc says nothing of it")?;
        if stat.started != started {
            return Err("its process is gone".into());
        }
        let mut vcpu_ticks = BTreeMap::new();
        for task in fs::read_dir(format!("{process}/task")).map_err(|error| refused(pid, &error))?.flatten() {
            // Threads come and go meanwhile.
            let Ok(text) = read(&format!("{}/stat", task.path().display())) else { continue };
            let id = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(id), Some(thread)) = (id, Stat::parse(&text))
                && is_vcpu(thread.name)
            {
                vcpu_ticks.insert(id, thread.ticks);
            }
        }
        let status = read(&format!("{process}/status")).unwrap_or_default();
        let guest_ram = guest_ram_bytes(&process);
        Ok(Self {
            at,
            process_ticks: stat.ticks,
            vcpu_ticks,
            private_bytes: status_bytes(&status, "RssAnon"),
            note: guest_ram
                .as_ref()
                .err()
                .map(|error| format!("its RAM can't be told: {}", refused(pid, error))),
            guest_ram_bytes: guest_ram.ok(),
        })
    }
}

fn refused(pid: u32, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "its process is gone, or this /proc hides it".into(),
        io::ErrorKind::PermissionDenied => {
            format!("process {pid} is another user's; run this as that user or as root")
        }
        _ => format!("process {pid} can't be looked at: {error}"),
    }
}

fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    // A process may give itself any name, valid UTF-8 or not.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How much of the process's memfds of guest RAM exists. Looking does not touch it.
fn guest_ram_bytes(process: &str) -> io::Result<u64> {
    let mut inodes = BTreeSet::new();
    let mut bytes = 0;
    for fd in fs::read_dir(format!("{process}/fd"))?.flatten() {
        let path = fd.path();
        if fs::read_link(&path).is_ok_and(|link| link.to_string_lossy().starts_with(GUEST_RAM))
            && let Ok(metadata) = fs::metadata(&path)
            && inodes.insert(metadata.ino())
        {
            bytes += metadata.blocks() * BLOCK_BYTES;
        }
    }
    Ok(bytes)
}

/// `vcpu` and a number, as the VMM names these threads.
fn is_vcpu(name: &str) -> bool {
    name.strip_prefix("vcpu").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// What is needed of a `stat` file of `/proc`.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    name: &'a str,
    /// In user and kernel mode; the time in a guest counts as user mode.
    ticks: u64,
    started: u64,
}

impl<'a> Stat<'a> {
    /// Fields are counted from behind the name, which may itself hold spaces and parentheses.
    fn parse(text: &'a str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        // The first of these is field 3, the state.
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { name, ticks: field(14)?.checked_add(field(15)?)?, started: field(22)? })
    }
}

/// A value of `/proc/PID/status`, which counts in KiB.
fn status_bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_traps_does_not_shift_the_fields() {
        let tail = "4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4242 23";
        let text = format!("7 (vcpu0) R) S {tail}");
        assert_eq!(Stat::parse(&text), Some(Stat { name: "vcpu0) R", ticks: 29, started: 4242 }));
        for bad in ["", "7 (x", "7 (x) S 1 2 3", "7 x) S"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_vmms_names_are_vcpus() {
        assert!(is_vcpu("vcpu0") && is_vcpu("vcpu63"));
        assert!(!is_vcpu("vcpu") && !is_vcpu("vcpux") && !is_vcpu("xvcpu1") && !is_vcpu("send1"));
    }

    #[test]
    fn a_status_counts_in_kib() {
        let status = "Name:\tgodwit\nVmRSS:\t  100 kB\nRssAnon:\t    12 kB\nRssFile:\t 3 kB\n";
        assert_eq!(status_bytes(status, "RssAnon"), Some(12 << 10));
        assert_eq!(status_bytes(status, "Rss"), None);
        assert_eq!(status_bytes("RssAnon: much", "RssAnon"), None);
    }

    #[test]
    fn this_process_can_be_looked_at_and_another_in_its_place_is_not() {
        let pid = std::process::id();
        let stat = read(&format!("/proc/{pid}/stat")).expect("reads");
        let started = Stat::parse(&stat).expect("parses").started;
        let sample = Sample::take(pid, started).expect("is there");
        assert_eq!((sample.guest_ram_bytes, sample.note), (Some(0), None));
        assert!(sample.private_bytes.is_some_and(|bytes| bytes > 0) && sample.vcpu_ticks.is_empty());
        assert_eq!(Sample::take(pid, started + 1), Err("its process is gone".into()));
    }
}
