//! CPUID of the guest: what the host supports, with our topology and each vCPU's own APIC ID. Pure.
//!
//! Sources: Intel SDM volume 2 (CPUID), AMD APM volume 3 appendix E, KVM's cpuid documentation.

use crate::saved_state::CpuidEntryV1;

/// Leaf 1 ECX: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 ECX: the APIC timer has a TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: VMX. Leaf 0x80000001 ECX: SVM. A guest that is a hypervisor itself has state that is not
/// saved (`KVM_GET_NESTED_STATE`), so it is told that it cannot be one.
const VMX: u32 = 1 << 5;
const SVM: u32 = 1 << 2;
/// Leaf 1 EDX: EBX[23:16] counts logical processors.
const HTT: u32 = 1 << 28;
/// Leaf 0x80000001 ECX: leaf 0x8000001e exists (AMD).
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// CPUID of vCPU 0 of a machine with `vcpus` vCPUs, from what the host supports.
#[must_use]
pub fn for_machine(supported: &[CpuidEntryV1], vcpus: u32, tsc_deadline: bool) -> Vec<CpuidEntryV1> {
    // Without the host's own topology, and without what belongs to SVM.
    let mut entries: Vec<CpuidEntryV1> =
        supported.iter().filter(|e| !matches!(e.function, 0xb | 0x1f | 0x8000_000a)).copied().collect();
    for entry in &mut entries {
        match entry.function {
            1 => {
                entry.ecx |= HYPERVISOR;
                entry.ecx &= !(TSC_DEADLINE | VMX);
                if tsc_deadline {
                    entry.ecx |= TSC_DEADLINE;
                }
                // CLFLUSH line size stays, logical processors are ours, brand index is 0.
                entry.ebx = (entry.ebx & 0x0000_ff00) | (vcpus << 16);
                if vcpus > 1 {
                    entry.edx |= HTT;
                } else {
                    entry.edx &= !HTT;
                }
            }
            // Deterministic cache parameters: no cache is shared, one core a package's APIC ID slot.
            4 => entry.eax = (entry.eax & 0x3fff) | (cores_field(vcpus) << 26),
            0x8000_0001 => entry.ecx &= !SVM,
            0x8000_0008 => entry.ecx = (entry.ecx & !0xf0ff) | (vcpus - 1) | (apic_id_bits(vcpus) << 12),
            0x8000_001e => {
                entry.ebx = 0;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
    if entries.iter().any(|e| e.function == 0 && e.eax >= 0xb) {
        entries.extend(topology(vcpus));
    }
    set_apic_id(&mut entries, 0);
    entries
}

/// CPUID of vCPU `index`, from that of vCPU 0.
#[must_use]
pub fn for_vcpu(machine: &[CpuidEntryV1], index: u32) -> Vec<CpuidEntryV1> {
    let mut entries = machine.to_vec();
    set_apic_id(&mut entries, index);
    entries
}

fn set_apic_id(entries: &mut [CpuidEntryV1], apic_id: u32) {
    let has_topology_extensions =
        entries.iter().any(|e| e.function == 0x8000_0001 && e.ecx & TOPOLOGY_EXTENSIONS != 0);
    for entry in entries {
        match entry.function {
            1 => entry.ebx = (entry.ebx & 0x00ff_ffff) | (apic_id << 24),
            0xb | 0x1f => entry.edx = apic_id,
            0x8000_001e if has_topology_extensions => {
                entry.eax = apic_id;
                entry.ebx = (entry.ebx & !0xff) | apic_id;
            }
            _ => {}
        }
    }
}

/// Leaf 0xb: one thread a core, all cores in one package.
fn topology(vcpus: u32) -> [CpuidEntryV1; 3] {
    // KVM_CPUID_FLAG_SIGNIFCANT_INDEX: the entry is for this ECX only.
    let level = |index, eax, ebx, kind: u32| CpuidEntryV1 {
        function: 0xb,
        index,
        flags: 1,
        eax,
        ebx,
        ecx: (kind << 8) | index,
        edx: 0,
    };
    [level(0, 0, 1, 1), level(1, apic_id_bits(vcpus), vcpus, 2), level(2, 0, 0, 0)]
}

/// How many bits of an APIC ID tell the vCPUs of a machine apart.
fn apic_id_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

/// Leaf 4 EAX[31:26]: cores in the package's APIC ID space, minus one.
fn cores_field(vcpus: u32) -> u32 {
    (vcpus.next_power_of_two() - 1).min(0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> CpuidEntryV1 {
        CpuidEntryV1 { function, ..Default::default() }
    }

    fn supported() -> Vec<CpuidEntryV1> {
        vec![
            CpuidEntryV1 { eax: 0xd, ..leaf(0) },
            CpuidEntryV1 { ebx: 0xff00_0800, ecx: TSC_DEADLINE, ..leaf(1) },
            CpuidEntryV1 { edx: 77, ..leaf(0xb) },
            CpuidEntryV1 { ecx: TOPOLOGY_EXTENSIONS, ..leaf(0x8000_0001) },
            leaf(0x8000_001e),
        ]
    }

    fn find(entries: &[CpuidEntryV1], function: u32, index: u32) -> CpuidEntryV1 {
        *entries.iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    #[test]
    fn each_vcpu_has_its_apic_id_everywhere() {
        let machine = for_machine(&supported(), 4, true);
        let third = for_vcpu(&machine, 3);
        assert_eq!(find(&third, 1, 0).ebx >> 24, 3);
        assert_eq!(find(&third, 0xb, 0).edx, 3);
        assert_eq!(find(&third, 0xb, 1).ebx, 4);
        assert_eq!(find(&third, 0x8000_001e, 0).eax, 3);
        assert_eq!(find(&machine, 1, 0).ebx, 4 << 16 | 0x800, "vCPU 0, four logical processors");
    }

    #[test]
    fn a_guest_is_not_told_that_it_could_be_a_hypervisor() {
        let mut host = supported();
        host[1].ecx |= VMX;
        host[3].ecx |= SVM;
        host.push(leaf(0x8000_000a));
        let machine = for_machine(&host, 1, true);
        assert_eq!(find(&machine, 1, 0).ecx & VMX, 0);
        assert_eq!(find(&machine, 0x8000_0001, 0).ecx, TOPOLOGY_EXTENSIONS);
        assert!(machine.iter().all(|e| e.function != 0x8000_000a));
    }

    #[test]
    fn the_deadline_timer_is_there_only_if_kvm_has_it() {
        assert_ne!(find(&for_machine(&supported(), 1, true), 1, 0).ecx & TSC_DEADLINE, 0);
        assert_eq!(find(&for_machine(&supported(), 1, false), 1, 0).ecx & TSC_DEADLINE, 0);
    }

    #[test]
    fn the_hosts_own_topology_does_not_leak() {
        let machine = for_machine(&supported(), 1, true);
        assert_eq!(machine.iter().filter(|e| e.function == 0xb).count(), 3);
        assert!(machine.iter().all(|e| e.edx != 77));
    }
}
