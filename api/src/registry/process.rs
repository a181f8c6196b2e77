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

/// The namespace that this process's pids are numbers of.
pub(super) fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// When the process started, in clock ticks since boot; `None` when it is gone or a zombie, or cannot be
/// looked at.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&read(&format!("/proc/{pid}/stat"))?)
}

/// Whether the process with this pid and start time is surely gone. What cannot be looked at (no file
/// descriptor left, a /proc that hides others) is not gone: someone may start a guest upon this answer.
pub(super) fn is_surely_gone(pid: u32, started: u64) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return true };
    // The kernel itself knows; it says "no permission" of processes that are there.
    if rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
        return true;
    }
    let Some(stat) = read(&format!("/proc/{pid}/stat")) else { return false };
    match parse_start_time(&stat) {
        Some(found) => found != started,
        None => is_zombie(&stat),
    }
}

fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')')
        .and_then(|(_, after)| after.split_ascii_whitespace().next())
        .is_some_and(|state| matches!(state, "Z" | "X" | "x"))
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
