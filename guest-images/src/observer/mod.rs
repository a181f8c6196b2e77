//! Watches a guest from outside while it goes from process to process: reads the serial output of all
//! of them in one thread, and so with one clock.

mod lines;
mod timeline;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

pub use lines::Lines;
pub use timeline::{Timeline, blackout};

/// What was seen of one process.
#[derive(Debug, Default)]
pub struct Seen {
    /// When it beat.
    pub beats: Timeline,
    /// What it said.
    pub lines: Lines,
    /// No more will come: the process has ended.
    pub ended: bool,
}

/// What was seen so far. The thread behind it ends with the last of the processes.
#[derive(Debug)]
pub struct Observer {
    seen: Vec<Arc<Mutex<Seen>>>,
}

impl Observer {
    /// Starts to watch `count` processes that are yet to be started; each gets one of the pipes as its
    /// standard output.
    ///
    /// # Errors
    /// The system has no more pipes or threads.
    pub fn start(count: usize) -> std::io::Result<(Self, Vec<OwnedFd>)> {
        let mut watched = Vec::new();
        let mut writers = Vec::new();
        for _ in 0..count {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            watched.push((reader, Arc::new(Mutex::new(Seen::default()))));
            writers.push(writer);
        }
        let seen = watched.iter().map(|(_, seen)| Arc::clone(seen)).collect();
        std::thread::Builder::new().name("observer".to_owned()).spawn(move || watch(watched))?;
        Ok((Self { seen }, writers))
    }

    /// What was seen of the process that got the pipe of that index.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn of(&self, index: usize) -> MutexGuard<'_, Seen> {
        lock(&self.seen[index])
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads whatever comes until every pipe has ended.
fn watch(mut pipes: Vec<(OwnedFd, Arc<Mutex<Seen>>)>) {
    let mut bytes = vec![0; 64 << 10];
    while !pipes.is_empty() {
        let mut polled: Vec<PollFd<'_>> =
            pipes.iter().map(|(pipe, _)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)).collect();
        let ready: Vec<bool> = match poll(&mut polled, None) {
            Ok(_) => polled.iter().map(|polled| !polled.revents().is_empty()).collect(),
            Err(Errno::INTR) => continue,
            Err(_) => {
                // Without a wait there is nothing to see: whoever looks must not wait for it.
                pipes.iter().for_each(|(_, seen)| lock(seen).ended = true);
                return;
            }
        };
        let mut ready = ready.into_iter();
        pipes.retain(|(pipe, seen)| !ready.next().unwrap_or(false) || read(pipe, seen, &mut bytes));
    }
}

/// Reads once; false at the end.
fn read(pipe: &OwnedFd, seen: &Mutex<Seen>, bytes: &mut [u8]) -> bool {
    let count = match rustix::io::read(pipe, &mut *bytes) {
        Ok(0) => {
            lock(seen).ended = true;
            return false;
        }
        Ok(count) => count,
        Err(Errno::INTR) => return true,
        Err(_) => {
            lock(seen).ended = true;
            return false;
        }
    };
    let now = Instant::now();
    let mut seen = lock(seen);
    if seen.lines.take(bytes.get(..count).unwrap_or_default()) {
        seen.beats.heard(now);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_are_told_apart_and_ends_are_noticed() {
        let (observer, pipes) = Observer::start(2).expect("starts");
        let [first, second] = <[OwnedFd; 2]>::try_from(pipes).expect("two");
        rustix::io::write(&first, b"..one\n").expect("is written");
        rustix::io::write(&second, b"two\n").expect("is written");
        drop((first, second));
        while !(observer.of(0).ended && observer.of(1).ended) {
            std::thread::yield_now();
        }
        assert_eq!(observer.of(0).lines.whole(), ["one"]);
        assert_eq!(observer.of(1).lines.whole(), ["two"]);
        assert!(observer.of(0).beats.first().is_some() && observer.of(1).beats.first().is_none());
    }
}
