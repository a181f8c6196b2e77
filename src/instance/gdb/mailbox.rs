//! What a debugger's session hears besides gdb, and how it is woken.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use godwit_vmm::vcpu::debug::{DebugSink, DebugStop};
use rustix::event::{EventfdFlags, eventfd};

use crate::instance::exit::Exit;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// A vCPU stopped at something that the debugger watches for.
    Stopped { vcpu: u32, stop: DebugStop },
    /// A vCPU was to be stepped where this host cannot, and nothing runs.
    CannotStep { vcpu: u32 },
    /// The guest has reset itself and stands at its kernel's entry again, in fresh memory.
    Rebooted,
    /// The VM is over.
    Over(Exit),
}

/// Notes in order, and a file descriptor that is readable while there are some.
#[derive(Debug)]
pub(crate) struct Mailbox {
    notes: Mutex<VecDeque<Note>>,
    over: AtomicBool,
    wake: OwnedFd,
}

impl Mailbox {
    pub(super) fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { notes: Mutex::default(), over: AtomicBool::new(false), wake })
    }

    pub(super) fn put(&self, note: Note) {
        self.over.fetch_or(matches!(note, Note::Over(_)), Ordering::SeqCst);
        self.notes().push_back(note);
        // Full only after 2^64 - 1 wake-ups that nobody heard: it is readable then.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// The guest has reset itself and was booted again: it is the session's to let it run.
    pub(in crate::instance) fn rebooted(&self) {
        self.put(Note::Rebooted);
    }

    pub(super) fn take(&self) -> Option<Note> {
        let mut notes = self.notes();
        let note = notes.pop_front();
        if note.is_none() {
            // Empty: no more readable until the next note.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        note
    }

    /// Whether the VM is over.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Takes all stops, in order, and leaves the rest.
    pub(super) fn take_stops(&self) -> Vec<(u32, DebugStop)> {
        let mut stops = Vec::new();
        self.notes().retain(|note| match note {
            Note::Stopped { vcpu, stop } => {
                stops.push((*vcpu, *stop));
                false
            }
            Note::CannotStep { .. } | Note::Rebooted | Note::Over(_) => true,
        });
        stops
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn notes(&self) -> MutexGuard<'_, VecDeque<Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DebugSink for Mailbox {
    fn stopped(&self, vcpu: u32, stop: DebugStop) {
        self.put(Note::Stopped { vcpu, stop });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_taken_apart_from_the_rest() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.stopped(1, DebugStop::Step);
        mailbox.rebooted();
        mailbox.stopped(0, DebugStop::Point(2));
        assert_eq!(mailbox.take_stops(), [(1, DebugStop::Step), (0, DebugStop::Point(2))]);
        assert_eq!((mailbox.take(), mailbox.take()), (Some(Note::Rebooted), None));
    }
}
