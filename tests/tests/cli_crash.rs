//! What a person sees of a guest that crashed or panicked.

use godwit_guest_images::command::Command as GuestCommand;
use godwit_tests::{Host, Mark, VmProcess, kvm};

/// `out %al, (%dx)`, with which the test kernel writes to a port.
const OUT: &str = "ee";

/// The bytes on the line `code=` of a register dump.
fn code(vm: &VmProcess) -> Option<Vec<String>> {
    let said = vm.messages().text();
    let line = said.lines().find_map(|line| line.trim().strip_prefix("code="))?;
    Some(line.split(' ').map(str::to_owned).collect())
}

fn marked(bytes: &[String]) -> usize {
    let marked: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].starts_with('<')).collect();
    assert_eq!(marked.len(), 1, "{bytes:?}");
    marked[0]
}

#[test]
fn a_panic_that_is_reported_ends_the_guest_as_crashed() {
    if !kvm("a_panic_that_is_reported_ends_the_guest_as_crashed") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run("panics", 2, "32M", "payload=idle");
    vm.send(GuestCommand::Pvpanic(1));
    assert_eq!(vm.wait_exit(), 4);
    vm.serial().wait_text(Mark::START, "godwit-guest: pvpanic supported=0x3");
    let said = vm.messages().text();
    assert!(said.contains("the guest crashed: vCPU 0: the guest reported a panic (pvpanic)"), "{said}");
    assert!(said.contains("rip=") && said.contains("cr3="), "{said}");
    // KVM's rip is at the instruction that wrote to the port or, where it is emulated, behind it.
    let bytes = code(&vm).unwrap_or_else(|| panic!("no code in {said}"));
    let at = marked(&bytes);
    let out = format!("<{OUT}>");
    assert!(bytes[at] == out || bytes[at - 1] == OUT, "{bytes:?}");
    assert!(bytes.iter().all(|byte| byte.trim_matches(['<', '>']).len() == 2), "{bytes:?}");
    host.assert_nothing_left();
}

#[test]
fn a_crash_kernel_that_takes_over_is_said_once_and_the_guest_goes_on() {
    if !kvm("a_crash_kernel_that_takes_over_is_said_once_and_the_guest_goes_on") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run("kdump", 1, "32M", "payload=idle");
    for events in [2, 2, 0, 0x80] {
        let mark = vm.serial().mark();
        vm.send(GuestCommand::Pvpanic(events));
        vm.send(GuestCommand::Ping);
        vm.serial().wait_text(mark, "godwit-guest: pong");
    }
    vm.send(GuestCommand::Quit);
    assert_eq!(vm.wait_exit(), 0);
    let said = vm.messages().text();
    assert_eq!(
        said.trim_end(),
        "godwit: the guest reported a panic (pvpanic), and its crash kernel takes over"
    );
}

#[test]
fn a_triple_fault_shows_the_code_unless_the_registers_are_lost() {
    if !kvm("a_triple_fault_shows_the_code_unless_the_registers_are_lost") {
        return;
    }
    let host = Host::new();
    let mut vm = host.run("faults", 1, "32M", "payload=idle");
    vm.send(GuestCommand::Crash);
    assert_eq!(vm.wait_exit(), 4);
    let said = vm.messages().text();
    if said.contains("these are its reset values") {
        assert_eq!(code(&vm), None, "{said}");
    } else {
        // The test kernel crashes by `ud2` without an IDT.
        let bytes = code(&vm).unwrap_or_else(|| panic!("no code in {said}"));
        let at = marked(&bytes);
        assert_eq!((bytes[at].as_str(), bytes[at + 1].as_str()), ("<0f>", "0b"), "{bytes:?}");
    }
}
