//! Where RAM lies in guest-physical space. Pure.
//!
//! ```text
//! 0 ─────────────── low RAM ── 3 GiB │ hole: LAPIC, IOAPIC, devices │ 4 GiB ── high RAM ──▶
//! ```

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PAGE_SIZE;

/// First address of the hole below 4 GiB that belongs to interrupt controllers and devices.
pub const HOLE_START: u64 = 3 << 30;
/// First address above the hole.
pub const HOLE_END: u64 = 4 << 30;
/// The least RAM that a guest can have, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// The most RAM that a guest can have, in bytes (16 TiB: what 44 guest-physical bits reach).
pub const MEMORY_BYTES_MAX: u64 = 1 << 44;

/// Why a memory size was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// Below [`MEMORY_BYTES_MIN`] or above [`MEMORY_BYTES_MAX`].
    #[error("{bytes} bytes of guest memory are out of range: give between 1M and 16T")]
    OutOfRange {
        /// What was asked for.
        bytes: u64,
    },
    /// Not a whole number of pages.
    #[error("{bytes} bytes of guest memory are not a multiple of 4 KiB")]
    NotWholePages {
        /// What was asked for.
        bytes: u64,
    },
}

/// One contiguous piece of guest RAM: one KVM memory slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamRange {
    /// Guest-physical address of its first byte.
    pub guest_base: u64,
    /// Length in bytes, whole pages.
    pub bytes: u64,
    /// Where it begins in the memfd.
    pub file_offset: u64,
}

impl RamRange {
    /// Guest-physical address just past its last byte.
    #[must_use]
    pub fn guest_end(&self) -> u64 {
        self.guest_base + self.bytes
    }

    /// Number of its first page (guest-physical address / page size).
    #[must_use]
    pub fn first_page(&self) -> u64 {
        self.guest_base / PAGE_SIZE
    }

    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.bytes / PAGE_SIZE
    }
}

/// All RAM of a guest, ascending, at most two ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamLayout {
    bytes: u64,
    ranges: Vec<RamRange>,
}

impl RamLayout {
    /// Lays out `bytes` of RAM around the hole below 4 GiB.
    ///
    /// # Errors
    /// The size is out of range or not whole pages.
    pub fn new(bytes: u64) -> Result<Self, LayoutError> {
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&bytes) {
            return Err(LayoutError::OutOfRange { bytes });
        }
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(LayoutError::NotWholePages { bytes });
        }
        let low_bytes = bytes.min(HOLE_START);
        let mut ranges = vec![RamRange { guest_base: 0, bytes: low_bytes, file_offset: 0 }];
        if bytes > low_bytes {
            ranges.push(RamRange { guest_base: HOLE_END, bytes: bytes - low_bytes, file_offset: low_bytes });
        }
        Ok(Self { bytes, ranges })
    }

    /// Total RAM in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Total RAM in pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.bytes / PAGE_SIZE
    }

    /// The ranges, ascending. A range's index is its KVM slot number.
    #[must_use]
    pub fn ranges(&self) -> &[RamRange] {
        &self.ranges
    }

    /// RAM below the hole.
    #[must_use]
    pub fn low(&self) -> RamRange {
        self.ranges[0]
    }

    /// The range that holds all of `first_page .. first_page + pages`, with its index, if one does.
    #[must_use]
    pub fn range_of_pages(&self, first_page: u64, pages: u64) -> Option<(usize, RamRange)> {
        let end = first_page.checked_add(pages)?;
        self.ranges
            .iter()
            .copied()
            .enumerate()
            .find(|(_, r)| first_page >= r.first_page() && end <= r.first_page() + r.pages())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_is_one_range() {
        let layout = RamLayout::new(64 << 20).unwrap();
        assert_eq!(layout.ranges(), [RamRange { guest_base: 0, bytes: 64 << 20, file_offset: 0 }]);
    }

    #[test]
    fn memory_beyond_the_hole_continues_at_four_gib() {
        let layout = RamLayout::new(5 << 30).unwrap();
        assert_eq!(layout.ranges().len(), 2);
        assert_eq!(layout.ranges()[1].guest_base, 4 << 30);
        assert_eq!(layout.ranges()[1].bytes, 2 << 30);
        assert_eq!(layout.ranges()[1].file_offset, 3 << 30);
        assert_eq!(layout.ranges().iter().map(RamRange::pages).sum::<u64>(), layout.pages());
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(RamLayout::new(0), Err(LayoutError::OutOfRange { bytes: 0 }));
        assert_eq!(RamLayout::new(u64::MAX), Err(LayoutError::OutOfRange { bytes: u64::MAX }));
        let odd = (64 << 20) + 1;
        assert_eq!(RamLayout::new(odd), Err(LayoutError::NotWholePages { bytes: odd }));
    }

    #[test]
    fn pages_in_the_hole_or_across_it_belong_to_no_range() {
        let layout = RamLayout::new(5 << 30).unwrap();
        let hole = HOLE_START / PAGE_SIZE;
        assert!(layout.range_of_pages(hole - 1, 1).is_some());
        assert!(layout.range_of_pages(hole - 1, 2).is_none());
        assert!(layout.range_of_pages(hole, 1).is_none());
        assert!(layout.range_of_pages(u64::MAX, 2).is_none());
    }
}
