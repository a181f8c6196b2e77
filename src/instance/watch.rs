//! `--expect` and `--reject`: watches the guest's lines.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::console::{Console, Output};
use super::vm::Event;

/// Longest line that is kept; what follows in it is not looked at.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What the lines said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every expected line was seen.
    Met,
    /// A rejected line was seen.
    Rejected { line: String },
    /// The time is up and these lines were not seen.
    Missing { lines: Vec<String> },
    /// The time is up, and there was nothing to see but what was not to be seen.
    Quiet,
}

/// Matches lines. Pure.
#[derive(Debug)]
pub(crate) struct Watcher {
    missing: Vec<String>,
    reject: Vec<String>,
    expects: bool,
    line: Vec<u8>,
}

impl Watcher {
    pub(crate) fn new(expect: Vec<String>, reject: Vec<String>) -> Self {
        Self { expects: !expect.is_empty(), missing: expect, reject, line: Vec::new() }
    }

    /// Takes output; says at once when it decides something.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Verdict> {
        bytes.iter().find_map(|byte| match byte {
            b'\n' => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line))
                    .trim_end_matches('\r')
                    .to_owned();
                self.line(&line)
            }
            byte => {
                if self.line.len() < LINE_BYTES_MAX {
                    self.line.push(*byte);
                }
                None
            }
        })
    }

    /// What holds when no more output is waited for.
    pub(crate) fn end(mut self) -> Verdict {
        // The last line may have no end.
        if let Some(verdict) = self.take(b"\n") {
            return verdict;
        }
        if self.expects { Verdict::Missing { lines: self.missing } } else { Verdict::Quiet }
    }

    fn line(&mut self, line: &str) -> Option<Verdict> {
        if let Some(rejected) = self.reject.iter().find(|reject| line.contains(reject.as_str())) {
            return Some(Verdict::Rejected { line: rejected.clone() });
        }
        self.missing.retain(|expect| !line.contains(expect.as_str()));
        (self.expects && self.missing.is_empty()).then_some(Verdict::Met)
    }
}

/// Watches in a thread, and tells the main loop once.
pub(crate) fn start(
    mut watcher: Watcher,
    within: Option<Duration>,
    console: &Arc<Console>,
    events: Sender<Event>,
) -> std::io::Result<()> {
    let mut reader = console.reader();
    let until = within.map(|within| Instant::now() + within);
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        let verdict = loop {
            let wait =
                until.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            match reader.read(wait) {
                Output::Bytes(bytes) => {
                    if let Some(verdict) = watcher.take(&bytes) {
                        break verdict;
                    }
                }
                Output::Nothing if until.is_some_and(|at| Instant::now() >= at) => break watcher.end(),
                Output::Nothing => {}
                Output::End => break watcher.end(),
            }
        };
        let _ = events.send(Event::Watched(verdict));
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher(expect: &[&str], reject: &[&str]) -> Watcher {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Watcher::new(owned(expect), owned(reject))
    }

    #[test]
    fn all_expected_lines_in_any_order_and_in_pieces() {
        let mut watcher = watcher(&["two", "one"], &[]);
        assert_eq!(watcher.take(b"line on"), None);
        assert_eq!(watcher.take(b"e\r\nother\n"), None);
        assert_eq!(watcher.take(b"line two\n"), Some(Verdict::Met));
    }

    #[test]
    fn a_rejected_line_wins() {
        let mut watcher = watcher(&["ok"], &["panic"]);
        assert_eq!(watcher.take(b"kernel panic: ok\n"), Some(Verdict::Rejected { line: "panic".to_owned() }));
    }

    #[test]
    fn at_the_end_what_is_missing_is_named() {
        let mut one = watcher(&["ok", "also"], &[]);
        assert_eq!(one.take(b"also\n"), None);
        assert_eq!(one.end(), Verdict::Missing { lines: vec!["ok".to_owned()] });
        let mut unfinished = watcher(&["ok"], &[]);
        assert_eq!(unfinished.take(b"ok"), None);
        assert_eq!(unfinished.end(), Verdict::Met);
        assert_eq!(watcher(&[], &["bad"]).end(), Verdict::Quiet);
    }
}
