//! Real guests on `/dev/kvm`: what the machine promises, seen through a guest's own eyes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use godwit_guest_images::TEST_KERNEL;
use godwit_vmm::boot::BootImage;
use godwit_vmm::devices::ConsoleSink;
use godwit_vmm::kvm::DirtyLogChoice;
use godwit_vmm::machine::{IncomingMemory, MachineConfig, PausedMachine};
use godwit_vmm::saved_state::{MachineStateV1, OnResetV1};
use godwit_vmm::vcpu::{GuestEnd, VcpuEvent};

#[derive(Debug, Default)]
struct Console(Mutex<String>);

impl ConsoleSink for Console {
    fn byte(&self, byte: u8) {
        self.0.lock().unwrap().push(byte.into());
    }
}

impl Console {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Waits until `done` holds of everything printed so far.
    fn wait(&self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = self.text();
            if done(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "no {what} within 20 s; the guest said:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Says that the test is skipped where there is no KVM; a machine with KVM must pass it.
fn kvm_missing(test: &str) -> bool {
    let missing = godwit_vmm::kvm::open().is_err();
    if missing {
        println!("SKIPPED {test}: /dev/kvm cannot be opened");
    }
    missing
}

fn boot(vcpus: u32, memory_bytes: u64, cmdline: &str) -> (PausedMachine, Arc<Console>) {
    let console = Arc::new(Console::default());
    let config = MachineConfig {
        vcpus,
        memory_bytes,
        kernel_name: "builtin".to_owned(),
        initrd_name: None,
        cmdline: cmdline.to_owned(),
        dirty_log: DirtyLogChoice::Bitmap,
        on_reset: OnResetV1::Exit,
        console: console.clone(),
    };
    let image = BootImage { kernel: TEST_KERNEL, initrd: None, cmdline };
    (PausedMachine::boot(&config, &image).unwrap(), console)
}

/// Last value of `key=` on each vCPU's report lines.
fn per_vcpu(text: &str, key: &str) -> BTreeMap<String, u64> {
    let word =
        |line: &str, key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key).map(str::to_owned));
    let mut found = BTreeMap::new();
    // The last line may not be finished yet.
    let finished = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in finished.lines() {
        if let (Some(cpu), Some(value)) = (word(line, "cpu="), word(line, key)) {
            found.insert(cpu, value.parse().unwrap());
        }
    }
    found
}

#[test]
fn ends_are_told_apart() {
    if kvm_missing("ends_are_told_apart") {
        return;
    }
    for (input, expected) in [
        ("quit\n", Some(GuestEnd::PoweredOff)),
        ("reset\n", Some(GuestEnd::Reset)),
        ("exit 7\n", Some(GuestEnd::DebugExit(7))),
        ("crash\n", None),
        ("pvpanic 1\n", None),
    ] {
        let (mut machine, console) = boot(1, 16 << 20, "payload=idle");
        let events = machine.take_events().unwrap();
        let running = machine.resume().unwrap();
        console.wait("greeting", |text| text.contains("up cpus="));
        assert_eq!(running.machine().serial().input(input.as_bytes()), input.len());
        let VcpuEvent::Ended(end) = events.recv_timeout(Duration::from_secs(20)).unwrap() else {
            panic!("an end was expected after {input:?}");
        };
        match (expected, end) {
            (Some(expected), end) => assert_eq!(end, expected, "after {input:?}"),
            (None, GuestEnd::Crashed(report)) => assert!(report.registers.is_some()),
            (None, end) => panic!("expected a crash, got {end:?}"),
        }
    }
}

#[test]
fn pausing_a_thousand_times_loses_nothing() {
    if kvm_missing("pausing_a_thousand_times_loses_nothing") {
        return;
    }
    let (machine, console) = boot(4, 64 << 20, "payload=dirty ws=1M report=20ms");
    let mut running = machine.resume().unwrap();
    console.wait("reports of 4 vCPUs", |text| per_vcpu(text, "pass=").len() == 4);
    for _ in 0..1000 {
        running = running.pause().resume().unwrap();
    }
    let before = console.text().len();
    let text = console.wait("reports after the pauses", |text| per_vcpu(&text[before..], "pass=").len() == 4);
    assert!(per_vcpu(&text, "mismatches=").values().all(|n| *n == 0), "{text}");
}

/// Copies every page, as a migration with an infinitely fast link would.
fn copy_ram(from: &PausedMachine, to: &PausedMachine) {
    let (from, to) = (from.machine().ram(), to.machine().ram());
    let mut page = vec![0; 4096];
    for range in from.layout().ranges() {
        for number in range.first_page()..range.first_page() + range.pages() {
            from.copy_out(number, &mut page).unwrap();
            if page.iter().any(|b| *b != 0) {
                to.write(number * 4096, &page).unwrap();
            }
        }
    }
}

#[test]
fn a_guest_goes_on_in_another_machine() {
    if kvm_missing("a_guest_goes_on_in_another_machine") {
        return;
    }
    let (machine, console) = boot(4, 64 << 20, "payload=dirty ws=2M report=20ms");
    let running = machine.resume().unwrap();
    console.wait("reports of 4 vCPUs", |text| per_vcpu(text, "pass=").len() == 4);
    let mut source = running.pause();
    for _ in 0..20 {
        let saved_at = Instant::now();
        let bytes = source.save().unwrap().encode();
        let state = MachineStateV1::decode(&bytes, 4).unwrap();
        let console = Arc::new(Console::default());
        let mut target = PausedMachine::empty(
            source.description().clone(),
            IncomingMemory::Fresh,
            DirtyLogChoice::Bitmap,
            console.clone(),
        )
        .unwrap();
        let rehearsal = target.rehearse().unwrap();
        assert!(rehearsal.save > Duration::ZERO && rehearsal.restore > Duration::ZERO);
        copy_ram(&source, &target);
        drop(source);
        target.restore(&state, saved_at.elapsed()).unwrap();
        let running = target.resume().unwrap();
        let text = console.wait("reports of 4 vCPUs", |text| per_vcpu(text, "pass=").len() == 4);
        assert!(per_vcpu(&text, "mismatches=").values().all(|n| *n == 0), "{text}");
        source = running.pause();
    }
}

#[test]
fn a_guest_goes_on_in_another_machine_on_the_same_memory() {
    if kvm_missing("a_guest_goes_on_in_another_machine_on_the_same_memory") {
        return;
    }
    let (machine, console) = boot(4, 64 << 20, "payload=dirty ws=2M report=20ms");
    let running = machine.resume().unwrap();
    console.wait("reports of 4 vCPUs", |text| per_vcpu(text, "pass=").len() == 4);
    let mut source = running.pause();
    for _ in 0..20 {
        let saved_at = Instant::now();
        let state = source.save().unwrap();
        let before = all_of(&source);
        let console = Arc::new(Console::default());
        let fd = source.machine().ram().file().try_clone_to_owned().unwrap();
        let memory = IncomingMemory::HandedOver(fd);
        let mut target = PausedMachine::empty(
            source.description().clone(),
            memory,
            DirtyLogChoice::Bitmap,
            console.clone(),
        )
        .unwrap();
        target.rehearse().unwrap();
        target.restore(&state, saved_at.elapsed()).unwrap();
        assert!(all_of(&source) == before, "until the guest is let go, its memory is the source's alone");
        let running = target.resume().unwrap();
        drop(source);
        let text = console.wait("reports of 4 vCPUs", |text| per_vcpu(text, "pass=").len() == 4);
        assert!(per_vcpu(&text, "mismatches=").values().all(|n| *n == 0), "{text}");
        source = running.pause();
    }
}

fn all_of(machine: &PausedMachine) -> Vec<u8> {
    let ram = machine.machine().ram();
    let mut bytes = vec![0; usize::try_from(ram.layout().bytes()).unwrap()];
    ram.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_dirty_log_names_what_was_written_and_nothing_else() {
    if kvm_missing("the_dirty_log_names_what_was_written_and_nothing_else") {
        return;
    }
    let (machine, console) = boot(1, 64 << 20, "payload=dirty ws=4M report=20ms");
    let running = machine.resume().unwrap();
    console.wait("reports", |text| per_vcpu(text, "pass=").len() == 1);
    let log = running.machine().dirty_log().clone();
    let pages = running.machine().ram().layout().pages();
    log.start().unwrap();
    let all = godwit_vmm::memory::PageBitmap::full(pages);
    log.clear(0, &all, 0, pages).unwrap();
    // A report that came after the log was cleared may have been on its way before; what it names is a
    // lower bound. Two passes beyond it, every page of the working set was written after the clearing.
    let before = console.text().len();
    let text = console.wait("a new report", |text| per_vcpu(&text[before..], "pass=").len() == 1);
    let pass = per_vcpu(&text, "pass=")["0"];
    console.wait("two more passes", |text| per_vcpu(text, "pass=")["0"] >= pass + 2);
    let paused = running.pause();
    let mut dirty = godwit_vmm::memory::PageBitmap::empty(pages);
    log.fetch(0, &mut dirty).unwrap();
    // 4 MiB of working set are 1024 pages; a stack and counters beside it are a few more.
    assert!((1024..1100).contains(&dirty.count()), "{} pages", dirty.count());
    log.stop().unwrap();
    drop(paused);
}
