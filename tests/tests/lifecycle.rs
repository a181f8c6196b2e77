//! A VM process from its start to each of its ends, without migration: exit statuses, states, serial
//! port, API.

use std::io::{Read, Write};
use std::time::Duration;

use godwit_api::VmState;
use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::report::{Report, parse_line};
use godwit_tests::{Dirtying, Host, Mark, PATIENCE, kvm, wait_for};
use rustix::process::Signal;

const IDLE: &str = "payload=idle beat=5ms";

macro_rules! need_kvm {
    ($name:literal) => {
        if !kvm($name) {
            return;
        }
    };
}

#[test]
fn each_end_of_a_guest_has_its_exit_status() {
    need_kvm!("each_end_of_a_guest_has_its_exit_status");
    let host = Host::new();
    for (command, status) in [
        (GuestCommand::Quit, 0),
        (GuestCommand::Exit(0), 1),
        (GuestCommand::Exit(0x10), 0x21),
        (GuestCommand::Exit(0x7f), 0xff),
    ] {
        let mut vm = host.run("ends", 2, "32M", "payload=idle");
        vm.send(command);
        assert_eq!(vm.wait_exit(), status, "{command}");
        assert_eq!(vm.messages().text(), "", "{command}");
        host.assert_nothing_left();
    }
}

#[test]
fn a_reset_ends_with_3_when_asked_to() {
    need_kvm!("a_reset_ends_with_3_when_asked_to");
    let host = Host::new();
    let mut vm = host.run_with("reset", 2, "32M", "payload=idle", &["--on-reset", "exit"]);
    vm.send(GuestCommand::Reset);
    assert_eq!(vm.wait_exit(), 3);
    host.assert_nothing_left();
}

#[test]
fn a_reset_boots_again() {
    need_kvm!("a_reset_boots_again");
    let host = Host::new();
    let mut vm = host.run_with("again", 2, "32M", "payload=idle", &["--on-reset", "reboot"]);
    let pid = vm.info().pid;
    for _ in 0..3 {
        let mark = vm.serial().mark();
        vm.send(GuestCommand::Reset);
        vm.serial().wait_text(mark, "godwit-guest: up cpus=2");
        assert_eq!((vm.info().pid, vm.info().state), (pid, VmState::Running));
    }
    vm.send(GuestCommand::Quit);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn a_crash_ends_with_4_and_shows_registers() {
    need_kvm!("a_crash_ends_with_4_and_shows_registers");
    let host = Host::new();
    let mut vm = host.run("crash", 2, "32M", "payload=idle");
    vm.send(GuestCommand::Crash);
    assert_eq!(vm.wait_exit(), 4);
    let said = vm.messages().text().to_lowercase();
    for part in ["godwit: the guest crashed: ", "triple fault", "rip", "cr3"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    host.assert_nothing_left();
}

#[test]
fn expected_and_rejected_lines_decide_the_exit_status() {
    need_kvm!("expected_and_rejected_lines_decide_the_exit_status");
    let host = Host::new();
    let run = |options: &[&str]| {
        let mut arguments = vec!["run", "--kernel", "builtin", "--memory", "32M"];
        arguments.extend(options);
        host.godwit(&arguments)
    };
    let met = run(&["--expect", "godwit-guest: up cpus=1", "--timeout", "20s"]);
    assert_eq!((met.status, met.stderr.as_str()), (Some(0), ""), "{met:?}");
    assert!(met.stdout.contains("godwit-guest: up cpus=1"), "{met:?}");

    let missed = run(&["--expect", "never said", "--timeout", "300ms"]);
    assert_eq!(missed.status, Some(5), "{missed:?}");
    assert!(missed.one_line().contains("never said"), "{missed:?}");

    let rejected = run(&["--expect", "never said", "--reject", "godwit-guest: up", "--timeout", "20s"]);
    assert_eq!(rejected.status, Some(5), "{rejected:?}");
    assert!(rejected.one_line().contains("godwit-guest: up"), "{rejected:?}");

    let quiet = run(&["--reject", "never said", "--timeout", "300ms"]);
    assert_eq!((quiet.status, quiet.stderr.as_str()), (Some(0), ""), "{quiet:?}");
    host.assert_nothing_left();
}

#[test]
fn a_guest_that_ends_before_the_expected_line_has_not_said_it() {
    need_kvm!("a_guest_that_ends_before_the_expected_line_has_not_said_it");
    let host = Host::new();
    let options = ["--expect", "never said", "--timeout", "60s"];
    let mut vm = host.run_with("mute", 1, "32M", "payload=idle", &options);
    vm.send(GuestCommand::Quit);
    assert_eq!(vm.wait_exit(), 5, "{}", vm.messages().text());
    host.assert_nothing_left();
}

#[test]
fn stop_and_signals_end_with_0() {
    need_kvm!("stop_and_signals_end_with_0");
    let host = Host::new();
    let mut vm = host.run("stopped", 2, "32M", IDLE);
    host.succeed(&["stop", "stopped"]);
    assert_eq!(vm.wait_exit(), 0);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut vm = host.run("signalled", 2, "32M", IDLE);
        vm.signal(signal);
        assert_eq!(vm.wait_exit(), 0, "{signal:?}");
    }
    let mut waiting = host.receive();
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn a_paused_guest_says_nothing_and_goes_on_when_resumed() {
    need_kvm!("a_paused_guest_says_nothing_and_goes_on_when_resumed");
    let host = Host::new();
    let mut vm = host.run("rests", 2, "32M", "payload=dirty ws=1M rate=8M report=20ms beat=1ms");
    let mut guest = Dirtying::new(2);
    guest.goes_on(&vm);
    for _ in 0..5 {
        host.succeed(&["pause", "rests"]);
        assert_eq!(vm.info().state, VmState::Paused);
        let said = vm.serial().mark();
        wait_for("the pipe is empty", PATIENCE, || {
            let before = vm.serial().bytes_since(said);
            std::thread::sleep(Duration::from_millis(20));
            (vm.serial().bytes_since(said) == before).then_some(())
        });
        Dirtying::assert_silent(&vm, Duration::from_millis(200));
        // Twice is as good as once.
        host.succeed(&["pause", "rests"]);
        host.succeed(&["resume", "rests"]);
        guest.goes_on(&vm);
    }
    guest.verify(&mut vm);
    host.succeed(&["pause", "rests"]);
    host.succeed(&["stop", "rests"]);
    assert_eq!(vm.wait_exit(), 0, "a paused guest can be stopped");
    host.assert_nothing_left();
}

#[test]
fn the_end_of_standard_input_does_not_stop_the_guest() {
    need_kvm!("the_end_of_standard_input_does_not_stop_the_guest");
    let host = Host::new();
    let mut vm = host.run("eof", 1, "32M", IDLE);
    vm.send(GuestCommand::Echo("last words"));
    vm.close_stdin();
    vm.serial().wait_text(Mark::START, "godwit-guest: echo last words");
    let beats = vm.serial().ticks().len();
    wait_for("beats go on", PATIENCE, || (vm.serial().ticks().len() > beats + 50).then_some(()));
    host.succeed(&["stop", "eof"]);
    assert_eq!(vm.wait_exit(), 0);
}

/// Ended with the test, whatever becomes of that.
struct Guarded(std::process::Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_console_works_over_pipes() {
    need_kvm!("the_console_works_over_pipes");
    let host = Host::new();
    let mut vm = host.run("typed", 1, "32M", "payload=idle");
    let mut console = host.command(&["console", "typed"]);
    console.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut console = Guarded(console.spawn().expect("starts"));
    let console = &mut console.0;
    let mut input = console.stdin.take().expect("piped");
    let mut output = console.stdout.take().expect("piped");
    input.write_all(b"echo through the console\nquit\n").expect("it reads");
    drop(input);
    let mut said = String::new();
    output.read_to_string(&mut said).expect("text");
    assert!(said.contains("godwit-guest: echo through the console"), "{said}");
    assert!(console.wait().expect("a child").success());
    assert_eq!(vm.wait_exit(), 0);
    // Both see all of it.
    vm.serial().wait_text(Mark::START, "godwit-guest: echo through the console");
}

#[test]
fn a_reader_that_does_not_read_stalls_no_guest() {
    need_kvm!("a_reader_that_does_not_read_stalls_no_guest");
    let host = Host::new();
    // As fast as the port takes it, without a pause, and nobody reads: the pipe fills, then the ring.
    let arguments = ["run", "--kernel", "builtin", "--name", "unread", "--memory", "32M", "--cmdline"];
    let vm = host.unread(&[&arguments[..], &["payload=dirty ws=1M rate=4M report=1us"]].concat());
    let client = wait_for("the VM is known", PATIENCE, || {
        let running = |entry: &godwit_api::registry::Entry| entry.file.state == VmState::Running;
        let entry = host.entries().into_iter().find(running)?;
        Some(godwit_api::client::Client::new(entry.file.api_socket))
    });
    // The guest goes on: another reader sees it, and its counters grow.
    let mut console = client.console().expect("a console");
    console.stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut passes = Vec::new();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // More than pipe and ring hold together.
    while passes.len() < 20 || text.len() < 280 << 10 {
        let count = console.stream.read(&mut buffer).expect("the guest speaks");
        assert!(count > 0, "the console ended");
        text.extend_from_slice(&buffer[..count]);
        passes = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| match parse_line(line) {
                Some(Report::Progress(progress)) => Some(progress.pages),
                _ => None,
            })
            .collect();
    }
    assert!(passes.windows(2).all(|pair| pair[1] >= pair[0]), "{passes:?}");
    assert!(passes.last() > passes.first(), "{passes:?}");
    drop(console);
    host.succeed(&["stop", "unread"]);
    assert_eq!(vm.finish(PATIENCE).status, Some(0));
    host.assert_nothing_left();
}

#[test]
fn bytes_that_nobody_reads_are_counted() {
    need_kvm!("bytes_that_nobody_reads_are_counted");
    let host = Host::new();
    let arguments = ["run", "--kernel", "builtin", "--name", "lost", "--memory", "32M", "--cmdline"];
    let vm = host.unread(&[&arguments[..], &["payload=dirty ws=1M rate=4M report=1us"]].concat());
    wait_for("bytes are dropped, and that is said", Duration::from_secs(60), || {
        let info = host.godwit(&["info", "lost"]);
        info.stdout.contains("dropped").then_some(())
    });
    drop(vm);
}

#[test]
fn every_json_answer_is_json() {
    need_kvm!("every_json_answer_is_json");
    let host = Host::new();
    assert_eq!(host.godwit(&["ps", "--json"]).json(), serde_json::json!([]));
    let mut vm = host.run("spoken", 2, "32M", IDLE);
    let receiver = host.receive_with(&["--name", "guest-room"]);
    let ps = host.godwit(&["ps", "--json"]).json();
    let names: Vec<_> = ps.as_array().expect("a list").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["guest-room", "spoken"]);
    let info = host.godwit(&["info", "spoken", "--json"]).json();
    assert_eq!(info["state"]["kind"], "running");
    assert_eq!((&info["cpus"], &info["memory_bytes"]), (&2.into(), &(32 << 20).into()));
    assert_eq!(host.godwit(&["pause", "spoken", "--json"]).json()["state"]["kind"], "paused");
    assert_eq!(host.godwit(&["resume", "spoken", "--json"]).json()["state"]["kind"], "running");
    let refused = host.godwit(&["migrate", "spoken", "tcp:127.0.0.1:1", "--json"]);
    assert_eq!(refused.status, Some(1));
    let keys: Vec<_> = refused.json().as_object().expect("an object").keys().cloned().collect();
    let mut contract = [
        "status",
        "mode",
        "total_ms",
        "downtime_ms",
        "rounds",
        "bytes_sent",
        "pages_sent",
        "zero_pages",
        "reason",
    ];
    contract.sort_unstable();
    assert_eq!(keys, contract);
    let stopped = host.godwit(&["stop", "spoken", "--json"]);
    assert_eq!(stopped.status, Some(0), "{stopped:?}");
    let _json = stopped.json();
    assert_eq!(vm.wait_exit(), 0);
    drop(receiver);
}

#[test]
fn a_receiver_is_listed_as_incoming() {
    need_kvm!("a_receiver_is_listed_as_incoming");
    let host = Host::new();
    let receiver = host.receive_with(&["--name", "room"]);
    let listed = host.succeed(&["ps"]);
    assert!(listed.contains("room (incoming)"), "{listed}");
    let info = receiver.info();
    assert_eq!(info.listen.as_deref(), Some(receiver.address()));
    for refused in ["pause", "resume"] {
        host.godwit(&[refused, "room"]).assert_fails(1, &["there is no guest here (incoming)"]);
    }
    let mut receiver = receiver;
    host.succeed(&["stop", "room"]);
    assert_eq!(receiver.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn the_openapi_document_names_every_route() {
    need_kvm!("the_openapi_document_names_every_route");
    let host = Host::new();
    let receiver = host.receive();
    let document: serde_json::Value = receiver.client().get("/openapi.json").expect("JSON");
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in [
        ("/v1/vm", &["get"][..]),
        ("/v1/version", &["get"]),
        ("/v1/vm/pause", &["put"]),
        ("/v1/vm/resume", &["put"]),
        ("/v1/vm/stop", &["put"]),
        ("/v1/vm/resolve", &["post"]),
        ("/v1/vm/migrations", &["post"]),
        ("/v1/vm/migration", &["get", "delete"]),
        ("/v1/vm/console", &["get"]),
        ("/v1/vm/memory", &["get"]),
        ("/v1/vm/registers", &["get"]),
    ] {
        for method in methods {
            assert!(paths.get(path).is_some_and(|p| p.get(*method).is_some()), "{method} {path}: {paths:?}");
        }
    }
}
