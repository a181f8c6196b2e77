//! `godwit logs`: what a guest wrote, for who comes later.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::thread::JoinHandle;

use godwit_guest_images::command::Command as GuestCommand;
use godwit_tests::{Host, Mark, PATIENCE, VmProcess, kvm, wait_for};

const IDLE: &str = "payload=idle";

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
        "godwit-guest: echo two\ngodwit-guest: echo three\n"
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

/// A VM process that has these answers for `/v1/vm/console/log`: the query that each is for, its headers
/// `from` and `last`, and its bytes. A real guest writes too slowly to overrun the ring in a test.
fn answers(socket: &Path, answers: Vec<(&'static str, u64, bool, &'static [u8])>) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).expect("listens");
    std::thread::spawn(move || {
        for (query, from, last, body) in answers {
            let (mut client, _) = listener.accept().expect("a client");
            let mut request = String::new();
            let mut lines = BufReader::new(client.try_clone().expect("clones"));
            while !request.ends_with("\r\n\r\n") {
                assert!(lines.read_line(&mut request).expect("reads") > 0, "{request}");
            }
            assert!(request.starts_with(&format!("GET /v1/vm/console/log?{query} ")), "{request}");
            let head = format!(
                "HTTP/1.1 200 OK\r\ngodwit-console-from: {from}\r\ngodwit-console-last: {last}\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            client.write_all(head.as_bytes()).and_then(|()| client.write_all(body)).expect("answers");
        }
    })
}

#[test]
fn what_was_overwritten_is_said_and_bytes_stay_as_they_are() {
    let host = Host::new();
    let socket = host.files().join("vm.sock");
    let vm = answers(
        &socket,
        vec![
            ("from=0&follow=false", 1000, false, b"old\xff\0\n"),
            ("from=1006&follow=true", 1506, false, b"new\n"),
            ("from=1510&follow=true", 1510, true, b"\x1bend"),
        ],
    );
    let path = socket.to_str().expect("UTF-8");
    let output =
        host.command(&["logs", "--api", path, "--follow"]).stdin(Stdio::null()).output().expect("starts");
    vm.join().expect("was asked as it should be");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"old\xff\0\nnew\n\x1bend");
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains("the first 1000 bytes are no longer held"), "{said}");
    assert!(lines[1].contains("500 bytes were overwritten before they could be read"), "{said}");
}

#[test]
fn who_asks_for_the_last_lines_and_gets_them_misses_nothing() {
    let host = Host::new();
    for (lines, shown, says) in [("1", "two\n", false), ("2", "one\ntwo\n", false), ("3", "one\ntwo\n", true)]
    {
        let socket = host.files().join(lines);
        let vm = answers(&socket, vec![("from=0&follow=false", 7, false, b"one\ntwo\n")]);
        let shown_here = host.godwit(&["logs", "--api", socket.to_str().expect("UTF-8"), "--lines", lines]);
        vm.join().expect("was asked as it should be");
        assert_eq!((shown_here.status, shown_here.stdout.as_str()), (Some(0), shown), "{shown_here:?}");
        assert_eq!(shown_here.stderr.contains("the first 7 bytes"), says, "{shown_here:?}");
    }
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
    wait_for("it follows", PATIENCE, || (threads(&vm, "console") == 1).then_some(()));
    drop(follower.stdout.take());
    let status = wait_for("the follower leaves", PATIENCE, || follower.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    wait_for("its thread ends", PATIENCE, || (threads(&vm, "console") == 0).then_some(()));
}
