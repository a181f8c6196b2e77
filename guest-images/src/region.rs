//! Which memory is free, and working sets carved out of it.

use crate::stamp::PAGE_BYTES;

/// Most separate runs of memory that are kept track of; more are left unused.
const MAX_RUNS: usize = 64;

/// Most runs that one working set is made of (a guest's memory has a hole below 4 GiB).
pub const MAX_SEGMENTS: usize = 4;

/// A run of guest-physical memory: `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Run {
    const EMPTY: Self = Self { start: 0, end: 0 };

    /// Whole pages in the run (its ends are on page boundaries).
    const fn pages(self) -> u64 {
        (self.end - self.start) / PAGE_BYTES
    }
}

/// The free memory of the guest, in whole pages.
#[derive(Clone, Debug)]
pub struct FreeMemory {
    runs: [Run; MAX_RUNS],
    count: usize,
}

impl FreeMemory {
    /// No memory yet.
    pub const fn new() -> Self {
        Self { runs: [Run::EMPTY; MAX_RUNS], count: 0 }
    }

    /// Adds the whole pages of `start..end`. Beyond 64 runs the rest stays unused.
    pub fn add(&mut self, start: u64, end: u64) {
        let run = Run { start: start.next_multiple_of(PAGE_BYTES), end: end - end % PAGE_BYTES };
        if run.start < run.end && self.count < MAX_RUNS {
            self.runs[self.count] = run;
            self.count += 1;
        }
    }

    /// Takes away every page that `start..end` touches.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let start = start - start % PAGE_BYTES;
        let end = end.next_multiple_of(PAGE_BYTES);
        let before = self.clone();
        *self = Self::new();
        for run in before.runs() {
            self.add(run.start, run.end.min(start));
            self.add(run.start.max(end), run.end);
        }
    }

    /// The free runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs[..self.count]
    }

    /// Free pages in all.
    pub fn pages(&self) -> u64 {
        self.runs().iter().map(|run| run.pages()).sum()
    }

    /// Takes `pages` pages from the lowest runs; `None` if they are not there, or only in more
    /// than [`MAX_SEGMENTS`] pieces.
    pub fn take(&mut self, pages: u64) -> Option<Region> {
        let mut region = Region { segments: [Run::EMPTY; MAX_SEGMENTS], count: 0 };
        let mut rest = self.clone();
        let mut missing = pages;
        for run in &mut rest.runs[..rest.count] {
            let taken = run.pages().min(missing);
            if taken == 0 {
                continue;
            }
            let segment = region.segments.get_mut(region.count)?;
            *segment = Run { start: run.start, end: run.start + taken * PAGE_BYTES };
            region.count += 1;
            run.start = segment.end;
            missing -= taken;
        }
        if missing > 0 {
            return None;
        }
        *self = rest;
        Some(region)
    }
}

impl Default for FreeMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// Pages that belong to one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    segments: [Run; MAX_SEGMENTS],
    count: usize,
}

impl Region {
    /// The runs that it is made of, in the order of its pages.
    pub fn segments(&self) -> &[Run] {
        &self.segments[..self.count]
    }

    /// The guest-physical address of page `page`.
    ///
    /// # Panics
    /// If the region has no such page.
    #[inline]
    pub fn address(&self, page: u64) -> u64 {
        let mut offset = page * PAGE_BYTES;
        for run in self.segments() {
            let length = run.end - run.start;
            if offset < length {
                return run.start + offset;
            }
            offset -= length;
        }
        panic!("page {page} lies outside the working set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn holes_are_cut_out_in_whole_pages() {
        let mut free = FreeMemory::new();
        free.add(MIB, 16 * MIB + 5);
        free.remove(2 * MIB + 1, 3 * MIB - 1);
        free.remove(0, 0);
        assert_eq!(free.runs(), [Run { start: MIB, end: 2 * MIB }, Run { start: 3 * MIB, end: 16 * MIB }]);
        assert_eq!(free.pages(), 14 * MIB / PAGE_BYTES);
    }

    #[test]
    fn a_region_spans_the_hole() {
        let mut free = FreeMemory::new();
        free.add(2 * MIB, 4 * MIB);
        free.add(8 * MIB, 12 * MIB);
        let region = free.take(3 * MIB / PAGE_BYTES).unwrap();
        assert_eq!(region.segments().len(), 2);
        assert_eq!(region.address(0), 2 * MIB);
        assert_eq!(region.address(512), 8 * MIB);
        let other = free.take(3 * MIB / PAGE_BYTES).unwrap();
        assert_eq!(other.segments(), [Run { start: 9 * MIB, end: 12 * MIB }]);
        assert_eq!(free.pages(), 0);
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut free = FreeMemory::new();
        free.add(0, MIB);
        assert_eq!(free.take(257), None);
        assert_eq!(free.pages(), 256);
    }
}
