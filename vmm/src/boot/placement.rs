//! Finds room in low RAM for what must lie there beside the kernel. Pure.

use crate::PAGE_SIZE;

/// Bytes that are taken, and where RAM ends: hands out what is free.
#[derive(Debug)]
pub(super) struct Placement {
    /// `(start, end)`, in no order.
    taken: Vec<(u64, u64)>,
}

impl Placement {
    /// Nothing is taken but the first page (a null pointer should stay one).
    pub(super) fn new() -> Self {
        Self { taken: vec![(0, PAGE_SIZE)] }
    }

    /// Marks `start .. start + bytes` as taken.
    pub(super) fn take(&mut self, start: u64, bytes: u64) {
        self.taken.push((start, start.saturating_add(bytes)));
    }

    /// Takes the lowest free page-aligned room of `bytes` bytes that ends at or below `end`, from
    /// `start` on.
    pub(super) fn lowest(&mut self, start: u64, end: u64, bytes: u64) -> Option<u64> {
        let candidates =
            self.taken.iter().map(|(_, taken_end)| align_up(*taken_end)).chain([align_up(start)]);
        let found = candidates.filter(|at| *at >= start && self.fits(*at, bytes, end)).min()?;
        self.take(found, bytes);
        Some(found)
    }

    /// Takes the highest free page-aligned room of `bytes` bytes that ends at or below `end`.
    pub(super) fn highest(&mut self, end: u64, bytes: u64) -> Option<u64> {
        let ends = self.taken.iter().map(|(taken_start, _)| *taken_start).chain([end]);
        let found = ends
            .filter_map(|candidate_end| candidate_end.checked_sub(bytes))
            .map(|at| at / PAGE_SIZE * PAGE_SIZE)
            .filter(|at| self.fits(*at, bytes, end))
            .max()?;
        self.take(found, bytes);
        Some(found)
    }

    fn fits(&self, at: u64, bytes: u64, end: u64) -> bool {
        let Some(at_end) = at.checked_add(bytes) else { return false };
        at_end <= end && self.taken.iter().all(|(start, taken_end)| at_end <= *start || at >= *taken_end)
    }
}

fn align_up(address: u64) -> u64 {
    address.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_goes_around_what_is_taken() {
        let mut placement = Placement::new();
        placement.take(0x2000, 0x1800);
        assert_eq!(placement.lowest(0, 0x10000, 0x1000), Some(0x1000));
        assert_eq!(placement.lowest(0, 0x10000, 0x1000), Some(0x4000));
        assert_eq!(placement.lowest(0, 0x5800, 0x1000), None);
    }

    #[test]
    fn highest_is_aligned_and_goes_around() {
        let mut placement = Placement::new();
        assert_eq!(placement.highest(0x10000, 0x1234), Some(0xe000));
        assert_eq!(placement.highest(0x10000, 0x1000), Some(0xd000));
        assert_eq!(placement.highest(0x10000, 0x20000), None);
        placement.take(0x1000, u64::MAX);
        assert_eq!(placement.highest(0x10000, 1), None);
    }
}
