//! Median and spread. Pure.

use std::time::Duration;

/// What a figure was over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary<T> {
    pub(crate) median: T,
    pub(crate) least: T,
    pub(crate) most: T,
}

/// What can lie in the middle of two.
pub(crate) trait Middle: Copy + Ord {
    fn middle(self, other: Self) -> Self;
}

impl Middle for Duration {
    fn middle(self, other: Self) -> Self {
        (self + other) / 2
    }
}

impl Middle for u64 {
    fn middle(self, other: Self) -> Self {
        self.midpoint(other)
    }
}

impl<T: Middle> Summary<T> {
    /// # Panics
    /// Of nothing.
    pub(crate) fn of(figures: impl IntoIterator<Item = T>) -> Self {
        let mut figures: Vec<T> = figures.into_iter().collect();
        figures.sort_unstable();
        let upper = figures[figures.len() / 2];
        let lower = figures[(figures.len() - 1) / 2];
        Self { median: lower.middle(upper), least: figures[0], most: figures[figures.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let of = |figures: &[u64]| Summary::of(figures.iter().copied());
        assert_eq!(of(&[3, 1, 2]), Summary { median: 2, least: 1, most: 3 });
        assert_eq!(of(&[4, 1, 2, 100]), Summary { median: 3, least: 1, most: 100 });
        assert_eq!(of(&[7]), Summary { median: 7, least: 7, most: 7 });
    }
}
