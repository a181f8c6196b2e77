//! What a process says, as it says it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that a failed wait shows.
const SHOWN_LINES_MAX: usize = 120;

/// A finished line, without its end and without ticks.
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

/// What waiting for a line came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Line(String),
    /// No more can come; this was begun.
    Ended {
        unfinished: String,
    },
    Late,
}

#[derive(Debug, Default)]
struct Log {
    bytes: usize,
    lines: Vec<Line>,
    partial: Vec<u8>,
    ticks: Vec<Instant>,
    ended: bool,
}

impl Output {
    /// Reads `from` to its end. `tick` is a byte that is a sign of life and no part of any line.
    pub(crate) fn collect(name: &'static str, from: impl Read + Send + 'static, tick: Option<u8>) -> Self {
        let output = Self { name, shared: Arc::default() };
        let shared = Arc::clone(&output.shared);
        std::thread::spawn(move || read_to_end(from, &shared, tick));
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

    /// Bytes since the mark, ticks included.
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
    #[must_use]
    pub fn lines_between(&self, since: Mark, until: Mark) -> Vec<Line> {
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

    /// When each tick was read: each byte that was said to be a sign of life and no part of any line.
    #[must_use]
    pub fn ticks(&self) -> Vec<Instant> {
        self.log().ticks.clone()
    }

    /// The line at `mark`, waiting for it until then; moves `mark` behind it.
    pub(crate) fn next_line(&self, mark: &mut Mark, until: Instant) -> Next {
        let mut log = self.log();
        loop {
            if let Some(line) = log.lines.get(mark.line) {
                mark.line += 1;
                return Next::Line(line.text.clone());
            }
            if log.ended {
                return Next::Ended { unfinished: String::from_utf8_lossy(&log.partial).into_owned() };
            }
            let now = Instant::now();
            if now >= until {
                return Next::Late;
            }
            let wait = self.shared.1.wait_timeout(log, until - now);
            log = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Puts all of `earlier` before what came here: the guest spoke there first. Marks of `earlier` mean the
    /// same place here afterwards. A line may have begun there and end here.
    pub(crate) fn continue_from(&self, earlier: &Self) {
        let (lines, partial, ticks, bytes) = {
            let log = earlier.log();
            (log.lines.clone(), log.partial.clone(), log.ticks.clone(), log.bytes)
        };
        let mut log = self.log();
        match log.lines.first_mut() {
            Some(first) => first.text.insert_str(0, &String::from_utf8_lossy(&partial)),
            None => {
                log.partial.splice(0..0, partial);
            }
        }
        log.lines.splice(0..0, lines);
        log.ticks.splice(0..0, ticks);
        log.bytes += bytes;
        self.shared.1.notify_all();
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
        let mut mark = since;
        loop {
            let why = match self.next_line(&mut mark, until) {
                Next::Line(line) => match wanted(&line) {
                    Some(found) => return found,
                    None => continue,
                },
                Next::Ended { .. } => "it ended",
                Next::Late => "in time",
            };
            panic!("{} did not say ({why}, {within:?}): {what}\n{}", self.name, self.tail());
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

fn read_to_end(mut from: impl Read, shared: &(Mutex<Log>, Condvar), tick: Option<u8>) {
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
            if tick == Some(byte) {
                log.ticks.push(at);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &'static str) -> Output {
        let output = Output::collect("test", text.as_bytes(), Some(b'.'));
        output.wait_end(Duration::from_secs(60));
        output
    }

    #[test]
    fn ticks_are_no_part_of_lines() {
        let output = said("o.n.e\r\n.two");
        assert_eq!(output.text(), "one\ntwo");
        assert_eq!((output.ticks().len(), output.bytes_since(Mark::START)), (3, 11));
    }

    #[test]
    fn a_line_that_began_in_one_process_ends_in_the_next() {
        let first = said("one\ntw");
        let mark = first.mark();
        for (later, expected) in [("o\nthree", "one\ntwo\nthree"), ("o", "one\ntwo")] {
            let later = said(later);
            later.continue_from(&first);
            assert_eq!(later.text(), expected);
            let mut at = mark;
            match later.next_line(&mut at, Instant::now()) {
                Next::Line(line) => assert_eq!(line, "two"),
                other => assert_eq!(other, Next::Ended { unfinished: "two".to_owned() }),
            }
        }
    }
}
