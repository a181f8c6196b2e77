//! What became of each line that was waited for, or of the run. Pure.

use std::time::Duration;

use super::Facts;
use crate::instance::ending::Why;
use crate::instance::exit::Exit;
use crate::instance::watch::Verdict;

/// One test case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Case<'f> {
    /// What it is about.
    pub(super) name: String,
    /// Until it was decided.
    pub(super) time: Duration,
    /// What became of it.
    pub(super) outcome: Outcome<'f>,
}

/// What became of a case, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<'f> {
    Passed,
    /// The guest did otherwise than it should have.
    Failed(std::borrow::Cow<'f, str>),
    /// The run broke before this could be told.
    Broken(std::borrow::Cow<'f, str>),
    /// The guest goes on elsewhere, or was ended by someone.
    Undecided(std::borrow::Cow<'f, str>),
}

/// All cases of a run: never none.
pub(super) fn of(facts: &Facts) -> Vec<Case<'_>> {
    let why = why(facts);
    let mut cases = Vec::new();
    for sought in &facts.sightings.expect {
        let outcome = match sought.seen {
            Some(_) => Outcome::Passed,
            None if facts.ending.exit == Exit::Done => {
                Outcome::Undecided(format!("not seen before {why}").into())
            }
            None => Outcome::Failed(format!("the guest did not print this line before {why}").into()),
        };
        cases.push(Case {
            name: format!("expect: {}", sought.line),
            time: sought.seen.unwrap_or(facts.took),
            outcome,
        });
    }
    for sought in &facts.sightings.reject {
        let outcome = match (sought.seen, facts.ending.exit) {
            (Some(_), _) => Outcome::Failed("the guest printed this line".into()),
            (None, Exit::Done) if goes_on(&facts.ending.why) => {
                Outcome::Undecided(format!("not seen before {why}").into())
            }
            (None, Exit::Done | Exit::Expectation) => Outcome::Passed,
            (None, _) => Outcome::Broken(format!("not seen, but watched only until {why}").into()),
        };
        cases.push(Case {
            name: format!("reject: {}", sought.line),
            time: sought.seen.unwrap_or(facts.took),
            outcome,
        });
    }
    if cases.is_empty() {
        let outcome = match facts.ending.exit {
            Exit::Done => Outcome::Passed,
            Exit::StartFailed | Exit::VmmFailed => Outcome::Broken(why.into()),
            _ => Outcome::Failed(why.into()),
        };
        cases.push(Case { name: "run".to_owned(), time: facts.took, outcome });
    }
    cases
}

/// Whether the guest would have had more to say.
fn goes_on(why: &Why) -> bool {
    matches!(why, Why::HandedOver { .. } | Why::Asked(_))
}

/// What ended the run: reads on its own, and after "before".
fn why(facts: &Facts) -> String {
    match &facts.ending.why {
        Why::Guest(how) => format!("the guest {how}"),
        Why::HandedOver { to } => format!("the guest was handed over to {to}"),
        Why::Asked(who) => format!("{who} asked for the end"),
        Why::Lines(Verdict::Rejected { line }) => format!("the guest printed the rejected line {line:?}"),
        Why::Lines(Verdict::Missing { .. } | Verdict::Quiet) => "the time was up".to_owned(),
        Why::Lines(Verdict::Met) => "every expected line was seen".to_owned(),
        Why::Failed(what) => format!("this happened: {what}"),
    }
}
