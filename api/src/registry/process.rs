//! Whether a process that wrote a file is still that process.

use std::fs::File;
use std::io::Read;

/// Enough for any `/proc/PID/stat`.
const STAT_BYTES_MAX: u64 = 4096;

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(STAT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    // A process may give itself any name, valid UTF-8 or not.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// This boot's identity.
pub(super) fn boot_id() -> Option<String> {
    read("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// When the process started, in clock ticks since boot; `None` when it is gone or a zombie.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&read(&format!("/proc/{pid}/stat"))?)
}

/// Field 22; the fields are counted from behind the name, which may itself hold spaces and
/// parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // The state was field 3.
    fields.nth(22 - 4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_traps_does_not_shift_the_fields() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_start_time(&format!("7 (a) R 9) S {tail}")), Some(4242));
        assert_eq!(parse_start_time(&format!("7 (gone) Z {tail}")), None);
        assert_eq!(parse_start_time("7 (short) S 1 2"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn this_process_has_a_start_time_and_pid_0_has_none() {
        assert!(start_time(std::process::id()).is_some());
        assert!(start_time(0).is_none());
        assert!(boot_id().is_some_and(|id| id.len() == 36));
    }
}
