//! `godwit upgrade`: the guest goes on in a new process, and whoever started the old one notices nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use godwit_api::VmState;
use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::report::{Report, parse_line};
use godwit_tests::{
    DIRTY, Dirtying, Host, Mark, PATIENCE, Usage, VmProcess, godwit, kvm, repetitions, wait_for,
};
use serde_json::Value;

const NAME: &str = "renewed";

/// Upgrades the VM, and returns what the command says.
fn upgrade(host: &Host, options: &[&str]) -> Value {
    let mut arguments = vec!["upgrade", NAME, "--json"];
    arguments.extend(options);
    let said = host.succeed(&arguments);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn pid_of(said: &Value) -> u32 {
    u32::try_from(said["to_pid"].as_u64().expect("a number")).expect("a process")
}

fn is_there(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

#[test]
fn the_process_changes_and_its_output_input_and_end_stay_where_they_were() {
    if !kvm("the_process_changes_and_its_output_input_and_end_stay_where_they_were") {
        return;
    }
    let host = Host::new();
    let mut guest = Dirtying::new(4);
    let mut vm = host.run(NAME, 4, "64M", &format!("{DIRTY} beat=1ms"));
    guest.goes_on(&vm);
    let mut last = vm.pid();
    let mut usage: Option<Usage> = None;
    for _ in 0..repetitions(5, 50) {
        let said = upgrade(&host, &[]);
        assert_eq!(said["status"], "completed", "{said}");
        assert_eq!((&said["bytes_sent"], &said["pages_sent"]), (&0.into(), &0.into()), "{said}");
        assert_eq!(said["from_pid"], last, "{said}");
        let now = pid_of(&said);
        assert_ne!(now, last);
        if last != vm.pid() {
            wait_for("a process that was succeeded ends", PATIENCE, || (!is_there(last)).then_some(()));
        }
        last = now;
        // The same pipes as ever: its reports go on where they were, and it hears what is typed.
        guest.goes_on(&vm);
        guest.verify(&mut vm);
        let holds = Usage::of(now);
        if let Some(before) = usage.replace(holds) {
            assert!(holds.fds <= before.fds + 1, "descriptors pile up: {before:?}, {holds:?}");
        }
    }
    assert_eq!(vm.exited(), None, "the first process stands by");
    assert!(Usage::of(vm.pid()).private_kib < 8 << 10, "and holds next to nothing");
    vm.send(GuestCommand::Exit(21));
    assert_eq!(vm.wait_exit(), 43, "the first process ends as the guest did");
    assert!(!is_there(last));
    host.assert_nothing_left();
}

#[test]
fn not_a_byte_is_lost_or_out_of_order_on_the_way() {
    if !kvm("not_a_byte_is_lost_or_out_of_order_on_the_way") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run(NAME, 1, "32M", "wait=poll");
    // Questions without end, answered in their order, while the process changes under them.
    let mut asked = 0_u32;
    let mark = Mark::START;
    for _ in 0..repetitions(5, 50) {
        let moving = host.start(&["upgrade", NAME]);
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            vm.type_bytes(format!("echo n{asked}\n").as_bytes());
            asked += 1;
            // As fast as somebody could paste; a guest with hours of typing before it proves no more.
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(moving.finish(PATIENCE).status, Some(0));
    }
    let mut next = 0;
    vm.serial().wait(mark, "every answer in its order", PATIENCE, |line| {
        if let Some(Report::Echo(text)) = parse_line(line) {
            assert_eq!(text, format!("n{next}"));
            next += 1;
        }
        (next == asked).then_some(())
    });
    host.succeed(&["stop", NAME]);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn the_api_path_the_serial_file_and_the_kernel_file_go_along() {
    if !kvm("the_api_path_the_serial_file_and_the_kernel_file_go_along") {
        return;
    }
    let host = Host::new();
    let file = |name: &str| host.files().join(name);
    std::fs::write(file("kernel"), godwit_guest_images::TEST_KERNEL).expect("is written");
    let (api, serial) = (file("api.sock"), file("serial.log"));
    let arguments = [
        "run".to_owned(),
        format!("--kernel={}", file("kernel").display()),
        format!("--api={}", api.display()),
        format!("--serial=file:{}", serial.display()),
        format!("--name={NAME}"),
        "--memory=32M".to_owned(),
    ];
    let mut vm = host.vm(&arguments);
    let ups = || std::fs::read_to_string(&serial).unwrap_or_default().matches("godwit-guest: up").count();
    wait_for("the guest is up", PATIENCE, || (ups() == 1).then_some(()));
    let address = api.display().to_string();
    for _ in 0..2 {
        let said = host.succeed(&["upgrade", "--api", &address, "--json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let info: Value =
            serde_json::from_str(&host.succeed(&["info", "--api", &address, "--json"])).expect("JSON");
        assert_eq!(info["pid"], said["to_pid"], "the same path leads to the new process");
    }
    // It was booted here, so it can be booted again, and its log is continued.
    let client = godwit_api::client::Client::new(&api);
    let mut console = client.console().expect("attaches");
    console.stream.write_all(b"reset\n").expect("types");
    wait_for("the guest is up again", PATIENCE, || (ups() == 2).then_some(()));
    drop(console);
    host.succeed(&["stop", "--api", &address]);
    assert_eq!(vm.wait_exit(), 0);
    assert!(!api.exists(), "the API's socket goes with the last process");
    host.assert_nothing_left();
}

#[test]
fn a_serial_socket_is_offered_again_at_its_path() {
    if !kvm("a_serial_socket_is_offered_again_at_its_path") {
        return;
    }
    let host = Host::new();
    let socket = host.files().join("serial.sock");
    let serial = format!("--serial=unix:{}", socket.display());
    let mut vm = host.vm(&["run", "--kernel=builtin", "--name", NAME, "--memory=32M", &serial]);
    wait_for("the guest runs", PATIENCE, || matches!(vm.state(), VmState::Running).then_some(()));
    upgrade(&host, &[]);
    let mut stream = wait_for("the socket is there", PATIENCE, || UnixStream::connect(&socket).ok());
    stream.write_all(b"ping\n").expect("types");
    stream.set_read_timeout(Some(PATIENCE)).expect("is set");
    let (mut said, mut bytes) = (String::new(), [0; 256]);
    while !said.contains("pong") {
        let count = stream.read(&mut bytes).expect("the guest answers");
        assert_ne!(count, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    host.succeed(&["stop", NAME]);
    assert_eq!(vm.wait_exit(), 0);
    assert!(!socket.exists());
}

#[test]
fn signals_reach_the_guest_s_new_process_and_its_death_is_told() {
    if !kvm("signals_reach_the_guest_s_new_process_and_its_death_is_told") {
        return;
    }
    let run = |host: &Host| -> (VmProcess, u32) {
        let vm = host.run(NAME, 1, "32M", "");
        let said = upgrade(host, &[]);
        (vm, pid_of(&said))
    };
    let host = Host::new();
    let (mut vm, successor) = run(&host);
    vm.signal(rustix::process::Signal::TERM);
    assert_eq!(vm.wait_exit(), 0);
    assert!(!is_there(successor));
    host.assert_nothing_left();

    let (mut vm, successor) = run(&host);
    let pid = rustix::process::Pid::from_raw(successor.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
    assert_eq!(vm.wait_exit(), 6, "the VMM was killed");
}

#[test]
fn a_new_process_that_is_none_leaves_the_guest_as_it_is() {
    if !kvm("a_new_process_that_is_none_leaves_the_guest_as_it_is") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run(NAME, 1, "32M", "wait=poll");
    for (binary, says) in [
        ("/bin/false", "ended before it could receive"),
        ("/etc/passwd", "cannot start"),
        ("/no/such", "cannot start"),
    ] {
        let refused = host.godwit(&["upgrade", NAME, "--binary", binary]);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(says), "{refused:?}");
        assert_eq!(refused.stderr.trim_end().lines().count(), 1, "{refused:?}");
        let mark = vm.serial().mark();
        vm.send(GuestCommand::Ping);
        vm.serial().wait_text(mark, "pong");
        assert_eq!(vm.info().pid, vm.pid());
    }
    // A guest that a line decides about stays where that line is watched for.
    let mut watched = host.run_with("watched", 1, "32M", "", &["--expect", "never said"]);
    let refused = host.godwit(&["upgrade", "watched"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--expect"), "{refused:?}");
    watched.kill();
    // And a process that dies while its successor waits takes that one along.
    let script = host.files().join("slow");
    let text = format!(
        "#!/bin/sh\ntouch {0}.started\nwhile [ ! -e {0}.go ]; do [ -e {0} ] || exit 1; sleep 0.05; done\nexec {1} \"$@\"\n",
        script.display(),
        godwit().display()
    );
    std::fs::write(&script, text).expect("is written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("is set");
    let mut command = host.command(&["upgrade", NAME, "--binary", &script.display().to_string()]);
    let mut upgrading = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    wait_for("the new process begins", PATIENCE, || host.files().join("slow.started").exists().then_some(()));
    vm.kill();
    std::fs::write(host.files().join("slow.go"), "").expect("is written");
    upgrading.wait().expect("ends");
    wait_for("no receiver is left", PATIENCE, || {
        host.entries().iter().all(|entry| entry.is_dead()).then_some(())
    });
}
