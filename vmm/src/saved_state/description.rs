//! What a machine *is*, as told to the side that shall build the same: sent before any memory.

use kvm_bindings::kvm_cpuid_entry2;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::container::{ContainerError, read_container, write_container};
use super::mirror::{IntoKernel, IntoSaved, mirror};
use crate::memory::{LayoutError, RamLayout, RamRange};

/// Most CPUID entries that KVM takes (`KVM_MAX_CPUID_ENTRIES`).
const CPUID_ENTRIES_MAX: usize = 256;
/// Longest path (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;
const NAME: &str = "machine";

mirror! {
    /// One CPUID leaf.
    #[allow(missing_docs, reason = "the registers' own names say it")]
    CpuidEntryV1 = kvm_cpuid_entry2 {
        function: u32 = function, index: u32 = index, flags: u32 = flags,
        eax: u32 = eax, ebx: u32 = ebx, ecx: u32 = ecx, edx: u32 = edx,
    }
}

/// Why a description was refused.
#[derive(Debug, Error)]
pub enum DescriptionError {
    /// It could not be read.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its memory is impossible.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It has parts that contradict each other or exceed what a machine can have.
    #[error("the machine's description is not one of a possible machine: {what}")]
    Impossible {
        /// What is wrong.
        what: &'static str,
    },
}

/// The shape of a machine: all that must be built before its memory and state can arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDescriptionV1 {
    /// How many vCPUs, 1 to 64.
    pub vcpus: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// Where RAM lies; must be what this version makes of `memory_bytes`.
    pub ram: Vec<RamRange>,
    /// CPUID of vCPU 0; the other vCPUs' differ in their APIC ID only.
    pub cpuid: Vec<CpuidEntryV1>,
    /// Frequency of the guest's TSC.
    pub tsc_khz: u32,
    /// What was booted: a file's path or `builtin`. For people, and to boot it again after a reset.
    pub kernel: String,
    /// Its initrd's path.
    pub initrd: Option<String>,
    /// Its command line.
    pub cmdline: String,
    /// What to do when the guest resets itself, wherever it runs then.
    pub on_reset: OnResetV1,
}

/// What to do when a guest resets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnResetV1 {
    /// Boot its kernel again.
    Reboot,
    /// End the VM.
    Exit,
}

impl MachineDescriptionV1 {
    /// As bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        write_container(|w| w.mandatory(NAME, 1, self))
    }

    /// Reads and checks a description that came over a wire.
    ///
    /// # Errors
    /// It is damaged, of an unknown version, or describes no possible machine.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptionError> {
        let mut found = None;
        for section in read_container(bytes)? {
            match (section.name, section.version) {
                (NAME, 1) => found = Some(section.decode::<Self>()?),
                _ => section.skip()?,
            }
        }
        let description = found.ok_or(ContainerError::Missing { name: NAME })?;
        description.check()?;
        Ok(description)
    }

    fn check(&self) -> Result<(), DescriptionError> {
        let impossible = |what| Err(DescriptionError::Impossible { what });
        if !(1..=crate::machine::VCPUS_MAX).contains(&self.vcpus) {
            return impossible("its number of vCPUs is not between 1 and 64");
        }
        if self.cpuid.is_empty() || self.cpuid.len() > CPUID_ENTRIES_MAX {
            return impossible("its CPUID has no entries or too many");
        }
        if self.kernel.len() > PATH_BYTES_MAX
            || self.initrd.as_ref().is_some_and(|path| path.len() > PATH_BYTES_MAX)
            || self.cmdline.len() > crate::boot::CMDLINE_BYTES_MAX
        {
            return impossible("its kernel's name or command line is too long");
        }
        if RamLayout::new(self.memory_bytes)?.ranges() != self.ram {
            return impossible("its memory map is not the one that this version builds");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> MachineDescriptionV1 {
        MachineDescriptionV1 {
            vcpus: 2,
            memory_bytes: 64 << 20,
            ram: RamLayout::new(64 << 20).unwrap().ranges().to_vec(),
            cpuid: vec![CpuidEntryV1 { function: 1, eax: 2, ..Default::default() }],
            tsc_khz: 2_000_000,
            kernel: "builtin".to_owned(),
            initrd: None,
            cmdline: String::new(),
            on_reset: OnResetV1::Reboot,
        }
    }

    #[test]
    fn round_trip() {
        let description = description();
        assert_eq!(MachineDescriptionV1::decode(&description.encode()).unwrap(), description);
    }

    #[test]
    fn impossible_machines_are_refused() {
        let refuse = |change: fn(&mut MachineDescriptionV1)| {
            let mut description = description();
            change(&mut description);
            assert!(MachineDescriptionV1::decode(&description.encode()).is_err());
        };
        refuse(|d| d.vcpus = 0);
        refuse(|d| d.vcpus = 65);
        refuse(|d| d.memory_bytes = 0);
        refuse(|d| d.memory_bytes = 128 << 20);
        refuse(|d| d.ram[0].guest_base = 4096);
        refuse(|d| d.cpuid.clear());
        refuse(|d| d.cpuid = vec![CpuidEntryV1::default(); 257]);
        refuse(|d| d.cmdline = "x".repeat(1 << 20));
    }
}
