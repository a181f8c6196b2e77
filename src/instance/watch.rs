//! `--expect` and `--reject`: watches the guest's lines.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
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

/// A line that is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sought {
    /// What the line has to contain.
    pub(crate) line: String,
    /// When it was seen first, counted from the start.
    pub(crate) seen: Option<Duration>,
}

/// Which of the lines were seen until it was decided, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sightings {
    /// `--expect`
    pub(crate) expect: Vec<Sought>,
    /// `--reject`
    pub(crate) reject: Vec<Sought>,
}

/// Matches lines. Pure.
#[derive(Debug)]
pub(crate) struct Watcher {
    sightings: Sightings,
    line: Vec<u8>,
}

impl Sightings {
    /// Nothing was seen yet.
    pub(crate) fn of(expect: Vec<String>, reject: Vec<String>) -> Self {
        let sought = |lines: Vec<String>| lines.into_iter().map(|line| Sought { line, seen: None }).collect();
        Self { expect: sought(expect), reject: sought(reject) }
    }
}

impl Watcher {
    pub(crate) fn new(sightings: Sightings) -> Self {
        Self { sightings, line: Vec::new() }
    }

    /// Takes output that came `at` this time; says at once when it decides something.
    pub(crate) fn take(&mut self, bytes: &[u8], at: Duration) -> Option<Verdict> {
        bytes.iter().find_map(|byte| match byte {
            b'\n' => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line))
                    .trim_end_matches('\r')
                    .to_owned();
                self.line(&line, at)
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
    pub(crate) fn end(&mut self, at: Duration) -> Verdict {
        // The last line may have no end.
        if let Some(verdict) = self.take(b"\n", at) {
            return verdict;
        }
        let expect = &self.sightings.expect;
        if expect.is_empty() {
            return Verdict::Quiet;
        }
        let missing = expect.iter().filter(|sought| sought.seen.is_none());
        Verdict::Missing { lines: missing.map(|sought| sought.line.clone()).collect() }
    }

    /// Which of the lines were seen until now.
    pub(crate) fn into_sightings(self) -> Sightings {
        self.sightings
    }

    fn line(&mut self, line: &str, at: Duration) -> Option<Verdict> {
        let Sightings { expect, reject } = &mut self.sightings;
        let note = |sought: &mut Sought| {
            if sought.seen.is_none() && line.contains(sought.line.as_str()) {
                sought.seen = Some(at);
            }
        };
        reject.iter_mut().for_each(note);
        if let Some(rejected) = reject.iter().find(|sought| sought.seen.is_some()) {
            return Some(Verdict::Rejected { line: rejected.line.clone() });
        }
        expect.iter_mut().for_each(note);
        let met = !expect.is_empty() && expect.iter().all(|sought| sought.seen.is_some());
        met.then_some(Verdict::Met)
    }
}

/// Watches in a thread, and tells the main loop once. The thread ends then, or when the console is closed,
/// with what it has seen.
pub(crate) fn start(
    mut watcher: Watcher,
    within: Option<Duration>,
    console: &Arc<Console>,
    events: Sender<Event>,
) -> std::io::Result<JoinHandle<Sightings>> {
    let mut reader = console.reader();
    let begin = Instant::now();
    let until = within.map(|within| begin + within);
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        let verdict = loop {
            let wait =
                until.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            match reader.read(wait) {
                Output::Bytes(bytes) => {
                    if let Some(verdict) = watcher.take(&bytes, begin.elapsed()) {
                        break verdict;
                    }
                }
                Output::Nothing if until.is_some_and(|at| Instant::now() >= at) => {
                    break watcher.end(begin.elapsed());
                }
                Output::Nothing => {}
                Output::End => break watcher.end(begin.elapsed()),
            }
        };
        let _ = events.send(Event::Watched(verdict));
        watcher.into_sightings()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher(expect: &[&str], reject: &[&str]) -> Watcher {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Watcher::new(Sightings::of(owned(expect), owned(reject)))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn seen(sought: &[Sought]) -> Vec<Option<Duration>> {
        sought.iter().map(|sought| sought.seen).collect()
    }

    #[test]
    fn all_expected_lines_in_any_order_and_in_pieces() {
        let mut watcher = watcher(&["two", "one"], &[]);
        assert_eq!(watcher.take(b"line on", ms(1)), None);
        assert_eq!(watcher.take(b"e\r\nother\none\n", ms(2)), None);
        assert_eq!(watcher.take(b"one\n", ms(3)), None);
        assert_eq!(watcher.take(b"line two\n", ms(4)), Some(Verdict::Met));
        assert_eq!(
            seen(&watcher.into_sightings().expect),
            [Some(ms(4)), Some(ms(2))],
            "the first time counts"
        );
    }

    #[test]
    fn a_rejected_line_wins() {
        let mut watcher = watcher(&["ok"], &["oops", "panic"]);
        let verdict = watcher.take(b"kernel panic: ok\n", ms(1));
        assert_eq!(verdict, Some(Verdict::Rejected { line: "panic".to_owned() }));
        let sightings = watcher.into_sightings();
        assert_eq!(seen(&sightings.reject), [None, Some(ms(1))]);
        assert_eq!(seen(&sightings.expect), [None]);
    }

    #[test]
    fn at_the_end_what_is_missing_is_named() {
        let mut one = watcher(&["ok", "also"], &[]);
        assert_eq!(one.take(b"also\n", ms(1)), None);
        assert_eq!(one.end(ms(2)), Verdict::Missing { lines: vec!["ok".to_owned()] });
        assert_eq!(seen(&one.into_sightings().expect), [None, Some(ms(1))]);
        let mut unfinished = watcher(&["ok"], &[]);
        assert_eq!(unfinished.take(b"ok", ms(1)), None);
        assert_eq!(unfinished.end(ms(2)), Verdict::Met);
        assert_eq!(watcher(&[], &["bad"]).end(ms(1)), Verdict::Quiet);
    }
}
