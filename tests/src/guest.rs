//! What the test kernel says of itself, checked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::report::{Progress, Report, parse_line};

use crate::{Line, Mark, VmProcess};

/// Four vCPUs that dirty and check memory, each in its own way, slowly enough for two busy cores.
pub const DIRTY: &str = "payload=dirty ws=4M rate=8M report=100ms cpu1.pattern=random cpu2.pattern=hotcold \
                         cpu3.pattern=random cpu3.words=32 cpu3.seed=7 cpu0.words=8";

/// Follows the reports of a dirtying guest from process to process: counters must go on where they
/// were and never go back, and no page may differ from what was written.
#[derive(Debug, Default)]
pub struct Dirtying {
    last: BTreeMap<u64, Progress>,
    /// How far the lines of each process were read.
    read: BTreeMap<u32, Mark>,
    cpus: u64,
}

impl Dirtying {
    /// Of a guest with that many vCPUs.
    #[must_use]
    pub fn new(cpus: u64) -> Self {
        Self { cpus, ..Self::default() }
    }

    /// Reads what a process has said since it was last looked at, whether the guest is there or was.
    ///
    /// # Panics
    /// When a line tells of anything wrong.
    #[track_caller]
    pub fn follow(&mut self, vm: &VmProcess) {
        let since = self.read.insert(vm.pid(), vm.serial().mark()).unwrap_or(Mark::START);
        let until = self.read[&vm.pid()];
        let lines = vm.serial().lines_between(since, until);
        watch_mismatches(&lines);
        for line in lines {
            let Some(Report::Progress(now)) = parse_line(&line.text) else { continue };
            if let Some(before) = self.last.insert(now.cpu, now) {
                assert!(
                    now.pass >= before.pass && now.pages >= before.pages,
                    "vCPU {} went back: {before:?}, then {now:?}",
                    now.cpu
                );
            }
        }
    }

    /// Waits until every vCPU has written more pages at this process than ever before; then checks
    /// all that it said.
    ///
    /// # Panics
    /// When a vCPU does not go on, or a page is wrong.
    #[track_caller]
    pub fn goes_on(&mut self, vm: &VmProcess) {
        let mut waiting: Vec<u64> = (0..self.cpus).collect();
        let reports = |line: &str| match parse_line(line) {
            Some(Report::Progress(progress)) => Some(progress),
            _ => None,
        };
        let begin = vm.serial().mark();
        self.follow(vm);
        let last = self.last.clone();
        vm.serial().wait(begin, "progress of every vCPU", crate::PATIENCE, |line| {
            if let Some(now) = reports(line) {
                let more = last.get(&now.cpu).is_none_or(|before| now.pages > before.pages);
                waiting.retain(|cpu| *cpu != now.cpu || !more);
            }
            waiting.is_empty().then_some(())
        });
        self.follow(vm);
    }

    /// Asks the guest to check every page now.
    ///
    /// # Panics
    /// When a page is wrong, or no answer comes.
    #[track_caller]
    pub fn verify(&self, vm: &mut VmProcess) {
        let mark = vm.serial().mark();
        vm.send(GuestCommand::Verify);
        let mut waiting: Vec<u64> = (0..self.cpus).collect();
        vm.serial().wait(mark, "verified by every vCPU", crate::PATIENCE, |line| {
            if let Some(Report::Verified { cpu, pages, mismatches }) = parse_line(line) {
                assert_eq!(mismatches, 0, "{line}");
                assert!(pages > 0, "{line}");
                waiting.retain(|waiting| *waiting != cpu);
            }
            waiting.is_empty().then_some(())
        });
    }

    /// Asserts that a guest does not run here: nothing comes from it for a while in which a running
    /// one would have said a lot.
    ///
    /// # Panics
    /// When something comes.
    #[track_caller]
    pub fn assert_silent(vm: &VmProcess, for_at_least: Duration) {
        let mark = vm.serial().mark();
        let until = Instant::now() + for_at_least;
        while Instant::now() < until {
            assert_eq!(vm.serial().bytes_since(mark), 0, "the guest runs here\n{}", vm.serial().tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Asserts that the guest found no wrong page and met with nothing that it did not expect.
///
/// # Panics
/// When it did.
#[track_caller]
pub fn watch_mismatches(lines: &[Line]) {
    for line in lines {
        match parse_line(&line.text) {
            Some(Report::Mismatch(_) | Report::Exception { .. } | Report::Panic(_) | Report::Error(_)) => {
                panic!("the guest says: {}", line.text)
            }
            Some(Report::Progress(Progress { mismatches, .. }) | Report::Verified { mismatches, .. }) => {
                assert_eq!(mismatches, 0, "{}", line.text)
            }
            _ => {}
        }
    }
}
