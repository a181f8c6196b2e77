//! Things that are to happen again and again, on a clock that may jump.

/// Something due every so many ticks.
#[derive(Clone, Copy, Debug)]
pub struct Periodic {
    interval: u64,
    slack: u64,
    next: u64,
}

impl Periodic {
    /// Due first one interval after `now`. What is less than `slack` late is made up for by a shorter
    /// wait; after a longer pause the schedule starts anew, without a burst.
    pub const fn new(now: u64, interval: u64, slack: u64) -> Self {
        Self { interval, slack, next: now.wrapping_add(interval) }
    }

    /// Whether it is due at `now`; then it is due again an interval later.
    #[inline]
    pub fn due(&mut self, now: u64) -> bool {
        let late = now.wrapping_sub(self.next);
        if late < self.slack {
            self.next = self.next.wrapping_add(self.interval);
            return true;
        }
        // Not late but early: how much is left?
        if late.wrapping_neg() <= self.interval {
            return false;
        }
        // Too late, or the clock went back by more than an interval: a guest that was moved to
        // another host.
        self.next = now.wrapping_add(self.interval);
        true
    }

    /// When it is due next.
    pub const fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_pace_when_a_little_late() {
        let mut periodic = Periodic::new(1000, 100, 100);
        assert!(!periodic.due(1000));
        assert!(!periodic.due(1099));
        assert!(periodic.due(1130));
        assert!(!periodic.due(1199));
        assert!(periodic.due(1200));
    }

    #[test]
    fn starts_anew_after_a_long_pause() {
        let mut periodic = Periodic::new(0, 100, 100);
        assert!(periodic.due(100));
        assert!(periodic.due(5000));
        assert!(!periodic.due(5099));
        assert!(periodic.due(5100));
    }

    #[test]
    fn makes_up_within_its_slack() {
        let mut periodic = Periodic::new(0, 10, 1000);
        let times = (0..200).filter(|_| periodic.due(500)).count();
        assert_eq!(times, 50);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_stop_it() {
        let mut periodic = Periodic::new(1_000_000, 100, 100);
        assert!(periodic.due(500));
        assert!(!periodic.due(599));
        assert!(periodic.due(600));
    }
}
