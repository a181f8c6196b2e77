//! Guest memory at one moment.

use std::fmt;
use std::ops::Range;

/// Some of a guest's memory, as it was at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Guest-physical address and content, as asked for.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Snapshot {
    pub(crate) fn new(pieces: Vec<(u64, Vec<u8>)>) -> Self {
        Self { pieces }
    }

    /// The ranges' content, in the order in which they were asked for.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(address, bytes)| (*address, bytes.as_slice()))
    }

    /// The byte at a guest-physical address, if the snapshot has it.
    #[must_use]
    pub fn byte(&self, address: u64) -> Option<u8> {
        self.pieces.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(at).copied()
        })
    }

    /// The guest-physical addresses at which two snapshots of the same ranges differ, joined into ranges. What
    /// only one of them has differs.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let pieces = self.pieces.len().max(other.pieces.len());
        for index in 0..pieces {
            match (self.pieces.get(index), other.pieces.get(index)) {
                (Some((ours, a)), Some((theirs, b))) if ours == theirs => compare(*ours, a, b, &mut found),
                (ours, theirs) => {
                    found.extend(
                        [ours, theirs].into_iter().flatten().map(|(at, bytes)| span(*at, bytes.len())),
                    );
                }
            }
        }
        found
    }
}

fn span(address: u64, bytes: usize) -> Range<u64> {
    address..address.saturating_add(bytes as u64)
}

fn compare(address: u64, a: &[u8], b: &[u8], found: &mut Vec<Range<u64>>) {
    let length = a.len().max(b.len());
    let mut begin = None;
    for at in 0..=length {
        let differs = at < length && a.get(at) != b.get(at);
        match (begin, differs) {
            (None, true) => begin = Some(at),
            (Some(from), false) => {
                found.push(span(address.saturating_add(from as u64), at - from));
                begin = None;
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Snapshot {
    /// Without the content, of which there may be a lot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.pieces.iter().map(|(address, bytes)| span(*address, bytes.len()));
        f.debug_list().entries(ranges.map(|range| format!("{:#x}..{:#x}", range.start, range.end))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_ranges_of_addresses() {
        let a = Snapshot::new(vec![(0x1000, b"abcdef".to_vec()), (0x9000, b"x".to_vec())]);
        assert_eq!(a.differences(&a), []);
        let b = Snapshot::new(vec![(0x1000, b"aXXdeX".to_vec()), (0x9000, b"xy".to_vec())]);
        assert_eq!(a.differences(&b), [0x1001..0x1003, 0x1005..0x1006, 0x9001..0x9002]);
        let other = Snapshot::new(vec![(0x2000, b"abcdef".to_vec())]);
        assert_eq!(a.differences(&other), [0x1000..0x1006, 0x2000..0x2006, 0x9000..0x9001]);
        assert_eq!((a.byte(0x1002), a.byte(0x1006), a.byte(0)), (Some(b'c'), None, None));
    }
}
