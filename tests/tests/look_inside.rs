//! Memory and registers of a guest, as its API and the command line give them.

use std::time::Duration;

use godwit_api::client::{Client, ClientError};
use godwit_api::{ErrorCode, GuestRange, MigrationOutcome, VmState};
use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::report::{Report, parse_line};
use godwit_harness::{Failure, Way};
use godwit_tests::{
    Dirtying, Host, PATIENCE, alone, boot, digest_by_guest, digest_from_outside, kvm, wait_for,
    written_region,
};

macro_rules! need_kvm {
    ($name:literal) => {
        if !kvm($name) {
            return;
        }
    };
}

fn range(address: u64, length: u64) -> GuestRange {
    GuestRange::new(address, length).expect("a range")
}

#[track_caller]
fn code<T: std::fmt::Debug>(refused: Result<T, ClientError>) -> ErrorCode {
    match refused {
        Err(ClientError::Api(error)) => error.code,
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn memory_is_what_the_guest_itself_sees() {
    need_kvm!("memory_is_what_the_guest_itself_sees");
    let cmdline = "payload=hash ws=4M words=512";
    let mut guest = boot("builtin").memory_mib(64).cmdline(cmdline).start().expect("starts");
    let (start, len) = written_region(&mut guest).expect("it writes");
    for way in [None, Some(Way::Tcp), Some(Way::HandOver)] {
        if let Some(way) = way {
            guest.migrate(way).expect("it moves");
        }
        // All of it, a piece that begins and ends inside pages, what nobody ever touched, the last byte.
        for (start, len) in [(start, len), (start + 4001, 9), (48 << 20, 1 << 20), ((64 << 20) - 1, 1)] {
            let by_guest = digest_by_guest(&mut guest, start, len).expect("it answers");
            let from_outside = digest_from_outside(&mut guest, start, len).expect("memory");
            assert_eq!(from_outside, by_guest, "{start:#x}+{len:#x} {way:?}");
        }
    }
    // More than one request carries.
    assert_eq!(guest.memory(0..64 << 20).expect("all of it").len(), 64 << 20);
}

#[test]
fn what_is_not_ram_is_refused() {
    need_kvm!("what_is_not_ram_is_refused");
    let mut guest = boot("builtin").memory_mib(32).start().expect("starts");
    guest.expect("up cpus=1").expect("it is up");
    for beyond in [(32 << 20) - 1..(32 << 20) + 1, 0xfee0_0000..0xfee0_0004, u64::MAX - 1..u64::MAX] {
        let error = guest.memory(beyond).expect_err("not RAM");
        let Failure::Refused { source: ClientError::Api(refusal), .. } = error.failure() else {
            panic!("{error}");
        };
        assert_eq!(refusal.code, ErrorCode::BadRequest, "{error}");
        assert!(refusal.message.contains("not RAM"), "{error}");
    }
    #[allow(clippy::reversed_empty_ranges, reason = "what is tested")]
    for empty in [5..5, 9..3] {
        let error = guest.memory(empty).expect_err("empty");
        assert!(matches!(error.failure(), Failure::Input(_)), "{error}");
    }
}

#[test]
fn snapshots_of_a_running_guest_are_of_one_moment() {
    need_kvm!("snapshots_of_a_running_guest_are_of_one_moment");
    let _alone = alone();
    let cmdline = "payload=dirty ws=1M report=20ms";
    let mut guest = boot("builtin").memory_mib(32).cmdline(cmdline).start().expect("starts");
    let region = |line: &str| match parse_line(line) {
        Some(Report::Region { start, len, .. }) => Some(start..start + len),
        _ => None,
    };
    let region = guest.expect_that("the working set", PATIENCE, region).expect("it says where");
    guest.expect("pass=").expect("it writes");
    let first = guest.snapshot(std::slice::from_ref(&region)).expect("a snapshot");
    guest.expect("pass=").expect("it goes on");
    guest.expect("pass=").expect("it goes on");
    guest.pause().expect("it pauses");
    let second = guest.snapshot(std::slice::from_ref(&region)).expect("a snapshot");
    let third = guest.snapshot(std::slice::from_ref(&region)).expect("a snapshot");
    assert_eq!(guest.info().expect("it answers").state, VmState::Paused, "it stays paused");
    assert!(!first.differences(&second).is_empty(), "it wrote in between");
    assert_eq!(second.differences(&third), [], "it did not");
    assert!(first.differences(&second).iter().all(|found| region.contains(&found.start)));
}

#[test]
fn looking_again_and_again_disturbs_no_guest() {
    need_kvm!("looking_again_and_again_disturbs_no_guest");
    let _alone = alone();
    let host = Host::new();
    let mut vm = host.run("watched", 4, "64M", godwit_tests::DIRTY);
    let mut guest = Dirtying::new(4);
    guest.goes_on(&vm);
    let client = vm.client();
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let vcpus = client.registers().expect("registers").vcpus;
        assert_eq!(vcpus.iter().map(|vcpu| vcpu.vcpu).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for vcpu in vcpus {
            assert_ne!((vcpu.control.cr3, vcpu.general.rsp), (0, 0), "{vcpu}");
            places.insert(vcpu.general.rip);
        }
        assert_eq!(client.memory(range(1 << 20, 1 << 20)).expect("memory").len(), 1 << 20);
        assert_eq!(vm.info().state, VmState::Running);
    }
    assert!(places.len() > 4, "the vCPUs go on: {places:x?}");
    guest.goes_on(&vm);
    guest.verify(&mut vm);
    // Nor does it keep the guest from moving.
    let target = host.receive();
    host.migrate("watched", target.address(), &["--max-downtime", "200ms"])
        .assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    guest.follow(&vm);
    guest.goes_on(&target);
}

#[test]
fn a_paused_guest_stays_paused_and_where_it_is() {
    need_kvm!("a_paused_guest_stays_paused_and_where_it_is");
    let mut guest = boot("builtin").cpus(2).memory_mib(32).start().expect("starts");
    guest.expect("up cpus=2").expect("it is up");
    guest.pause().expect("it pauses");
    let registers = guest.registers().expect("registers");
    assert_eq!(guest.registers().expect("registers"), registers);
    assert_eq!(guest.info().expect("it answers").state, VmState::Paused);
    guest.resume().expect("it goes on");
    guest.send(GuestCommand::Ping).expect("it reads");
    guest.expect_next("pong").expect("it answers");
}

#[test]
fn nothing_looks_into_a_guest_that_is_being_moved() {
    need_kvm!("nothing_looks_into_a_guest_that_is_being_moved");
    let _alone = alone();
    let host = Host::new();
    let slow = "payload=dirty ws=1M rate=4M report=100ms cpu1.payload=hash cpu1.ws=48M";
    let vm = host.run("moves", 2, "128M", slow);
    let mut guest = Dirtying::new(1);
    guest.goes_on(&vm);
    let target = host.receive();
    let refused = |client: &Client| {
        assert_eq!(code(client.registers()), ErrorCode::WrongState);
        assert_eq!(code(client.memory(range(0, 4096))), ErrorCode::WrongState);
    };
    refused(&target.client());
    let moving = host.start_migration("moves", target.address(), &["--bandwidth", "100Mbit"]);
    wait_for("memory is being copied", PATIENCE, || {
        (vm.info().migration?.progress?.sent_bytes > 0).then_some(())
    });
    refused(&vm.client());
    refused(&target.client());
    host.godwit(&["info", "moves", "--registers"]).assert_fails(1, &["being migrated", "cancel"]);
    host.godwit(&["memory", "moves", "0", "1"]).assert_fails(1, &["being migrated", "cancel"]);
    assert!(vm.info().migration.is_some_and(|migration| migration.result.is_none()), "it was over too soon");
    moving.finish(PATIENCE).assert(MigrationOutcome::Completed);
    guest.follow(&vm);
    guest.goes_on(&target);
    target.client().registers().expect("it is here now");
}

#[test]
fn the_command_line_shows_them() {
    need_kvm!("the_command_line_shows_them");
    let host = Host::new();
    let mut vm = host.run("shown", 2, "32M", "payload=idle");
    let text = host.succeed(&["info", "shown", "--registers"]);
    for part in ["state       running", "vCPU 0", "vCPU 1", "rip=", "cr3="] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let json = host.godwit(&["info", "shown", "--registers", "--json"]).json();
    assert_eq!((&json["name"], &json["registers"]["vcpus"][1]["vcpu"]), (&"shown".into(), &1.into()));
    assert!(
        json["registers"]["vcpus"][0]["general"]["rip"].as_str().is_some_and(|rip| rip.starts_with("0x"))
    );
    assert!(host.godwit(&["info", "shown", "--json"]).json().get("registers").is_none());

    let bytes = vm.client().memory(range(0x20_2000, 0x1000)).expect("memory");
    assert!(bytes.iter().any(|byte| *byte != 0), "the kernel is there");
    let ran = host.command(&["memory", "shown", "0x202000", "4K"]).output().expect("it runs");
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    assert_eq!(ran.stdout, bytes);
    let socket = vm.client().socket().display().to_string();
    let ran = host.command(&["memory", "--api", &socket, "2105344", "4096"]).output().expect("it runs");
    assert_eq!(ran.stdout, bytes);
    for (arguments, status, part) in [
        (&["memory", "shown", "here", "1"][..], 2, "address"),
        (&["memory", "shown", "0", "0"], 2, "length"),
        (&["memory", "shown", "0", "17M"], 2, "in pieces"),
        (&["memory", "shown", "0"], 2, "missing"),
        (&["memory", "shown", "0x2000000", "1"], 1, "not RAM"),
        (&["memory", "nobody", "0", "1"], 1, "nobody"),
    ] {
        host.godwit(arguments).assert_fails(status, &[part]);
    }
    host.succeed(&["stop", "shown"]);
    assert_eq!(vm.wait_exit(), 0);
}

#[test]
fn a_reader_that_stalls_keeps_nobody_from_the_guest() {
    need_kvm!("a_reader_that_stalls_keeps_nobody_from_the_guest");
    use std::io::Write;
    let mut guest = boot("builtin").memory_mib(32).start().expect("starts");
    guest.expect("up cpus=1").expect("it is up");
    let socket = guest.info().expect("it answers").api_socket;
    // As many as there may be at a time, and none of them reads.
    let stalled: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("connects");
            let request = "GET /v1/vm/memory?address=0&length=16777216 HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("sends");
            stream
        })
        .collect();
    // Once each answer has begun, which it does when it has its place.
    for stream in &stalled {
        use std::io::Read;
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        (&*stream).read_exact(&mut [0; 16]).expect("an answer begins");
    }
    let waiting = Client::new(&socket).with_timeout(Duration::from_millis(300));
    assert!(matches!(waiting.memory(range(0, 1)), Err(ClientError::Timeout { .. })), "it waits for its turn");
    // All else goes on, and the next one's turn comes.
    guest.registers().expect("registers");
    guest.send(GuestCommand::Ping).expect("it reads");
    guest.expect_next("pong").expect("it answers");
    drop(stalled);
    assert_eq!(guest.memory(0..1).expect("memory").len(), 1);
}
