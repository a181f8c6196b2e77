//! Guest RAM looked at, and left as it is.

use super::guest_ram::{GuestRam, RamError};
use crate::PAGE_SIZE;

impl GuestRam {
    /// The `bytes` bytes from `guest_address` on. Pages that nobody has ever touched read as zero and stay
    /// untouched. While the guest runs, bytes are from different moments.
    ///
    /// # Errors
    /// They are not all RAM, or lie on both sides of the hole below 4 GiB; or the memfd does not tell which
    /// pages exist.
    pub fn peek(&self, guest_address: u64, bytes: usize) -> Result<Vec<u8>, RamError> {
        let length = bytes as u64;
        let not_ram = || RamError::NotRam { guest_address, bytes: length };
        let end = guest_address.checked_add(length).ok_or_else(not_ram)?;
        let first_page = guest_address / PAGE_SIZE;
        let pages = end.div_ceil(PAGE_SIZE) - first_page;
        // Asked before anything is allocated for the answer.
        self.layout().range_of_pages(first_page, pages).ok_or_else(not_ram)?;
        let mut extents = Vec::new();
        self.extents(first_page, pages, &mut extents)?;
        let mut out = vec![0; bytes];
        for (page, pages) in extents {
            let from = (page * PAGE_SIZE).max(guest_address);
            let to = ((page + pages) * PAGE_SIZE).min(end);
            let place = |address: u64| usize::try_from(address - guest_address).map_err(|_| not_ram());
            if from < to {
                self.read(from, &mut out[place(from)?..place(to)?])?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HOLE_END, HOLE_START, RamLayout};

    #[test]
    fn what_was_never_touched_stays_so() {
        let ram = GuestRam::allocate(RamLayout::new(8 << 20).unwrap()).unwrap();
        ram.write(3 * PAGE_SIZE - 2, b"abcd").unwrap();
        assert_eq!(ram.peek(3 * PAGE_SIZE - 3, 6).unwrap(), b"\0abcd\0");
        let all = ram.peek(0, 8 << 20).unwrap();
        assert_eq!(all.iter().filter(|byte| **byte != 0).count(), 4);
        let mut extents = Vec::new();
        ram.extents(0, 2048, &mut extents).unwrap();
        assert_eq!(extents, [(2, 2)], "looking makes no memory");
    }

    #[test]
    fn what_is_not_ram_is_refused() {
        let ram = GuestRam::allocate(RamLayout::new(5 << 30).unwrap()).unwrap();
        assert_eq!(ram.peek(HOLE_START - 1, 1).unwrap(), [0]);
        assert_eq!(ram.peek(HOLE_END, 1).unwrap(), [0]);
        assert_eq!(ram.peek(0, 0).unwrap(), []);
        for (address, bytes) in [
            (HOLE_START - 1, 2),
            (HOLE_START, 1),
            (HOLE_END - 1, 2),
            (6 << 30, 1),
            (u64::MAX, 1),
            (u64::MAX, 2),
            (0, usize::MAX),
        ] {
            assert!(
                matches!(ram.peek(address, bytes), Err(RamError::NotRam { .. })),
                "{address:#x}+{bytes:#x}"
            );
        }
    }
}
