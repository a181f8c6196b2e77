//! What a process says, as it says it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use godwit_guest_images::report::is_beat;

/// Lines that a failed wait shows.
const SHOWN_LINES_MAX: usize = 120;

/// A finished line, without its end and without beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its last byte was read.
    pub at: Instant,
    /// What it says.
    pub text: String,
}

/// A place in the output: what comes after it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    line: usize,
    bytes: usize,
}

impl Mark {
    /// Before everything.
    pub const START: Self = Self { line: 0, bytes: 0 };
}

/// The output of a process, read by a thread for as long as it comes.
#[derive(Debug, Clone)]
pub struct Output {
    name: &'static str,
    shared: Arc<(Mutex<Log>, Condvar)>,
}

#[derive(Debug, Default)]
struct Log {
    bytes: usize,
    lines: Vec<Line>,
    partial: Vec<u8>,
    beats: Vec<Instant>,
    ended: bool,
}

impl Output {
    /// Reads `from` to its end. With `beats`, dots are beats of the test kernel and no part of lines.
    pub(crate) fn collect(name: &'static str, from: impl Read + Send + 'static, beats: bool) -> Self {
        let output = Self { name, shared: Arc::default() };
        let shared = Arc::clone(&output.shared);
        std::thread::spawn(move || read_to_end(from, &shared, beats));
        output
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Here.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let log = self.log();
        Mark { line: log.lines.len(), bytes: log.bytes }
    }

    /// Bytes since the mark, beats included.
    #[must_use]
    pub fn bytes_since(&self, mark: Mark) -> usize {
        self.log().bytes - mark.bytes
    }

    /// Lines that ended since the mark.
    #[must_use]
    pub fn lines_since(&self, mark: Mark) -> Vec<Line> {
        self.log().lines[mark.line..].to_vec()
    }

    /// Lines that ended between two marks.
    pub(crate) fn lines_between(&self, since: Mark, until: Mark) -> Vec<Line> {
        self.log().lines[since.line..until.line].to_vec()
    }

    /// All lines, and what was begun, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        let log = self.log();
        let mut text: String = log.lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        text.push_str(&String::from_utf8_lossy(&log.partial));
        text
    }

    /// When each beat was read.
    #[must_use]
    pub fn beats(&self) -> Vec<Instant> {
        self.log().beats.clone()
    }

    /// The first line since the mark that `wanted` makes something of.
    ///
    /// # Panics
    /// When none comes in time, or no more can come.
    pub fn wait<T>(
        &self,
        since: Mark,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let until = Instant::now() + within;
        let mut next = since.line;
        let mut log = self.log();
        loop {
            while let Some(line) = log.lines.get(next) {
                next += 1;
                if let Some(found) = wanted(&line.text) {
                    return found;
                }
            }
            let now = Instant::now();
            let ended = log.ended;
            if ended || now >= until {
                drop(log);
                let why = if ended { "it ended" } else { "in time" };
                panic!("{} did not say ({why}, {within:?}): {what}\n{}", self.name, self.tail());
            }
            let wait = self.shared.1.wait_timeout(log, until - now);
            log = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a line with `part` in it.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub fn wait_text(&self, since: Mark, part: &str) -> String {
        self.wait(since, part, crate::PATIENCE, |line| line.contains(part).then(|| line.to_owned()))
    }

    /// Waits until nothing more can come.
    pub(crate) fn wait_end(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut log = self.log();
        while !log.ended && Instant::now() < until {
            let wait = self.shared.1.wait_timeout(log, Duration::from_millis(20));
            log = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last lines, for a person.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(SHOWN_LINES_MAX);
        format!("--- {} ({skipped} lines before)\n{}\n---", self.name, lines[skipped..].join("\n"))
    }
}

fn read_to_end(mut from: impl Read, shared: &(Mutex<Log>, Condvar), with_beats: bool) {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let at = Instant::now();
        let mut log = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            log.ended = true;
            shared.1.notify_all();
            return;
        }
        log.bytes += count;
        for &byte in &buffer[..count] {
            if with_beats && is_beat(byte) {
                log.beats.push(at);
            } else if byte == b'\n' {
                let bytes = std::mem::take(&mut log.partial);
                let text = String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned();
                log.lines.push(Line { at, text });
            } else {
                log.partial.push(byte);
            }
        }
        drop(log);
        shared.1.notify_all();
    }
}
