//! One run: a guest is started, warmed, watched, moved and checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use godwit_guest_images::command::Command;
use godwit_guest_images::observer::{Observer, Timeline};
use godwit_guest_images::report::{Report, parse_line};

use crate::cell::Cell;
use crate::process::{cpu_time, peak_memory_kib, vcpu_time};
use crate::system::{Pair, System};

/// How long the guest is watched before it moves, and how long it must be heard after it.
const WATCH_BEFORE: Duration = Duration::from_millis(500);
const WATCH_AFTER: Duration = Duration::from_millis(100);
/// How long anything may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Often enough for the last of a short process's life, rarely enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(10);

const SOURCE: usize = 0;
const TARGET: usize = 1;

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From the guest's last byte at the source to its first at the target.
    pub(crate) blackout: Duration,
    /// The longest silence of the guest from the request to a moment after its arrival.
    pub(crate) longest_gap: Duration,
    /// From the request to the system's word that it is done.
    pub(crate) total: Duration,
    /// The longest silence in the half second before.
    pub(crate) gap_before: Duration,
    /// CPU time of both processes from the request to the end, the vCPUs' apart.
    pub(crate) cpu: Duration,
    /// The most memory of both processes together, guest RAM included.
    pub(crate) peak_memory_kib: u64,
}

/// Makes one run.
pub(crate) fn measure(system: &dyn System, cell: &Cell) -> anyhow::Result<Run> {
    let (observer, pipes) = Observer::start(2)?;
    let outputs = pipes.try_into().ok().context("two pipes")?;
    let mut pair = system.start(cell, outputs)?;
    let seen = Seen { observer: &observer };
    seen.wait("the guest to be up", SOURCE, |report| matches!(report, Report::Up { .. }).then_some(()))?;
    if cell.dirties() {
        seen.wait("the working set to be written once", SOURCE, |report| match report {
            Report::Progress(progress) => (progress.pass > 0).then_some(()),
            _ => None,
        })?;
    }
    let asked = Instant::now() + WATCH_BEFORE;
    seen.heard_at(SOURCE, asked)?;

    let pids = pair.processes().map(|process| process.pid());
    let cost = Cost::watch(pids)?;
    let asked = Instant::now();
    let total = pair.migrate()?;
    let first = wait_for("the guest to be heard again", || observer.of(TARGET).beats.first())?;
    let (cpu, peak_memory_kib) = cost.end()?;
    seen.heard_at(TARGET, first + WATCH_AFTER)?;
    if cell.dirties() {
        verify(pair.as_mut(), &seen)?;
    }
    let (here, there) = (observer.of(SOURCE).beats.clone(), observer.of(TARGET).beats.clone());
    Ok(Run {
        blackout: first.saturating_duration_since(last_before(&here, first)?),
        longest_gap: longest_gap(&here, &there, asked, first)?,
        total,
        gap_before: here.longest_gap(asked - WATCH_BEFORE, asked).context("the guest was heard before")?,
        cpu,
        peak_memory_kib,
    })
}

fn last_before(here: &Timeline, first: Instant) -> anyhow::Result<Instant> {
    here.last()
        .filter(|last| *last <= first)
        .context("the guest is heard at the source first, then at the target")
}

/// Stalls while memory is copied count as well: to the guest's users they are the same.
fn longest_gap(
    here: &Timeline,
    there: &Timeline,
    asked: Instant,
    first: Instant,
) -> anyhow::Result<Duration> {
    let last = last_before(here, first)?;
    let gaps = [
        here.longest_gap(asked, last),
        Some(first.saturating_duration_since(last)),
        there.longest_gap(first, first + WATCH_AFTER),
    ];
    gaps.into_iter().flatten().max().context("there are gaps")
}

fn verify(pair: &mut dyn Pair, seen: &Seen<'_>) -> anyhow::Result<()> {
    pair.processes()[TARGET].type_line(&Command::Verify.to_string())?;
    let mismatches = seen.wait("the guest to check its memory", TARGET, |report| match report {
        Report::Verified { mismatches, .. } => Some(mismatches),
        _ => None,
    })?;
    ensure!(mismatches == 0, "{mismatches} pages are not as the guest left them: nothing to compare");
    Ok(())
}

struct Seen<'a> {
    observer: &'a Observer,
}

impl Seen<'_> {
    /// Waits for a line that `wanted` makes something of.
    fn wait<T>(
        &self,
        what: &str,
        process: usize,
        mut wanted: impl FnMut(Report<'_>) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut looked_at = 0;
        wait_for(what, || {
            let seen = self.observer.of(process);
            let lines = seen.lines.whole();
            let found =
                lines[looked_at..].iter().find_map(|line| parse_line(line.trim_end()).and_then(&mut wanted));
            looked_at = lines.len();
            found
        })
    }

    /// Waits until the guest was heard at that moment or later.
    fn heard_at(&self, process: usize, at: Instant) -> anyhow::Result<()> {
        wait_for("the guest to be heard", || {
            self.observer.of(process).beats.last().filter(|last| *last >= at).map(|_| ())
        })
    }
}

/// Looks every two milliseconds, which costs the host next to nothing.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let until = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(Instant::now() < until, "not within {WITHIN:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a migration costs two processes. They are looked at while they live: the kernel forgets some of
/// it when a process ends.
struct Cost {
    pids: [u32; 2],
    cpu_before: Duration,
    vcpus_before: Duration,
    end: Arc<AtomicBool>,
    thread: thread::JoinHandle<[Last; 2]>,
}

/// What was last seen of a process.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    peak_memory_kib: u64,
    vcpus: Duration,
}

impl Last {
    fn look(&mut self, pid: u32) {
        self.peak_memory_kib = peak_memory_kib(pid).unwrap_or(self.peak_memory_kib);
        self.vcpus = vcpu_time(pid).unwrap_or(self.vcpus);
    }
}

impl Cost {
    fn watch(pids: [u32; 2]) -> anyhow::Result<Self> {
        let mut last = [Last::default(); 2];
        for (last, pid) in last.iter_mut().zip(pids) {
            last.look(pid);
        }
        let vcpus_before = last.iter().map(|last| last.vcpus).sum();
        let cpu_before = cpu_of(pids)?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(LOOK_EVERY);
                for (last, pid) in last.iter_mut().zip(pids) {
                    last.look(pid);
                }
            }
            last
        });
        Ok(Self { pids, cpu_before, vcpus_before, end, thread })
    }

    /// CPU time beside the vCPUs', and the most memory, in KiB.
    fn end(self) -> anyhow::Result<(Duration, u64)> {
        self.end.store(true, Ordering::Relaxed);
        let last = self.thread.join().ok().context("looking at the processes")?;
        let all = cpu_of(self.pids)?.saturating_sub(self.cpu_before);
        let vcpus: Duration = last.iter().map(|last| last.vcpus).sum();
        let beside = all.saturating_sub(vcpus.saturating_sub(self.vcpus_before));
        Ok((beside, last.iter().map(|last| last.peak_memory_kib).sum()))
    }
}

fn cpu_of(pids: [u32; 2]) -> anyhow::Result<Duration> {
    pids.into_iter().map(cpu_time).sum()
}
