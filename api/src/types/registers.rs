//! The registers of vCPUs.
//!
//! On the wire they are text in hexadecimal: JSON numbers lose bits beyond 2^53 in most languages.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The instruction pointer of a vCPU after its reset.
const RESET_RIP: u64 = 0xfff0;

/// Declares a struct of 64-bit registers.
macro_rules! registers {
    ($(#[$meta:meta])* $name:ident { $($register:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[allow(missing_docs, reason = "the registers' own names say it")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct $name { $(
            #[serde(with = "hex")]
            #[schema(value_type = String, example = "0x1000")]
            pub $register: u64,
        )+ }
    };
}

registers! {
    /// General registers.
    GeneralRegisters {
        rip, rflags, rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15,
    }
}

registers! {
    /// Control registers.
    ControlRegisters { cr0, cr2, cr3, cr4, cr8, efer, apic_base }
}

/// A segment register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Segment {
    /// Its selector.
    pub selector: u16,
    /// Where the segment begins.
    #[serde(with = "hex")]
    #[schema(value_type = String, example = "0x1000")]
    pub base: u64,
    /// Its last offset.
    pub limit: u32,
    /// Its privilege level.
    pub dpl: u8,
    /// Whether code in it is 64-bit code.
    pub long: bool,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DescriptorTable {
    /// Where the table begins.
    #[serde(with = "hex")]
    #[schema(value_type = String, example = "0x1000")]
    pub base: u64,
    /// Its last offset.
    pub limit: u16,
}

/// Segment and table registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the registers' own names say it")]
pub struct SegmentRegisters {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: DescriptorTable,
    pub idt: DescriptorTable,
}

/// What a vCPU does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VcpuActivity {
    /// It executes instructions.
    #[default]
    Runs,
    /// It executed `hlt` and waits for an interrupt.
    Halted,
    /// It was not started yet: it waits for INIT.
    WaitsForInit,
    /// It waits for the start-up IPI.
    WaitsForSipi,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// The registers of one vCPU, between two instructions. `Display` shows them on several lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VcpuRegisters {
    /// The vCPU's number, which is its APIC ID.
    pub vcpu: u32,
    /// What it does.
    pub activity: VcpuActivity,
    /// General registers.
    pub general: GeneralRegisters,
    /// Control registers.
    pub control: ControlRegisters,
    /// Segment and table registers.
    pub segments: SegmentRegisters,
}

/// The registers of every vCPU, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmRegisters {
    /// One for each vCPU, by number.
    pub vcpus: Vec<VcpuRegisters>,
}

impl fmt::Display for VmRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.vcpus.iter().map(ToString::to_string).collect();
        f.write_str(&shown.join("\n"))
    }
}

impl fmt::Display for VcpuRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, c, s) = (&self.general, &self.control, &self.segments);
        let activity = match self.activity {
            VcpuActivity::Runs => "",
            VcpuActivity::Halted => " (halted)",
            VcpuActivity::WaitsForInit => " (not started)",
            VcpuActivity::WaitsForSipi => " (waits for its start-up IPI)",
            VcpuActivity::Other => " (neither runs nor halts)",
        };
        writeln!(f, "vCPU {}{activity}", self.vcpu)?;
        if self.is_reset() && self.activity == VcpuActivity::Runs {
            writeln!(f, "  (reset values: some KVMs reset a vCPU upon a triple fault)")?;
        }
        writeln!(f, "  rip={:016x} rflags={:08x} rsp={:016x} rbp={:016x}", r.rip, r.rflags, r.rsp, r.rbp)?;
        writeln!(f, "  rax={:016x} rbx={:016x} rcx={:016x} rdx={:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "  rsi={:016x} rdi={:016x} r8 ={:016x} r9 ={:016x}", r.rsi, r.rdi, r.r8, r.r9)?;
        writeln!(f, "  r10={:016x} r11={:016x} r12={:016x} r13={:016x}", r.r10, r.r11, r.r12, r.r13)?;
        writeln!(f, "  r14={:016x} r15={:016x}", r.r14, r.r15)?;
        writeln!(
            f,
            "  cr0={:08x} cr2={:016x} cr3={:016x} cr4={:08x} efer={:x}",
            c.cr0, c.cr2, c.cr3, c.cr4, c.efer
        )?;
        write!(
            f,
            "  cs={:04x} ss={:04x} ds={:04x} gdt={:016x}+{:x} idt={:016x}+{:x}",
            s.cs.selector, s.ss.selector, s.ds.selector, s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit
        )
    }
}

impl VcpuRegisters {
    fn is_reset(&self) -> bool {
        self.general.rip == RESET_RIP && self.control.cr3 == 0
    }
}

/// A number as text in hexadecimal.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:#x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").ok_or_else(|| D::Error::custom("a register without 0x"))?;
        u64::from_str_radix(digits, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_is_lost_on_the_wire() {
        let general = GeneralRegisters { rip: u64::MAX, rax: 0x1000, ..Default::default() };
        let json = serde_json::to_value(general).expect("serialises");
        assert_eq!(json["rip"], "0xffffffffffffffff");
        assert_eq!(json["rax"], "0x1000");
        assert_eq!(serde_json::from_value::<GeneralRegisters>(json).expect("parses"), general);
        for bad in [r#"{"base":"12","limit":1}"#, r#"{"base":"0xg","limit":1}"#, r#"{"base":12,"limit":1}"#] {
            assert!(serde_json::from_str::<DescriptorTable>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_see_each_vcpu() {
        let halted = VcpuRegisters { vcpu: 1, activity: VcpuActivity::Halted, ..Default::default() };
        let text = VmRegisters { vcpus: vec![VcpuRegisters::default(), halted] }.to_string();
        assert!(text.starts_with("vCPU 0\n  rip=0000000000000000"), "{text}");
        assert!(text.contains("\nvCPU 1 (halted)\n"), "{text}");
    }
}
