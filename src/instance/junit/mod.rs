//! `--junit`: this run as a JUnit XML report, for whatever collects the results of tests.
//!
//! One test suite, with a test case for each line of `--expect` and `--reject`, or one for the run as a
//! whole. `cases` decides what became of each; `file` is where it goes.

mod cases;
mod file;

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::ending::Ending;
use super::watch::Sightings;
use cases::{Case, Outcome};

pub(crate) use file::ReportFile;

/// What there is to tell of a run.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The VM's name.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) ending: Ending,
    /// The lines, and when they were seen.
    pub(crate) sightings: Sightings,
    /// How long the run took.
    pub(crate) took: Duration,
    /// The end of the serial output.
    pub(crate) serial_tail: Vec<u8>,
    /// How much came before it.
    pub(crate) serial_left_out: u64,
}

/// The report. Pure.
pub(crate) fn report(facts: &Facts) -> Report {
    let mut suite = TestSuite::new(text(&facts.name));
    suite.set_time(facts.took);
    suite.add_property(Property::new("exit-status", facts.ending.exit.status().to_string()));
    for case in cases::of(facts) {
        suite.add_test_case(test_case(&case, facts));
    }
    let left_out = match facts.serial_left_out {
        0 => String::new(),
        bytes => format!("({bytes} bytes before this are left out)\n"),
    };
    suite.set_system_out(left_out + &text(&String::from_utf8_lossy(&facts.serial_tail)));
    let mut report = Report::new("godwit");
    report.set_time(facts.took);
    report.add_test_suite(suite);
    report
}

fn test_case(case: &Case<'_>, facts: &Facts) -> TestCase {
    let mut status = match &case.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Undecided(_) => TestCaseStatus::skipped(),
        Outcome::Failed(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::Broken(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    match &case.outcome {
        Outcome::Passed => {}
        Outcome::Undecided(why) => {
            status.set_message(text(why));
        }
        Outcome::Failed(why) | Outcome::Broken(why) => {
            status.set_message(text(why));
            if let Some(crash) = &facts.ending.crash {
                status.set_description(text(crash));
            }
        }
    }
    let mut test_case = TestCase::new(text(&case.name), status);
    test_case.set_classname(text(&facts.name));
    test_case.set_time(case.time);
    test_case
}

/// Text that is fit for XML. The library takes out the escape sequences of terminals, and with them every
/// control character; what is no character of XML otherwise, nothing stands in for but this.
fn text(text: &str) -> String {
    text.replace('\t', "    ")
        .chars()
        .map(|c| match c {
            // What begins, ends or separates must stay what it is.
            '\n' | '\r' | '\x1b' | '\x07' => c,
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
            _ => c,
        })
        .collect()
}

#[cfg(test)]
mod tests;
