//! The bytes of saved state, version by version: what an older godwit wrote must always read the same.
//!
//! A change that makes one of these tests fail needs a new version of the section, not a new file.
//! `GODWIT_WRITE_GOLDEN=1` writes files that do not exist yet; it never changes one that does.

use std::path::PathBuf;

use godwit_vmm::memory::RamLayout;
use godwit_vmm::saved_state::{
    ClockV1, CpuidEntryV1, DebugRegistersV1, IrqchipV1, MachineDescriptionV1, MachineStateV1, MsrV1,
    OnResetV1, PitChannelV1, PitV1, RegistersV1, SegmentV1, SerialV1, SystemRegistersV1, TableV1,
    VcpuEventsV1, VcpuV1, XcrV1,
};

fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("GODWIT_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, written).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn segment(selector: u16) -> SegmentV1 {
    SegmentV1 {
        base: 0x1000_0000_0000,
        limit: 0xffff_ffff,
        selector,
        kind: 11,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        l: 1,
        g: 1,
        avl: 1,
        unusable: 0,
    }
}

fn vcpu(index: u32) -> VcpuV1 {
    VcpuV1 {
        index,
        mp_state: 3,
        registers: RegistersV1 {
            rax: 1,
            rip: 0xffff_ffff_8100_0000,
            rflags: 0x202,
            r15: 15,
            ..Default::default()
        },
        system_registers: SystemRegistersV1 {
            cs: segment(0x33),
            tr: segment(0x40),
            gdt: TableV1 { base: 0x1234, limit: 0x7f },
            cr0: 0x8000_0011,
            cr4: 0x620,
            efer: 0xd01,
            apic_base: 0xfee0_0900,
            interrupt_bitmap: [0, 1, 0, 1 << 63],
            ..Default::default()
        },
        debug_registers: DebugRegistersV1 { db: [1, 2, 3, 4], dr6: 0xffff_0ff0, dr7: 0x400, flags: 0 },
        events: VcpuEventsV1 { nmi_pending: 1, sipi_vector: 9, flags: 5, ..Default::default() },
        xcrs: vec![XcrV1 { index: 0, value: 7 }],
        xsave: (0..4096_u32).map(|i| i.to_le_bytes()[0]).collect(),
        lapic: (0..1024_u32).map(|i| i.to_le_bytes()[0] ^ 0xa5).collect(),
        msrs: vec![MsrV1 { index: 0xc000_0080, value: 0xd01 }, MsrV1 { index: 0x6e0, value: u64::MAX }],
        tsc: 0x0123_4567_89ab_cdef + u64::from(index),
    }
}

fn state() -> MachineStateV1 {
    let channel = PitChannelV1 { count: 0x1_0000, mode: 2, count_load_time: -5, ..Default::default() };
    MachineStateV1 {
        vcpus: vec![vcpu(0), vcpu(1)],
        irqchips: (0..3_u8).map(|chip| IrqchipV1 { chip: chip.into(), registers: vec![chip; 512] }).collect(),
        pit: PitV1 { channels: [channel; 3], flags: 1 },
        clock: ClockV1 {
            kvmclock_ns: 987_654_321,
            realtime_ns: Some(1_700_000_000_000_000_000),
            tsc_khz: 2_600_000,
        },
        serial: SerialV1 {
            baud_divisor_low: 12,
            baud_divisor_high: 0,
            interrupt_enable: 1,
            interrupt_identification: 1,
            line_control: 3,
            line_status: 0x60,
            modem_control: 8,
            modem_status: 0x20,
            scratch: 0x5a,
            fifo: b"typed".to_vec(),
            pending_input: b"and waiting".to_vec(),
        },
    }
}

fn description() -> MachineDescriptionV1 {
    MachineDescriptionV1 {
        vcpus: 2,
        memory_bytes: 5 << 30,
        ram: RamLayout::new(5 << 30).unwrap().ranges().to_vec(),
        cpuid: vec![
            CpuidEntryV1 { function: 0, index: 0, flags: 0, eax: 0xd, ebx: 1, ecx: 2, edx: 3 },
            CpuidEntryV1 { function: 0xb, index: 1, flags: 1, eax: 1, ebx: 2, ecx: 0x201, edx: 0 },
        ],
        tsc_khz: 2_600_000,
        kernel: "/srv/vmlinux".to_owned(),
        initrd: Some("/srv/initrd".to_owned()),
        cmdline: "console=ttyS0".to_owned(),
        on_reset: OnResetV1::Reboot,
    }
}

#[test]
fn machine_state_v1() {
    let golden = golden("machine_state_v1.bin", &state().encode());
    assert_eq!(MachineStateV1::decode(&golden, 2).unwrap(), state(), "the golden file reads as it did");
    assert_eq!(state().encode(), golden, "and is written as it was");
}

#[test]
fn machine_description_v1() {
    let golden = golden("machine_description_v1.bin", &description().encode());
    assert_eq!(
        MachineDescriptionV1::decode(&golden).unwrap(),
        description(),
        "the golden file reads as it did"
    );
    assert_eq!(description().encode(), golden, "and is written as it was");
}

#[test]
fn damaged_state_is_refused_and_never_panics() {
    let bytes = state().encode();
    for length in (0..bytes.len()).step_by(7) {
        assert!(MachineStateV1::decode(&bytes[..length], 2).is_err(), "cut at {length}");
    }
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        assert!(MachineStateV1::decode(&bytes, 2).is_err(), "flipped at {at}");
    }
}

/// With a right checksum, so that the fields themselves are what is refused.
#[test]
fn impossible_state_is_refused() {
    let refuse = |what: &str, change: fn(&mut MachineStateV1)| {
        let mut state = state();
        change(&mut state);
        assert!(MachineStateV1::decode(&state.encode(), 2).is_err(), "{what}");
    };
    refuse("a vCPU is missing", |s| drop(s.vcpus.pop()));
    refuse("a vCPU comes twice", |s| s.vcpus[1].index = 0);
    refuse("a short local APIC", |s| s.vcpus[0].lapic.truncate(1023));
    refuse("an endless XSAVE area", |s| s.vcpus[0].xsave = vec![0; 1 << 20]);
    refuse("too many MSRs", |s| s.vcpus[0].msrs = vec![MsrV1 { index: 0, value: 0 }; 5000]);
    refuse("a fourth chip", |s| s.irqchips.push(IrqchipV1 { chip: 3, registers: vec![0; 512] }));
    refuse("a chip of another size", |s| s.irqchips[2].registers.clear());
    refuse("a FIFO beyond its size", |s| s.serial.fifo = vec![0; 65]);
    refuse("endless input", |s| s.serial.pending_input = vec![0; (64 << 10) + 1]);
    assert!(MachineStateV1::decode(&state().encode(), 3).is_err(), "another machine's");
}
