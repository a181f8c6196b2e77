//! What a process holds.

use std::fs;

/// Counted from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Open file descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
    /// Memory that it has written and shares with nobody, other than guest RAM, in KiB. Clean pages are the
    /// program's file: private only while no other process runs it.
    pub private_kib: u64,
    /// All its memory other than guest RAM in KiB, where what it shares counts by its share (PSS).
    pub pss_kib: u64,
}

impl Usage {
    /// Of a live process.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| {
            let path = format!("/proc/{pid}/{what}");
            fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).count()
        };
        let path = format!("/proc/{pid}/smaps");
        let smaps = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self {
            fds: count("fd"),
            threads: count("task"),
            private_kib: beside_guest_ram(&smaps, "Private_Dirty:"),
            pss_kib: beside_guest_ram(&smaps, "Pss:"),
        }
    }

    /// What keeps these descriptors open, for a person.
    #[must_use]
    pub fn descriptors(pid: u32) -> Vec<String> {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string()))
            .collect()
    }

    /// The names of its threads, for a person.
    #[must_use]
    pub fn thread_names(pid: u32) -> Vec<String> {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
        let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
        entries.flatten().filter_map(name).map(|name| name.trim().to_owned()).collect()
    }
}

/// Sums one figure of all mappings but those of guest RAM, which is a memfd.
fn beside_guest_ram(smaps: &str, figure: &str) -> u64 {
    let mut guest_ram = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some(name) if name == figure => {
                if guest_ram {
                    continue;
                }
                sum += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
            }
            // A mapping's first line begins with its range; all others with a name and a colon.
            Some(first) if !first.ends_with(':') => guest_ram = line.contains("/memfd:"),
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ram_and_the_program_do_not_count() {
        let smaps = "1-2 rw-p 0 00:00 0 \nSize: 4 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n\
                     3-4 rw-s 0 00:01 7 /memfd:godwit-ram (deleted)\nPrivate_Dirty: 100 kB\n\
                     5-6 r-xp 0 00:02 8 /bin/x\nPrivate_Clean: 4 kB\n";
        assert_eq!(beside_guest_ram(smaps, "Private_Dirty:"), 2);
        assert_eq!(beside_guest_ram(smaps, "Private_Clean:"), 5);
    }

    #[test]
    fn this_process_holds_something() {
        let usage = Usage::of(std::process::id());
        assert!(usage.fds >= 3 && usage.threads >= 1 && usage.private_kib > 0, "{usage:?}");
    }
}
