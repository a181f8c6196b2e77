//! Which data stream carries which pages. Pure.
//!
//! A page always travels on the same stream, so that its versions of two rounds cannot overtake each
//! other: no barrier is needed between rounds.

use godwit_vmm::memory::RamLayout;

/// Pages of a chunk: what is cleared in the dirty log and then read at once (2 MiB). A multiple of 64,
/// as the dirty log wants.
pub const CHUNK_PAGES: u64 = 512;

/// The chunks of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// This stream, from 0.
    pub stream: u16,
    /// Of how many.
    pub streams: u16,
}

/// A piece of one RAM range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the range.
    pub range: usize,
    /// First page, counted from the range's first; a multiple of 64.
    pub first: u64,
    /// How many pages.
    pub pages: u64,
}

impl Shard {
    /// The chunks of this stream, ascending.
    pub fn chunks(self, layout: &RamLayout) -> impl Iterator<Item = Chunk> + '_ {
        layout.ranges().iter().enumerate().flat_map(move |(range, r)| {
            (0..r.pages().div_ceil(CHUNK_PAGES))
                .filter(move |chunk| chunk % u64::from(self.streams) == u64::from(self.stream))
                .map(move |chunk| {
                    let first = chunk * CHUNK_PAGES;
                    Chunk { range, first, pages: CHUNK_PAGES.min(r.pages() - first) }
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_together_carry_every_page_once() {
        let layout = RamLayout::new((4 << 30) + (5 << 20) + 4096).unwrap();
        for streams in [1, 2, 3, 64] {
            let mut pages: Vec<(usize, u64)> = (0..streams)
                .flat_map(|stream| Shard { stream, streams }.chunks(&layout).collect::<Vec<_>>())
                .inspect(|chunk| assert_eq!(chunk.first % 64, 0))
                .flat_map(|chunk| (chunk.first..chunk.first + chunk.pages).map(move |p| (chunk.range, p)))
                .collect();
            pages.sort_unstable();
            let all: Vec<_> = layout
                .ranges()
                .iter()
                .enumerate()
                .flat_map(|(range, r)| (0..r.pages()).map(move |page| (range, page)))
                .collect();
            assert_eq!(pages, all, "{streams} streams");
        }
    }
}
