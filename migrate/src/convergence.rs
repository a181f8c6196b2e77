//! When to stop copying while the guest runs, and pause it for the rest. Pure.
//!
//! After each round the engine knows how many pages the guest dirtied meanwhile and how fast the link
//! took the last ones. From that and the fixed cost of a hand-over it predicts the blackout, and stops
//! as soon as that fits. Slowing the guest down and post-copy are not here yet: a guest that dirties
//! faster than the link carries runs into the migration's time limit.

use std::time::Duration;

use godwit_vmm::PAGE_SIZE;

/// Rounds that carried less say nothing about the link: their time is latency.
const RATE_BYTES_MIN: u64 = 1 << 20;

/// What is known of this pair of hosts before the first round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedCost {
    /// The shortest round trip.
    pub round_trip: Duration,
    /// What saving and restoring a machine of this shape took on the target.
    pub rehearsal: Duration,
}

impl FixedCost {
    /// Blackout of a guest that has nothing dirty: save, send, restore, `Ready`, `COMMIT`.
    #[must_use]
    pub fn blackout(&self) -> Duration {
        self.rehearsal + self.round_trip * 2
    }
}

/// One finished round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundMeasure {
    /// Bytes on the link.
    pub bytes: u64,
    /// From its first byte until the target had applied it.
    pub took: Duration,
    /// Pages that are dirty now.
    pub dirty_pages: u64,
    /// How long the guest had to dirty them.
    pub dirty_for: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Pause the guest now.
    Stop,
    /// Copy what is dirty while the guest runs.
    AnotherRound,
}

/// The policy, fed round by round.
#[derive(Debug, Clone)]
pub struct Convergence {
    max_downtime: Duration,
    fixed: FixedCost,
    bytes_per_s: Option<u64>,
    dirty_bytes_per_s: u64,
    predicted: Option<Duration>,
}

impl Convergence {
    /// For a migration with this limit.
    #[must_use]
    pub fn new(max_downtime: Duration, fixed: FixedCost) -> Self {
        Self { max_downtime, fixed, bytes_per_s: None, dirty_bytes_per_s: 0, predicted: None }
    }

    /// What to do after this round.
    pub fn after_round(&mut self, measure: RoundMeasure) -> Decision {
        let rate = per_second(measure.bytes, measure.took);
        self.bytes_per_s = Some(match self.bytes_per_s {
            // A small round's time is latency: it shows at least this much, never how little.
            Some(known) if measure.bytes < RATE_BYTES_MIN => known.max(rate),
            _ => rate.max(1),
        });
        let dirty_bytes = measure.dirty_pages * PAGE_SIZE;
        self.dirty_bytes_per_s = per_second(dirty_bytes, measure.dirty_for);
        let transfer = self.transfer_time(dirty_bytes);
        self.predicted = Some(transfer.saturating_add(self.fixed.blackout()));
        if transfer <= self.transfer_budget() { Decision::Stop } else { Decision::AnotherRound }
    }

    /// The blackout if the guest were paused now.
    #[must_use]
    pub fn predicted_blackout(&self) -> Option<Duration> {
        self.predicted
    }

    /// What the link carries, as far as is known.
    #[must_use]
    pub fn link_bytes_per_s(&self) -> Option<u64> {
        self.bytes_per_s
    }

    /// How fast the guest dirtied memory during the last round.
    #[must_use]
    pub fn dirty_bytes_per_s(&self) -> u64 {
        self.dirty_bytes_per_s
    }

    /// Why the rounds do not end, for people.
    #[must_use]
    pub fn why_not_converging(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let Some(bytes_per_s) = self.bytes_per_s else {
            return "the first pass over its memory was not finished".to_owned();
        };
        format!(
            "the guest dirties {} MiB/s and the link carries {} MiB/s, so the rest never fits into --max-downtime: \
             allow a larger one, give it more time or bandwidth, or make the guest quieter",
            mib(self.dirty_bytes_per_s),
            mib(bytes_per_s),
        )
    }

    fn transfer_time(&self, bytes: u64) -> Duration {
        let bytes_per_s = self.bytes_per_s.unwrap_or(1).max(1);
        let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_s);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// How long the last pages may take. The fixed cost is paid whatever we do; where it takes most of
    /// the limit, another round would not help, so half of the limit stays for pages.
    fn transfer_budget(&self) -> Duration {
        self.max_downtime.saturating_sub(self.fixed.blackout()).max(self.max_downtime / 2)
    }
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(max_downtime_ms: u64) -> Convergence {
        let fixed = FixedCost { round_trip: Duration::from_micros(100), rehearsal: Duration::from_millis(1) };
        Convergence::new(Duration::from_millis(max_downtime_ms), fixed)
    }

    fn round(bytes: u64, took_ms: u64, dirty_bytes: u64) -> RoundMeasure {
        let took = Duration::from_millis(took_ms);
        RoundMeasure { bytes, took, dirty_pages: dirty_bytes / PAGE_SIZE, dirty_for: took }
    }

    #[test]
    fn stops_once_the_rest_fits() {
        let mut policy = policy(10);
        // 1 GiB/s: 8.8 ms of transfer are 9 MiB.
        assert_eq!(policy.after_round(round(1024 * MIB, 1000, 100 * MIB)), Decision::AnotherRound);
        assert_eq!(policy.after_round(round(100 * MIB, 100, 10 * MIB)), Decision::AnotherRound);
        assert_eq!(policy.after_round(round(10 * MIB, 10, 8 * MIB)), Decision::Stop);
        let predicted = policy.predicted_blackout().unwrap();
        assert!(
            predicted > Duration::from_millis(8) && predicted < Duration::from_millis(10),
            "{predicted:?}"
        );
    }

    #[test]
    fn a_guest_faster_than_the_link_never_stops_and_says_why() {
        let mut policy = policy(10);
        for _ in 0..100 {
            assert_eq!(policy.after_round(round(500 * MIB, 1000, 500 * MIB)), Decision::AnotherRound);
        }
        assert!(policy.why_not_converging().contains("500 MiB/s"));
    }

    #[test]
    fn a_tiny_round_does_not_spoil_what_is_known_of_the_link() {
        let mut policy = policy(10);
        policy.after_round(round(1024 * MIB, 1000, 100 * MIB));
        assert_eq!(policy.after_round(round(4096, 5, 8 * MIB)), Decision::Stop);
    }

    #[test]
    fn a_first_round_of_zero_pages_does_not_pass_for_a_slow_link() {
        let mut policy = policy(10);
        // A GiB of zero pages: a kilobyte in half a second.
        assert_eq!(policy.after_round(round(1000, 500, 40_960)), Decision::AnotherRound);
        assert_eq!(policy.after_round(round(41_000, 1, 40_960)), Decision::Stop);
    }

    #[test]
    fn a_limit_below_the_fixed_cost_still_ends() {
        assert_eq!(policy(1).after_round(round(1024 * MIB, 1000, 0)), Decision::Stop);
    }
}
