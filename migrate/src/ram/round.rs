//! What a round has to send.

use godwit_vmm::memory::{PageBitmap, RamLayout};

/// Which round it is decides how pages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Every page, but those that nobody ever touched. The guest runs.
    First,
    /// What the guest dirtied. The guest runs.
    Live,
    /// What is left. The guest is paused: nothing needs clearing, and no bandwidth limit applies, since
    /// every moment counts.
    Last,
}

/// The pages of a round.
#[derive(Debug)]
pub struct RoundWork {
    /// Its number, from 1.
    pub round: u32,
    /// How to look at them.
    pub pass: Pass,
    /// The pages, by RAM range.
    pub pages: Vec<PageBitmap>,
}

impl RoundWork {
    /// The first round: every page.
    #[must_use]
    pub fn first(layout: &RamLayout) -> Self {
        let pages = layout.ranges().iter().map(|r| PageBitmap::full(r.pages())).collect();
        Self { round: 1, pass: Pass::First, pages }
    }

    /// How many pages it may have to send.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.pages.iter().map(PageBitmap::count).sum()
    }
}
