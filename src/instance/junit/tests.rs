//! Reports of made-up runs, parsed again.

use roxmltree::{Document, Node};

use super::*;
use crate::instance::ending::Why;
use crate::instance::exit::Exit;
use crate::instance::watch::{Sought, Verdict};

fn facts(exit: Exit, why: Why, expect: &[(&str, Option<u64>)], reject: &[(&str, Option<u64>)]) -> Facts {
    let sought = |lines: &[(&str, Option<u64>)]| {
        let one = |(line, ms): &(&str, Option<u64>)| Sought {
            line: (*line).to_owned(),
            seen: ms.map(Duration::from_millis),
        };
        lines.iter().map(one).collect()
    };
    Facts {
        name: "web".to_owned(),
        ending: Ending { exit, why, crash: None },
        sightings: Sightings { expect: sought(expect), reject: sought(reject) },
        took: Duration::from_secs(2),
        serial_tail: Vec::new(),
        serial_left_out: 0,
    }
}

fn xml(facts: &Facts) -> String {
    report(facts).to_string().expect("serialises")
}

/// Name, verdict (`passed` or the element's name) and message of each case, as a reader of the XML has it.
fn cases(xml: &str) -> Vec<(String, String, String)> {
    let document = Document::parse(xml).expect("well-formed");
    let one = |case: Node<'_, '_>| {
        let verdict = case.children().find(Node::is_element);
        let tag = verdict.map_or("passed", |verdict| verdict.tag_name().name());
        let message = verdict.and_then(|verdict| verdict.attribute("message")).unwrap_or("");
        (case.attribute("name").unwrap_or("").to_owned(), tag.to_owned(), message.to_owned())
    };
    document.descendants().filter(|node| node.has_tag_name("testcase")).map(one).collect()
}

fn verdicts(facts: &Facts) -> Vec<String> {
    cases(&xml(facts)).into_iter().map(|(_, verdict, _)| verdict).collect()
}

#[test]
fn each_line_has_its_own_case_with_its_time() {
    let facts = facts(Exit::Done, Why::Lines(Verdict::Met), &[("up", Some(1500))], &[("bad", None)]);
    let xml = xml(&facts);
    let document = Document::parse(&xml).expect("well-formed");
    let find = |tag: &str| document.descendants().find(|node| node.has_tag_name(tag)).expect("there");
    let names: Vec<String> = cases(&xml).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["expect: up", "reject: bad"]);
    assert_eq!(find("testcase").attribute("time"), Some("1.500"));
    assert_eq!(find("testsuite").attribute("time"), Some("2.000"));
    assert_eq!(find("testsuite").attribute("tests"), Some("2"));
    assert_eq!(find("property").attribute("value"), Some("0"));
    assert_eq!(verdicts(&facts), ["passed", "passed"]);
}

#[test]
fn every_way_to_end_has_its_verdicts() {
    let missing = || Why::Lines(Verdict::Missing { lines: vec!["b".to_owned()] });
    let rejected = || Why::Lines(Verdict::Rejected { line: "bad".to_owned() });
    let crashed = || Why::Guest("crashed: triple fault".to_owned());
    let moved = || Why::HandedOver { to: "tcp:h:1".to_owned() };
    let (a, b): (&[_], &[_]) = (&[("a", Some(1)), ("b", None)], &[("bad", None)]);
    let bad: &[_] = &[("bad", Some(1))];
    for (exit, why, expect, reject, wanted) in [
        (Exit::Expectation, missing(), a, b, &["passed", "failure", "passed"][..]),
        (Exit::Expectation, rejected(), a, bad, &["passed", "failure", "failure"]),
        (Exit::Expectation, crashed(), a, b, &["passed", "failure", "passed"]),
        (Exit::Crashed, crashed(), &[], b, &["error"]),
        (Exit::Crashed, crashed(), &[], &[], &["failure"]),
        (Exit::Done, moved(), a, b, &["passed", "skipped", "skipped"]),
        (Exit::Done, moved(), &[], &[], &["passed"]),
        (Exit::Done, Why::Asked("a signal"), a, &[], &["passed", "skipped"]),
        (Exit::Done, Why::Lines(Verdict::Quiet), &[], b, &["passed"]),
        (Exit::Done, Why::Guest("powered off".to_owned()), &[], b, &["passed"]),
        (Exit::DebugExit(3), Why::Guest("wrote".to_owned()), &[], &[], &["failure"]),
        (Exit::Reset, Why::Guest("reset itself".to_owned()), &[], &[], &["failure"]),
        (Exit::StartFailed, Why::Failed("no kernel".to_owned()), &[], &[], &["error"]),
        (Exit::VmmFailed, Why::Failed("no vCPU".to_owned()), a, &[], &["passed", "failure"]),
    ] {
        let facts = facts(exit, why, expect, reject);
        assert_eq!(verdicts(&facts), wanted, "{facts:?}");
    }
}

#[test]
fn a_status_other_than_0_always_shows() {
    for exit in [Exit::StartFailed, Exit::Reset, Exit::Crashed, Exit::VmmFailed, Exit::DebugExit(0)] {
        for (expect, reject) in [(vec![], vec![]), (vec![("a", None)], vec![]), (vec![], vec![("b", None)])] {
            let facts = facts(exit, Why::Guest("ended".to_owned()), &expect, &reject);
            assert!(
                verdicts(&facts).iter().all(|verdict| verdict == "failure" || verdict == "error"),
                "{facts:?}"
            );
        }
    }
}

#[test]
fn whatever_the_guest_says_is_xml() {
    let mut facts = facts(Exit::Crashed, Why::Guest("crashed: \u{ffff}<&\"\0".to_owned()), &[], &[]);
    facts.name = "we]]>b\u{1b}[31m".to_owned();
    facts.ending.crash = Some("rip=1\x01\n  code=<90>".to_owned());
    facts.serial_tail = (0..=255).chain(*b"\x1b[1mbold\x1b[0m ]]> \xef\xbf\xbe\tend").collect();
    facts.serial_left_out = 7;
    let xml = xml(&facts);
    let document = Document::parse(&xml).expect("well-formed");
    let output = document.descendants().find(|node| node.has_tag_name("system-out")).expect("there");
    let output = output.text().expect("text");
    assert!(output.starts_with("(7 bytes before this are left out)\n\u{fffd}"), "{output:?}");
    assert!(output.contains("bold ]]> \u{fffd}    end"), "{output:?}");
    assert!(!output.contains(|c: char| c.is_control() && c != '\n'), "{output:?}");
    let failure = document.descendants().find(|node| node.has_tag_name("failure")).expect("there");
    assert_eq!(failure.text(), Some("rip=1\u{fffd}\n  code=<90>"));
    assert_eq!(failure.attribute("message"), Some("the guest crashed: \u{fffd}<&\"\u{fffd}"));
}
