//! Kernels that others wrote boot, move and go on. `scripts/kernels` fetches them from Debian's packages;
//! `docs/kernels.md` tells what each of them needs and where it runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use godwit_api::MigrationOutcome;
use godwit_tests::{Host, Mark, PATIENCE, VmProcess, alone, kvm, skip, wait_for};

/// How a crash reads when this host's KVM emulates instructions and does not know one.
const KVM_CANNOT: &str = "KVM internal error: it cannot emulate";

/// What GRUB says before its prompt.
const GRUB_IS_UP: &str = "Minimal BASH-like line editing";

/// The kernel's file, if it is here and guests can run; says so if not.
fn kernel(test: &str, name: &str) -> Option<PathBuf> {
    if !kvm(test) {
        return None;
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/kernels").join(name);
    if !path.is_file() {
        skip(test, &format!("target/kernels/{name} is not there: scripts/kernels fetches it from Debian"));
        return None;
    }
    Some(path)
}

fn boot(host: &Host, name: &str, kernel: &Path, memory: &str, cmdline: &str) -> VmProcess {
    let kernel = kernel.to_str().expect("our own paths are text");
    host.vm(&["run", "--kernel", kernel, "--name", name, "--memory", memory, "--cmdline", cmdline])
}

/// The same kernel without its Multiboot 1 header, so that it is booted by what it speaks beside it.
fn without_multiboot1(host: &Host, kernel: &Path) -> PathBuf {
    let mut file = std::fs::read(kernel).expect("it is there");
    let magic = 0x1bad_b002_u32.to_le_bytes();
    let at = (0..8192).step_by(4).find(|at| file[*at..].starts_with(&magic)).expect("it has such a header");
    file[at..at + 4].fill(0);
    let path = host.files().join("kernel");
    std::fs::write(&path, file).expect("a directory of our own");
    path
}

/// Moves the guest, and gives the process that has it now.
fn move_to(host: &Host, name: &str, mut from: VmProcess, to: VmProcess) -> VmProcess {
    let moved = host.migrate(name, to.address(), &["--max-downtime", "500ms"]);
    moved.assert(MigrationOutcome::Completed);
    assert_eq!(from.wait_exit(), 0, "{}", from.messages().tail());
    to
}

/// Says that this host's KVM emulates what the kernel does and ended it by an instruction that it does not
/// know.
///
/// # Panics
/// When that is not how it ended.
fn skip_what_kvm_cannot(test: &str, mut vm: VmProcess, instructions: &str) {
    assert_eq!(vm.wait_exit(), 4, "{}\n{}", vm.messages().tail(), vm.serial().tail());
    let said = vm.messages().text();
    assert!(said.contains(KVM_CANNOT), "{said}");
    skip(test, &format!("this host's KVM emulates the kernel, and cannot emulate {instructions}"));
}

/// Waits until the screen that the guest draws makes something of it. A screen has no lines that end.
fn drawn<T>(vm: &VmProcess, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look(&vm.serial().text()) {
            return found;
        }
        assert!(
            Instant::now() < until,
            "not drawn: {what}\n{}\n{}",
            vm.serial().tail(),
            vm.messages().tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last time in seconds that memtest86+ shows beside a test that runs, if it has drawn one.
fn memtest_seconds(screen: &str) -> Option<u64> {
    let mut shown = screen.rmatch_indices("Time:").map(|(at, label)| &screen[at + label.len()..]);
    shown.find_map(|after| {
        let (time, status) = after.trim_start().split_once(' ')?;
        status.trim_start().starts_with("Status: Testing").then_some(())?;
        time.split(':').map(|part| part.parse::<u64>().ok()).try_fold(0, |sum, part| Some(sum * 60 + part?))
    })
}

#[test]
fn grub_answers_on_its_console_wherever_it_is() {
    let test = "grub_answers_on_its_console_wherever_it_is";
    let Some(kernel) = kernel(test, "grub") else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let mut vm = boot(&host, "grub", &kernel, "64M", "");
    vm.serial().wait_text(Mark::START, GRUB_IS_UP);
    // Its memory map is ours, by coreboot's table.
    vm.type_bytes(b"lsmmap\r");
    vm.serial().wait_text(Mark::START, "base_addr = 0x100000, length = 0x3f00000, available RAM");
    for (step, over_tcp) in [true, false, true].into_iter().enumerate() {
        // What it is told here it knows there.
        vm.type_bytes(format!("set told={step}{step}\r").as_bytes());
        let asked = vm.serial().mark();
        vm.type_bytes(b"echo here-$told\r");
        vm.serial().wait_text(asked, &format!("here-{step}{step}"));
        let target = if over_tcp { host.receive() } else { host.receive_here("next.sock") };
        vm = move_to(&host, "grub", vm, target);
        let asked = vm.serial().mark();
        vm.type_bytes(b"echo there-$told\r");
        vm.serial().wait_text(asked, &format!("there-{step}{step}"));
    }
    host.succeed(&["stop", "grub"]);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
}

#[test]
fn grub_boots_as_the_payload_of_coreboot_that_it_is() {
    let test = "grub_boots_as_the_payload_of_coreboot_that_it_is";
    let Some(kernel) = kernel(test, "grub") else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let mut vm = boot(&host, "grub", &without_multiboot1(&host, &kernel), "64M", "");
    vm.serial().wait_text(Mark::START, GRUB_IS_UP);
    vm.type_bytes(b"set a=7\recho is-$a\r");
    vm.serial().wait_text(Mark::START, "is-7");
}

#[test]
fn tboot_boots_by_multiboot_2() {
    let test = "tboot_boots_by_multiboot_2";
    let Some(kernel) = kernel(test, "tboot") else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let kernel = without_multiboot1(&host, &kernel);
    let vm = boot(&host, "tboot", &kernel, "128M", "logging=serial");
    vm.serial().wait_text(Mark::START, "command line: logging=serial");
    vm.serial().wait_text(Mark::START, "0000000000100000 - 0000000008000000  (1)");
    vm.serial().wait_text(Mark::START, "no MB2 modules");
}

#[test]
fn tboot_finds_its_memory_and_no_modules() {
    let test = "tboot_finds_its_memory_and_no_modules";
    let Some(kernel) = kernel(test, "tboot") else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let vm = boot(&host, "tboot", &kernel, "128M", "logging=serial");
    vm.serial().wait_text(Mark::START, "command line: kernel logging=serial");
    vm.serial().wait_text(Mark::START, "0000000000100000 - 0000000008000000  (1)");
    vm.serial().wait_text(Mark::START, "Error: no MB1 modules");
}

#[test]
fn gnu_mach_reads_its_memory_map() {
    let test = "gnu_mach_reads_its_memory_map";
    let Some(kernel) = kernel(test, "gnumach") else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let vm = boot(&host, "mach", &kernel, "64M", "console=com0");
    vm.serial().wait_text(Mark::START, "GNU Mach 1.8");
    vm.serial().wait_text(Mark::START, "biosmem: 000000000000100000:000000000004000000, available");
    vm.serial().wait_text(Mark::START, "vm_page: DMA32: pages: 12288 (48M)");
}

#[test]
fn xen_starts_and_misses_its_first_domain() {
    let test = "xen_starts_and_misses_its_first_domain";
    let Some(kernel) = kernel(test, "xen") else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let cmdline = "no-real-mode console=com1 com1=115200,8n1 noreboot";
    let mut vm = boot(&host, "xen", &kernel, "256M", cmdline);
    let says = |vm: &VmProcess, part: &str| vm.serial().text().contains(part);
    let started = wait_for("Xen starts", PATIENCE, || {
        vm.exited().map(|_| false).or(says(&vm, "Xen version 4").then_some(true))
    });
    if !started {
        skip_what_kvm_cannot(test, vm, "rdssp, by which Xen looks for shadow stacks");
        return;
    }
    vm.serial().wait_text(Mark::START, "dom0 kernel not specified");
}

#[test]
fn memtest_of_64_bits_goes_on_testing_after_moves() {
    memtest_goes_on("memtest_of_64_bits_goes_on_testing_after_moves", "memtest86+x64");
}

#[test]
fn memtest_of_32_bits_goes_on_testing_after_moves() {
    memtest_goes_on("memtest_of_32_bits_goes_on_testing_after_moves", "memtest86+ia32");
}

fn memtest_goes_on(test: &str, name: &str) {
    let Some(kernel) = kernel(test, name) else { return };
    let _alone = alone();
    let host = Host::of_other_kernels();
    let mut vm = boot(&host, "memtest", &kernel, "32M", "console=ttyS0,115200");
    let started = wait_for("memtest86+ starts", PATIENCE, || {
        let screen = vm.serial().text();
        vm.exited().map(|_| false).or(memtest_seconds(&screen).map(|_| true))
    });
    if !started {
        skip_what_kvm_cannot(test, vm, "FPU instructions");
        return;
    }
    for over_tcp in [true, false] {
        let before = drawn(&vm, "a running test", memtest_seconds);
        let target = if over_tcp { host.receive() } else { host.receive_here("next.sock") };
        vm = move_to(&host, "memtest", vm, target);
        // Its clock goes on, and so do its tests.
        drawn(&vm, "a later time", |screen| {
            let later = memtest_seconds(screen).filter(|seconds| *seconds > before + 2);
            later.filter(|_| screen.matches("Errors: 0 ").count() >= 2)
        });
        let screen = vm.serial().text();
        let wrong = screen.match_indices("Errors: ").find(|(at, _)| !screen[*at..].starts_with("Errors: 0"));
        assert_eq!(wrong, None, "{screen}");
    }
    host.succeed(&["stop", "memtest"]);
    assert_eq!(vm.wait_exit(), 0);
    host.assert_nothing_left();
}
