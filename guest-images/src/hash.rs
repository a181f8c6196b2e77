//! FNV-1a, 64 bits: the digest of the serial `hash` command.
//!
//! It is small, needs no tables and every language has it, so a test can compare guest memory with
//! what it expects, or with the same range seen from the other side of a migration.

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A digest in the making, for data that arrives in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv1a64(u64);

impl Fnv1a64 {
    /// The digest of nothing.
    pub const fn new() -> Self {
        Self(OFFSET_BASIS)
    }

    /// Takes in one more byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push(byte);
        }
    }

    /// The digest of all that was taken in.
    pub const fn finish(self) -> u64 {
        self.0
    }
}

impl Default for Fnv1a64 {
    fn default() -> Self {
        Self::new()
    }
}

/// The FNV-1a digest of `bytes`.
///
/// ```
/// assert_eq!(godwit_guest_images::hash::fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
/// ```
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    let mut digest = Fnv1a64::new();
    digest.update(bytes);
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn pieces_give_the_digest_of_the_whole() {
        let mut digest = Fnv1a64::new();
        digest.update(b"foo");
        digest.update(b"bar");
        assert_eq!(digest.finish(), fnv1a64(b"foobar"));
    }
}
