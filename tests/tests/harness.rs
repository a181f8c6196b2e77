//! The harness itself: what its failures show, and that nothing is left of it.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use godwit_guest_images::TEST_KERNEL;
use godwit_guest_images::command::Command as GuestCommand;
use godwit_harness::{Failure, Guest, Way};
use godwit_tests::{boot, kvm};

/// A time that passes soon, for what never comes.
const SOON: Duration = Duration::from_millis(300);

/// Makes one test fail, to be seen failing.
const FAIL_ON_PURPOSE: &str = "GODWIT_TESTS_FAIL_ON_PURPOSE";

macro_rules! need_kvm {
    ($name:literal) => {
        if !kvm($name) {
            return;
        }
    };
}

fn idle() -> Guest {
    let mut guest = boot("builtin").cpus(2).memory_mib(32).cmdline("payload=idle").start().expect("starts");
    guest.expect("godwit-guest: up cpus=2").expect("it is up");
    guest
}

/// Asserts that an error shows all of these.
#[track_caller]
fn assert_shows(error: &godwit_harness::Error, parts: &[&str]) {
    let shown = error.to_string();
    assert_eq!(shown, format!("{error:?}"), "`?` and unwrap show Debug");
    for part in parts {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}

#[test]
fn a_line_that_never_comes_shows_serial_output_and_registers_of_every_vcpu() {
    need_kvm!("a_line_that_never_comes_shows_serial_output_and_registers_of_every_vcpu");
    let mut guest = idle();
    guest.send(GuestCommand::Echo("last words")).expect("it reads");
    guest.expect("last words").expect("they come");
    let line = line!() + 1;
    let error = guest.expect_within("never said", SOON).expect_err("it never comes");
    assert!(matches!(error.failure(), Failure::Late { within: SOON, .. }), "{error}");
    assert_eq!(error.location().line(), line);
    assert_shows(
        &error,
        &[
            "\"never said\"",
            "300ms",
            "harness.rs:",
            "godwit-guest: up cpus=2",
            "echo last words",
            "vCPU 0",
            "vCPU 1",
        ],
    );
    assert_eq!(error.to_string().matches("  rip=").count(), 2, "{error}");
    // The guest is as it was.
    guest.send(GuestCommand::Ping).expect("it reads");
    guest.expect_next("pong").expect("it answers");
}

#[test]
fn a_crash_shows_serial_output_and_registers_of_every_vcpu() {
    need_kvm!("a_crash_shows_serial_output_and_registers_of_every_vcpu");
    let mut guest = idle();
    guest.send(GuestCommand::Crash).expect("it reads");
    let error = guest.expect("never said").expect_err("it crashes before");
    assert!(matches!(error.failure(), Failure::Ended { .. }), "{error}");
    assert_shows(
        &error,
        &["exit status 4", "triple fault", "godwit-guest: up cpus=2", "\nvCPU 0", "\nvCPU 1"],
    );
    assert_eq!(error.to_string().matches("  rip=").count(), 2, "{error}");
    assert_eq!(guest.wait_exit().expect("it has ended"), 4);
}

#[test]
fn a_rejected_line_fails_whatever_is_waited_for() {
    need_kvm!("a_rejected_line_fails_whatever_is_waited_for");
    let rejects = || {
        let mut guest = idle();
        guest.reject("the worst");
        guest.send(GuestCommand::Echo("the worst comes first")).expect("it reads");
        guest
    };
    let is_rejected = |error: godwit_harness::Error| {
        let line = match error.failure() {
            Failure::Rejected { rejected, line } if rejected == "the worst" => line.clone(),
            _ => panic!("{error}"),
        };
        assert_eq!(line, "godwit-guest: echo the worst comes first");
        assert_shows(&error, &["vCPU 0", "up cpus=2"]);
    };
    // Long before any time limit.
    is_rejected(rejects().expect("never said").expect_err("rejected"));
    is_rejected(rejects().expect_next("pong").expect_err("rejected"));
    is_rejected(rejects().wait_exit().expect_err("rejected"));
    let mut guest = rejects();
    guest.serial().wait_text(godwit_tests::Mark::START, "comes first");
    is_rejected(guest.migrate(Way::HandOver).expect_err("rejected"));
}

#[test]
fn the_next_line_is_the_next_line() {
    need_kvm!("the_next_line_is_the_next_line");
    let mut guest = idle();
    for text in ["one", "two", "three"] {
        guest.send(GuestCommand::Echo(text)).expect("it reads");
    }
    assert_eq!(guest.expect_next("one").expect("the first"), "godwit-guest: echo one");
    let error = guest.expect_next("three").expect_err("it is the second");
    assert!(matches!(error.failure(), Failure::OtherLine { found, .. } if found.ends_with("two")), "{error}");
    let words = guest.expect_that("a number of words", SOON, |line| Some(line.split(' ').count()));
    assert_eq!(words.expect("a line"), 3);
}

#[test]
fn what_does_not_boot_says_why() {
    need_kvm!("what_does_not_boot_says_why");
    let error = boot(b"no kernel").start().expect_err("no ELF");
    assert!(matches!(error.failure(), Failure::NotStarted { .. }), "{error}");
    assert_shows(&error, &["was not started", "ELF"]);
    let error = boot("/no/such/kernel").start().expect_err("no file");
    assert_shows(&error, &["/no/such/kernel", "was not started"]);
    let error = boot("builtin").options(["--cpus-of-steel"]).start().expect_err("wrong usage");
    assert_shows(&error, &["wrong usage", "--cpus-of-steel"]);
    let error = boot("builtin").binary("/no/such/godwit").start().expect_err("no binary");
    assert!(matches!(error.failure(), Failure::System { .. }), "{error}");
}

#[test]
fn a_kernel_is_a_path_or_bytes() {
    need_kvm!("a_kernel_is_a_path_or_bytes");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kernel");
    std::fs::write(&path, TEST_KERNEL).expect("written");
    for kernel in [boot(path), boot(TEST_KERNEL)] {
        let mut guest = kernel.memory_mib(32).initrd(b"an initrd").start().expect("starts");
        guest.expect("godwit-guest: up cpus=1").expect("it is up");
        // Its bytes are still there when it boots again elsewhere.
        guest.migrate(Way::HandOver).expect("it moves");
        guest.send(GuestCommand::Reset).expect("it reads");
        assert_eq!(guest.wait_exit().expect("it ends"), 3, "a reset ends it");
    }
}

#[test]
fn the_handle_goes_along_when_the_guest_moves() {
    need_kvm!("the_handle_goes_along_when_the_guest_moves");
    let mut guest = idle();
    let mut pids = vec![guest.pid()];
    for turn in 0..6 {
        let way = if turn % 2 == 0 { Way::Tcp } else { Way::HandOver };
        let text = format!("turn {turn}");
        // Answered here or there.
        guest.send(GuestCommand::Echo(&text)).expect("it reads");
        let result = guest.migrate(way).expect("it moves");
        assert_eq!(result.pages_sent == 0, way == Way::HandOver, "{result:?}");
        assert_eq!(guest.expect_next(&text).expect("an answer"), format!("godwit-guest: echo {text}"));
        pids.push(guest.pid());
    }
    pids.dedup();
    assert_eq!(pids.len(), 7, "a process each");
    assert_eq!(guest.serial().text().matches("echo turn").count(), 6, "{}", guest.serial().tail());
    assert!(guest.serial().text().starts_with("godwit-guest: up"), "{}", guest.serial().tail());
    assert_eq!(guest.stop().expect("it stops"), 0);
    guest.host().assert_nothing_left();
}

#[test]
fn a_failed_move_leaves_the_guest_here() {
    need_kvm!("a_failed_move_leaves_the_guest_here");
    let mut guest = idle();
    let pid = guest.pid();
    let error = guest.migrate_with(Way::Tcp, |request| "tcp:127.0.0.1:1".clone_into(&mut request.target));
    let error = error.expect_err("nobody is there");
    assert!(matches!(error.failure(), Failure::NotMoved { .. }), "{error}");
    assert_shows(&error, &["failed", "refused", "vCPU 0"]);
    let error = guest.migrate_with(Way::Tcp, |request| request.max_downtime_us = 1).expect_err("too little");
    assert!(matches!(error.failure(), Failure::Refused { .. }), "{error}");
    guest.send(GuestCommand::Ping).expect("it reads");
    guest.expect_next("pong").expect("it answers");
    assert_eq!(guest.pid(), pid);
}

#[test]
fn a_guest_that_does_not_read_or_end_does_not_hang_the_test() {
    need_kvm!("a_guest_that_does_not_read_or_end_does_not_hang_the_test");
    let mut guest = boot("builtin").memory_mib(32).patience(SOON).start().expect("starts");
    guest.pause().expect("it pauses");
    let error = guest.send_bytes(&[b'x'; 1 << 20]).expect_err("nobody reads");
    assert!(matches!(error.failure(), Failure::System { .. }), "{error}");
    let error = guest.wait_exit().expect_err("it does not end");
    assert!(matches!(error.failure(), Failure::Late { .. }), "{error}");
    guest.kill();
    let error = guest.wait_exit().expect_err("a signal");
    assert_shows(&error, &["a signal"]);
    let error = guest.pause().expect_err("it is gone");
    assert!(matches!(error.failure(), Failure::Ended { .. }), "{error}");
}

#[test]
fn nothing_is_left_when_a_test_panics() {
    need_kvm!("nothing_is_left_when_a_test_panics");
    let mut guest = idle();
    guest.migrate(Way::Tcp).expect("it moves");
    let (pid, directory) = (guest.pid(), guest.host().files().to_owned());
    assert!(directory.exists() && Path::new(&format!("/proc/{pid}")).exists());
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _guest = guest;
        panic!("as a failed assertion does");
    }));
    assert!(panicked.is_err());
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
    assert!(!directory.exists(), "{} is left", directory.display());
}

/// Run by the next test in a process of its own, as what a failed test shows is seen only from outside.
#[test]
fn fails_by_an_assertion_of_its_own() {
    if std::env::var_os(FAIL_ON_PURPOSE).is_none() {
        return;
    }
    let _guest = idle();
    assert_eq!(1 + 1, 3, "an assertion of the test's own");
}

#[test]
fn a_test_that_fails_by_itself_shows_the_guest_too() {
    need_kvm!("a_test_that_fails_by_itself_shows_the_guest_too");
    let this = std::env::current_exe().expect("a program");
    let ran = std::process::Command::new(this)
        .args(["--exact", "fails_by_an_assertion_of_its_own"])
        .env(FAIL_ON_PURPOSE, "1")
        .output()
        .expect("it runs");
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert!(!ran.status.success(), "{shown}");
    for part in ["an assertion of the test's own", "godwit-guest: up cpus=2", "vCPU 0", "vCPU 1", "rip="] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}

#[test]
fn the_readme_shows_the_example_that_runs() {
    let readme = include_str!("../../harness/README.md");
    let example = include_str!("../../harness/example.rs");
    assert!(
        readme.contains(&format!("```rust\n{example}```\n")),
        "README.md shows another one than example.rs"
    );
    assert!(example.lines().count() <= 30, "{} lines", example.lines().count());
}
