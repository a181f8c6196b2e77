//! The serial output of the guest, for any number of readers, none of which can stall a vCPU.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use godwit_vmm::devices::ConsoleSink;

use super::ring::Ring;

/// What a reader may be behind before it loses bytes.
const RING_BYTES: usize = 256 << 10;
/// Most bytes handed to a reader at once.
const PIECE_BYTES: usize = 16 << 10;

/// Shared between the vCPUs that write and the readers.
#[derive(Debug)]
pub(crate) struct Console {
    state: Mutex<State>,
    changed: Condvar,
    dropped_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    phase: Phase,
    /// Where each reader is, by its number.
    positions: BTreeMap<u64, u64>,
    readers_so_far: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more bytes will come.
    Closed,
}

/// A reader's place in the output.
#[derive(Debug)]
pub(crate) struct Reader {
    console: Arc<Console>,
    number: u64,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// More bytes.
    Bytes(Vec<u8>),
    /// Nothing came within the time.
    Nothing,
    /// The guest is gone and all of its output was read.
    End,
}

/// A part of the output, for those who count positions themselves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it begins: later than what was asked for, if that has been overwritten.
    pub(crate) from: u64,
    /// What follows.
    pub(crate) bytes: Vec<u8>,
    /// Nothing comes after it: the guest is gone.
    pub(crate) last: bool,
}

impl Console {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ring: Ring::new(RING_BYTES),
                phase: Phase::Open,
                positions: BTreeMap::new(),
                readers_so_far: 0,
            }),
            changed: Condvar::new(),
            dropped_bytes: AtomicU64::new(0),
        })
    }

    /// A reader of everything from now on, and what was written lately.
    pub(crate) fn attach(self: &Arc<Self>) -> (Vec<u8>, Reader) {
        let mut state = self.lock();
        let piece = state.ring.read(state.ring.begin(), RING_BYTES);
        let end = state.ring.end();
        (piece.bytes, Reader { console: Arc::clone(self), number: state.add_reader(end) })
    }

    /// A reader of everything from the beginning (as far as it is still there).
    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        let number = self.lock().add_reader(0);
        Reader { console: Arc::clone(self), number }
    }

    /// All that is still there from `position` on, waiting for something up to `within`. What has been
    /// overwritten is no reader's loss: whoever asks sees where the part begins.
    pub(crate) fn part(&self, position: u64, within: Duration) -> Part {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), within, |state| {
                state.ring.end() <= position && state.phase == Phase::Open
            })
            .unwrap_or_else(PoisonError::into_inner);
        let piece = state.ring.read(position, RING_BYTES);
        let from = piece.next - piece.bytes.len() as u64;
        Part { from, bytes: piece.bytes, last: state.phase == Phase::Closed }
    }

    /// At most `max` bytes of the end of the output, and how many came before them.
    pub(crate) fn tail(&self, max: usize) -> (Vec<u8>, u64) {
        let part = self.part(self.written().saturating_sub(max as u64), Duration::ZERO);
        (part.bytes, part.from)
    }

    /// Bytes that readers lost because they did not keep up.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        let state = self.lock();
        let begin = state.ring.begin();
        // What a reader that stands still has lost already counts, too.
        let being_lost: u64 = state.positions.values().map(|position| begin.saturating_sub(*position)).sum();
        self.dropped_bytes.load(Ordering::Relaxed) + being_lost
    }

    /// Where the output ends now.
    pub(crate) fn written(&self) -> u64 {
        self.lock().ring.end()
    }

    /// No more bytes will come: readers end once they have read what is there.
    pub(crate) fn close(&self) {
        self.lock().phase = Phase::Closed;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add_reader(&mut self, position: u64) -> u64 {
        self.readers_so_far += 1;
        self.positions.insert(self.readers_so_far, position);
        self.readers_so_far
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.console.lock();
        let begin = state.ring.begin();
        if let Some(position) = state.positions.remove(&self.number) {
            self.console.dropped_bytes.fetch_add(begin.saturating_sub(position), Ordering::Relaxed);
        }
    }
}

impl ConsoleSink for Console {
    fn byte(&self, byte: u8) {
        self.lock().ring.push(byte);
        self.changed.notify_all();
    }
}

impl Reader {
    /// The next bytes, waiting for them up to `within`.
    pub(crate) fn read(&mut self, within: Duration) -> Output {
        let until = Instant::now() + within;
        let mut state = self.console.lock();
        loop {
            let position = state.positions.get(&self.number).copied().unwrap_or(0);
            let piece = state.ring.read(position, PIECE_BYTES);
            state.positions.insert(self.number, piece.next);
            if piece.missed > 0 {
                self.console.dropped_bytes.fetch_add(piece.missed, Ordering::Relaxed);
                // Without the lock: whoever reads our messages may be slow too, and vCPUs need it.
                drop(state);
                tracing::warn!(
                    bytes = piece.missed,
                    "a reader of the console did not keep up and lost bytes"
                );
                state = self.console.lock();
            }
            if !piece.bytes.is_empty() {
                return Output::Bytes(piece.bytes);
            }
            if state.phase == Phase::Closed {
                return Output::End;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Output::Nothing;
            }
            (state, _) =
                self.console.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(console: &Console, text: &[u8]) {
        text.iter().for_each(|byte| console.byte(*byte));
    }

    #[test]
    fn who_attaches_late_sees_the_past_once_and_then_the_present() {
        let console = Console::new();
        print(&console, b"past");
        let (replay, mut reader) = console.attach();
        assert_eq!(replay, b"past");
        print(&console, b"now");
        assert_eq!(reader.read(Duration::ZERO), Output::Bytes(b"now".to_vec()));
        assert_eq!(reader.read(Duration::ZERO), Output::Nothing);
        console.close();
        assert_eq!(reader.read(Duration::MAX / 4), Output::End);
    }

    #[test]
    fn a_reader_that_does_not_read_stalls_nobody_and_its_loss_is_counted() {
        let console = Console::new();
        let mut reader = console.reader();
        for _ in 0..RING_BYTES + 1000 {
            console.byte(b'x');
        }
        assert_eq!(console.dropped_bytes(), 1000, "before the reader comes back, too");
        assert!(matches!(reader.read(Duration::ZERO), Output::Bytes(_)));
        assert_eq!(console.dropped_bytes(), 1000);
    }

    #[test]
    fn a_part_says_where_it_begins_and_whether_more_can_come() {
        let console = Console::new();
        print(&console, b"abc");
        let part = |from, bytes: &[u8], last| Part { from, bytes: bytes.to_vec(), last };
        assert_eq!(console.part(1, Duration::MAX / 4), part(1, b"bc", false));
        assert_eq!(console.part(3, Duration::ZERO), part(3, b"", false));
        assert_eq!(console.part(99, Duration::ZERO), part(3, b"", false), "a position that is not there yet");
        print(&console, &[b'x'; RING_BYTES]);
        assert_eq!(console.part(0, Duration::ZERO), part(3, &[b'x'; RING_BYTES], false));
        console.close();
        assert_eq!(
            console.part(3 + RING_BYTES as u64, Duration::MAX / 4),
            part(3 + RING_BYTES as u64, b"", true)
        );
        assert_eq!(console.dropped_bytes(), 0, "nobody was attached");
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        let console = Console::new();
        let mut reader = console.reader();
        let waiter = std::thread::spawn(move || reader.read(Duration::from_secs(60)));
        console.byte(b'!');
        assert_eq!(waiter.join().unwrap(), Output::Bytes(b"!".to_vec()));
    }
}
