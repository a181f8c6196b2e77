//! Dirties a working set at a rate, and checks that nothing else did.

use core::hint::spin_loop;

use super::Vcpu;
use crate::cmdline::{CpuConfig, FirstPass};
use crate::console::{STATS, VERIFY};
use crate::order::{Schedule, Touch};
use crate::periodic::Periodic;
use crate::region::Region;
use crate::report::{Mismatch, Progress, Report};
use crate::serial;
use crate::stamp::{PAGE_BYTES, PageStamp, word_of};

/// Pages written between two looks at the clock, without a rate to keep.
const BATCH: u32 = 8;

/// A writer that is behind its rate makes up for this much: vCPUs that share a core keep their rates,
/// and after a long pause there is no burst.
const CATCH_UP_NS: u64 = 100_000_000;

/// The working set of one vCPU and all that is known about what it holds.
pub struct Writer {
    cpu: usize,
    region: Region,
    schedule: Schedule,
    words: u16,
    rate: u64,
    first_pass: FirstPass,
    report_ns: u64,
    pages: u64,
    mismatches: u64,
}

impl Writer {
    /// Nothing is written yet.
    pub fn new(cpu: usize, options: &CpuConfig, region: Region) -> Self {
        let pages = region.segments().iter().map(|run| (run.end - run.start) / PAGE_BYTES).sum();
        let seed = options.seed.wrapping_add((cpu as u64) << 32);
        Self {
            cpu,
            region,
            schedule: Schedule::new(options.pattern, pages, seed),
            words: options.words,
            rate: options.rate,
            first_pass: options.first_pass,
            report_ns: options.report_ns,
            pages: 0,
            mismatches: 0,
        }
    }

    /// Writes every page once. Commands wait: who asks for a digest asks of all of it.
    fn first_pass(&mut self, vcpu: &mut Vcpu) {
        while self.schedule.passes() == 0 {
            self.touch(vcpu);
            vcpu.pulse.tick();
        }
    }

    /// Checks the page that is next, and writes it.
    #[inline]
    fn touch(&mut self, vcpu: &mut Vcpu) {
        let Touch { page, generation } = self.schedule.next_touch();
        let base = self.region.address(page) as *mut u64;
        let new = PageStamp::new(self.cpu, page, generation);
        let mut wrong = None;
        if generation > 1 {
            let old = PageStamp::new(self.cpu, page, generation - 1);
            for nth in 0..self.words {
                let word = word_of(nth, self.words);
                // SAFETY: the region is mapped memory of this vCPU alone, and a page has 512 words.
                let at = unsafe { base.add(usize::from(word)) };
                // SAFETY: the same. Volatile, as a VMM moves this memory about.
                let found = unsafe { at.read_volatile() };
                if found != old.word(word) {
                    wrong = wrong.or(Some((word, old.word(word), found)));
                }
                // SAFETY: the same.
                unsafe { at.write_volatile(new.word(word)) };
            }
        } else {
            for nth in 0..self.words {
                let word = word_of(nth, self.words);
                // SAFETY: as above.
                unsafe { base.add(usize::from(word)).write_volatile(new.word(word)) };
            }
        }
        self.pages += 1;
        if let Some(wrong) = wrong {
            self.say_mismatch(vcpu, Touch { page, generation: generation - 1 }, wrong);
        }
    }

    #[cold]
    fn say_mismatch(&mut self, vcpu: &mut Vcpu, held: Touch, (word, expected, found): (u16, u64, u64)) {
        self.mismatches += 1;
        if self.mismatches > 1 {
            return;
        }
        let Touch { page, generation } = held;
        let address = self.region.address(page) + 8 * u64::from(word);
        let cpu = self.cpu as u64;
        serial::line(
            &mut vcpu.pulse,
            Report::Mismatch(Mismatch { cpu, page, address, generation, expected, found }),
        );
    }

    fn report(&self, vcpu: &mut Vcpu) {
        let (gap, gap_max) = vcpu.pulse.take_gaps();
        let tsc = vcpu.machine.tsc;
        serial::line(
            &mut vcpu.pulse,
            Report::Progress(Progress {
                cpu: self.cpu as u64,
                pass: self.schedule.passes(),
                pages: self.pages,
                mismatches: self.mismatches,
                gap_us: tsc.microseconds(gap),
                gap_max_us: tsc.microseconds(gap_max),
            }),
        );
    }

    /// Checks all pages that were ever written, without writing.
    fn verify(&self, vcpu: &mut Vcpu) {
        let (mut pages, mut mismatches) = (0, 0);
        for nth in 0..self.schedule.pages() {
            let Touch { page, generation } = self.schedule.held(nth);
            if generation > 0 {
                let stamp = PageStamp::new(self.cpu, page, generation);
                let base = self.region.address(page) as *const u64;
                let right = (0..self.words).all(|nth| {
                    let word = word_of(nth, self.words);
                    // SAFETY: as in `touch`.
                    unsafe { base.add(usize::from(word)).read_volatile() == stamp.word(word) }
                });
                pages += 1;
                mismatches += u64::from(!right);
            }
            vcpu.step();
        }
        serial::line(&mut vcpu.pulse, Report::Verified { cpu: self.cpu as u64, pages, mismatches });
    }
}

/// Writes for ever, and reports.
pub fn run(vcpu: &mut Vcpu, mut writer: Writer) -> ! {
    if writer.first_pass == FirstPass::Fast {
        writer.first_pass(vcpu);
    }
    let tsc = vcpu.machine.tsc;
    let start = crate::pulse::now();
    let report_ticks = tsc.ticks(writer.report_ns);
    let mut report = Periodic::new(start, report_ticks, report_ticks);
    let ticks_per_page = (u128::from(tsc.khz) * 1000 * u128::from(PAGE_BYTES))
        .checked_div(writer.rate.into())
        .unwrap_or(0) as u64;
    let mut pace = (ticks_per_page > 0)
        .then(|| Periodic::new(start, ticks_per_page, tsc.ticks(CATCH_UP_NS).max(ticks_per_page)));
    loop {
        let now = vcpu.step();
        if report.due(now) || STATS.take(vcpu.index) {
            writer.report(vcpu);
        }
        if VERIFY.take(vcpu.index) {
            writer.verify(vcpu);
        }
        match &mut pace {
            Some(pace) => {
                if pace.due(now) {
                    writer.touch(vcpu);
                } else {
                    spin_loop();
                }
            }
            None => {
                for _ in 0..BATCH {
                    writer.touch(vcpu);
                }
            }
        }
    }
}

/// Writes every page once.
pub fn fill(vcpu: &mut Vcpu, mut writer: Writer) {
    writer.first_pass(vcpu);
}
