//! `godwit run --junit`: the report of a run, as what collects it would read it.

use std::path::PathBuf;

use godwit_api::MigrationOutcome;
use godwit_guest_images::command::Command as GuestCommand;
use godwit_tests::{Finished, Host, Mark, kvm};
use roxmltree::{Document, Node};

const UP: &str = "godwit-guest: up cpus=1";

/// A report's file, and a guest that writes one.
struct Scene {
    host: Host,
    report: PathBuf,
}

/// One test case: name, `passed` or what it is else, message and text.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    verdict: String,
    message: String,
    text: String,
}

struct Parsed {
    cases: Vec<Case>,
    exit_status: String,
    system_out: String,
    times: Vec<f64>,
}

impl Scene {
    fn new() -> Self {
        let host = Host::new();
        let report = host.files().join("report.xml");
        Self { host, report }
    }

    fn path(&self) -> &str {
        self.report.to_str().expect("UTF-8")
    }

    fn run(&self, options: &[&str]) -> Finished {
        let mut arguments = vec!["run", "--kernel", "builtin", "--memory", "32M", "--junit", self.path()];
        arguments.extend(options);
        self.host.godwit(&arguments)
    }

    fn parsed(&self) -> Parsed {
        let xml = std::fs::read_to_string(&self.report).expect("the report was written");
        let document = Document::parse(&xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
        let all = |tag: &'static str| document.descendants().filter(move |node| node.has_tag_name(tag));
        assert_eq!(all("testsuite").count(), 1, "{xml}");
        let property = all("property").find(|node| node.attribute("name") == Some("exit-status"));
        let left = std::fs::read_dir(self.host.files()).expect("lists").flatten();
        let temporary = left.filter(|entry| entry.file_name().to_string_lossy().contains("godwit-junit"));
        assert_eq!(temporary.count(), 0, "nothing temporary is left");
        Parsed {
            cases: all("testcase").map(|node| case(&node)).collect(),
            exit_status: property.and_then(|node| node.attribute("value")).unwrap_or("").to_owned(),
            system_out: all("system-out").find_map(|node| node.text()).unwrap_or("").to_owned(),
            times: all("testcase").filter_map(|node| node.attribute("time")?.parse().ok()).collect(),
        }
    }
}

fn case(node: &Node<'_, '_>) -> Case {
    let verdict = node.children().find(Node::is_element);
    Case {
        name: node.attribute("name").unwrap_or("").to_owned(),
        verdict: verdict.map_or("passed", |verdict| verdict.tag_name().name()).to_owned(),
        message: verdict.and_then(|verdict| verdict.attribute("message")).unwrap_or("").to_owned(),
        text: verdict.and_then(|verdict| verdict.text()).unwrap_or("").to_owned(),
    }
}

fn verdicts(parsed: &Parsed) -> Vec<(&str, &str)> {
    parsed.cases.iter().map(|case| (case.name.as_str(), case.verdict.as_str())).collect()
}

#[test]
fn a_run_that_passes() {
    if !kvm("a_run_that_passes") {
        return;
    }
    let scene = Scene::new();
    std::fs::write(&scene.report, "of an earlier run").expect("writes");
    let run = scene.run(&["--name", "web", "--expect", UP, "--reject", "panic", "--timeout", "30s"]);
    assert_eq!(run.status, Some(0), "{run:?}");
    let parsed = scene.parsed();
    assert_eq!(
        verdicts(&parsed),
        [("expect: godwit-guest: up cpus=1", "passed"), ("reject: panic", "passed")]
    );
    assert_eq!(parsed.exit_status, "0");
    assert!(parsed.system_out.contains(UP), "{}", parsed.system_out);
    assert!(parsed.times.iter().all(|time| *time > 0.0 && *time < 40.0), "{:?}", parsed.times);
}

#[test]
fn a_line_that_is_missing_and_one_that_is_rejected() {
    if !kvm("a_line_that_is_missing_and_one_that_is_rejected") {
        return;
    }
    let scene = Scene::new();
    let run = scene.run(&["--expect", UP, "--expect", "never said", "--timeout", "500ms"]);
    assert_eq!(run.status, Some(5), "{run:?}");
    let parsed = scene.parsed();
    assert_eq!(
        verdicts(&parsed),
        [("expect: godwit-guest: up cpus=1", "passed"), ("expect: never said", "failure")]
    );
    assert_eq!(parsed.cases[1].message, "the guest did not print this line before the time was up");
    assert_eq!(parsed.exit_status, "5");

    let run = scene.run(&["--expect", "never said", "--reject", UP, "--timeout", "30s"]);
    assert_eq!(run.status, Some(5), "{run:?}");
    let parsed = scene.parsed();
    assert_eq!(
        verdicts(&parsed),
        [("expect: never said", "failure"), ("reject: godwit-guest: up cpus=1", "failure")]
    );
    assert!(parsed.cases[0].message.contains("rejected line"), "{:?}", parsed.cases);
}

#[test]
fn a_crash_with_its_dump() {
    if !kvm("a_crash_with_its_dump") {
        return;
    }
    let scene = Scene::new();
    for (option, status, verdict) in [
        (&[][..], 4, "failure"),
        (&["--reject", "never said"], 4, "error"),
        (&["--expect", "never said"], 5, "failure"),
    ] {
        let mut options = vec!["--junit", scene.path()];
        options.extend(option);
        let mut vm = scene.host.run_with("crashes", 1, "32M", "payload=idle", &options);
        vm.send(GuestCommand::Pvpanic(1));
        assert_eq!(vm.wait_exit(), status, "{option:?}");
        let parsed = scene.parsed();
        let [case] = parsed.cases.as_slice() else { panic!("{:?}", parsed.cases) };
        assert_eq!(case.verdict, verdict, "{case:?}");
        assert!(case.message.contains("the guest reported a panic (pvpanic)"), "{case:?}");
        assert!(case.text.contains("rip=") && case.text.contains("cr3="), "{case:?}");
        assert_eq!(parsed.exit_status, status.to_string());
    }
}

#[test]
fn a_guest_that_went_elsewhere_is_not_decided_here() {
    if !kvm("a_guest_that_went_elsewhere_is_not_decided_here") {
        return;
    }
    let scene = Scene::new();
    let options = ["--junit", scene.path(), "--expect", UP, "--expect", "never said", "--reject", "panic"];
    let mut vm = scene.host.run_with("moves", 1, "32M", "payload=idle", &options);
    let target = scene.host.receive();
    let moved = scene.host.migrate("moves", target.address(), &["--max-downtime", "200ms"]);
    moved.assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    let parsed = scene.parsed();
    let wanted = [
        ("expect: godwit-guest: up cpus=1", "passed"),
        ("expect: never said", "skipped"),
        ("reject: panic", "skipped"),
    ];
    assert_eq!(verdicts(&parsed), wanted);
    assert!(parsed.cases[1].message.contains("handed over to tcp:127.0.0.1:"), "{:?}", parsed.cases);
}

#[test]
fn a_report_that_cannot_be_written_keeps_the_guest_from_starting() {
    if !kvm("a_report_that_cannot_be_written_keeps_the_guest_from_starting") {
        return;
    }
    let host = Host::new();
    let files = host.files().to_str().expect("UTF-8").to_owned();
    for path in [format!("{files}/no/such/report.xml"), files.clone(), "/dev/null".to_owned()] {
        let run = host.godwit(&["run", "--kernel", "builtin", "--memory", "32M", "--junit", &path]);
        assert_eq!(run.status, Some(1), "{path}: {run:?}");
        assert!(run.one_line().contains("cannot write the report"), "{run:?}");
        assert_eq!(run.stdout, "", "{run:?}");
    }
    host.assert_nothing_left();
}

#[test]
fn a_vm_file_can_ask_for_it_and_a_stop_is_no_failure() {
    if !kvm("a_vm_file_can_ask_for_it_and_a_stop_is_no_failure") {
        return;
    }
    let scene = Scene::new();
    let file = scene.host.files().join("vm.toml");
    let text = format!("kernel = 'builtin'\nmemory = '32M'\nname = 'web'\njunit = '{}'\n", scene.path());
    std::fs::write(&file, text).expect("writes");
    let mut vm = scene.host.vm(&["run", file.to_str().expect("UTF-8")]);
    vm.serial().wait_text(Mark::START, UP);
    scene.host.succeed(&["stop", "web"]);
    assert_eq!(vm.wait_exit(), 0);
    assert_eq!(verdicts(&scene.parsed()), [("run", "passed")]);
}
