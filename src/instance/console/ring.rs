//! The last bytes of the guest's serial output, with positions that never repeat. Pure.

/// Holds the last `capacity` bytes written. Readers remember a position; one that was overtaken learns
/// how many bytes it missed.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Box<[u8]>,
    written: u64,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes that were overwritten before the reader came.
    pub(super) missed: u64,
    /// What follows.
    pub(super) bytes: Vec<u8>,
    /// Where to read next.
    pub(super) next: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), written: 0 }
    }

    pub(super) fn push(&mut self, byte: u8) {
        let at = self.index(self.written);
        self.bytes[at] = byte;
        self.written += 1;
    }

    /// Where the next byte will be.
    pub(super) fn end(&self) -> u64 {
        self.written
    }

    /// The oldest position that is still there.
    pub(super) fn begin(&self) -> u64 {
        self.written.saturating_sub(self.bytes.len() as u64)
    }

    /// Up to `max` bytes from `position` on.
    pub(super) fn read(&self, position: u64, max: usize) -> Piece {
        let from = position.max(self.begin()).min(self.written);
        let available = usize::try_from(self.written - from).unwrap_or(usize::MAX);
        let count = available.min(max);
        let at = self.index(from);
        let first = count.min(self.bytes.len() - at);
        let mut bytes = Vec::with_capacity(count);
        bytes.extend_from_slice(&self.bytes[at..at + first]);
        bytes.extend_from_slice(&self.bytes[..count - first]);
        Piece { missed: from.saturating_sub(position), bytes, next: from + count as u64 }
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position % self.bytes.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &[u8]) -> Ring {
        let mut ring = Ring::new(8);
        text.iter().for_each(|byte| ring.push(*byte));
        ring
    }

    #[test]
    fn a_reader_that_keeps_up_misses_nothing() {
        let ring = ring(b"abcdef");
        assert_eq!(ring.read(0, 4), Piece { missed: 0, bytes: b"abcd".to_vec(), next: 4 });
        assert_eq!(ring.read(4, 100), Piece { missed: 0, bytes: b"ef".to_vec(), next: 6 });
        assert_eq!(ring.read(6, 100), Piece { missed: 0, bytes: Vec::new(), next: 6 });
    }

    #[test]
    fn a_reader_that_was_overtaken_learns_how_much_it_missed() {
        let ring = ring(b"0123456789abc");
        assert_eq!(ring.read(2, 100), Piece { missed: 3, bytes: b"56789abc".to_vec(), next: 13 });
        assert_eq!(ring.read(10, 100), Piece { missed: 0, bytes: b"abc".to_vec(), next: 13 });
    }
}
