//! When the guest was heard, and how long it was not. Pure.

use std::time::{Duration, Instant};

/// What counts as right beside a hand-over.
const BESIDE: Duration = Duration::from_millis(50);

/// The moments at which beats arrived from one process, in order.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    heard: Vec<Instant>,
}

impl Timeline {
    /// One or more beats arrived.
    pub fn heard(&mut self, at: Instant) {
        self.heard.push(at);
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        self.heard.first().copied()
    }

    /// The last of them so far.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.heard.last().copied()
    }

    /// The longest silence between two beats that both arrived from `from` to `to`.
    #[must_use]
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Option<Duration> {
        let begin = self.heard.partition_point(|at| *at < from);
        let end = self.heard.partition_point(|at| *at <= to);
        let within = self.heard.get(begin..end)?;
        within.iter().zip(within.iter().skip(1)).map(|(a, b)| b.duration_since(*a)).max()
    }
}

/// The longest silence around a hand-over: from the last beat here to the first beat there, or one right
/// beside it. Output that was delivered late, in one burst, shortens the silence after it, so that the
/// one before it counts as well. Both were read by the same thread with the same clock.
#[must_use]
pub fn blackout(here: &Timeline, there: &Timeline) -> Option<Duration> {
    let (last, first) = (here.last()?, there.first()?);
    let between = first.saturating_duration_since(last);
    let before = last.checked_sub(BESIDE).and_then(|from| here.longest_gap(from, last));
    let after = there.longest_gap(first, first + BESIDE);
    [Some(between), before, after].into_iter().flatten().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(start: Instant, ms: &[u64]) -> Timeline {
        Timeline { heard: ms.iter().map(|ms| start + Duration::from_millis(*ms)).collect() }
    }

    #[test]
    fn the_longest_gap_lies_within_the_window() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let timeline = timeline(start, &[0, 50, 51, 53, 56, 90]);
        assert_eq!(timeline.longest_gap(at(0), at(100)), Some(Duration::from_millis(50)));
        assert_eq!(timeline.longest_gap(at(1), at(60)), Some(Duration::from_millis(3)));
        assert_eq!(timeline.longest_gap(at(50), at(51)), Some(Duration::from_millis(1)));
        assert_eq!(timeline.longest_gap(at(91), at(100)), None);
        assert_eq!(timeline.longest_gap(at(60), at(20)), None);
    }

    #[test]
    fn the_blackout_is_from_the_last_beat_here_to_the_first_there() {
        let start = Instant::now();
        let here = timeline(start, &[1000, 1001, 1002]);
        let blackout_ms = |there: &[u64]| blackout(&here, &timeline(start, there)).map(|gap| gap.as_millis());
        assert_eq!(blackout_ms(&[1007, 1008]), Some(5));
        assert_eq!(blackout_ms(&[1001]), Some(1));
        assert_eq!(blackout_ms(&[]), None);
        assert_eq!(blackout(&Timeline::default(), &here), None);
    }

    #[test]
    fn a_silence_right_beside_the_hand_over_counts() {
        let start = Instant::now();
        let late = timeline(start, &[1000, 1040, 1060]);
        assert_eq!(blackout(&late, &timeline(start, &[1062])), Some(Duration::from_millis(20)));
        let early = timeline(start, &[1000]);
        let there = timeline(start, &[1001, 1031, 1090]);
        assert_eq!(blackout(&early, &there), Some(Duration::from_millis(30)));
    }
}
