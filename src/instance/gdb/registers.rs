//! A vCPU's registers as gdb numbers them, and back. Pure.

use gdbstub_arch::x86::reg::{F80, X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};
use godwit_vmm::saved_state::{RegistersV1, SystemRegistersV1};
use godwit_vmm::vcpu::debug::{DebugRegisters, FloatRegisters};

use super::arch::Amd64Registers;

/// As gdb sees them.
pub(super) fn to_gdb(registers: &DebugRegisters) -> Amd64Registers {
    let DebugRegisters { general: g, system: s, float: f } = registers;
    let selector = |segment: &godwit_vmm::saved_state::SegmentV1| u32::from(segment.selector);
    Amd64Registers {
        core: X86_64CoreRegs {
            regs: [
                g.rax, g.rbx, g.rcx, g.rdx, g.rsi, g.rdi, g.rbp, g.rsp, g.r8, g.r9, g.r10, g.r11, g.r12,
                g.r13, g.r14, g.r15,
            ],
            eflags: low(g.rflags),
            rip: g.rip,
            segments: X86SegmentRegs {
                cs: selector(&s.cs),
                ss: selector(&s.ss),
                ds: selector(&s.ds),
                es: selector(&s.es),
                fs: selector(&s.fs),
                gs: selector(&s.gs),
            },
            st: f.st,
            fpu: X87FpuInternalRegs {
                fctrl: f.control.into(),
                fstat: f.status.into(),
                ftag: full_tags(f).into(),
                fiseg: high(f.instruction),
                fioff: low(f.instruction),
                foseg: high(f.data),
                fooff: low(f.data),
                fop: f.opcode.into(),
            },
            xmm: f.xmm,
            mxcsr: f.mxcsr,
        },
        system: [s.fs.base, s.gs.base, s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer],
    }
}

/// What gdb wrote, over what the registers hold: what gdb does not see stays. Segment registers are left out:
/// writing one changes more than its selector.
pub(super) fn from_gdb(wanted: &Amd64Registers, now: &DebugRegisters) -> DebugRegisters {
    let core = &wanted.core;
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = core.regs;
    let rflags = now.general.rflags & !u64::from(u32::MAX) | u64::from(core.eflags);
    let rip = core.rip;
    let general = RegistersV1 {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    };
    let mut system = SystemRegistersV1 { ..now.system };
    let [fs_base, gs_base, cr0, cr2, cr3, cr4, cr8, efer] = wanted.system;
    (system.fs.base, system.gs.base) = (fs_base, gs_base);
    (system.cr0, system.cr2, system.cr3) = (cr0, cr2, cr3);
    (system.cr4, system.cr8, system.efer) = (cr4, cr8, efer);
    let fpu = &core.fpu;
    let short = |value: u32| u16::try_from(value & 0xffff).unwrap_or_default();
    let address = |offset: u32, segment: u32| u64::from(offset) | u64::from(segment) << 32;
    let float = FloatRegisters {
        control: short(fpu.fctrl),
        status: short(fpu.fstat),
        tag: short_tags(short(fpu.ftag)),
        opcode: short(fpu.fop),
        instruction: address(fpu.fioff, fpu.fiseg),
        data: address(fpu.fooff, fpu.foseg),
        mxcsr: core.mxcsr,
        st: core.st,
        xmm: core.xmm,
    };
    DebugRegisters { general, system, float }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

/// x87 tags with two bits a physical register (Intel SDM volume 1, section 8.1.7): the CPU keeps one bit,
/// empty or not, and the rest follows from the value.
fn full_tags(float: &FloatRegisters) -> u16 {
    let top = usize::from(float.status >> 11 & 7);
    (0..8).fold(0, |tags, physical| {
        let tag = if float.tag & 1 << physical == 0 { 3 } else { kind(&float.st[(physical + 8 - top) % 8]) };
        tags | tag << (2 * physical)
    })
}

/// Valid, zero or special.
fn kind(value: &F80) -> u16 {
    let exponent = u16::from_le_bytes([value[8], value[9]]) & 0x7fff;
    let significand_is_zero = value[..8].iter().all(|byte| *byte == 0);
    let normal = value[7] & 0x80 != 0 && exponent != 0 && exponent != 0x7fff;
    match (normal, exponent == 0 && significand_is_zero) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    }
}

fn short_tags(full: u16) -> u8 {
    (0..8).fold(0, |tags, physical| tags | u8::from(full >> (2 * physical) & 3 != 3) << physical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> DebugRegisters {
        let mut registers = DebugRegisters::default();
        registers.general.rax = 1;
        registers.general.rdi = 6;
        registers.general.rflags = 0x1_0000_0246;
        registers.system.gs.base = 0xffff_8880_0000_0000;
        registers.system.cs.selector = 0x2b;
        registers.system.efer = 0xd01;
        registers.float.status = 6 << 11;
        registers.float.tag = 0b1100_0000;
        registers.float.st[0] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f];
        registers.float.instruction = 0xffff_ffff_8100_0000;
        registers
    }

    #[test]
    fn what_gdb_does_not_change_stays() {
        let now = registers();
        assert_eq!(from_gdb(&to_gdb(&now), &now), now);
    }

    #[test]
    fn what_gdb_changes_is_changed() {
        let now = registers();
        let mut wanted = to_gdb(&now);
        wanted.core.regs[5] = 77;
        wanted.core.rip = 0x20_0000;
        wanted.system[0] = 0x1234;
        wanted.core.xmm[3] = 5;
        let changed = from_gdb(&wanted, &now);
        assert_eq!((changed.general.rdi, changed.general.rip), (77, 0x20_0000));
        assert_eq!((changed.system.fs.base, changed.float.xmm[3]), (0x1234, 5));
        assert_eq!(changed.general.rflags, now.general.rflags, "the upper half too");
    }

    #[test]
    fn tags_are_told_by_value() {
        // Physical 6 is the top: 1.0; physical 7 holds zero; the others are empty.
        assert_eq!(full_tags(&registers().float), 0b01_00_11_11_11_11_11_11);
        assert_eq!(short_tags(0b01_00_11_11_11_11_11_11), 0b1100_0000);
    }
}
