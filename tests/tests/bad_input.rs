//! What a person or a stranger can do wrong: one clear line, the right exit status, nothing left
//! behind, and no guest harmed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use godwit_api::{MigrationOutcome, VmState};
use godwit_migrate::ownership::Epoch;
use godwit_migrate::protocol::{
    Features, Hello, Message, RefusalReason, Version, VersionRange, VmName, encode,
};
use godwit_migrate::transport::ControlReader;
use godwit_tests::{Dice, Dirtying, Host, PATIENCE, alone, godwit, kvm, root, skip, wait_for};

const GUEST: &str = "payload=dirty ws=1M rate=4M report=50ms";
const RELAXED: [&str; 2] = ["--max-downtime", "200ms"];

/// `godwit run` of something that can't run.
#[track_caller]
fn run_fails(host: &Host, options: &[&str], status: i32, parts: &[&str]) {
    let mut arguments = vec!["run", "--serial", "stdio"];
    arguments.extend(options);
    host.godwit(&arguments).assert_fails(status, parts);
    host.assert_nothing_left();
}

#[test]
fn what_is_no_kernel_is_refused() {
    let test = "what_is_no_kernel_is_refused";
    let host = Host::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = host.files().join(name);
        std::fs::write(&path, bytes).expect("/tmp can be written");
        path.to_str().expect("a plain name").to_owned()
    };
    let text = file("notes.txt", b"not a kernel at all, but longer than an ELF header would be, to be fair");
    let empty = file("empty", b"");
    let cut = file("cut", &std::fs::read(godwit()).expect("readable")[..100]);
    run_fails(&host, &["--kernel", "/no/such/kernel"], 1, &["/no/such/kernel", "No such file"]);
    run_fails(&host, &["--kernel", "/tmp"], 1, &["/tmp", "not a regular file"]);
    run_fails(&host, &["--kernel", "builtin", "--initrd", "/no/such/initrd"], 1, &["/no/such/initrd"]);
    if !kvm(test) {
        return;
    }
    for path in [&text, &empty, &cut] {
        run_fails(&host, &["--kernel", path, "--memory", "64M"], 1, &["ELF"]);
    }
    run_fails(&host, &["--kernel", "/bin/true", "--memory", "64M"], 1, &["PVH"]);
}

#[test]
fn a_kernel_that_does_not_fit_is_refused() {
    if !kvm("a_kernel_that_does_not_fit_is_refused") {
        return;
    }
    let host = Host::new();
    // The builtin kernel is loaded at 1 MiB or above.
    run_fails(&host, &["--kernel", "builtin", "--memory", "1M"], 1, &["memory"]);
    let initrd = host.files().join("initrd");
    let large = std::fs::File::create(&initrd).and_then(|file| file.set_len(64 << 20));
    large.expect("/tmp can be written");
    let initrd = initrd.to_str().expect("a plain name");
    run_fails(&host, &["--kernel", "builtin", "--initrd", initrd, "--memory", "32M"], 1, &["memory"]);
}

#[test]
fn numbers_out_of_range_are_usage() {
    let host = Host::new();
    for cpus in ["0", "65", "10000", "-1", "two"] {
        run_fails(&host, &["--kernel", "builtin", &format!("--cpus={cpus}")], 2, &["wrong usage"]);
    }
    for memory in ["0", "1K", "4097K1", "lots", "1000000"] {
        run_fails(&host, &["--kernel", "builtin", "--memory", memory], 2, &["wrong usage"]);
    }
    run_fails(&host, &["--cpus", "1"], 2, &["--kernel"]);
    run_fails(&host, &["--kernel", "builtin", "--name", "../etc"], 2, &["wrong usage"]);
    run_fails(&host, &["--kernel", "builtin", "--timeout", "1s"], 2, &["--expect"]);
}

#[test]
fn memory_that_the_host_lacks_is_refused() {
    if !kvm("memory_that_the_host_lacks_is_refused") {
        return;
    }
    let host = Host::new();
    run_fails(&host, &["--kernel", "builtin", "--memory", "64T"], 1, &["memory"]);
    run_fails(&host, &["--kernel", "builtin", "--memory", "900G"], 1, &["memory"]);
}

#[test]
fn a_bad_vm_file_is_one_line() {
    let host = Host::new();
    let file = |text: &str| {
        let path = host.files().join("vm.toml");
        std::fs::write(&path, text).expect("/tmp can be written");
        path.to_str().expect("a plain name").to_owned()
    };
    for (text, part) in [
        ("kernel = ", "vm.toml"),
        ("kernle = \"builtin\"", "kernle"),
        ("kernel = \"builtin\"\ncpus = 0", "CPUs"),
        ("kernel = \"builtin\"\nmemory = \"lots\"", "lots"),
        ("kernel = 7", "vm.toml"),
    ] {
        let path = file(text);
        let finished = host.godwit(&["run", &path]);
        assert!(matches!(finished.status, Some(1 | 2)), "{text:?}: {finished:?}");
        assert!(finished.one_line().contains(part), "{text:?}: {finished:?}");
        host.assert_nothing_left();
    }
    let missing = host.godwit(&["run", "/no/such/vm.toml"]);
    assert!(missing.one_line().contains("/no/such/vm.toml"), "{missing:?}");
}

#[test]
fn without_kvm_the_reason_is_named() {
    let test = "without_kvm_the_reason_is_named";
    if !kvm(test) || !root(test) {
        return;
    }
    let host = Host::new();
    // No device: an empty directory in its place, in a mount namespace of its own.
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"]).arg(godwit());
    command.args(["run", "--kernel", "builtin", "--memory", "32M"]);
    command.env("GODWIT_RUNTIME_DIR", host.runtime());
    let finished = godwit_tests::Command::start(command).finish(PATIENCE);
    if finished.stderr.contains("unshare") || finished.stderr.contains("mount:") {
        return skip(test, finished.stderr.trim());
    }
    finished.assert_fails(1, &["/dev/kvm"]);
    host.assert_nothing_left();
}

#[test]
fn without_permission_the_reason_is_named() {
    let test = "without_permission_the_reason_is_named";
    if !kvm(test) || !root(test) {
        return;
    }
    let host = Host::new();
    // The runtime directory must be that user's; the binary must be one that it may read.
    let binary = host.files().join("godwit");
    std::fs::copy(godwit(), &binary).expect("/tmp can be written");
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    };
    open(host.files());
    open(&binary);
    let runtime = host.files().join("rt-nobody");
    std::fs::create_dir(&runtime).expect("/tmp can be written");
    std::os::unix::fs::chown(&runtime, Some(65534), Some(65534)).expect("root may");
    let as_nobody = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).args(arguments);
        command.env("GODWIT_RUNTIME_DIR", &runtime);
        godwit_tests::Command::start(command).finish(PATIENCE)
    };
    let mut probe = std::process::Command::new("setpriv");
    probe.args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-w", "/dev/kvm"]);
    match probe.status() {
        Ok(status) if status.success() => return skip(test, "everybody may use /dev/kvm here"),
        Ok(_) => {}
        Err(error) => return skip(test, &format!("setpriv: {error}")),
    }
    let finished =
        as_nobody(binary.to_str().expect("plain"), &["run", "--kernel", "builtin", "--memory", "32M"]);
    finished.assert_fails(1, &["/dev/kvm", "ermission"]);
    let left = std::fs::read_dir(&runtime).expect("root may").flatten().filter(|e| e.file_name() != ".lock");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_socket_or_name_in_use_is_refused_and_its_owner_unharmed() {
    if !kvm("a_socket_or_name_in_use_is_refused_and_its_owner_unharmed") {
        return;
    }
    let host = Host::new();
    let socket = host.files().join("api.sock");
    let socket = socket.to_str().expect("plain");
    let mut guest = Dirtying::new(1);
    let vm = host.run_with("first", 1, "32M", GUEST, &["--api", socket]);
    guest.goes_on(&vm);
    let again = ["run", "--kernel", "builtin", "--memory", "32M", "--name", "second", "--api", socket];
    host.godwit(&again).assert_fails(1, &[socket, "another process"]);
    let again = ["run", "--kernel", "builtin", "--memory", "32M", "--name", "first"];
    host.godwit(&again).assert_fails(1, &["first"]);
    let plain = host.files().join("plain");
    std::fs::write(&plain, "precious").expect("/tmp can be written");
    let again = ["receive", "--listen", "tcp:127.0.0.1:0", "--api", plain.to_str().expect("plain")];
    host.godwit(&again).assert_fails(1, &["not a socket"]);
    assert_eq!(std::fs::read_to_string(&plain).expect("it is there"), "precious");
    guest.goes_on(&vm);
    assert_eq!(vm.info().state, VmState::Running);
    assert_eq!(host.entries().len(), 1);
}

#[test]
fn a_receiver_on_a_port_in_use_is_refused() {
    let host = Host::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", taken.local_addr().expect("bound"));
    host.godwit(&["receive", "--listen", &address]).assert_fails(1, &["cannot listen", "in use"]);
    host.godwit(&["receive", "--listen", "127.0.0.1:1"]).assert_fails(2, &["tcp:"]);
    host.godwit(&["receive", "--listen", "tcp:0.0.0.0:0"]).assert_fails(2, &["--insecure"]);
    host.assert_nothing_left();
}

#[test]
fn commands_for_nobody_are_refused() {
    let host = Host::new();
    for command in [&["info", "ghost"][..], &["stop", "ghost"], &["pause", "ghost"], &["console", "ghost"]] {
        host.godwit(command).assert_fails(1, &["ghost"]);
    }
    host.godwit(&["resolve", "ghost"]).assert_fails(2, &["--resume-here"]);
    host.godwit(&["migrate", "ghost", "tcp:127.0.0.1:1"]).assert_fails(1, &["ghost"]);
    host.godwit(&["migrate", "ghost", "127.0.0.1:1"]).assert_fails(2, &["tcp:"]);
    host.godwit(&["migrate", "ghost", "tcp:192.0.2.1:1"]).assert_fails(2, &["--insecure"]);
    host.assert_nothing_left();
}

/// A guest that is to be moved to something that is no target.
fn refused_by(host: &Host, to: &str, parts: &[&str], vm: &godwit_tests::VmProcess, guest: &mut Dirtying) {
    let moved = host.migrate("stays", to, &["--timeout", "15s"]);
    moved.assert(MigrationOutcome::Failed);
    for part in parts {
        assert!(moved.reason().contains(part), "{part:?} is not in: {}", moved.reason());
    }
    let messages = moved.finished.stderr.lines().filter(|line| line.contains("failed")).count();
    assert_eq!(messages, 1, "{}", moved.finished.stderr);
    guest.goes_on(vm);
    assert_eq!(vm.info().state, VmState::Running);
}

#[test]
fn a_target_that_is_none_is_told_and_the_guest_runs_on() {
    if !kvm("a_target_that_is_none_is_told_and_the_guest_runs_on") {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let mut guest = Dirtying::new(1);
    let vm = host.run("stays", 1, "32M", GUEST);
    guest.goes_on(&vm);

    // Nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", listener.local_addr().expect("bound"));
    drop(listener);
    refused_by(&host, &address, &["cannot connect", "refused", "godwit receive"], &vm, &mut guest);

    // A target of another version.
    let refusal = RefusalReason::UnsupportedVersion { theirs_min: Version(900), theirs_max: Version(901) };
    let address = fake_target(move |link| say(link, &Message::Refused(refusal.clone())));
    refused_by(&host, &address, &["versions 900 to 901", "update"], &vm, &mut guest);

    // Something else altogether.
    let address = fake_target(|link| {
        let _ = link.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    refused_by(&host, &address, &["not a Godwit peer"], &vm, &mut guest);

    // Something that hangs up.
    let address = fake_target(|_| {});
    refused_by(&host, &address, &["closed the connection"], &vm, &mut guest);

    // Something that says nothing: the time limit ends it.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", silent.local_addr().expect("bound"));
    let moved = host.migrate("stays", &address, &["--timeout", "500ms"]);
    moved.assert(MigrationOutcome::Failed);
    assert!(moved.result.total_ms < 5_000.0, "{:?}", moved.result);
    assert!(!moved.reason().is_empty());
    guest.goes_on(&vm);

    // After all this the next one succeeds.
    let target = host.receive();
    host.migrate("stays", target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    guest.goes_on(&target);
}

/// Listens, reads the first message of one source, then does as told and closes.
fn fake_target(answer: impl FnOnce(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        let (mut link, _) = listener.accept().expect("a source comes");
        let hello = ControlReader::of_stranger(&link).read().expect("it says hello");
        assert!(matches!(hello, Message::Hello(_)), "{hello:?}");
        answer(&mut link);
    });
    address
}

fn say(link: &mut TcpStream, message: &Message) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("a sound message");
    let _ = link.write_all(&bytes);
}

fn hello(min: u16, max: u16) -> Message {
    Message::Hello(Hello {
        versions: VersionRange { min: Version(min), max: Version(max) },
        features: Features::NONE,
        vm_name: VmName::new("stranger").expect("a name"),
        epoch: Epoch::FIRST,
        max_downtime_us: 10_000,
        ready_within_us: 100_000,
        streams: 1,
    })
}

#[test]
fn a_receiver_outlives_all_garbage() {
    let test = "a_receiver_outlives_all_garbage";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let target = host.receive();
    let address = target.address().strip_prefix("tcp:").expect("tcp").to_owned();
    let connect = || {
        let link = TcpStream::connect(&address).expect("it listens");
        link.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        link
    };
    let mut dice = Dice::announced(test);

    // Another version is refused with ours.
    let mut link = connect();
    say(&mut link, &hello(900, 901));
    let refused = ControlReader::of_stranger(&link).read().expect("an answer");
    assert!(
        matches!(refused, Message::Refused(RefusalReason::UnsupportedVersion { theirs_max, .. }) if theirs_max.0 < 900),
        "{refused:?}"
    );

    let mut frame = Vec::new();
    encode(&hello(1, 1), &mut frame).expect("sound");
    let mut huge = frame.clone();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut damaged = frame.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    let mut commit = frame.clone();
    commit[2] = 24;
    let mut random = vec![0_u8; 100_000];
    random.fill_with(|| dice.roll().to_le_bytes()[0]);
    let mut disguised = random.clone();
    disguised[..3].copy_from_slice(&[b'G', b'W', 1]);
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    for garbage in [http, tls, huge, damaged, commit, random, disguised, vec![b'G'], vec![]] {
        let mut link = connect();
        // It may hang up in the middle of it.
        let _ = link.write_all(&garbage);
        let _ = link.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let ended = link.read_to_end(&mut answer);
        assert!(
            ended.as_ref().is_ok()
                || ended.as_ref().is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock),
            "it neither answered nor hung up: {garbage:02x?}: {ended:?}"
        );
        assert!(answer.len() < 10_000, "a long answer to garbage");
    }
    // Half a frame, then silence, from many; and one that only knocks. They stay open below.
    let half: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut link = connect();
            link.write_all(&frame[..frame.len() / 2]).expect("it reads");
            link
        })
        .collect();
    let knocks: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    assert_eq!(target.info().state, VmState::Incoming);

    // A real one still comes through.
    let mut guest = Dirtying::new(1);
    let mut vm = host.run("welcome", 1, "32M", GUEST);
    guest.goes_on(&vm);
    host.migrate("welcome", target.address(), &RELAXED).assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    guest.follow(&vm);
    guest.goes_on(&target);
    drop((half, knocks));
    wait_for("threads of strangers end", PATIENCE, || (target.usage().threads < 20).then_some(()));
}

#[test]
fn a_source_that_falls_silent_gives_its_place_up() {
    let test = "a_source_that_falls_silent_gives_its_place_up";
    if !kvm(test) {
        return;
    }
    let _alone = alone();
    let host = Host::new();
    let target = host.receive();
    // It is welcomed, and then says nothing more.
    let mut link = TcpStream::connect(target.address().trim_start_matches("tcp:")).expect("it listens");
    say(&mut link, &hello(1, 1));
    let welcome = ControlReader::of_stranger(&link).read().expect("an answer");
    assert!(matches!(welcome, Message::Welcome(_)), "{welcome:?}");
    let vm = host.run("waits", 1, "32M", GUEST);
    let busy = host.migrate("waits", target.address(), &RELAXED);
    busy.assert(MigrationOutcome::Failed);
    assert!(busy.reason().contains("busy"), "{}", busy.reason());
    // When it hangs up its place is free at once.
    drop(link);
    wait_for("the place is free", Duration::from_secs(15), || {
        let moved = host.migrate("waits", target.address(), &RELAXED);
        (moved.result.status == MigrationOutcome::Completed).then_some(())
    });
    Dirtying::new(1).goes_on(&target);
    drop(vm);
}

#[test]
fn a_name_that_is_taken_at_the_target_is_refused() {
    if !kvm("a_name_that_is_taken_at_the_target_is_refused") {
        return;
    }
    let _alone = alone();
    let (here, there) = (Host::new(), Host::new());
    let mut guest = Dirtying::new(1);
    let vm = here.run("twin", 1, "32M", GUEST);
    guest.goes_on(&vm);
    let other = there.run("twin", 1, "32M", GUEST);
    let target = there.receive();
    let moved = here.migrate("twin", target.address(), &RELAXED);
    moved.assert(MigrationOutcome::Failed);
    assert!(moved.reason().contains("twin") && moved.reason().contains("--name"), "{}", moved.reason());
    guest.goes_on(&vm);
    Dirtying::new(1).goes_on(&other);
    assert_eq!(target.info().state, VmState::Incoming);
    // As the line says: under another name it can come.
    let named = there.receive_with(&["--name", "twin-2"]);
    here.migrate("twin", named.address(), &RELAXED).assert(MigrationOutcome::Completed);
    guest.goes_on(&named);
    assert_eq!(named.info().name, "twin-2");
    Dirtying::new(1).goes_on(&other);
}
