//! What was used between two samples. Pure.

use std::time::Duration;

use serde::Serialize;

use super::sample::Sample;

/// CPU used, in per cent of one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CpuUse {
    /// By the whole process.
    #[serde(rename = "cpu_percent")]
    pub(super) process: f64,
    /// Of that, by the vCPUs' threads: the guest, and what its exits cost.
    #[serde(rename = "vcpu_percent")]
    pub(super) vcpus: f64,
    /// The rest: the VMM's other threads.
    #[serde(rename = "vmm_percent")]
    pub(super) vmm: f64,
}

/// What the process used from `before` to `now`; `None` if no time has passed.
pub(super) fn between(before: &Sample, now: &Sample) -> Option<CpuUse> {
    let passed = now.at.checked_duration_since(before.at)?;
    let process = now.process_ticks.saturating_sub(before.process_ticks);
    // A thread that is new (the guest booted again) has used all of its time since. One that has ended
    // counts as the VMM's: nothing tells any more whose it was.
    let vcpus: u64 = now
        .vcpu_ticks
        .iter()
        .map(|(id, ticks)| ticks.saturating_sub(before.vcpu_ticks.get(id).copied().unwrap_or(0)))
        .sum();
    // The threads are read a moment after the process: they may be ahead by a tick.
    let vcpus = vcpus.min(process);
    let percent = |ticks| percent(ticks, passed, rustix::param::clock_ticks_per_second());
    Some(CpuUse { process: percent(process)?, vcpus: percent(vcpus)?, vmm: percent(process - vcpus)? })
}

/// In tenths, which is finer than what a tick allows in a second.
#[allow(clippy::cast_precision_loss, reason = "exact for centuries of CPU time")]
fn percent(ticks: u64, passed: Duration, ticks_per_s: u64) -> Option<f64> {
    if passed.is_zero() || ticks_per_s == 0 {
        return None;
    }
    let percent = ticks as f64 * 100.0 / (ticks_per_s as f64 * passed.as_secs_f64());
    Some((percent * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sample(at: Instant, process_ticks: u64, vcpus: &[(u32, u64)]) -> Sample {
        let vcpu_ticks = vcpus.iter().copied().collect();
        Sample { at, process_ticks, vcpu_ticks, guest_ram_bytes: None, private_bytes: None, note: None }
    }

    /// In ticks a second, so that the kernel's own does not matter.
    fn used(before: (u64, &[(u32, u64)]), now: (u64, &[(u32, u64)]), seconds: u64) -> Option<[f64; 3]> {
        let hz = rustix::param::clock_ticks_per_second();
        let begin = Instant::now();
        let scaled = |vcpus: &[(u32, u64)]| -> Vec<(u32, u64)> {
            vcpus.iter().map(|(id, percent)| (*id, percent * hz / 100)).collect()
        };
        let before = sample(begin, before.0 * hz / 100, &scaled(before.1));
        let now = sample(begin + Duration::from_secs(seconds), now.0 * hz / 100, &scaled(now.1));
        between(&before, &now).map(|used| [used.process, used.vcpus, used.vmm])
    }

    #[test]
    fn vcpus_and_the_rest_make_the_whole() {
        let before: &[(u32, u64)] = &[(11, 1000), (12, 500)];
        let now: &[(u32, u64)] = &[(11, 1100), (12, 550)];
        assert_eq!(used((2000, before), (2200, now), 1), Some([200.0, 150.0, 50.0]));
        assert_eq!(used((2000, before), (2200, now), 2), Some([100.0, 75.0, 25.0]));
        assert_eq!(used((2000, before), (2000, before), 1), Some([0.0, 0.0, 0.0]));
    }

    #[test]
    fn threads_that_come_and_go_count_once() {
        assert_eq!(used((100, &[(1, 90)]), (150, &[(2, 30)]), 1), Some([50.0, 30.0, 20.0]));
    }

    #[test]
    fn what_cannot_be_is_nothing() {
        assert_eq!(used((100, &[(1, 50)]), (110, &[(1, 70)]), 1), Some([10.0, 10.0, 0.0]), "read later");
        assert_eq!(
            used((100, &[(1, 50)]), (90, &[(1, 40)]), 1),
            Some([0.0, 0.0, 0.0]),
            "a clock that went back"
        );
        assert_eq!(used((100, &[]), (200, &[]), 0), None, "no time has passed");
    }

    #[test]
    fn a_tenth_of_a_per_cent_is_as_fine_as_it_gets() {
        assert_eq!(percent(1, Duration::from_secs(3), 100), Some(0.3));
        assert_eq!(percent(1, Duration::from_secs(1), 0), None);
    }
}
