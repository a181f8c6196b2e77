//! In which order a working set is dirtied, and which generation each page holds at any moment.
//!
//! Nothing here is a table: a page's generation follows from a few counters that live in the
//! vCPU's registers and stack, not from memory that is as large as what it checks.

use crate::stamp::mix;

/// How the pages of a working set are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One after the other.
    Sequential,
    /// Each page once a pass, in a pseudo-random order that differs from pass to pass.
    Random,
    /// Nine writes of ten go to the first tenth of the pages, each set in pseudo-random order.
    HotCold,
}

/// One write that is due: the page, what it must hold before, what it is to hold after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Page number in the working set.
    pub page: u64,
    /// The generation to write, counted from 1. Before it the page holds `generation - 1`, and 0
    /// means that it was never written.
    pub generation: u64,
}

/// Goes over a run of pages again and again, each page once a pass.
#[derive(Clone, Debug)]
struct Cycle {
    first: u64,
    pages: u64,
    position: u64,
    generation: u64,
    shuffle: Option<Shuffle>,
    seed: u64,
}

impl Cycle {
    fn new(first: u64, pages: u64, shuffled: bool, seed: u64) -> Self {
        let generation = 1;
        let shuffle = shuffled.then(|| Shuffle::new(pages, seed ^ generation));
        Self { first, pages, position: 0, generation, shuffle, seed }
    }

    #[inline]
    fn page_at(&self, position: u64) -> u64 {
        self.first + self.shuffle.map_or(position, |shuffle| shuffle.at(position))
    }

    #[inline]
    fn next(&mut self) -> Touch {
        let touch = Touch { page: self.page_at(self.position), generation: self.generation };
        self.position += 1;
        if self.position == self.pages {
            self.position = 0;
            self.generation += 1;
            if self.shuffle.is_some() {
                self.shuffle = Some(Shuffle::new(self.pages, self.seed ^ self.generation));
            }
        }
        touch
    }

    /// The `nth` page of the current pass and the generation that it holds now.
    fn held(&self, nth: u64) -> Touch {
        let written = nth < self.position;
        Touch { page: self.page_at(nth), generation: self.generation - u64::from(!written) }
    }
}

/// The endless sequence of writes to one working set.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Every page, or with [`Pattern::HotCold`] the cold ones.
    main: Cycle,
    hot: Option<Cycle>,
    turn: u8,
}

impl Schedule {
    /// Writes to `pages` pages (at least one) in `pattern`; `seed` tells random orders apart.
    pub fn new(pattern: Pattern, pages: u64, seed: u64) -> Self {
        assert!(pages > 0, "a working set has at least one page");
        let hot_pages = pages / 10;
        match pattern {
            // Below ten pages there is no tenth to be hot.
            Pattern::HotCold if hot_pages > 0 => Self {
                main: Cycle::new(hot_pages, pages - hot_pages, true, seed),
                hot: Some(Cycle::new(0, hot_pages, true, !seed)),
                turn: 0,
            },
            Pattern::Sequential => Self { main: Cycle::new(0, pages, false, seed), hot: None, turn: 0 },
            Pattern::Random | Pattern::HotCold => {
                Self { main: Cycle::new(0, pages, true, seed), hot: None, turn: 0 }
            }
        }
    }

    /// The write that is due, and steps on.
    #[inline]
    pub fn next_touch(&mut self) -> Touch {
        if let Some(hot) = &mut self.hot {
            self.turn = if self.turn == 9 { 0 } else { self.turn + 1 };
            if self.turn != 0 {
                return hot.next();
            }
        }
        self.main.next()
    }

    /// How many times every page was written.
    pub fn passes(&self) -> u64 {
        self.main.generation - 1
    }

    /// Pages in the working set.
    pub fn pages(&self) -> u64 {
        self.main.pages + self.hot.as_ref().map_or(0, |hot| hot.pages)
    }

    /// The `nth` page of the working set, in some order that has each page once, and the
    /// generation that it holds now (0: never written).
    pub fn held(&self, nth: u64) -> Touch {
        match &self.hot {
            Some(hot) if nth >= self.main.pages => hot.held(nth - self.main.pages),
            _ => self.main.held(nth),
        }
    }
}

/// A bijection of `0..len` onto itself.
///
/// Built from steps that each map the numbers of `bits` bits one to one (add, multiply by an odd
/// number, fold the high half into the low one); a result outside `0..len` goes round once more,
/// which keeps it one to one on the rest.
#[derive(Clone, Copy, Debug)]
struct Shuffle {
    len: u64,
    mask: u64,
    fold: u32,
    add: u64,
    multiply: u64,
}

impl Shuffle {
    fn new(len: u64, seed: u64) -> Self {
        let bits = (u64::BITS - (len - 1).leading_zeros()).max(1);
        Self {
            len,
            mask: u64::MAX >> (u64::BITS - bits),
            fold: bits.div_ceil(2),
            add: mix(seed),
            multiply: mix(!seed) | 1,
        }
    }

    #[inline]
    fn at(&self, position: u64) -> u64 {
        let mut x = position;
        loop {
            x = x.wrapping_add(self.add) & self.mask;
            x ^= x >> self.fold;
            x = x.wrapping_mul(self.multiply) & self.mask;
            x ^= x >> self.fold;
            if x < self.len {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERNS: [Pattern; 3] = [Pattern::Sequential, Pattern::Random, Pattern::HotCold];

    /// The table that the guest must not have: what each page holds.
    fn replay(pattern: Pattern, pages: u64, writes: u64) -> (Schedule, Vec<u64>) {
        let mut schedule = Schedule::new(pattern, pages, 7);
        let mut held = vec![0; usize::try_from(pages).unwrap()];
        for _ in 0..writes {
            let touch = schedule.next_touch();
            let page = usize::try_from(touch.page).unwrap();
            assert_eq!(held[page], touch.generation - 1, "{pattern:?}: page {page} of {pages}");
            held[page] = touch.generation;
        }
        (schedule, held)
    }

    #[test]
    fn the_generation_before_each_write_is_known() {
        for pattern in PATTERNS {
            for pages in [1, 2, 3, 9, 10, 11, 64, 100, 1000, 1025] {
                replay(pattern, pages, pages * 25 + 3);
            }
        }
    }

    #[test]
    fn held_agrees_with_a_replay() {
        for pattern in PATTERNS {
            for pages in [1, 10, 11, 130] {
                for writes in [0, 1, 57, 1234] {
                    let (schedule, held) = replay(pattern, pages, writes);
                    assert_eq!(schedule.pages(), pages);
                    let mut seen = vec![false; held.len()];
                    for nth in 0..pages {
                        let touch = schedule.held(nth);
                        let page = usize::try_from(touch.page).unwrap();
                        assert_eq!(held[page], touch.generation, "{pattern:?}");
                        assert!(!std::mem::replace(&mut seen[page], true), "{pattern:?}: twice");
                    }
                }
            }
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_depends_on_its_seed() {
        for len in [1, 2, 3, 5, 16, 17, 1000, 4096] {
            let order = |seed| -> Vec<u64> { (0..len).map(|i| Shuffle::new(len, seed).at(i)).collect() };
            let mut sorted = order(3);
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..len));
            if len > 100 {
                assert_ne!(order(3), order(4));
            }
        }
    }

    #[test]
    fn nine_writes_of_ten_are_hot() {
        let mut schedule = Schedule::new(Pattern::HotCold, 1000, 1);
        let hot = (0..10_000).filter(|_| schedule.next_touch().page < 100).count();
        assert_eq!(hot, 9_000);
    }

    #[test]
    fn a_pass_is_over_when_every_page_was_written() {
        for pattern in PATTERNS {
            let mut schedule = Schedule::new(pattern, 100, 1);
            while schedule.passes() == 0 {
                schedule.next_touch();
            }
            assert!((0..100).all(|nth| schedule.held(nth).generation > 0), "{pattern:?}");
        }
    }
}
