//! What the dirtying payload writes into a page, and where.
//!
//! A stamp depends on who wrote it, where and when, so that a page which arrives stale, in the wrong
//! place or from another vCPU is told from the right one.

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;

/// 64-bit words in a page, and so the most stamps that fit in it.
pub const PAGE_WORDS: u16 = 512;

/// All stamps of one page in one generation, computed once and then word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageStamp(u64);

impl PageStamp {
    /// The stamps that vCPU `cpu` writes into its page number `page` the `generation`th time.
    #[inline]
    pub fn new(cpu: usize, page: u64, generation: u64) -> Self {
        // Three odd constants keep the inputs apart before they are mixed.
        let seed = (cpu as u64 + 1)
            .wrapping_mul(0xa24b_aed4_963e_e407)
            .wrapping_add(page.wrapping_mul(0x9fb2_1c65_1e98_df25))
            .wrapping_add(generation.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(mix(seed))
    }

    /// The stamp at word `word` (0 to 511) of the page.
    #[inline]
    pub fn word(self, word: u16) -> u64 {
        self.0
            .rotate_left(u32::from(word) & 63)
            .wrapping_add(u64::from(word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// The word of the page that holds stamp `nth` of `count`: the first and last words of the page and
/// evenly between them.
#[inline]
pub fn word_of(nth: u16, count: u16) -> u16 {
    if count < 2 {
        return 0;
    }
    let word = u32::from(nth) * u32::from(PAGE_WORDS - 1) / u32::from(count - 1);
    // The last word of the page is the most that an `nth` below `count` gives.
    u16::try_from(word).map_or(PAGE_WORDS - 1, |word| word.min(PAGE_WORDS - 1))
}

/// Spreads every input bit over the whole word; different inputs give different outputs.
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 29;
    x = x.wrapping_mul(0xa24b_aed4_963e_e407);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn stamps_differ_by_cpu_page_generation_and_word() {
        let mut seen = HashSet::new();
        for cpu in 0..4 {
            for page in 0..64 {
                for generation in 0..16 {
                    for word in 0..PAGE_WORDS {
                        assert!(seen.insert(PageStamp::new(cpu, page, generation).word(word)));
                    }
                }
            }
        }
    }

    #[test]
    fn words_are_spread_from_first_to_last() {
        assert_eq!(word_of(0, 1), 0);
        assert_eq!([word_of(0, 2), word_of(1, 2)], [0, 511]);
        assert_eq!([word_of(0, 3), word_of(1, 3), word_of(2, 3)], [0, 255, 511]);
        for count in 1..=PAGE_WORDS {
            let words: HashSet<u16> = (0..count).map(|nth| word_of(nth, count)).collect();
            assert_eq!(words.len(), usize::from(count), "{count} stamps share a word");
        }
    }
}
