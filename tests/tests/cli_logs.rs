//! `godwit logs`: what a guest wrote, for who comes later.

use std::io::Read;
use std::process::Stdio;

use godwit_guest_images::command::Command as GuestCommand;
use godwit_tests::{Host, Mark, PATIENCE, VmProcess, kvm, wait_for};

const IDLE: &str = "payload=idle";
/// A byte as often as it can: the ring is overwritten in a moment.
const TALKING: &str = "payload=idle beat=1us";

/// Bytes, as they are.
fn raw(host: &Host, arguments: &[&str]) -> Vec<u8> {
    let output = host.command(arguments).stdin(Stdio::null()).output().expect("starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

fn say(vm: &mut VmProcess, text: &str) {
    let mark = vm.serial().mark();
    vm.send(GuestCommand::Echo(text));
    vm.serial().wait_text(mark, &format!("godwit-guest: echo {text}"));
}

#[test]
fn what_is_held_is_shown_to_the_byte() {
    if !kvm("what_is_held_is_shown_to_the_byte") {
        return;
    }
    let host = Host::new();
    let file = host.files().join("serial");
    let serial = format!("file:{}", file.display());
    let mut vm =
        host.vm(&["run", "--kernel", "builtin", "--name", "web", "--memory", "32M", "--serial", &serial]);
    wait_for("the guest is up", PATIENCE, || {
        std::fs::read(&file).ok().filter(|bytes| bytes.ends_with(b"\n") && bytes.len() > 20)
    });
    assert_eq!(raw(&host, &["logs", "web"]), std::fs::read(&file).expect("reads"));
    host.succeed(&["stop", "web"]);
    assert_eq!(vm.wait_exit(), 0);
    assert_eq!(host.godwit(&["logs", "web"]).status, Some(1), "nobody holds it any more");
}

#[test]
fn the_last_lines_are_what_was_asked_for() {
    if !kvm("the_last_lines_are_what_was_asked_for") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run("web", 1, "32M", IDLE);
    for text in ["one", "two", "three"] {
        say(&mut vm, text);
    }
    assert_eq!(
        host.succeed(&["logs", "web", "--lines", "2"]),
        "godwit-guest: echo two\ngodwit-guest: echo three"
    );
    assert_eq!(host.succeed(&["logs", "web", "-n", "0"]), "");
    assert!(host.succeed(&["logs", "web", "-n", "9999"]).starts_with("godwit-guest: up cpus=1"));
    assert_eq!(host.godwit(&["logs", "nobody"]).status, Some(1));
}

#[test]
fn following_goes_on_until_the_guest_is_gone_and_misses_nothing() {
    if !kvm("following_goes_on_until_the_guest_is_gone_and_misses_nothing") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run("web", 1, "32M", IDLE);
    say(&mut vm, "before");
    let all = host.start(&["logs", "web", "--follow"]);
    let new = host.start(&["logs", "web", "-f", "-n", "0"]);
    for follower in [&all, &new] {
        // Attached: each has a thread of its own in the VM process.
        assert_eq!(follower.messages().text(), "");
    }
    wait_for("both follow", PATIENCE, || (threads(&vm, "console") == 2).then_some(()));
    for number in 0..200 {
        vm.send(GuestCommand::Echo(&format!("line {number}")));
    }
    vm.serial().wait_text(Mark::START, "echo line 199");
    vm.send(GuestCommand::Quit);
    assert_eq!(vm.wait_exit(), 0);
    let (all, new) = (all.finish(PATIENCE), new.finish(PATIENCE));
    assert_eq!((all.status, all.stderr.as_str()), (Some(0), ""), "{all:?}");
    assert_eq!(all.stdout.trim_end(), vm.serial().text().trim_end());
    assert_eq!((new.status, new.stderr.as_str()), (Some(0), ""), "{new:?}");
    assert!(new.stdout.starts_with("godwit-guest: echo line 0\n"), "{new:?}");
    assert!(new.stdout.trim_end().ends_with("echo line 199"), "{new:?}");
}

fn threads(vm: &VmProcess, name: &str) -> usize {
    let names = godwit_tests::Usage::thread_names(vm.pid());
    names.iter().filter(|thread| thread.as_str() == name).count()
}

#[test]
fn what_was_overwritten_is_said() {
    if !kvm("what_was_overwritten_is_said") {
        return;
    }
    let host = Host::new();
    let vm = host.run("web", 1, "32M", TALKING);
    wait_for("the ring is full", PATIENCE, || {
        let log = vm.client().console_log(0, false).expect("answers");
        (log.from() > 0).then_some(())
    });
    let shown = host.godwit(&["logs", "web"]);
    assert_eq!(shown.status, Some(0), "{shown:?}");
    assert!(shown.stderr.contains("bytes are no longer held"), "{}", shown.stderr);
    assert!(shown.stdout.len() >= 256 << 10, "{}", shown.stdout.len());
    let last = host.godwit(&["logs", "web", "--lines", "0"]);
    assert_eq!((last.status, last.stderr.as_str()), (Some(0), ""), "what was asked for is all there");
}

#[test]
fn a_follower_that_does_not_keep_up_learns_what_it_missed() {
    if !kvm("a_follower_that_does_not_keep_up_learns_what_it_missed") {
        return;
    }
    let host = Host::new();
    let vm = host.run("web", 1, "32M", TALKING);
    let mut command = host.command(&["logs", "web", "--follow", "--lines", "0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = command.spawn().expect("starts");
    let mut stdout = follower.stdout.take().expect("piped");
    // Nobody reads: what is in the pipe, the socket and the buffers is soon overtaken by the ring's end.
    let begin = vm.client().console_log(0, false).expect("answers").from();
    wait_for("a lot was written", PATIENCE, || {
        let log = vm.client().console_log(0, false).expect("answers");
        (log.from() > begin + (2 << 20)).then_some(())
    });
    // It asks anew only once it has read all before the gap.
    let reader = std::thread::spawn(move || {
        let mut sink = [0; 65536];
        while let Ok(1..) = stdout.read(&mut sink) {}
    });
    let mut said = String::new();
    let mut stderr = std::io::BufReader::new(follower.stderr.take().expect("piped"));
    std::io::BufRead::read_line(&mut stderr, &mut said).expect("says something");
    assert!(said.contains("bytes were overwritten before they could be read"), "{said}");
    drop(vm);
    let status = follower.wait().expect("ends");
    reader.join().expect("ends");
    assert!(status.success(), "{status}");
}

#[test]
fn a_follower_whose_reader_has_left_leaves_too() {
    if !kvm("a_follower_whose_reader_has_left_leaves_too") {
        return;
    }
    let host = Host::new();
    let vm = host.run("web", 1, "32M", IDLE);
    let mut command = host.command(&["logs", "web", "--follow"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = command.spawn().expect("starts");
    drop(follower.stdout.take());
    let status = wait_for("the follower leaves", PATIENCE, || follower.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    wait_for("its thread ends", PATIENCE, || (threads(&vm, "console") == 0).then_some(()));
}
