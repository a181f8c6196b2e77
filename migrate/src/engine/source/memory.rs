//! The guest's memory and state on their way out: rounds while it runs, the last pages while it is paused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use godwit_vmm::memory::PageBitmap;

use super::{Engine, RoundUnderWay, link_lost, local};
use crate::convergence::{Convergence, Decision, FixedCost, RoundMeasure};
use crate::engine::guest::PauseRefused;
use crate::engine::streams::StreamDone;
use crate::protocol::data::ready_checksum;
use crate::protocol::{Blob, FinalState, SourceEvent};
use crate::ram::{Pass, RoundWork, SendError};

impl Engine<'_> {
    pub(super) fn start_round(&mut self, round: u32) {
        let layout = self.context.ram.layout().clone();
        let work = if round == 1 {
            if let Err(e) = self.context.dirty_log.start() {
                return self.later(local(e.to_string()));
            }
            let fixed = FixedCost {
                round_trip: self.core.round_trip().unwrap_or(Duration::ZERO),
                rehearsal: self.rehearsal,
            };
            self.convergence = Some(Convergence::new(self.options.max_downtime, fixed));
            self.dirty_since = Instant::now();
            self.dirty = layout.ranges().iter().map(|r| PageBitmap::empty(r.pages())).collect();
            RoundWork::first(&layout)
        } else {
            let empty = layout.ranges().iter().map(|r| PageBitmap::empty(r.pages())).collect();
            RoundWork { round, pass: Pass::Live, pages: std::mem::replace(&mut self.dirty, empty) }
        };
        self.dispatch(work);
    }

    pub(super) fn dispatch(&mut self, work: RoundWork) {
        let Some(streams) = &self.streams else { return };
        self.context.counters.round_pages_done.store(0, Ordering::Relaxed);
        self.round = Some(RoundUnderWay {
            round: work.round,
            began: Instant::now(),
            sent: vec![None; usize::from(self.options.streams)],
            pages: work.count(),
        });
        streams.send(&Arc::new(work));
    }

    pub(super) fn on_stream_done(&mut self, done: StreamDone) {
        let sent = match done.result {
            Ok(sent) => sent,
            Err(SendError::Stopped) => return,
            Err(SendError::Link(e)) => {
                return self.handle(link_lost(format!("data stream: {e}")));
            }
            Err(e) => return self.handle(local(e.to_string())),
        };
        let Some(round) = self.round.as_mut().filter(|r| r.round == done.round) else { return };
        round.sent[usize::from(done.stream)] = Some(sent);
        let Some(all) = round.sent.iter().copied().collect::<Option<Vec<_>>>() else { return };
        tracing::debug!(at = ?self.began.elapsed(), round = done.round, pages = round.pages, "round sent");
        let batches_per_stream = all.iter().map(|sent| sent.batches).collect();
        let number = round.round;
        match self.final_state.take() {
            None => self.handle(SourceEvent::RoundSent { round: number, batches_per_stream }),
            Some((state, saved_at)) => {
                let digests: Vec<_> = all.iter().map(|sent| sent.digest).collect();
                self.send_state(number, state, saved_at, batches_per_stream, &digests);
            }
        }
    }

    /// The last message before COMMIT.
    pub(super) fn send_state(
        &mut self,
        final_round: u32,
        state: Vec<u8>,
        saved_at: Instant,
        batches_per_stream: Vec<u64>,
        digests: &[u64],
    ) {
        let checksum = ready_checksum(&state, digests);
        // What the message needs on its way belongs to the time that the guest stands still.
        let on_its_way = self.core.round_trip().unwrap_or(Duration::ZERO) / 2;
        let paused_for_us = micros(saved_at.elapsed() + on_its_way);
        let state = FinalState { state: Blob(state), final_round, batches_per_stream, paused_for_us };
        self.handle(SourceEvent::FinalSaved(state));
        self.handle(SourceEvent::FinalSent { checksum });
    }

    /// The target has the guest's memory already.
    pub(super) fn send_state_alone(&mut self, round: u32) {
        match self.guest.save() {
            Ok((state, saved_at)) => {
                let batches = self.no_batches();
                self.send_state(round, state, saved_at, batches, &[]);
            }
            Err(what) => self.later(local(what)),
        }
    }

    pub(super) fn no_batches(&self) -> Vec<u64> {
        vec![0; usize::from(self.options.streams)]
    }

    /// The target has a whole round: what is dirty now decides what comes next.
    pub(super) fn on_round_applied(&mut self, round: u32, bytes: u64) {
        let Some(under_way) = self.round.as_ref().filter(|r| r.round == round) else { return };
        let took = under_way.began.elapsed();
        let dirty_for = self.dirty_since.elapsed();
        self.dirty_since = Instant::now();
        if let Err(what) = self.fetch_dirty() {
            return self.later(local(what));
        }
        let dirty_pages = self.dirty.iter().map(PageBitmap::count).sum();
        let Some(convergence) = &mut self.convergence else { return };
        let measure = RoundMeasure { bytes, took, dirty_pages, dirty_for };
        let decision = convergence.after_round(measure);
        tracing::debug!(round, ?measure, ?decision, "round applied");
        self.later(match decision {
            Decision::Stop => SourceEvent::StopDecided,
            Decision::AnotherRound => SourceEvent::AnotherRoundDecided,
        });
    }

    /// Adds what the log knows to what is known to be dirty. The legacy log forgets what it has told.
    pub(super) fn fetch_dirty(&mut self) -> Result<(), String> {
        for (index, known) in self.dirty.iter_mut().enumerate() {
            let mut fetched = PageBitmap::empty(known.pages());
            self.context.dirty_log.fetch(index, &mut fetched).map_err(|e| e.to_string())?;
            known.union_with(&fetched);
        }
        Ok(())
    }

    pub(super) fn pause(&mut self) {
        match self.guest.pause() {
            Ok(at) => {
                self.paused_at = Some(at);
                self.later(SourceEvent::GuestPaused);
            }
            Err(PauseRefused::GuestEnded) => self.later(SourceEvent::GuestEnded),
        }
    }

    pub(super) fn send_final(&mut self, round: u32) {
        if let Err(what) = self.fetch_dirty() {
            return self.later(local(what));
        }
        let pages = std::mem::take(&mut self.dirty);
        // The streams send while this thread reads the state.
        self.dispatch(RoundWork { round, pass: Pass::Last, pages });
        match self.guest.save() {
            Ok(saved) => self.final_state = Some(saved),
            Err(what) => self.later(local(what)),
        }
    }

    pub(super) fn resume(&mut self) {
        if let Err(what) = self.guest.resume() {
            tracing::error!(%what, "the guest could not be resumed");
        }
        self.downtime = self.paused_at.map(|at| at.elapsed());
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
