//! A set of pages of one RAM range, a bit each, in the layout of `KVM_GET_DIRTY_LOG`. Pure.

/// Bit `i` of word `i / 64` stands for page `i` of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageBitmap {
    words: Vec<u64>,
    pages: u64,
}

impl PageBitmap {
    /// An empty set over `pages` pages.
    #[must_use]
    pub fn empty(pages: u64) -> Self {
        Self { words: vec![0; words_for(pages)], pages }
    }

    /// A set that holds every one of `pages` pages.
    #[must_use]
    pub fn full(pages: u64) -> Self {
        let mut words = vec![u64::MAX; words_for(pages)];
        let tail = pages % 64;
        if tail != 0
            && let Some(last) = words.last_mut()
        {
            *last = (1 << tail) - 1;
        }
        Self { words, pages }
    }

    /// How many pages the range has (set or not).
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// How many pages are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// The words, for the kernel to read or fill.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words, for the kernel to fill.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Adds one page; a page that the range does not have changes nothing.
    pub fn insert(&mut self, page: u64) {
        if page < self.pages {
            self.words[word_of(page)] |= 1 << (page % 64);
        }
    }

    /// Removes every page.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds every page of `other`, which covers the same range.
    pub fn union_with(&mut self, other: &PageBitmap) {
        debug_assert_eq!(self.pages, other.pages);
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Whether any page of `first .. first + pages` is in the set. `first` is a multiple of 64.
    #[must_use]
    pub fn any_in(&self, first: u64, pages: u64) -> bool {
        let (from, to) = self.word_span(first, pages);
        self.words[from..to].iter().any(|w| *w != 0)
    }

    /// The words of the chunk `first .. first + pages`; `first` is a multiple of 64.
    #[must_use]
    pub fn chunk(&self, first: u64, pages: u64) -> &[u64] {
        let (from, to) = self.word_span(first, pages);
        &self.words[from..to]
    }

    /// Runs of consecutive pages in the set within `first .. first + pages`, ascending, as
    /// `(page, count)`. `first` is a multiple of 64.
    pub fn runs_in(&self, first: u64, pages: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = (first + pages).min(self.pages);
        let mut at = first;
        std::iter::from_fn(move || {
            let start = self.next(at, end, true)?;
            let stop = self.next(start, end, false).unwrap_or(end);
            at = stop;
            Some((start, stop - start))
        })
    }

    /// The first page at or after `from`, before `end`, whose membership is `set`.
    fn next(&self, from: u64, end: u64, set: bool) -> Option<u64> {
        let mut page = from;
        while page < end {
            let word = self.words[word_of(page)];
            let word = if set { word } else { !word } >> (page % 64);
            if word != 0 {
                let found = page + u64::from(word.trailing_zeros());
                return (found < end).then_some(found);
            }
            page = (page / 64 + 1) * 64;
        }
        None
    }

    fn word_span(&self, first: u64, pages: u64) -> (usize, usize) {
        debug_assert_eq!(first % 64, 0);
        let end = (first + pages).min(self.pages);
        (word_of(first).min(self.words.len()), words_for(end))
    }
}

fn words_for(pages: u64) -> usize {
    word_of(pages.div_ceil(64) * 64)
}

fn word_of(page: u64) -> usize {
    usize::try_from(page / 64).expect("a page bitmap fits the address space (x86_64)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_has_exactly_its_pages() {
        for pages in [1, 63, 64, 65, 1000] {
            assert_eq!(PageBitmap::full(pages).count(), pages);
        }
    }

    #[test]
    fn runs_cross_words_and_end_with_the_range() {
        let mut map = PageBitmap::empty(200);
        for page in (60..70).chain([100]).chain(190..300) {
            map.insert(page);
        }
        assert_eq!(map.runs_in(0, 200).collect::<Vec<_>>(), [(60, 10), (100, 1), (190, 10)]);
        assert_eq!(map.runs_in(64, 64).collect::<Vec<_>>(), [(64, 6), (100, 1)]);
        assert_eq!(PageBitmap::full(130).runs_in(0, 4096).collect::<Vec<_>>(), [(0, 130)]);
        assert_eq!(PageBitmap::empty(130).runs_in(0, 130).count(), 0);
    }

    #[test]
    fn chunks_are_cut_at_the_end() {
        let map = PageBitmap::full(130);
        assert_eq!(map.chunk(128, 512), [3]);
        assert!(map.any_in(128, 512));
        assert!(!PageBitmap::empty(130).any_in(0, 512));
    }
}
