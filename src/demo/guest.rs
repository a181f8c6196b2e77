//! The guest: what it is, and what it says of its memory.

use std::time::{Duration, Instant};

use godwit_guest_images::command::Command;
use godwit_guest_images::observer::Observer;
use godwit_guest_images::report::{Report as Said, parse_line};
use serde::Serialize;

use super::DemoError;
use super::patience::Patience;
use super::vmm::{Launcher, Vmm};

/// Writing the whole working set once takes a while on a slow host; it is not waited for longer.
const SETTLE_WITHIN: Duration = Duration::from_secs(8);

/// A guest that never stops writing.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Guest {
    /// Virtual CPUs.
    pub(super) cpus: u32,
    /// Its memory.
    pub(super) memory_mib: u64,
    /// What each of its CPUs writes over and over.
    pub(super) working_set_mib_per_cpu: u64,
    /// How fast each of its CPUs writes.
    pub(super) rate_mib_per_s_per_cpu: u64,
    /// Time between two bytes on its serial port.
    pub(super) beat_us: u64,
}

/// What the guest found when it looked at all its pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Pages looked at.
    pub(super) pages: u64,
    /// Pages that were not as last written: then, or when they were overwritten before.
    pub(super) mismatches: u64,
}

impl Guest {
    /// Its CPUs never rest, and the engine and the observer need some of the host's as well.
    pub(super) fn for_this_host() -> Self {
        let host_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = if host_cpus < 4 { 1 } else { 2 };
        Self {
            cpus,
            memory_mib: 512,
            working_set_mib_per_cpu: 128 / u64::from(cpus),
            rate_mib_per_s_per_cpu: 100 / u64::from(cpus),
            beat_us: 100,
        }
    }

    pub(super) fn in_words(&self) -> String {
        let cpus = u64::from(self.cpus);
        format!(
            "{cpus} CPU{}, {} MiB, rewrites {} MiB at {} MiB/s",
            if cpus == 1 { "" } else { "s" },
            self.memory_mib,
            cpus * self.working_set_mib_per_cpu,
            cpus * self.rate_mib_per_s_per_cpu,
        )
    }

    fn cmdline(&self) -> String {
        format!(
            "payload=dirty ws={}M rate={}M beat={}us report=200ms",
            self.working_set_mib_per_cpu, self.rate_mib_per_s_per_cpu, self.beat_us
        )
    }

    /// Boots it, and waits until it has written all of its working set once.
    pub(super) fn boot(
        &self,
        launcher: &mut Launcher<'_>,
        observer: &Observer,
        patience: &mut Patience<'_>,
    ) -> Result<Vmm, DemoError> {
        let (cpus, memory) = (self.cpus.to_string(), format!("{}M", self.memory_mib));
        let cmdline = self.cmdline();
        let options = [
            "--kernel",
            "builtin",
            "--name",
            "demo",
            "--cpus",
            &cpus,
            "--memory",
            &memory,
            "--cmdline",
            &cmdline,
        ];
        let mut vmm = launcher.run(&options, patience)?;
        let mut booted: Option<Instant> = None;
        patience.wait_for("the guest to write its memory once", || {
            vmm.must_be_alive()?;
            let seen = observer.of(vmm.index());
            if seen.beats.first().is_some() && booted.is_none() {
                booted = Some(Instant::now());
            }
            let settled = settled(seen.lines.whole(), self.cpus);
            let enough = booted.is_some_and(|booted| booted.elapsed() >= SETTLE_WITHIN);
            Ok((booted.is_some() && (settled || enough)).then_some(()))
        })?;
        Ok(vmm)
    }

    /// Lets it look at every page of its working set, here and now.
    pub(super) fn verify(
        &self,
        vmm: &mut Vmm,
        observer: &Observer,
        patience: &mut Patience<'_>,
    ) -> Result<Found, DemoError> {
        let said_before = observer.of(vmm.index()).lines.whole().len();
        vmm.type_line(&Command::Verify.to_string())?;
        vmm.type_line(&Command::Stats.to_string())?;
        patience.wait_for("the guest to check its memory", || {
            vmm.must_be_alive()?;
            let seen = observer.of(vmm.index());
            Ok(found(seen.lines.whole().get(said_before..).unwrap_or_default(), self.cpus))
        })
    }
}

/// Whether each CPU has written all of its pages.
fn settled(lines: &[String], cpus: u32) -> bool {
    (0..u64::from(cpus)).all(|wanted| {
        lines.iter().rev().any(|line| {
            matches!(parse_line(line), Some(Said::Progress(progress)) if progress.cpu == wanted && progress.pass > 0)
        })
    })
}

/// The answers of all CPUs: what each found when asked, and what it had found until then. `None` until
/// all have answered.
fn found(lines: &[String], cpus: u32) -> Option<Found> {
    let mut sum = Found::default();
    for wanted in 0..u64::from(cpus) {
        let said = || lines.iter().filter_map(|line| parse_line(line));
        let verified = said().find_map(|said| match said {
            Said::Verified { cpu, pages, mismatches } if cpu == wanted => Some(Found { pages, mismatches }),
            _ => None,
        })?;
        // The count only grows.
        let before = said().filter_map(|said| match said {
            Said::Progress(progress) if progress.cpu == wanted => Some(progress.mismatches),
            _ => None,
        });
        sum.pages += verified.pages;
        sum.mismatches = sum.mismatches.saturating_add(verified.mismatches).saturating_add(before.max()?);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| format!("godwit-guest: {line}")).collect()
    }

    #[test]
    fn the_kernel_understands_the_options() {
        let guest = Guest::for_this_host();
        let mut config = godwit_guest_images::cmdline::Config::new();
        let cmdline = guest.cmdline();
        config.apply(&cmdline).expect("understood");
        assert_eq!(config.beat_ns, guest.beat_us * 1000);
    }

    #[test]
    fn mismatches_of_all_cpus_count_and_all_must_answer() {
        let all = lines(
            "verified cpu=1 pages=20 mismatches=2\n\
             cpu=0 pass=1 pages=5 mismatches=1 gap_us=1 gap_max_us=1\n\
             verified cpu=0 pages=10 mismatches=0\n\
             cpu=0 pass=1 pages=6 mismatches=4 gap_us=1 gap_max_us=1\n\
             cpu=1 pass=1 pages=5 mismatches=8 gap_us=1 gap_max_us=1",
        );
        assert_eq!(found(&all, 2), Some(Found { pages: 30, mismatches: 14 }));
        assert_eq!(found(&all[..4], 2), None);
        assert_eq!(found(&all, 3), None);
    }

    #[test]
    fn settled_means_every_cpu_is_through_once() {
        let one = lines("cpu=0 pass=1 pages=5 mismatches=0 gap_us=1 gap_max_us=1");
        assert!(settled(&one, 1));
        assert!(!settled(&one, 2));
        assert!(!settled(&lines("cpu=0 pass=0 pages=5 mismatches=0 gap_us=1 gap_max_us=1"), 1));
    }
}
