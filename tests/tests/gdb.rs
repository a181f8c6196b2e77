//! A guest under a debugger: the real gdb where it matters what gdb makes of it, and its protocol by hand
//! where it matters what the process does.
//!
//! What a host's KVM cannot stop (`info` says it) is expected to be refused instead. Ring 0 of the test
//! kernel is `bsp_entry64` and `to_ring3`; everything in Rust is ring 3.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use godwit_api::{DebuggerInfo, MigrationOutcome, VmState};
use godwit_guest_images::command::Command as GuestCommand;
use godwit_guest_images::{TEST_KERNEL, report};
use godwit_tests::{Dice, Dirtying, Host, Mark, PATIENCE, VmProcess, kvm, wait_for};
use rustix::process::{Pid, Signal, kill_process};

const DIRTY: &str = "payload=dirty ws=1M rate=4M report=20ms";
/// Writes memory that it checks, on two vCPUs.
const RUN: [&str; 8] = ["run", "--kernel", "builtin", "--cpus", "2", "--memory", "32M", "--cmdline"];

macro_rules! need_kvm {
    ($name:literal) => {
        if !kvm($name) {
            return;
        }
    };
}

/// A guest that waits for a debugger.
fn waiting(host: &Host, name: &str, options: &[&str]) -> VmProcess {
    let gdb = ["--name", name, "--gdb", "tcp:127.0.0.1:0"];
    let vm = host.vm(&[&RUN[..], &[DIRTY], &gdb, options].concat());
    vm.messages().wait_text(Mark::START, "waiting for gdb on 127.0.0.1:");
    vm
}

fn debugger(vm: &VmProcess) -> DebuggerInfo {
    vm.info().debugger.expect("it was started with --gdb")
}

/// Whether this host stops a guest for that in that ring.
fn stops(vm: &VmProcess, what: &str, ring: u8) -> bool {
    let missing = debugger(vm).missing.unwrap_or_default();
    missing.split(", ").all(|item| item != what && item != format!("{what} in ring {ring}"))
}

/// Whether a breakpoint works there: in memory where that works everywhere, else one of the CPU's.
fn breaks(vm: &VmProcess, ring: u8) -> bool {
    let in_memory = stops(vm, "breakpoints in memory", 0) && stops(vm, "breakpoints in memory", 3);
    in_memory || stops(vm, "breakpoints of the CPU", ring)
}

/// The real gdb with a script, connected. Ended with the test.
struct Gdb(Child);

impl Gdb {
    /// Each line is a command; one that fails does not keep gdb from the next.
    fn start(host: &Host, vm: &VmProcess, script: &str) -> Self {
        let kernel = host.files().join("kernel.elf");
        std::fs::write(&kernel, TEST_KERNEL).expect("writes");
        let connect = format!("target remote {}", debugger(vm).address);
        let mut command = Command::new("gdb");
        command.args(["-nx", "-batch"]).arg(kernel);
        for line in ["set pagination off", "set confirm off", "set width 0", &connect]
            .into_iter()
            .chain(script.lines())
        {
            command.args(["-ex", line]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("gdb is installed: scripts/test does that"))
    }

    /// What the person who types Ctrl-C does.
    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).expect("gdb is there");
    }

    /// Waits for its end, and returns all that it said.
    fn finish(mut self) -> String {
        let read = |mut from: Box<dyn Read + Send>| {
            let (sender, text) = mpsc::channel();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    let _ = sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
                }
            });
            text
        };
        let said = read(Box::new(self.0.stdout.take().expect("piped")));
        let errors = read(Box::new(self.0.stderr.take().expect("piped")));
        let until = Instant::now() + PATIENCE;
        let mut ended = false;
        while !ended && Instant::now() < until {
            ended = self.0.try_wait().expect("a child").is_some();
            std::thread::sleep(Duration::from_millis(2));
        }
        // The pipes end with the process.
        let _ = self.0.kill();
        let said: String = said.iter().chain(errors.iter()).collect();
        assert!(ended, "gdb does not end; it said:\n{said}");
        said
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asserts that all parts are said, in this order.
#[track_caller]
fn assert_in_order(said: &str, parts: &[&str]) {
    let mut rest = said;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} does not come in its turn:\n{said}"));
        rest = &rest[at + part.len()..];
    }
}

/// gdb's protocol by hand.
struct Protocol(TcpStream);

impl Protocol {
    fn connect(vm: &VmProcess) -> Self {
        let stream = TcpStream::connect(debugger(vm).address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Self(stream)
    }

    fn attach(vm: &VmProcess) -> Self {
        let mut protocol = Self::connect(vm);
        assert!(protocol.ask("qSupported:multiprocess+").contains("PacketSize="));
        assert!(debugger(vm).attached);
        protocol
    }

    fn send(&mut self, body: &str) {
        let sum = body.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("${body}#{sum:02x}").as_bytes()).expect("it reads");
    }

    /// The next answer.
    fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.iter().filter(|byte| **byte == b'#').count() == 0 {
            self.0.read_exact(&mut byte).expect("an answer");
            bytes.push(byte[0]);
        }
        self.0.read_exact(&mut [0; 2]).expect("a checksum");
        self.0.write_all(b"+").expect("it reads");
        let text = String::from_utf8(bytes).expect("text");
        let body = text.trim_start_matches('+').strip_prefix('$').expect("a packet");
        expanded(body.trim_end_matches('#'))
    }

    fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.answer()
    }

    /// Reads to the connection's end.
    fn closed(mut self) -> bool {
        self.0.read_to_end(&mut Vec::new()).is_ok()
    }
}

/// `c*n` stands for c and n - 29 more of them.
fn expanded(body: &str) -> String {
    let mut text = String::new();
    let mut bytes = body.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, text.chars().last(), byte == b'*') {
            (_, Some(last), true) => {
                let times = bytes.next().expect("a count") - 29;
                text.extend(std::iter::repeat_n(last, times.into()));
            }
            (byte, ..) => text.push(byte.into()),
        }
    }
    text
}

#[test]
fn the_guest_waits_at_its_entry_and_is_seen_and_changed() {
    need_kvm!("the_guest_waits_at_its_entry_and_is_seen_and_changed");
    let host = Host::new();
    let mut vm = waiting(&host, "entry", &[]);
    assert_eq!(vm.info().state, VmState::Paused);
    Dirtying::assert_silent(&vm, Duration::from_millis(100));
    let step = "stepi\np/x (long)$pc - (long)&entry32\n";
    let see_and_change = "\
set $r15 = 0x1122334455667788
set $xmm3.uint128 = 0x99aabb
set $st0 = 1.5
p/x $r15
p/x $xmm3.uint128
p $st0
set {long}0x1ffff8 = 0x0102030405060708
x/1xg 0x1ffff8
x/1xb 0x7ffffff000
";
    let in_64_bits = "\
break to_ring3
continue
set $fs = 0x23
p/x $fs
set $ds = 0x7777
p/x $ds
p/x $cs
p/x $efer
p/x $r15
x/1xb &to_ring3
";
    let over_it = "stepi\np (long)$pc > (long)&to_ring3\n";
    let (steps, breaks) = (stops(&vm, "steps", 0), breaks(&vm, 0));
    let script = [
        "info threads\np/x (long)$pc == (long)&entry32\np/x $cr0 & 0x80000001\nx/1xb $pc\n",
        if steps { step } else { "" },
        see_and_change,
        if breaks { in_64_bits } else { "" },
        if breaks && steps { over_it } else { "" },
        "detach\n",
    ];
    let said = Gdb::start(&host, &vm, &script.concat()).finish();
    assert_in_order(&said, &["entry32 ()", "1    Thread 1.1 (vCPU 0)", "2    Thread 1.2 (vCPU 1)"]);
    assert_in_order(&said, &["= 0x1\n", "= 0x1\n", "<entry32>:\t0xfa"]);
    assert_in_order(&said, &["= 0x1122334455667788", "= 0x99aabb", "= 1.5", "0x0102030405060708"]);
    if steps {
        assert_in_order(&said, &["<entry32>:\t0xfa", "entry32 ()", "= 0x1\n", "= 0x1122334455667788"]);
    }
    if breaks {
        assert_in_order(&said, &["0x0102030405060708", "hit Breakpoint 1", "to_ring3 ()"]);
        let values =
            ["= 0x23\n", "= 0x18\n", "= 0x8\n", "= 0x500", "= 0x1122334455667788", "<to_ring3>:\t0xb8"];
        assert_in_order(&said, &values);
        assert!(said.contains("Could not write registers"), "a selector that is none: {said}");
    }
    if breaks && steps {
        assert_in_order(&said, &["<to_ring3>:\t0xb8", "= 1\n"]);
    }
    assert!(said.contains("Cannot access memory at address 0x7ffffff000"), "{said}");
    assert!(said.contains("detached") && !said.contains("packet reply is too long"), "{said}");
    let mut guest = Dirtying::new(2);
    guest.goes_on(&vm);
    guest.verify(&mut vm);
    host.succeed(&["stop", "entry"]);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn what_this_host_stops_is_stopped_and_the_rest_is_refused() {
    need_kvm!("what_this_host_stops_is_stopped_and_the_rest_is_refused");
    let host = Host::new();
    let mut vm = waiting(&host, "stops", &[]);
    let missing = debugger(&vm).missing;
    let said_so = vm.messages().text().contains("what does not work: ");
    assert_eq!(said_so, missing.is_some(), "{}", vm.messages().text());
    let hardware = stops(&vm, "breakpoints of the CPU", 0);
    let (watch, anywhere) = (stops(&vm, "watchpoints", 0), stops(&vm, "watchpoints", 3));
    let (ring3, steps) = (breaks(&vm, 3), stops(&vm, "steps", 3));
    let script = [
        if hardware { "hbreak bsp_entry64\ncontinue\ndelete\n" } else { "" },
        // Written by the code of that function.
        if watch || !anywhere { "watch *(short*)((char*)&gdt + 0x32)\ncontinue\ndelete\n" } else { "" },
        if ring3 { "break ring0_call\ncontinue\nbt 1\n" } else { "" },
        if ring3 && steps { "stepi\nstepi\np (long)$pc - (long)&ring0_call\ncontinue\n" } else { "" },
        "delete\ndetach\n",
    ];
    let said = Gdb::start(&host, &vm, &script.concat()).finish();
    if hardware {
        assert_in_order(&said, &["hit Breakpoint 1", "bsp_entry64 ()"]);
    }
    if watch {
        assert_in_order(&said, &["Hardware watchpoint", "Old value = 0", "New value ="]);
    } else if !anywhere {
        assert!(said.contains("Could not insert hardware watchpoint"), "{said}");
    }
    if ring3 {
        assert_in_order(&said, &["hit Breakpoint", "in ring0_call ()", "#0"]);
    }
    if ring3 && steps {
        // Over the breakpoint, into ring 0 and to the next call.
        assert_in_order(&said, &["in ring0_call ()", "#0", " = ", "hit Breakpoint", "in ring0_call ()"]);
    }
    assert!(said.contains("detached"), "{said}");
    let mut guest = Dirtying::new(2);
    guest.goes_on(&vm);
    guest.verify(&mut vm);
}

#[test]
fn ctrl_c_halts_a_running_guest_and_gdb_may_come_again() {
    need_kvm!("ctrl_c_halts_a_running_guest_and_gdb_may_come_again");
    let host = Host::new();
    let mut vm = waiting(&host, "halts", &[]);
    let mut guest = Dirtying::new(2);
    for _ in 0..3 {
        let script = "continue\ninfo threads\nthread 2\np/x $cs\nset $r15 = $r15\ndetach\n";
        let gdb = Gdb::start(&host, &vm, script);
        wait_for("gdb is attached and the guest runs", PATIENCE, || {
            let info = vm.info();
            (info.debugger.is_some_and(|debugger| debugger.attached) && info.state == VmState::Running)
                .then_some(())
        });
        guest.goes_on(&vm);
        let listed = host.succeed(&["ps"]);
        assert!(listed.contains("running (debugger)"), "{listed}");
        gdb.interrupt();
        let said = gdb.finish();
        assert_in_order(
            &said,
            &["SIGINT", "vCPU 0", "vCPU 1", "Switching to thread 2", "= 0x2b", "detached"],
        );
        assert!(!debugger(&vm).attached);
        guest.goes_on(&vm);
    }
    guest.verify(&mut vm);
}

#[test]
fn the_guests_own_breakpoint_is_the_guests() {
    need_kvm!("the_guests_own_breakpoint_is_the_guests");
    let host = Host::new();
    let mut vm = waiting(&host, "own", &[]);
    // Its first caller runs when the guest can already report exceptions.
    let script = "set {unsigned char}&ring0_call = 0xcc\ncontinue\nkill\n";
    let gdb = Gdb::start(&host, &vm, script);
    let said = vm.serial().wait_text(Mark::START, "godwit-guest: exception");
    let Some(report::Report::Exception { vector, .. }) = report::parse_line(&said) else { panic!("{said}") };
    // In ring 3 a CPU looks whether the handler is ring 3's to call, which this kernel's is not.
    assert!(matches!(vector, 3 | 13), "{said}");
    gdb.interrupt();
    assert_in_order(&gdb.finish(), &["SIGINT"]);
    assert_eq!(vm.wait_exit(), 0, "gdb's kill ends the VM");
}

#[test]
fn the_end_of_the_guest_is_told() {
    need_kvm!("the_end_of_the_guest_is_told");
    let host = Host::new();
    for (command, status, told) in [
        (GuestCommand::Quit, 0, "exited normally"),
        (GuestCommand::Exit(0x10), 0x21, "exited with code 041"),
        (GuestCommand::Crash, 4, "terminated with signal SIGABRT"),
    ] {
        let mut vm = waiting(&host, "ends", &[]);
        let gdb = Gdb::start(&host, &vm, "continue\n");
        vm.serial().wait_text(Mark::START, "godwit-guest: up");
        vm.send(command);
        assert_eq!(vm.wait_exit(), status, "{command}");
        let said = gdb.finish();
        assert!(said.contains(told), "{command}: {said}");
        host.assert_nothing_left();
    }
}

#[test]
fn a_guest_that_resets_itself_stands_at_its_entry_again() {
    need_kvm!("a_guest_that_resets_itself_stands_at_its_entry_again");
    let host = Host::new();
    let mut vm = waiting(&host, "again", &["--on-reset", "reboot"]);
    let breaks = breaks(&vm, 0);
    let again = if breaks { "break to_ring3\ncontinue\n" } else { "" };
    let gdb = Gdb::start(&host, &vm, &format!("continue\np/x (long)$pc == (long)&entry32\n{again}detach\n"));
    vm.serial().wait_text(Mark::START, "godwit-guest: up");
    let mark = vm.serial().mark();
    vm.send(GuestCommand::Reset);
    let said = gdb.finish();
    let met = if breaks { "hit Breakpoint 1" } else { "detached" };
    assert_in_order(&said, &["SIGTRAP", "entry32 ()", "= 0x1", met]);
    vm.serial().wait_text(mark, "godwit-guest: up");
    // Without a debugger it boots by itself.
    let mark = vm.serial().mark();
    vm.send(GuestCommand::Reset);
    vm.serial().wait_text(mark, "godwit-guest: up");
}

#[test]
fn while_attached_only_the_debugger_decides() {
    need_kvm!("while_attached_only_the_debugger_decides");
    let host = Host::new();
    let mut vm = waiting(&host, "mine", &[]);
    let mut receiver = host.receive();
    let mut debugger = Protocol::attach(&vm);
    for running in [false, true] {
        if running {
            debugger.send("vCont;c");
            vm.serial().wait_text(Mark::START, "godwit-guest: up");
        }
        for refused in ["pause", "resume"] {
            host.godwit(&[refused, "mine"]).assert_fails(1, &["a debugger is attached", "detach"]);
        }
        let refused = host.godwit(&["migrate", "mine", receiver.address()]);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(
            refused.stderr.contains("a debugger is attached, so the guest cannot be migrated"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("detach it first"), "{refused:?}");
        let listed = host.succeed(&["ps"]);
        let state = if running { "running (debugger)" } else { "paused (debugger)" };
        assert!(listed.contains(state), "{listed}");
        assert!(host.succeed(&["info", "mine"]).contains("is attached at 127.0.0.1:"));
        // One at a time.
        assert!(Protocol::connect(&vm).closed());
    }
    debugger.0.write_all(&[3]).expect("it reads");
    assert!(debugger.answer().starts_with("T02"), "interrupted");
    assert_eq!(debugger.ask("D"), "OK");
    wait_for("the guest is nobody's", PATIENCE, || (!self::debugger(&vm).attached).then_some(()));
    let mut guest = Dirtying::new(2);
    guest.goes_on(&vm);
    let _moved = host.migrate("mine", receiver.address(), &[]).assert(MigrationOutcome::Completed);
    assert_eq!(vm.wait_exit(), 0);
    guest.goes_on(&receiver);
    guest.verify(&mut receiver);
}

#[test]
fn no_debugger_keeps_a_vm_from_ending() {
    need_kvm!("no_debugger_keeps_a_vm_from_ending");
    let host = Host::new();
    for running in [false, true] {
        for options in [&["stop", "held"][..], &["stop", "held", "--force"]] {
            let mut vm = waiting(&host, "held", &[]);
            let mut debugger = Protocol::attach(&vm);
            if running {
                debugger.send("vCont;c");
                vm.serial().wait_text(Mark::START, "godwit-guest: up");
            }
            host.succeed(options);
            assert_eq!(vm.wait_exit(), 0);
            if running {
                assert_eq!(debugger.answer(), "W00");
            }
            assert!(debugger.closed());
        }
    }
    // Nobody came, and one that says nothing.
    for silent in [false, true] {
        let mut vm = waiting(&host, "held", &[]);
        let _silent = silent.then(|| Protocol::connect(&vm));
        vm.signal(Signal::TERM);
        assert_eq!(vm.wait_exit(), 0);
    }
    let mut vm = waiting(&host, "killed", &[]);
    Protocol::attach(&vm).send("k");
    assert_eq!(vm.wait_exit(), 0, "gdb's kill ends the VM");
    host.assert_nothing_left();
}

#[test]
fn a_debugger_that_vanishes_leaves_the_guest_as_it_was() {
    need_kvm!("a_debugger_that_vanishes_leaves_the_guest_as_it_was");
    let host = Host::new();
    let mut vm = waiting(&host, "left", &[]);
    // Never let run: it still waits.
    drop(Protocol::attach(&vm));
    wait_for("it is noticed", PATIENCE, || (!debugger(&vm).attached).then_some(()));
    assert_eq!(vm.info().state, VmState::Paused);
    Dirtying::assert_silent(&vm, Duration::from_millis(100));
    // A person lets it go.
    host.succeed(&["resume", "left"]);
    let mut guest = Dirtying::new(2);
    guest.goes_on(&vm);
    // It ran, and breakpoints were set: it runs on without them.
    let mut rude = Protocol::attach(&vm);
    assert_eq!(vm.info().state, VmState::Paused);
    let registers = rude.ask("g");
    let rip = u64::from_str_radix(&registers[16 * 16..17 * 16], 16).expect("digits").swap_bytes();
    assert_eq!(rude.ask(&format!("Z0,{rip:x},1")), "OK");
    assert_eq!(rude.ask(&format!("Z1,{rip:x},1")), "OK");
    drop(rude);
    guest.goes_on(&vm);
    guest.verify(&mut vm);
}

#[test]
fn what_is_no_debugger_disturbs_nobody() {
    need_kvm!("what_is_no_debugger_disturbs_nobody");
    let host = Host::new();
    let mut vm = waiting(&host, "noise", &[]);
    host.succeed(&["resume", "noise"]);
    let mut guest = Dirtying::new(2);
    guest.goes_on(&vm);
    let address = debugger(&vm).address;
    let connect = || {
        let stream = TcpStream::connect(&address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        stream
    };
    // The end of what was sent is the end of the connection; answers are read so that nothing is stuck.
    let send = |bytes: &[u8]| {
        let mut stream = connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    };
    send(b"");
    send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    send(&[b'$'; 40_000]);
    send(&[3; 1000]);
    let mut dice = Dice::announced("what_is_no_debugger_disturbs_nobody");
    let starts = [
        "m", "M", "X", "Z0,", "z0,", "Z1,", "Z2,", "vCont;", "vCont;s:", "H", "g", "G", "P", "q", "qXfer:",
        "v", "c", "s", "?",
    ];
    let alphabet: &[u8] = b"0123456789abcdef,,;:.-p\x00\xff*}";
    for _ in 0..150 {
        let mut bytes = b"$qSupported#37".to_vec();
        for _ in 0..dice.below(6) {
            let start = starts[usize::try_from(dice.below(starts.len() as u64)).expect("small")];
            let mut body = start.as_bytes().to_vec();
            for _ in 0..dice.below(30) {
                body.push(alphabet[usize::try_from(dice.below(alphabet.len() as u64)).expect("small")]);
            }
            let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            bytes.push(b'$');
            bytes.extend(body);
            bytes.extend(format!("#{sum:02x}").as_bytes());
        }
        send(&bytes);
    }
    for bytes in [&b"$mffffffffffffffff,2000#00"[..], b"$qSupported#37$mfffffffffffff000,ffffffffffff#00"] {
        send(bytes);
    }
    assert!(!vm.messages().text().contains("panicked"), "{}", vm.messages().text());
    // What was written into memory and registers by chance is not the process's fault: it is there and answers.
    let mut debugger = Protocol::attach(&vm);
    assert!(debugger.ask("g").len() > 1000);
    assert_eq!(vm.exited(), None);
    host.succeed(&["stop", "noise"]);
    assert_eq!(vm.wait_exit(), 0);
}

#[test]
fn gdb_on_a_unix_socket_and_in_a_vm_file() {
    need_kvm!("gdb_on_a_unix_socket_and_in_a_vm_file");
    let host = Host::new();
    let socket = host.files().join("gdb.sock");
    let file = host.files().join("vm.toml");
    std::fs::write(&file, format!("kernel = 'builtin'\nname = 'filed'\ngdb = 'unix:{}'\n", socket.display()))
        .expect("writes");
    let mut vm = host.vm(&["run", file.to_str().expect("text")]);
    vm.messages().wait_text(Mark::START, "waiting for gdb on /");
    let said = Gdb::start(&host, &vm, "stepi\ndetach\n").finish();
    assert_in_order(&said, &["entry32 ()", "entry32 ()", "detached"]);
    vm.serial().wait_text(Mark::START, "godwit-guest: up");
    host.succeed(&["stop", "filed"]);
    assert_eq!(vm.wait_exit(), 0);
    assert!(!socket.exists());
    // A port that is taken, and one that others could reach.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", taken.local_addr().expect("an address"));
    let refused = host.godwit(&["run", "--kernel", "builtin", "--gdb", &address]);
    refused.assert_fails(1, &["cannot wait for gdb on", &address]);
    let mut cannot = host.command(&["run", "--kernel", "builtin", "--gdb", "tcp:127.0.0.1:0"]);
    let cannot = cannot.env("GODWIT_KVM_WITHOUT", "guest_debug").output().expect("it ends");
    let said = String::from_utf8_lossy(&cannot.stderr);
    assert!(cannot.status.code() == Some(1) && said.contains("cannot debug guests"), "{said}");
    host.godwit(&["run", "--kernel", "builtin", "--gdb", "tcp:0.0.0.0:0"]).assert_fails(2, &["--insecure"]);
    host.assert_nothing_left();
}
